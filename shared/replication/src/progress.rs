//! What a primary knows of one other replica.

use std::collections::VecDeque;

use tricord_model::Seq;

use crate::pace::Pace;

/// An answered beacon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) number: u64,
    pub(crate) sent_ms: u64,
    pub(crate) received_ms: u64,
}

/// A follower or joiner as its primary sees it.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The next entry to send.
    pub(crate) next: Seq,
    /// Entries up to this one are known to be durable there.
    pub(crate) matched: Seq,
    /// It has not stored anything under this epoch yet, so it gets a message even when there is no entry to send.
    pub(crate) announce: bool,
    /// When the epoch was first to be announced to it.
    pub(crate) announced_ms: u64,
    /// The message on its way, if any: one at a time, so that messages cannot overtake each other.
    pub(crate) ticket: Option<u64>,
    pub(crate) retry_at_ms: u64,
    /// A snapshot is on its way.
    pub(crate) snapshot: bool,
    /// It said that it cannot store entries.
    pub(crate) failed: bool,
    pub(crate) answered: Option<Answered>,
    /// It said with its newest answer that it is about to stop.
    pub(crate) leaving: bool,
    /// It said with its newest answer that this node takes long, and others do not.
    pub(crate) finds_slow: bool,
    /// Since when it has had nearly everything that is committed.
    pub(crate) kept_up_since_ms: Option<u64>,
    /// How quickly it stores what it is sent …
    pace: Pace,
    /// … and answers beacons, for which it needs no disk.
    link: Pace,
    /// It joins, and has asked for the next epoch.
    pub(crate) asks: bool,
    /// It is about to be proposed as in sync: entries after this one need it already.
    pub(crate) wanted: Option<Seq>,
}

impl Progress {
    pub(crate) fn new(now_ms: u64, last: Seq) -> Self {
        Self {
            next: last.next(),
            matched: Seq(0),
            announce: true,
            announced_ms: now_ms,
            ticket: None,
            retry_at_ms: 0,
            snapshot: false,
            failed: false,
            answered: None,
            leaving: false,
            finds_slow: false,
            kept_up_since_ms: None,
            pace: Pace::default(),
            link: Pace::default(),
            asks: false,
            wanted: None,
        }
    }

    /// A new epoch of the same primary: what is known of the log stays true.
    pub(crate) fn new_epoch(&mut self, now_ms: u64) {
        self.announce = true;
        self.announced_ms = now_ms;
        self.ticket = None;
        self.retry_at_ms = 0;
        self.failed = false;
        self.asks = false;
    }

    pub(crate) fn stored(&mut self, now_ms: u64, seq: Seq, marks: &Marks, timeout_ms: u64) {
        if let Some(appended_ms) = marks.appended_ms(self.matched.next()).filter(|_| seq > self.matched) {
            self.pace.note(now_ms, appended_ms.max(self.announced_ms), timeout_ms);
        }
        self.matched = self.matched.max(seq);
        self.next = self.matched.next();
        self.announce = false;
        self.failed = false;
    }

    /// Whether the primary has to go on without it: it said so, or has been silent for longer than `timeout_ms`.
    pub(crate) fn is_failing(&self, now_ms: u64, marks: &Marks, timeout_ms: u64) -> bool {
        self.failed || self.leaving || self.overdue_ms(now_ms, marks) > timeout_ms
    }

    /// A beacon is answered.
    pub(crate) fn answered(&mut self, answered: Answered, timeout_ms: u64) {
        self.link.note(answered.received_ms, answered.sent_ms, timeout_ms);
        self.answered = Some(answered);
    }

    /// Whether it has taken long for everything for as long as a silent replica is waited for, `timeout_ms`.
    pub(crate) fn is_slow(&self, now_ms: u64, timeout_ms: u64) -> bool {
        self.pace.is_slow(now_ms, timeout_ms) || self.link.is_slow(now_ms, timeout_ms)
    }

    pub(crate) fn retry_at(&mut self, at_ms: u64) {
        self.ticket = None;
        self.retry_at_ms = at_ms;
    }

    /// How long the replica has owed something, in milliseconds.
    pub(crate) fn overdue_ms(&self, now_ms: u64, marks: &Marks) -> u64 {
        let heard_ms = self.answered.map_or(self.announced_ms, |answered| answered.sent_ms);
        let mut since_ms = heard_ms.min(now_ms);
        if self.announce {
            since_ms = since_ms.min(self.announced_ms);
        }
        if let Some(appended_ms) = marks.appended_ms(self.matched.next()) {
            since_ms = since_ms.min(appended_ms.max(self.announced_ms));
        }
        now_ms.saturating_sub(since_ms)
    }
}

/// When entries were appended, to within [`Marks::STEP_MS`].
#[derive(Debug, Default)]
pub(crate) struct Marks {
    marks: VecDeque<(Seq, u64)>,
    end: Seq,
}

impl Marks {
    const STEP_MS: u64 = 10;
    const MOST: usize = 4096;

    pub(crate) fn append(&mut self, seq: Seq, now_ms: u64) {
        self.end = seq;
        let recent = self.marks.back().is_some_and(|(_, at)| now_ms < at + Self::STEP_MS);
        if !recent && self.marks.len() < Self::MOST {
            self.marks.push_back((seq, now_ms));
        }
    }

    /// Forgets what every replica has.
    pub(crate) fn settle(&mut self, matched: Seq) {
        if matched >= self.end {
            self.marks.clear();
        }
        while self.marks.get(1).is_some_and(|(seq, _)| *seq <= matched.next()) {
            self.marks.pop_front();
        }
    }

    /// When entry `seq` was appended; `None` where it was not in this tenure.
    pub(crate) fn appended_ms(&self, seq: Seq) -> Option<u64> {
        if seq > self.end {
            return None;
        }
        let after = self.marks.partition_point(|(first, _)| *first <= seq);
        self.marks.get(after.saturating_sub(1)).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_the_age_of_the_oldest_entry_that_is_owed() {
        let mut marks = Marks::default();
        for (seq, at) in [(5, 100), (6, 105), (7, 200), (8, 400)] {
            marks.append(Seq(seq), at);
        }
        let mut progress = Progress::new(0, Seq(4));
        progress.stored(450, Seq(5), &marks, 2_000);
        progress.answered = Some(Answered { number: 1, sent_ms: 490, received_ms: 495 });
        assert_eq!(progress.overdue_ms(500, &marks), 400);
        progress.stored(500, Seq(7), &marks, 2_000);
        assert_eq!(progress.overdue_ms(500, &marks), 100);
        marks.settle(Seq(8));
        progress.stored(500, Seq(8), &marks, 2_000);
        assert_eq!(progress.overdue_ms(500, &marks), 10, "only the last beacon counts");
    }
}
