//! Mistakes of the protocol that the simulator has found, each as the shortest story that shows it, and the rules by which
//! a role is handed over.

use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{
    Ack, AckResult, Action, BeaconAnswer, BeaconVerdict, Boot, Entries, OlderEpochs, Position,
    ProposalOutcome, Renewal, RoleName, Shard, SnapshotVerdict, Timing, Verdict, View,
};

const TIMING: Timing = Timing {
    lease_ms: 2_000,
    grace_ms: 2_500,
    beacon_every_ms: 250,
    follower_timeout_ms: 2_000,
    retry_ms: 200,
    confirm_ms: 5_000,
    settle_ms: 1_000,
};

/// A log of which everything is trimmed.
struct Trimmed;

impl OlderEpochs for Trimmed {
    fn epoch_at(&self, _: Seq) -> Option<Epoch> {
        None
    }
}

fn at(seq: u64, epoch: u64) -> Position {
    Position { seq: Seq(seq), epoch: Epoch(epoch) }
}

fn view(epoch: u64, primary: u64, in_sync: &[u64], joining: &[u64]) -> View {
    let ids = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect();
    View { epoch: Epoch(epoch), primary: Some(NodeId(primary)), in_sync: ids(in_sync), joining: ids(joining) }
}

fn accepted(number: u64, sent_ms: u64) -> BeaconAnswer {
    BeaconAnswer { number, sent_ms, leaving: false, awaits: false, finds_slow: false }
}

/// A replica on an empty disk, and what drives it.
struct Replica {
    machine: Shard,
    beacons: u64,
}

impl Replica {
    fn new(node: u64) -> Self {
        Self::started(node, Position::default(), 0)
    }

    /// One whose process has just started, and found this on its disk.
    fn started(node: u64, end: Position, stored_epoch: u64) -> Self {
        let boot = Boot {
            node: NodeId(node),
            shard: ShardId(0),
            end,
            committed: Seq(0),
            stored_epoch: Epoch(stored_epoch),
            now_ms: 10_000,
            older: Box::new(Trimmed),
        };
        Self { machine: Shard::new(boot, TIMING), beacons: 0 }
    }

    fn configure(&mut self, now_ms: u64, view: View) {
        self.machine.epoch_stored(view.epoch);
        assert!(self.machine.configure(now_ms, view, 2));
    }

    /// These followers answer a beacon, store what there is to store, and are allowed to answer queries.
    fn followers_answer(&mut self, now_ms: u64, followers: &[u64]) {
        for _ in 0..2 {
            self.beacons += 1;
            for follower in followers.iter().copied().map(NodeId) {
                let _ = self.machine.beacon_to(now_ms, follower, self.beacons - 1);
                self.machine.beacon_answered(now_ms, follower, accepted(self.beacons, now_ms));
                if let Some(plan) = self.machine.plan(now_ms, follower) {
                    let durable = Position { seq: plan.last, epoch: plan.epoch };
                    let ack = Ack { epoch: plan.epoch, result: AckResult::Ok, durable, committed: Seq(0) };
                    self.machine.acked(now_ms, follower, plan.ticket, ack);
                }
            }
        }
        for follower in followers.iter().copied().map(NodeId) {
            let _ = self.machine.beacon_to(now_ms, follower, self.beacons);
        }
    }

    fn write(&mut self, now_ms: u64) -> Seq {
        assert_eq!(self.machine.writable(now_ms, self.machine.view().epoch), Ok(()));
        let seq = self.machine.append(now_ms).seq;
        self.machine.durable(now_ms, seq);
        seq
    }

    fn acknowledges(&mut self, now_ms: u64, seq: Seq) -> bool {
        self.machine.tick(now_ms);
        self.machine.actions().contains(&Action::Acknowledge(seq))
    }

    fn role(&self, now_ms: u64) -> RoleName {
        self.machine.status(now_ms).role
    }
}

