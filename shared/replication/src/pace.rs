//! Who takes long for everything, though it does answer: replicas as their primary sees them, and nodes as others see them.

use std::collections::BTreeMap;

use tricord_model::NodeId;

/// Whether a replica takes long every time, though it does answer: with it in the set all writes take as long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When the first began of what it has been slow with, one after another.
    slow_since_ms: Option<u64>,
    noted_ms: u64,
    is_slow: bool,
}

impl Pace {
    /// An answer takes long from this part of the time on after which a silent replica counts as failed.
    const SLOW_PART: u64 = 4;

    /// Of one that has had nothing to answer for so long nobody can tell.
    pub(crate) fn is_slow(self, now_ms: u64, timeout_ms: u64) -> bool {
        self.is_slow && now_ms <= self.noted_ms + timeout_ms
    }

    /// Whether the last answer came in time, and lately.
    pub(crate) fn is_quick(self, now_ms: u64, timeout_ms: u64) -> bool {
        self.noted_ms > 0 && self.slow_since_ms.is_none() && now_ms <= self.noted_ms + timeout_ms
    }

    /// What began at a time is answered now.
    pub(crate) fn note(&mut self, now_ms: u64, began_ms: u64, timeout_ms: u64) {
        let is_new = self.noted_ms + timeout_ms < began_ms;
        self.slow_since_ms = match self.slow_since_ms {
            _ if now_ms.saturating_sub(began_ms) <= timeout_ms / Self::SLOW_PART => None,
            Some(since_ms) if !is_new => Some(since_ms),
            _ => Some(began_ms),
        };
        self.noted_ms = now_ms;
        self.is_slow = self.slow_since_ms.is_some_and(|since_ms| now_ms > since_ms + timeout_ms);
    }
}

/// How quickly other nodes answer this one, and it them, by beacons in either direction. One for each node: a slow link
/// is slow for all shards.
#[derive(Debug)]
pub struct Links {
    timeout_ms: u64,
    peers: BTreeMap<NodeId, Link>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// From a beacon of this node to its answer.
    sent: Pace,
    /// From an answer of this node to the beacon that tells that it came: up to the time between two beacons longer than
    /// both ways take. Tells of a primary as much as the other of a follower.
    answered: Pace,
}

impl Links {
    /// Nothing is known yet. A node is slow that took long for everything for `timeout_ms`.
    #[must_use]
    pub fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, peers: BTreeMap::new() }
    }

    /// A beacon to `peer` that left at `sent_ms` is answered.
    pub fn answered(&mut self, now_ms: u64, peer: NodeId, sent_ms: u64) {
        self.peers.entry(peer).or_default().sent.note(now_ms, sent_ms, self.timeout_ms);
    }

    /// A beacon of `peer` says that it has got the answer that left here at `answered_ms`.
    pub fn confirmed(&mut self, now_ms: u64, peer: NodeId, answered_ms: u64) {
        // Longer ago is not slow but silent: it stopped, or has had nothing to say.
        if now_ms.saturating_sub(answered_ms) <= self.timeout_ms {
            self.peers.entry(peer).or_default().answered.note(now_ms, answered_ms, self.timeout_ms);
        }
    }

    /// Whether `peer` takes long while somebody else does not. Where all do, it is this node's own link.
    #[must_use]
    pub fn finds_slow(&self, now_ms: u64, peer: NodeId) -> bool {
        let is_slow = |link: &Link| {
            link.sent.is_slow(now_ms, self.timeout_ms) || link.answered.is_slow(now_ms, self.timeout_ms)
        };
        let is_quick = |link: &Link| {
            link.sent.is_quick(now_ms, self.timeout_ms) || link.answered.is_quick(now_ms, self.timeout_ms)
        };
        let mut others = self.peers.iter().filter(|(other, _)| **other != peer);
        self.peers.get(&peer).is_some_and(is_slow) && others.any(|(_, link)| is_quick(link) && !is_slow(link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_slow_with_all_entries_for_long_is_slow() {
        let mut pace = Pace::default();
        let mut after = |appended_ms: u64, took_ms: u64| {
            pace.note(appended_ms + took_ms, appended_ms, 2_000);
            pace.is_slow(appended_ms + took_ms, 2_000)
        };
        assert!(!after(1_000, 900) && !after(1_900, 900), "not for long yet");
        assert!(after(2_200, 900));
        assert!(!after(3_200, 500), "one in time is enough");
        assert!(!after(4_000, 900) && !after(5_000, 900));
        assert!(!after(9_000, 900), "what was long ago does not count");
        assert!(!after(10_000, 900) && after(10_500, 900));
        assert!(pace.is_slow(13_400, 2_000) && !pace.is_slow(13_401, 2_000), "nor does it for ever");
    }

    #[test]
    fn a_node_is_slow_only_where_another_one_is_not() {
        let (near, far) = (NodeId(1), NodeId(2));
        let mut links = Links::new(2_000);
        let beacons = |links: &mut Links, from_ms: u64, near_ms: u64| {
            for at in (from_ms..from_ms + 4_000).step_by(250) {
                links.answered(at + 700, far, at);
                links.answered(at + near_ms, near, at);
            }
            from_ms + 4_450
        };
        let now_ms = beacons(&mut links, 1_000, 1);
        assert!(links.finds_slow(now_ms, far) && !links.finds_slow(now_ms, near));
        let now_ms = beacons(&mut links, 10_000, 600);
        assert!(!links.finds_slow(now_ms, far), "all are slow: it is this node's own link");
        assert!(!links.finds_slow(now_ms + 60_000, far), "nobody has answered for long");
    }

    #[test]
    fn a_primary_is_slow_whose_beacons_tell_late_of_answers() {
        let (near, far) = (NodeId(1), NodeId(2));
        let mut links = Links::new(2_000);
        for at in (1_000..5_000).step_by(250) {
            links.confirmed(at + 250, near, at);
            links.confirmed(at + 600, far, at);
        }
        assert!(links.finds_slow(5_350, far) && !links.finds_slow(5_350, near));
        links.confirmed(60_000, near, 4_750);
        assert!(!links.finds_slow(60_000, near), "it had nothing to say for a minute");
    }
}
