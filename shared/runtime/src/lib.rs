//! What every role needs from the process around it: shutdown, logging, metrics, a bounded pool for blocking work, the
//! memory bound, a bound on bytes per second, servers, health, and the collection of Tricord's own telemetry.
//!
//! It knows nothing of what a role does. Which settings exist is each role's business, and where telemetry goes is
//! decided by the root package, which hands in an [`OwnTelemetrySink`].

mod budget;
mod counted;
mod error;
mod health;
mod logging;
mod metrics;
mod pool;
mod process;
mod seldom;
mod server;
mod shutdown;
pub mod telemetry;
mod throttle;

pub use budget::{MemoryBudget, Reservation, machine_memory_bytes};
pub use counted::Counted;
pub use error::{Error, ErrorKind};
pub use health::{Health, Readiness};
pub use logging::{LogFormat, check_log_filter, init_logging};
pub use metrics::{LATENCY_BUCKETS, Metrics, SIZE_BUCKETS, latency_histogram, size_histogram};
pub use pool::{Pool, blocking, blocking_when};
pub use process::{observe_process, resident_bytes};
pub use seldom::Seldom;
pub use server::{ServerLimits, bind, serve_grpc, serve_http, serve_with};
pub use shutdown::Shutdown;
pub use telemetry::OwnTelemetrySink;
pub use throttle::Throttle;