/// A primary of nodes 1 to 3 that serves at 10,000 ms and has allowed both followers to answer until 12,000.
fn primary() -> Replica {
    let mut replica = Replica::new(1);
    replica.configure(10_000, view(1, 1, &[1, 2, 3], &[]));
    replica.followers_answer(10_000, &[2, 3]);
    assert_eq!(replica.role(10_000), RoleName::Primary);
    drop(replica.machine.actions());
    replica
}

#[test]
fn a_joiner_goes_on_after_a_snapshot_that_ends_within_the_epoch() {
    let mut joiner = Replica::new(3);
    joiner.configure(10_000, view(4, 1, &[1, 2], &[3]));
    let (primary, epoch) = (NodeId(1), Epoch(4));
    assert_eq!(joiner.machine.judge_snapshot(primary, epoch, Seq(10)), SnapshotVerdict::Install);
    joiner.machine.installed(at(10, 4));
    let next = Entries {
        epoch,
        epoch_start: Seq(5),
        previous: at(10, 4),
        entries: vec![at(11, 4)],
        committed: Seq(10),
    };
    assert_eq!(joiner.machine.receive(primary, &next), Verdict::Append(0));
    joiner.machine.append_as_follower(&next.entries);
    joiner.machine.durable(10_000, Seq(11));
    // A copy of that snapshot that was long on its way takes nothing back.
    assert_eq!(joiner.machine.judge_snapshot(primary, epoch, Seq(10)), SnapshotVerdict::Held(Seq(11)));
    assert_eq!(joiner.machine.judge_snapshot(primary, epoch, Seq(12)), SnapshotVerdict::Install);
}

#[test]
fn a_removal_is_waited_for_on_the_slower_clock() {
    let mut primary = primary();
    primary.configure(10_100, view(2, 1, &[1, 2], &[3]));
    primary.followers_answer(10_100, &[2]);
    let seq = primary.write(10_100);
    for now_ms in [11_000, 11_900, 12_400] {
        primary.followers_answer(now_ms, &[2]);
        assert!(!primary.acknowledges(now_ms, seq), "the removed follower may still answer at {now_ms}");
    }
    primary.followers_answer(12_500, &[2]);
    assert!(primary.acknowledges(12_500, seq));
}

#[test]
fn who_leads_again_remembers_whom_it_has_allowed_to_answer() {
    let mut primary = primary();
    primary.configure(10_100, view(2, 2, &[1, 2, 3], &[]));
    assert_eq!(primary.role(10_100), RoleName::Follower);
    primary.configure(10_200, view(3, 1, &[1, 2], &[]));
    primary.followers_answer(10_200, &[2]);
    let seq = primary.write(10_200);
    primary.followers_answer(12_400, &[2]);
    assert!(!primary.acknowledges(12_400, seq), "node 3 was allowed to answer until 12,000");
    primary.followers_answer(12_500, &[2]);
    assert!(primary.acknowledges(12_500, seq));
}

#[test]
fn a_primary_that_has_missed_an_epoch_begins_anew() {
    let mut follows = primary();
    follows.configure(10_100, view(2, 1, &[1, 2, 3], &[]));
    assert_eq!(follows.role(10_100), RoleName::Primary, "nobody has led in between");
    let mut missed = primary();
    missed.configure(10_100, view(3, 1, &[1, 2, 3], &[]));
    assert_eq!(missed.role(10_100), RoleName::Reconciling);
    missed.followers_answer(10_100, &[2, 3]);
    assert_eq!(missed.role(10_100), RoleName::Primary);
}

