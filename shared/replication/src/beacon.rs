//! Numbering of the beacons between two nodes, which lets a lease be counted on the clock of whoever uses it.
//!
//! The sender counts its own lease from the moment a beacon left, and learns only from the answer that it arrived.
//! The receiver counts its permission to read from the moment its *answer* left: the next beacon says which answer
//! came back, and how much of the sender's lease was left then. So no delay of a message ever lengthens a lease.

use std::collections::VecDeque;

/// How many beacons or answers are remembered: beyond that they are older than any lease.
const REMEMBERED: usize = 64;

/// The header of one beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Random number of the sender's process: numbers of another process mean nothing.
    pub session: u64,
    /// Counted from 1.
    pub number: u64,
    /// The newest beacon whose answer the sender has; 0 for none.
    pub answered: u64,
    /// Random number of the process that gave this answer; 0 where it is not known. A beacon that comes twice may be
    /// answered by a later process again, and later.
    pub answered_by: u64,
}

/// The sender's side for one peer.
#[derive(Debug)]
pub struct Pulses {
    session: u64,
    next: u64,
    sent: VecDeque<(u64, u64)>,
    answered: u64,
    answered_by: u64,
}

impl Pulses {
    /// Beacons of a process that chose `session` at its start.
    #[must_use]
    pub fn new(session: u64) -> Self {
        Self { session, next: 1, sent: VecDeque::new(), answered: 0, answered_by: 0 }
    }

    /// The header of a beacon that leaves at `now_ms`.
    pub fn send(&mut self, now_ms: u64) -> Pulse {
        let number = self.next;
        self.next += 1;
        self.sent.push_back((number, now_ms));
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        let Self { session, answered, answered_by, .. } = *self;
        Pulse { session, number, answered, answered_by }
    }

    /// Notes that beacon `number` was answered by the process `by`, and tells when it had left.
    pub fn answered(&mut self, number: u64, by: u64) -> Option<u64> {
        let sent_ms = self.sent.iter().find(|(sent, _)| *sent == number)?.1;
        if number > self.answered {
            (self.answered, self.answered_by) = (number, by);
        }
        Some(sent_ms)
    }
}

/// The receiver's side for one peer.
#[derive(Debug, Default)]
pub struct Answers {
    session: u64,
    answers: VecDeque<(u64, u64)>,
}

impl Answers {
    /// Notes that a beacon is being answered at `now_ms` by the process `own`; tells when the answer that the sender has
    /// got had left, if it was this process'.
    pub fn answer(&mut self, pulse: Pulse, now_ms: u64, own: u64) -> Option<u64> {
        if pulse.session != self.session {
            self.session = pulse.session;
            self.answers.clear();
        }
        let confirmed = self.answers.iter().find(|(number, _)| *number == pulse.answered).map(|(_, at)| *at);
        // A repeated beacon must not move the time of its answer to later.
        if self.answers.back().is_none_or(|(number, _)| *number < pulse.number) {
            self.answers.push_back((pulse.number, now_ms));
        }
        if self.answers.len() > REMEMBERED {
            self.answers.pop_front();
        }
        confirmed.filter(|_| [0, own].contains(&pulse.answered_by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_confirmed_by_a_later_beacon() {
        let (mut sender, mut receiver) = (Pulses::new(7), Answers::default());
        let first = sender.send(100);
        assert_eq!(receiver.answer(first, 1_010, 8), None);
        assert_eq!(sender.answered(first.number, 8), Some(100));
        let second = sender.send(200);
        assert_eq!(receiver.answer(second, 9_000, 8), Some(1_010), "however late the second one comes");
        assert_eq!(sender.answered(99, 8), None);
        // The next process is sent the first beacon once more.
        let mut next = Answers::default();
        next.answer(first, 9_100, 9);
        assert_eq!(sender.answered(first.number, 9), Some(100));
        assert_eq!(next.answer(sender.send(300), 9_200, 9), None);
    }

    #[test]
    fn numbers_of_a_former_process_mean_nothing() {
        let mut receiver = Answers::default();
        receiver.answer(Pulse { session: 1, number: 1, answered: 0, answered_by: 0 }, 10, 8);
        assert_eq!(
            receiver.answer(Pulse { session: 2, number: 2, answered: 1, answered_by: 8 }, 20, 8),
            None
        );
    }
}
