//! When a series that is in memory counts as idle, so that its primary forgets it.

use super::registry::Series;

/// Which series are idle: everything of theirs is written out, and either nobody has written to them for long, or what is
/// written by now is of a much later time than the last that they had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// Last written before this time, by the clock of the primary.
    pub(crate) used_before_ms: i64,
    /// Nothing in a window that begins then or later …
    pub(crate) left_before_ms: i64,
    /// … and last written before this time: who sends old data still sends it.
    pub(crate) quiet_before_ms: i64,
}

impl Default for Idle {
    /// Nothing is idle.
    fn default() -> Self {
        Self { used_before_ms: i64::MIN, left_before_ms: i64::MIN, quiet_before_ms: i64::MIN }
    }
}

impl Idle {
    pub(super) fn is(self, series: &Series) -> bool {
        let is_old = series.used_ms < self.used_before_ms;
        // One whose forgetting was cut from the log comes up again, by the clock alone.
        let is_left =
            series.left_ms < self.left_before_ms && series.used_ms < self.quiet_before_ms && !series.evicted;
        series.parts == 0 && (is_old || is_left)
    }
}