#[test]
fn a_successor_does_not_wait_for_leases_that_are_over() {
    let mut former = primary();
    former.configure(10_100, view(2, 2, &[1, 2, 3], &[]));
    assert!(former.machine.actions().contains(&Action::Release(NodeId(2), Epoch(2))));

    let successor = || {
        let mut successor = Replica::new(2);
        successor.configure(9_000, view(1, 1, &[1, 2, 3], &[]));
        successor.machine.beacon(10_000, NodeId(1), Epoch(1), Seq(0), None);
        successor
    };
    let mut waits = successor();
    waits.configure(10_100, view(2, 2, &[1, 2, 3], &[]));
    waits.followers_answer(10_100, &[1, 3]);
    assert_eq!(waits.role(12_400), RoleName::Reconciling);
    assert_eq!(waits.role(12_500), RoleName::Primary);
    // The word may come before the configuration or after it.
    let (mut before, mut after) = (successor(), successor());
    before.machine.released(10_050, Epoch(2));
    for replica in [&mut before, &mut after] {
        replica.configure(10_100, view(2, 2, &[1, 2, 3], &[]));
        replica.followers_answer(10_100, &[1, 3]);
    }
    after.machine.released(10_150, Epoch(2));
    assert_eq!((before.role(10_150), after.role(10_150)), (RoleName::Primary, RoleName::Primary));
    // It may miss the epoch that it was told of, since nobody else led in that one.
    let mut missed = successor();
    missed.machine.released(10_050, Epoch(2));
    missed.configure(10_100, view(3, 2, &[1, 2, 3], &[]));
    missed.followers_answer(10_100, &[1, 3]);
    assert_eq!(missed.role(10_150), RoleName::Primary);
    // The word of an older handover says nothing.
    let mut stale = successor();
    stale.machine.released(10_050, Epoch(2));
    stale.configure(10_100, view(4, 2, &[1, 2, 3], &[]));
    stale.followers_answer(10_100, &[1, 3]);
    assert_eq!(stale.role(10_150), RoleName::Reconciling);
}

#[test]
fn leases_are_not_released_while_somebody_who_is_left_out_may_answer() {
    let mut former = primary();
    former.configure(10_100, view(2, 2, &[1, 2], &[3]));
    let released = former.machine.actions().iter().any(|action| matches!(action, Action::Release(..)));
    assert!(!released, "node 3 may answer until 12,000");
}

#[test]
fn who_stops_asks_for_a_successor_and_leaves_without_a_wait() {
    let mut primary = primary();
    primary.machine.resign();
    assert!(primary.machine.is_resigning());
    primary.machine.tick(10_050);
    let wishes: Vec<View> = primary
        .machine
        .actions()
        .into_iter()
        .filter_map(|action| match action {
            Action::Propose(wish) => Some(wish),
            _ => None,
        })
        .collect();
    assert!(matches!(&wishes[..], [wish] if wish.primary != Some(NodeId(1)) && wish.in_sync.len() == 2));

    // A follower that says that it leaves may not answer any more, so nothing waits for its lease.
    let mut primary = self::primary();
    let leaves = BeaconAnswer { leaving: true, ..accepted(9, 10_100) };
    primary.machine.beacon_answered(10_100, NodeId(3), leaves);
    primary.machine.tick(10_100);
    let wish = view(1, 1, &[1, 2], &[3]);
    assert!(primary.machine.actions().contains(&Action::Propose(wish)));
    primary.configure(10_150, view(2, 1, &[1, 2], &[3]));
    primary.followers_answer(10_150, &[2]);
    let seq = primary.write(10_150);
    primary.followers_answer(10_150, &[2]);
    assert!(
        primary.machine.actions().contains(&Action::Acknowledge(seq)) || primary.acknowledges(10_160, seq)
    );
}

#[test]
fn a_failed_log_takes_no_more_writes_and_asks_for_another_primary() {
    let mut primary = primary();
    primary.machine.log_failed();
    assert!(primary.machine.writable(10_050, Epoch(1)).is_err());
    primary.machine.tick(10_050);
    assert!(primary.machine.actions().iter().any(|action| matches!(action, Action::Propose(_))));
}

