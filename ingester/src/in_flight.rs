//! Memory of writes in flight, bounded for the ingester and for the whole process.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tricord_runtime::{MemoryBudget, Reservation};

use crate::Error;

/// When to come back after a refusal: bodies are gone within seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The two bounds.
#[derive(Clone)]
pub(crate) struct InFlight {
    own: MemoryBudget,
    process: MemoryBudget,
    gauge: Gauge,
}

impl InFlight {
    pub(crate) fn new(limit_bytes: u64, process: MemoryBudget, gauge: Gauge) -> Self {
        Self { own: MemoryBudget::new(limit_bytes), process, gauge }
    }

    /// What a request holds; nothing yet.
    pub(crate) fn begin(&self) -> Held {
        Held { bounds: self.clone(), reservations: None, bytes: 0 }
    }
}

/// Memory held by one request, given back on drop.
pub(crate) struct Held {
    bounds: InFlight,
    reservations: Option<(Reservation, Reservation)>,
    bytes: u64,
}

impl Held {
    /// Takes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let bytes = bytes as u64;
        let grown = match &mut self.reservations {
            Some((own, process)) => own.try_grow(bytes) && process.try_grow(bytes),
            None => {
                let both = self.bounds.own.try_reserve(bytes).zip(self.bounds.process.try_reserve(bytes));
                self.reservations = both;
                self.reservations.is_some()
            }
        };
        if !grown {
            let message = "too many writes are in flight for the memory there is: come back later".to_owned();
            return Err(Error::Overloaded { message, retry_after: RETRY_AFTER });
        }
        self.bytes += bytes;
        self.bounds.gauge.inc_by(bytes as i64);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bounds.gauge.dec_by(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_give_back() {
        for (own, process) in [(100, 1000), (1000, 100)] {
            let process = MemoryBudget::new(process);
            let bounds = InFlight::new(own, process.clone(), Gauge::default());
            let mut held = bounds.begin();
            assert!(held.grow(60).is_ok());
            assert!(matches!(held.grow(60), Err(Error::Overloaded { .. })));
            assert!(matches!(bounds.begin().grow(60), Err(Error::Overloaded { .. })));
            drop(held);
            assert_eq!((process.usage(), bounds.gauge.get()), (0, 0));
            assert!(bounds.begin().grow(100).is_ok());
        }
    }
}
