//! Where the windows of all steps lie in the samples of a series, and what follows from their times alone. The series of
//! a target mostly have the same times: then this is worked out once for all of them.

use super::rate::Span;

/// Layouts that are kept: about as many targets as come by turns in the order of series.
const KEPT: usize = 16;

/// Where a window that only moves forward lies.
#[derive(Clone, Copy, Default)]
struct Sweep {
    from: usize,
    to: usize,
    /// How many samples came with the last step that was looked for.
    stride: usize,
}

impl Sweep {
    #[inline]
    fn advance(&mut self, t_ms: &[i64], after: i64, until: i64) {
        // Samples at a steady distance: as many come and go as at the step before.
        let leapt = self.to + self.stride;
        if leapt < t_ms.len() && leapt > 0 && t_ms[leapt - 1] <= until && t_ms[leapt] > until {
            self.to = leapt;
        } else {
            let before = self.to;
            while self.to < t_ms.len() && t_ms[self.to] <= until {
                self.to += 1;
            }
            self.stride = self.to - before;
        }
        let leapt = self.from + self.stride;
        if leapt < self.to && leapt > 0 && t_ms[leapt - 1] <= after && t_ms[leapt] > after {
            self.from = leapt;
        } else {
            while self.from < self.to && t_ms[self.from] <= after {
                self.from += 1;
            }
        }
    }
}

/// The windows of all steps over samples at some times, in columns.
pub(super) struct Layout {
    t_ms: Vec<i64>,
    /// The places of each window's first and last sample; both 0 where it has less than two.
    first: Vec<u32>,
    last: Vec<u32>,
    /// As in [`Span`]; all 0 where a window has less than two samples.
    pub(super) sampled_s: Vec<f64>,
    pub(super) to_start_s: Vec<f64>,
    pub(super) to_end_s: Vec<f64>,
}

impl Layout {
    fn new(t_ms: &[i64], windows: &[(i64, i64)]) -> Self {
        let steps = windows.len();
        let mut layout = Self {
            t_ms: t_ms.to_vec(),
            first: vec![0; steps],
            last: vec![0; steps],
            sampled_s: vec![0.0; steps],
            to_start_s: vec![0.0; steps],
            to_end_s: vec![0.0; steps],
        };
        let mut sweep = Sweep::default();
        for (step, (after, until)) in windows.iter().enumerate() {
            sweep.advance(t_ms, *after, *until);
            let Sweep { from, to, .. } = sweep;
            if to - from < 2 {
                continue;
            }
            let span = Span::new(&t_ms[from..to], *after, *until);
            (layout.first[step], layout.last[step]) = (from as u32, to as u32 - 1);
            layout.sampled_s[step] = span.sampled_s;
            (layout.to_start_s[step], layout.to_end_s[step]) = (span.to_start_s, span.to_end_s);
        }
        layout
    }

    /// The places of each window's first and last sample.
    #[inline]
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        self.first.iter().zip(&self.last).map(|(first, last)| (*first as usize, *last as usize))
    }

    fn is_of(&self, t_ms: &[i64]) -> bool {
        self.t_ms.last() == t_ms.last() && self.t_ms == t_ms
    }
}

/// The layouts of the series that came last.
pub(super) struct Layouts {
    windows: Vec<(i64, i64)>,
    kept: Vec<Layout>,
    /// The one that gives way next.
    oldest: usize,
}

impl Layouts {
    pub(super) fn new(windows: Vec<(i64, i64)>) -> Self {
        Self { windows, kept: Vec::new(), oldest: 0 }
    }

    /// The layout over samples at these times, which ascend.
    pub(super) fn of(&mut self, t_ms: &[i64]) -> &Layout {
        let at = self.kept.iter().position(|layout| layout.is_of(t_ms)).unwrap_or_else(|| self.add(t_ms));
        &self.kept[at]
    }

    fn add(&mut self, t_ms: &[i64]) -> usize {
        let layout = Layout::new(t_ms, &self.windows);
        if self.kept.len() < KEPT {
            self.kept.push(layout);
            return self.kept.len() - 1;
        }
        let at = self.oldest;
        self.kept[at] = layout;
        self.oldest = (at + 1) % KEPT;
        at
    }
}