#[test]
fn a_joiner_may_be_in_sync_until_that_is_refused_or_void() {
    let mut primary = Replica::new(1);
    primary.configure(10_000, view(1, 1, &[1], &[2]));
    let wishes = |primary: &mut Replica, from_ms: u64| {
        (from_ms..from_ms + 20_000).step_by(100).find(|now_ms| {
            primary.followers_answer(*now_ms, &[2]);
            primary.machine.tick(*now_ms);
            let both = |wish: &View| wish.in_sync == [NodeId(1), NodeId(2)];
            primary
                .machine
                .actions()
                .iter()
                .any(|action| matches!(action, Action::Propose(wish) if both(wish)))
        })
    };
    assert!(!primary.machine.may_grow());
    let now_ms = wishes(&mut primary, 10_000).expect("a proposal");
    assert!(primary.machine.may_grow(), "it is on its way");
    primary.machine.proposed(now_ms, ProposalOutcome::Refused);
    assert!(!primary.machine.may_grow());

    let now_ms = wishes(&mut primary, now_ms).expect("another proposal");
    primary.machine.proposed(now_ms, ProposalOutcome::Unknown);
    assert!(primary.machine.may_grow(), "it may have been taken");
    let now_ms = wishes(&mut primary, now_ms).expect("a third proposal");
    primary.machine.proposed(now_ms, ProposalOutcome::Refused);
    assert!(primary.machine.may_grow(), "the second may still be taken");
    primary.configure(now_ms, view(2, 1, &[1], &[2]));
    assert!(!primary.machine.may_grow(), "its epoch is over");
}

/// The successor's first beacon is often there before metadata's word.
#[test]
fn a_primary_that_hears_of_its_successor_from_that_one_releases_it_all_the_same() {
    for (in_sync, releases) in [(&[1, 2, 3][..], true), (&[1, 2][..], false)] {
        let mut replica = primary();
        assert_eq!(
            replica.machine.beacon(10_100, NodeId(2), Epoch(2), Seq(0), None),
            BeaconVerdict::StoreEpoch
        );
        replica.machine.epoch_stored(Epoch(2));
        assert_eq!(
            replica.machine.beacon(10_120, NodeId(2), Epoch(2), Seq(0), None),
            BeaconVerdict::Accepted
        );
        assert_ne!(replica.role(10_120), RoleName::Primary);
        drop(replica.machine.actions());
        assert!(replica.machine.configure(10_200, view(2, 2, in_sync, &[]), 2));
        // Node 3 may answer queries for a while still, and need not hear of entries where it is not in sync.
        let released = replica.machine.actions().contains(&Action::Release(NodeId(2), Epoch(2)));
        assert_eq!(released, releases, "{in_sync:?}");
        replica.machine.epoch_stored(Epoch(3));
        assert!(replica.machine.configure(10_300, view(3, 3, in_sync, &[]), 2));
        assert!(
            replica.machine.actions().iter().all(|action| !matches!(action, Action::Release(..))),
            "once"
        );
    }
}

#[test]
fn acknowledgements_wait_no_longer_for_a_removed_follower_than_until_it_has_heard_of_it() {
    for (stored, is_over) in [(1, false), (2, true), (3, true)] {
        let mut replica = primary();
        replica.configure(10_100, view(2, 1, &[1, 2], &[]));
        let told: Vec<NodeId> = replica.machine.beacons_to().collect();
        assert!(told.contains(&NodeId(3)), "it is told: {told:?}");
        assert_eq!(replica.machine.beacon_to(10_100, NodeId(3), 0), Some((Epoch(2), Seq(0), 0)));
        replica.followers_answer(10_150, &[2]);
        let seq = replica.write(10_200);
        replica.followers_answer(10_200, &[2]);
        assert!(replica.machine.awaits_lease(10_200), "beacons are hurried");
        replica.machine.peer_stored(10_250, NodeId(3), Epoch(stored));
        assert_eq!(replica.acknowledges(10_300, seq), is_over, "it has stored epoch {stored}");
    }
}

/// A node hears late that it has a place again, from a primary that sends entries, and not from metadata.
#[test]
fn what_was_stored_under_a_later_epoch_than_that_of_the_map_is_not_dropped() {
    let mut replica = Replica::new(3);
    replica.configure(10_000, view(4, 1, &[1, 2], &[]));
    assert!(replica.machine.may_leave(Epoch(4)));
    assert!(!replica.machine.may_leave(Epoch(3)), "it knows better");
    let entries = Entries {
        epoch: Epoch(5),
        epoch_start: Seq(0),
        previous: Position::default(),
        entries: vec![at(1, 5)],
        committed: Seq(0),
    };
    assert_eq!(replica.machine.receive(NodeId(1), &entries), Verdict::StoreEpoch);
    assert!(replica.machine.may_leave(Epoch(4)));
    replica.machine.epoch_stored(Epoch(5));
    assert!(matches!(replica.machine.receive(NodeId(1), &entries), Verdict::Append(0)));
    assert!(!replica.machine.may_leave(Epoch(4)), "the primary of epoch 5 counts on it");
    replica.configure(10_000, view(5, 1, &[1, 2], &[3]));
    assert!(!replica.machine.may_leave(Epoch(5)));
}

