//! A gauge that counts things for as long as they are there.

use prometheus_client::metrics::gauge::Gauge;

/// One of the things that a gauge counts: it goes up when this is made, and down when it is dropped, however the work
/// that holds it ends.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one more.
    #[must_use = "dropping it at once takes the count back"]
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_follows_what_is_there() {
        let gauge = Gauge::default();
        let (first, second) = (Counted::new(&gauge), Counted::new(&gauge));
        assert_eq!(gauge.get(), 2);
        drop(first);
        assert_eq!(gauge.get(), 1);
        drop(second);
        assert_eq!(gauge.get(), 0);
    }
}
