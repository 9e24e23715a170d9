//! Stories through real processes, and rules about the repository itself. One module per story.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a story that cannot go on ends here")]

mod backup;
mod check;
mod cluster_page;
mod debian_prometheus;
mod deletes;
mod differential;
mod failover;
mod faults;
mod grafana;
mod hostile;
mod layering;
mod limits;
mod otel_sdk;
mod own_telemetry;
mod prometheus_api;
mod promql_cases;
mod remote_read;
mod retention;
mod single_process;
mod starting;