/// What the follower has been sent is stored after a while.
fn stores(replica: &mut Replica, sent_ms: u64, took_ms: u64, follower: u64) {
    let follower = NodeId(follower);
    let Some(plan) = replica.machine.plan(sent_ms, follower) else { panic!("there is something to send") };
    let durable = Position { seq: plan.last, epoch: plan.epoch };
    let ack = Ack { epoch: plan.epoch, result: AckResult::Ok, durable, committed: Seq(0) };
    replica.machine.acked(sent_ms + took_ms, follower, plan.ticket, ack);
}

/// The configuration that the primary asks for after so many entries with which followers take so long.
fn wish_after(entries: u64, took_ms: [u64; 2]) -> Option<View> {
    let mut replica = primary();
    for n in 0..entries {
        let now_ms = 10_100 + n * 1_000;
        replica.write(now_ms);
        for (follower, took_ms) in [2, 3].into_iter().zip(took_ms) {
            stores(&mut replica, now_ms, took_ms, follower);
        }
        replica.followers_answer(now_ms + 950, &[2, 3]);
    }
    replica.machine.tick(10_100 + entries * 1_000);
    replica.machine.actions().into_iter().find_map(|action| match action {
        Action::Propose(wish) => Some(wish),
        _ => None,
    })
}

#[test]
fn a_follower_that_takes_long_for_every_entry_is_left_out_where_another_is_quick() {
    assert_eq!(wish_after(2, [5, 900]), None, "not for long yet");
    let wish = wish_after(4, [5, 900]).expect("it is left out");
    assert_eq!((wish.in_sync, wish.joining), (vec![NodeId(1), NodeId(2)], vec![NodeId(3)]));
    assert_eq!(wish_after(4, [5, 400]), None, "it is not slow");
    assert_eq!(wish_after(4, [900, 900]), None, "where all are slow nothing is gained");
}

#[test]
fn a_primary_that_all_others_find_slow_lets_another_one_lead() {
    let mut primary = primary();
    let mut says = |now_ms: u64, slow: [bool; 2]| {
        for (follower, finds_slow) in [2, 3].into_iter().zip(slow) {
            let answer = BeaconAnswer { finds_slow, ..accepted(now_ms, now_ms) };
            primary.machine.beacon_answered(now_ms, NodeId(follower), answer);
        }
        primary.machine.tick(now_ms);
        wishes(&mut primary).pop()
    };
    assert_eq!(says(10_100, [true, false]), None, "one slow link is no reason");
    let wish = says(10_200, [true, true]).expect("another primary");
    assert!(wish.primary != Some(NodeId(1)) && wish.in_sync == [NodeId(2), NodeId(3)]);
    assert_eq!(wish.joining, [NodeId(1)], "with it in the set writes would be as slow");
}

#[test]
fn a_primary_whose_disk_is_slow_lets_another_one_lead() {
    let mut primary = primary();
    let mut wish = None;
    // Each entry takes 700 ms here, and no time at the others.
    for at_ms in (10_100..14_000).step_by(750) {
        assert_eq!(primary.machine.writable(at_ms, Epoch(1)), Ok(()));
        let seq = primary.machine.append(at_ms).seq;
        primary.followers_answer(at_ms + 10, &[2, 3]);
        primary.machine.tick(at_ms + 600);
        wish = wish.or(wishes(&mut primary).pop());
        assert!(wish.is_none() || at_ms > 11_600, "not before it was slow for long");
        primary.machine.durable(at_ms + 700, seq);
    }
    let wish = wish.expect("another primary");
    assert!(wish.primary != Some(NodeId(1)) && wish.in_sync == [NodeId(2), NodeId(3)]);
}

/// What an earlier process has acknowledged this one does not know: the primary may have asked metadata to let it in.
#[test]
fn a_joiner_throws_nothing_away_under_an_epoch_from_before_its_process_started() {
    let mut joiner = Replica::started(3, at(9, 4), 4);
    joiner.configure(10_000, view(4, 1, &[1, 2], &[3]));
    assert!(!joiner.machine.may_begin_anew());
    assert_eq!((joiner.machine.renewal(), joiner.machine.asks_after()), (Renewal::Ask, None));
    // A snapshot from before those entries may come late.
    assert_eq!(joiner.machine.judge_snapshot(NodeId(1), Epoch(4), Seq(5)), SnapshotVerdict::Refused);
    assert_eq!(joiner.machine.asks_after(), Some(Epoch(4)));
    assert!(joiner.machine.withholds(Epoch(4)), "what is damaged must not be let in");
    joiner.configure(10_100, view(5, 1, &[1, 2], &[3]));
    assert_eq!((joiner.machine.renewal(), joiner.machine.asks_after()), (Renewal::BeginAnew, None));
    assert_eq!(joiner.machine.judge_snapshot(NodeId(1), Epoch(5), Seq(5)), SnapshotVerdict::Install);
    joiner.machine.installed(Position::default());
    assert_eq!(joiner.machine.renewal(), Renewal::Wait);
    assert!(!joiner.machine.withholds(Epoch(5)));
    // In sync it is let in already, and leaves first.
    let mut member = Replica::started(3, at(9, 4), 4);
    member.configure(10_000, view(4, 1, &[1, 2, 3], &[]));
    assert_eq!((member.machine.renewal(), member.machine.asks_after()), (Renewal::Leave, None));
}

fn wishes(replica: &mut Replica) -> Vec<View> {
    let wish = |action| match action {
        Action::Propose(wish) => Some(wish),
        _ => None,
    };
    replica.machine.actions().into_iter().filter_map(wish).collect()
}

#[test]
fn a_primary_asks_for_the_epoch_that_a_joiner_needs_and_does_not_let_it_in_before() {
    let mut primary = Replica::new(1);
    primary.configure(10_000, view(1, 1, &[1, 2], &[3]));
    primary.followers_answer(10_000, &[2, 3]);
    primary.machine.asked_after(NodeId(3), Epoch(7));
    primary.machine.asked_after(NodeId(2), Epoch(1));
    primary.machine.tick(10_100);
    assert_eq!(wishes(&mut primary), [], "of another epoch, and of one that does not join");
    primary.machine.asked_after(NodeId(3), Epoch(1));
    primary.machine.tick(10_200);
    assert_eq!(wishes(&mut primary), [view(1, 1, &[1, 2], &[3])]);
    primary.machine.proposed(10_200, ProposalOutcome::Unknown);
    for now_ms in (10_400..14_000).step_by(100) {
        primary.followers_answer(now_ms, &[2, 3]);
        primary.machine.tick(now_ms);
        assert!(wishes(&mut primary).iter().all(|wish| wish.in_sync.len() == 2), "it is not let in");
        primary.machine.proposed(now_ms, ProposalOutcome::Unknown);
    }
    primary.configure(14_000, view(2, 1, &[1, 2], &[3]));
    let lets_in = (14_000..20_000).step_by(100).any(|now_ms| {
        primary.followers_answer(now_ms, &[2, 3]);
        primary.machine.tick(now_ms);
        wishes(&mut primary).iter().any(|wish| wish.in_sync.len() == 3)
    });
    assert!(lets_in, "the next epoch is as any other");
}

/// The one that asks may be the one that is to come in the place of a dead one.
#[test]
fn a_joiner_gets_its_epoch_also_while_a_replica_fails_that_cannot_be_left_out() {
    let mut primary = Replica::new(1);
    primary.configure(10_000, view(1, 1, &[1, 2], &[3]));
    primary.followers_answer(10_000, &[2, 3]);
    primary.machine.asked_after(NodeId(3), Epoch(1));
    primary.followers_answer(13_000, &[3]);
    primary.machine.tick(13_000);
    assert_eq!(wishes(&mut primary), [view(1, 1, &[1, 2], &[3])]);
}

/// Once a follower has said that it leaves, its primary does not wait for what it had granted it.
#[test]
fn who_stays_after_all_answers_no_queries_by_what_it_was_granted_before() {
    let mut follower = Replica::new(2);
    follower.configure(10_000, view(1, 1, &[1, 2, 3], &[]));
    let first = Entries {
        epoch: Epoch(1),
        epoch_start: Seq(0),
        previous: Position::default(),
        entries: Vec::new(),
        committed: Seq(0),
    };
    assert_eq!(follower.machine.receive(NodeId(1), &first), Verdict::Append(0));
    let mut beacon = |now_ms: u64, granted_at_ms: u64| {
        let grant = Some((granted_at_ms, 2_000));
        assert_eq!(
            follower.machine.beacon(now_ms, NodeId(1), Epoch(1), Seq(0), grant),
            BeaconVerdict::Accepted
        );
        if now_ms == 10_100 {
            assert!(follower.machine.may_read(now_ms));
            follower.machine.resign();
            assert!(!follower.machine.may_read(now_ms));
            follower.machine.stay(10_200);
        }
        follower.machine.may_read(now_ms + 150)
    };
    assert!(!beacon(10_100, 10_050), "void");
    assert!(!beacon(10_300, 10_150), "on its way when the primary heard that it leaves");
    assert!(beacon(10_400, 10_300), "for an answer that it stays");
}

/// The former primary lets its successor know that older leases are over but for those of who is in sync, as they have to
/// follow before anything is acknowledged: unless they are left out before they do.
#[test]
fn who_is_left_out_before_it_has_heard_of_a_released_primary_is_waited_for() {
    let successor = || {
        let mut successor = Replica::new(2);
        successor.configure(9_000, view(1, 1, &[1, 2, 3], &[]));
        successor.machine.beacon(10_000, NodeId(1), Epoch(1), Seq(0), None);
        successor
    };
    let acknowledges_at = |replica: &mut Replica, follower: u64| {
        replica.followers_answer(10_200, &[follower]);
        let seq = replica.write(10_200);
        (10_200..20_000).step_by(100).find(|now_ms| {
            replica.followers_answer(*now_ms, &[follower]);
            replica.acknowledges(*now_ms, seq)
        })
    };
    for has_heard in [false, true] {
        let mut replica = successor();
        replica.machine.released(10_050, Epoch(2));
        replica.configure(10_100, view(2, 2, &[1, 2, 3], &[]));
        replica.followers_answer(10_100, if has_heard { &[1, 3] } else { &[1] });
        // It answered that it cannot store anything, under the epoch before.
        replica.configure(10_150, view(3, 2, &[1, 2], &[3]));
        let expected_ms = if has_heard { 10_200 } else { 12_600 };
        let at_ms = acknowledges_at(&mut replica, 1).expect("in the end");
        // What this primary has granted itself it waits for as ever.
        assert!(if has_heard { at_ms >= expected_ms } else { at_ms == expected_ms }, "{at_ms} {has_heard}");
    }
    // It missed the epoch in which it was named, and with it that node 3 was in sync until then.
    let mut missed = successor();
    missed.machine.released(10_050, Epoch(2));
    missed.configure(10_100, view(3, 2, &[1, 2], &[]));
    assert_eq!(acknowledges_at(&mut missed, 1), Some(12_600));
    // Once it hears, there is nothing to wait for.
    let mut heard = successor();
    heard.machine.released(10_050, Epoch(2));
    heard.configure(10_100, view(3, 2, &[1, 2], &[]));
    heard.machine.peer_stored(10_150, NodeId(3), Epoch(3));
    assert_eq!(acknowledges_at(&mut heard, 1), Some(10_200));
}

/// An earlier process may have led in the epoch of the word, and what it has granted nobody knows any more.
#[test]
fn a_word_of_a_handover_to_an_earlier_process_says_nothing() {
    for (stored, role) in [(1, RoleName::Primary), (2, RoleName::Reconciling)] {
        let mut successor = Replica::started(2, Position::default(), stored);
        successor.configure(10_000, view(2, 2, &[1, 2, 3], &[]));
        successor.machine.released(10_050, Epoch(2));
        successor.configure(10_100, view(3, 2, &[1, 2], &[]));
        successor.followers_answer(10_100, &[1]);
        assert_eq!(successor.role(10_150), role, "epoch {stored} was stored when it started");
    }
}

/// The task that waits for an append may get its turn late.
#[test]
fn an_entry_that_was_cut_does_not_make_durable_what_is_in_its_place() {
    let mut follower = Replica::new(2);
    follower.configure(10_000, view(1, 1, &[1, 2, 3], &[]));
    follower.machine.append_as_follower(&[at(1, 1), at(2, 1)]);
    follower.machine.durable_at(10_000, at(2, 1));
    follower.machine.cut(Seq(0));
    follower.machine.append_as_follower(&[at(1, 2), at(2, 2)]);
    follower.machine.durable_at(10_100, at(1, 1));
    assert_eq!(follower.machine.durable_seq(), Seq(0));
    follower.machine.durable_at(10_100, at(2, 2));
    assert_eq!(follower.machine.durable_seq(), Seq(2));
}

/// Within its epoch, and where nobody writes, it would hear nothing of its primary otherwise.
#[test]
fn a_follower_that_was_started_again_is_told_where_it_stands() {
    let mut primary = primary();
    let seq = primary.write(10_100);
    primary.followers_answer(10_100, &[2, 3]);
    assert!(primary.acknowledges(10_100, seq) && primary.machine.plan(10_200, NodeId(3)).is_none());
    let awaits = BeaconAnswer { awaits: true, ..accepted(99, 10_200) };
    primary.machine.beacon_answered(10_200, NodeId(3), awaits);
    let plan = primary.machine.plan(10_220, NodeId(3)).expect("a word to the one that awaits it");
    assert_eq!((plan.previous.seq, plan.last), (seq, seq));
    assert!(primary.machine.plan(10_220, NodeId(2)).is_none());
    // To a follower that has just started it says all that it needs.
    let mut follower = Replica::started(3, at(1, 1), 1);
    follower.configure(10_150, view(1, 1, &[1, 2, 3], &[]));
    assert_eq!(follower.machine.beacon(10_200, NodeId(1), Epoch(1), seq, None), BeaconVerdict::Accepted);
    assert!(follower.machine.awaits_primary());
    let word = Entries {
        epoch: Epoch(1),
        epoch_start: plan.epoch_start,
        previous: plan.previous,
        entries: Vec::new(),
        committed: plan.committed,
    };
    assert_eq!(follower.machine.receive(NodeId(1), &word), Verdict::Append(0));
    assert!(!follower.machine.awaits_primary());
}

/// It has lost what is trimmed here, and cannot be left out: should it have that back, nothing else would tell.
#[test]
fn a_member_that_lacks_what_is_trimmed_is_asked_again_from_the_end_on() {
    let mut primary = primary();
    let seq = primary.write(10_100);
    let plan = primary.machine.plan(10_100, NodeId(3)).expect("the entry");
    assert_eq!((plan.previous.seq, plan.last), (Seq(seq.0 - 1), seq));
    primary.machine.needs_snapshot(NodeId(3), plan.ticket);
    let again = primary.machine.plan(10_400, NodeId(3)).expect("a question");
    assert_eq!((again.previous.seq, again.last), (seq, seq), "nothing that is trimmed");
    let ack = Ack { epoch: Epoch(1), result: AckResult::Ok, durable: at(seq.0, 1), committed: Seq(0) };
    primary.machine.acked(10_400, NodeId(3), again.ticket, ack);
    primary.followers_answer(10_400, &[2, 3]);
    assert!(primary.acknowledges(10_420, seq), "it has it");
}
