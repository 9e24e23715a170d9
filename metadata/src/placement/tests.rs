use proptest::prelude::*;
use tricord_model::Epoch;
use tricord_routing::NodeRole;

use super::*;
use crate::state::{Birth, Command, Reply};

pub(crate) fn cluster(shards: u32, replicas: u32, min_insync: u32, zones: &[&str]) -> State {
    let mut state = State::default();
    let birth = Birth { cluster_id: "c".into(), shards, replicas, min_insync, members: vec!["m:1".into()] };
    state.apply(Command::Born(birth));
    for zone in zones {
        join(&mut state, zone);
    }
    state
}

fn join(state: &mut State, zone: &str) {
    let info = NodeInfo {
        id: NodeId(0),
        role: NodeRole::Querier,
        rpc: String::new(),
        http: String::new(),
        zone: zone.to_owned(),
        version: String::new(),
        alive: true,
        draining: false,
    };
    state.apply(Command::Register { token: format!("t{}", state.next_node), info });
}

pub(crate) fn settled() -> Facts {
    Facts { settled: true, ..Facts::default() }
}

/// Applies plans until none is left; after each, live primaries promote live joiners.
pub(crate) fn settle(state: &mut State, facts: &Facts) -> usize {
    for round in 0..2_000 {
        let changes = plan(state, facts);
        let promoted = promote(state);
        if changes.is_empty() && promoted == 0 {
            return round;
        }
        state.apply(Command::Plan(changes));
    }
    panic!("no end of changes: {:?}", plan(state, facts));
}

fn promote(state: &mut State) -> usize {
    let mut promoted = 0;
    for config in state.shards.clone() {
        let Some(primary) = config.primary.filter(|primary| state.is_alive(*primary)) else { continue };
        let ready: Vec<NodeId> =
            config.joining.iter().copied().filter(|node| state.is_alive(*node)).collect();
        if ready.is_empty() {
            continue;
        }
        let mut wish = config.clone();
        wish.joining.retain(|node| !ready.contains(node));
        wish.in_sync.extend(ready);
        // What a primary does with members that do not answer.
        let live: Vec<NodeId> = wish.in_sync.iter().copied().filter(|node| state.is_alive(*node)).collect();
        if live.len() >= state.min_insync as usize {
            wish.in_sync = live;
        }
        let reply = state.apply(Command::Propose { from: primary, expected: config.epoch, wish });
        assert!(matches!(reply, Reply::Proposal { accepted: true, .. }), "{reply:?}");
        promoted += 1;
    }
    promoted
}

pub(crate) fn set_alive(state: &mut State, node: u64, alive: bool) {
    state.apply(Command::Liveness(vec![(NodeId(node), alive)]));
}

fn spread(counts: impl Iterator<Item = usize>) -> (usize, usize) {
    let counts: Vec<usize> = counts.collect();
    (counts.iter().copied().min().unwrap(), counts.iter().copied().max().unwrap())
}

fn copies(state: &State) -> (usize, usize) {
    let on = |id: &NodeId| state.shards.iter().filter(|shard| shard.in_sync.contains(id)).count();
    spread(state.nodes.keys().map(on))
}

fn primaries(state: &State) -> (usize, usize) {
    let on = |id: &NodeId| state.shards.iter().filter(|shard| shard.primary == Some(*id)).count();
    spread(state.nodes.keys().map(on))
}

#[test]
fn the_first_placement_is_even() {
    let mut state = cluster(64, 3, 2, &[""; 5]);
    assert!(plan(&state, &Facts::default()).is_empty(), "the first nodes get time to arrive");
    settle(&mut state, &settled());
    assert_eq!(copies(&state), (38, 39));
    assert_eq!(primaries(&state), (12, 13));
    assert!(state.shards.iter().all(|shard| shard.epoch == Epoch(1) && shard.in_sync.len() == 3));
}

#[test]
fn copies_go_to_different_zones() {
    let mut state = cluster(12, 3, 2, &["a", "a", "b", "b", "c", "c"]);
    settle(&mut state, &settled());
    for shard in &state.shards {
        let mut zones: Vec<&str> =
            shard.in_sync.iter().map(|node| state.nodes[node].info.zone.as_str()).collect();
        zones.sort_unstable();
        assert_eq!(zones, ["a", "b", "c"]);
    }
    assert_eq!(copies(&state), (6, 6));
}

#[test]
fn nothing_is_placed_below_min_insync_and_copies_follow_when_nodes_come() {
    let mut state = cluster(8, 3, 2, &[""]);
    assert!(plan(&state, &settled()).is_empty());
    join(&mut state, "");
    settle(&mut state, &settled());
    assert!(state.shards.iter().all(|shard| shard.in_sync.len() == 2));
    join(&mut state, "");
    settle(&mut state, &settled());
    assert!(state.shards.iter().all(|shard| shard.in_sync.len() == 3 && shard.joining.is_empty()));
}

#[test]
fn a_dead_primary_is_followed_by_a_live_in_sync_member() {
    let mut state = cluster(9, 3, 2, &[""; 3]);
    settle(&mut state, &settled());
    set_alive(&mut state, 1, false);
    settle(&mut state, &settled());
    for shard in &state.shards {
        assert!(state.is_alive(shard.primary.unwrap()));
        if shard.epoch > Epoch(1) {
            assert_eq!(shard.in_sync, [NodeId(2), NodeId(3)]);
        }
    }
    let (least, most) = spread(
        [2, 3]
            .into_iter()
            .map(|id| state.shards.iter().filter(|shard| shard.primary == Some(NodeId(id))).count()),
    );
    assert!(most - least <= 1, "the dead node's primaries are shared out");
    // It comes back, catches up and is a full member again.
    set_alive(&mut state, 1, true);
    settle(&mut state, &settled());
    assert!(state.shards.iter().all(|shard| shard.in_sync.len() == 3));
}

#[test]
fn with_too_few_in_sync_the_dead_stay_members_and_a_live_one_leads() {
    let mut state = cluster(3, 3, 2, &[""; 3]);
    settle(&mut state, &settled());
    set_alive(&mut state, 1, false);
    set_alive(&mut state, 2, false);
    settle(&mut state, &settled());
    for shard in &state.shards {
        assert_eq!(shard.primary, Some(NodeId(3)));
        assert_eq!(shard.in_sync.len(), 3);
    }
    set_alive(&mut state, 3, false);
    assert!(plan(&state, &settled()).is_empty(), "nobody is left to lead");
}

#[test]
fn copies_of_a_gone_node_are_made_elsewhere() {
    let mut state = cluster(8, 3, 2, &[""; 4]);
    settle(&mut state, &settled());
    set_alive(&mut state, 2, false);
    settle(&mut state, &settled());
    let elsewhere = |state: &State| state.homes.iter().filter(|homes| homes.contains(&NodeId(2))).count();
    assert_eq!(elsewhere(&state), 6, "until it is gone, it is waited for");
    let facts = Facts { gone: [NodeId(2)].into(), ..settled() };
    settle(&mut state, &facts);
    assert_eq!(elsewhere(&state), 0);
    assert_eq!(state.copies_on(NodeId(2)), 0);
    assert!(state.shards.iter().all(|shard| shard.in_sync.len() == 3));
}

#[test]
fn a_drained_node_is_left_with_nothing_where_others_can_take_it() {
    let mut state = cluster(8, 3, 2, &[""; 4]);
    settle(&mut state, &settled());
    state.apply(Command::Drain { node: NodeId(1), undo: false });
    settle(&mut state, &settled());
    assert_eq!(state.copies_on(NodeId(1)), 0);
    assert!(state.shards.iter().all(|shard| shard.in_sync.len() == 3));
    // Below min_insync nobody leaves.
    state.apply(Command::Drain { node: NodeId(2), undo: false });
    state.apply(Command::Drain { node: NodeId(3), undo: false });
    settle(&mut state, &settled());
    assert!(state.shards.iter().all(|shard| shard.in_sync.len() >= 2));
}

#[test]
fn a_new_node_gets_its_share_when_all_is_calm() {
    let mut state = cluster(32, 3, 2, &[""; 3]);
    settle(&mut state, &settled());
    join(&mut state, "");
    assert!(plan(&state, &settled()).is_empty());
    settle(&mut state, &Facts { calm: true, ..settled() });
    assert_eq!(copies(&state), (24, 24));
    assert_eq!(primaries(&state), (8, 8));
}

#[test]
fn a_join_is_bounded_per_node() {
    let mut state = cluster(64, 2, 1, &["", ""]);
    settle(&mut state, &settled());
    set_alive(&mut state, 1, false);
    state.apply(Command::Plan(plan(&state, &settled())));
    for shard in state.shards.clone() {
        let wish = ShardConfig { in_sync: vec![NodeId(2)], ..shard.clone() };
        state.apply(Command::Propose { from: NodeId(2), expected: shard.epoch, wish });
    }
    set_alive(&mut state, 1, true);
    state.apply(Command::Plan(plan(&state, &settled())));
    let joining = state.shards.iter().filter(|shard| !shard.joining.is_empty()).count();
    assert_eq!(joining, MAX_JOINING_PER_NODE);
    settle(&mut state, &settled());
    assert!(state.shards.iter().all(|shard| shard.in_sync.len() == 2));
}

#[derive(Clone, Debug)]
enum Event {
    Join(u8),
    Kill(u8),
    Revive(u8),
    Gone(u8),
    Drain(u8, bool),
    Promote,
    Remove(u8, u8),
    Calm,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0..3u8).prop_map(Event::Join),
        4 => (0..8u8).prop_map(Event::Kill),
        4 => (0..8u8).prop_map(Event::Revive),
        1 => (0..8u8).prop_map(Event::Gone),
        1 => (0..8u8, any::<bool>()).prop_map(|(node, undo)| Event::Drain(node, undo)),
        3 => Just(Event::Promote),
        3 => (0..8u8, 0..8u8).prop_map(|(shard, node)| Event::Remove(shard, node)),
        1 => Just(Event::Calm),
    ]
}

fn pick(state: &State, index: u8) -> Option<NodeId> {
    state.nodes.keys().nth(index as usize % state.nodes.len().max(1)).copied()
}

fn happen(state: &mut State, event: &Event, facts: &mut Facts) {
    facts.calm = matches!(event, Event::Calm);
    let of = |state: &State, index: &u8| pick(state, *index).unwrap_or_default();
    match event {
        Event::Join(zone) if state.nodes.len() < 7 => join(state, ["", "a", "b"][*zone as usize]),
        Event::Kill(index) => set_alive(state, of(state, index).0, false),
        Event::Revive(index) => {
            facts.gone.remove(&of(state, index));
            set_alive(state, of(state, index).0, true);
        }
        Event::Gone(index) if !state.is_alive(of(state, index)) => {
            facts.gone.insert(of(state, index));
        }
        Event::Drain(index, undo) => {
            state.apply(Command::Drain { node: of(state, index), undo: *undo });
        }
        Event::Promote => {
            promote(state);
        }
        Event::Remove(shard, index) => {
            let node = of(state, index);
            let Some(config) = state.shards.get(*shard as usize % state.shards.len()).cloned() else {
                return;
            };
            if let Some(from) = config.primary.filter(|primary| *primary != node) {
                let mut wish = config.clone();
                wish.in_sync.retain(|member| *member != node);
                state.apply(Command::Propose { from, expected: config.epoch, wish });
            }
        }
        _ => {}
    }
}

/// What must hold between two states, whatever happened in between.
fn check(before: &State, after: &State) {
    assert!(after.version >= before.version);
    for (old, new) in before.shards.iter().zip(&after.shards) {
        assert!(new.epoch >= old.epoch);
        assert!(new == old || new.epoch > old.epoch, "a change without a new epoch: {old:?} {new:?}");
        let Some(primary) = new.primary else {
            assert_eq!((new.epoch, new.in_sync.len()), (Epoch(0), 0));
            continue;
        };
        assert!(new.in_sync.contains(&primary));
        assert!(new.in_sync.len() >= after.min_insync as usize);
        let mut all: Vec<NodeId> = new.in_sync.iter().chain(&new.joining).copied().collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), new.in_sync.len() + new.joining.len(), "two copies on a node");
        if old.primary.is_some() {
            assert!(new.in_sync.iter().all(|node| old.holds(*node)), "in sync without having joined");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_whatever_happens(
        replicas in 1..4u32,
        floor in 1..4u32,
        events in prop::collection::vec(event(), 0..60),
        weights in prop::collection::vec(0..1_000u64, 8),
    ) {
        let mut state = cluster(8, replicas, floor.min(replicas), &["", "a", ""]);
        let weights = (0..).map(ShardId).zip(weights).collect();
        let mut facts = Facts { weights, ..settled() };
        for event in &events {
            let before = state.clone();
            happen(&mut state, event, &mut facts);
            check(&before, &state);
            let before = state.clone();
            let changes = plan(&state, &facts);
            // Nobody is made in sync by a plan.
            state.apply(Command::Plan(changes));
            check(&before, &state);
            for (old, new) in before.shards.iter().zip(&state.shards) {
                let kept = |node: &NodeId| old.in_sync.contains(node) || old.primary.is_none();
                prop_assert!(new.in_sync.iter().all(kept));
            }
        }
        // When everybody is well again, everything is as asked for.
        for id in state.nodes.keys().copied().collect::<Vec<_>>() {
            set_alive(&mut state, id.0, true);
            state.apply(Command::Drain { node: id, undo: true });
        }
        // It comes to an end, whatever the loads are.
        settle(&mut state, &Facts { calm: true, gone: BTreeSet::new(), ..facts });
        let wanted = state.nodes.len().min(replicas as usize);
        for (shard, homes) in state.shards.iter().zip(&state.homes) {
            prop_assert_eq!(shard.in_sync.len(), wanted);
            prop_assert_eq!(homes.len(), wanted);
            prop_assert!(shard.joining.is_empty());
        }
        let (least, most) = primaries(&state);
        prop_assert!(most - least <= 2, "{} to {} primaries", least, most);
    }
}

/// The loads of all nodes, by primaries and by copies.
fn loads(state: &State, weights: &BTreeMap<ShardId, u64>) -> [Vec<u64>; 2] {
    let of = |shard: ShardId| weights[&shard];
    let nodes: Vec<NodeId> = state.data_nodes().map(|node| node.id).collect();
    let led = |node: &NodeId| {
        state
            .shards
            .iter()
            .filter(|config| config.primary == Some(*node))
            .map(|config| of(config.shard))
            .sum()
    };
    let held = |node: &NodeId| {
        let held = state.shards.iter().filter(|config| config.in_sync.contains(node));
        held.map(|config| of(config.shard)).sum()
    };
    [nodes.iter().map(led).collect(), nodes.iter().map(held).collect()]
}

#[test]
fn heavy_shards_are_swapped_for_light_ones_where_numbers_are_even() {
    for replicas in [1, 2] {
        let mut state = cluster(16, replicas, 1, &["", "", ""]);
        settle(&mut state, &settled());
        // Those that the first node leads are heavy.
        let weight = |config: &ShardConfig| if config.primary == Some(NodeId(1)) { 1_000 } else { 100 };
        let weights: BTreeMap<ShardId, u64> =
            state.shards.iter().map(|config| (config.shard, weight(config))).collect();
        let before = loads(&state, &weights);
        settle(&mut state, &Facts { calm: true, weights: weights.clone(), ..settled() });
        let after = loads(&state, &weights);
        for (before, after) in before.iter().zip(&after) {
            let spread = |loads: &Vec<u64>| loads.iter().max().unwrap() - loads.iter().min().unwrap();
            let mean = after.iter().sum::<u64>() / 3;
            assert!(spread(after) <= 1_200.max(mean / 4), "{before:?} became {after:?}");
            assert!(spread(after) < spread(before), "{before:?} became {after:?}");
        }
        let (least, most) = primaries(&state);
        assert!(most - least <= 1, "{least} to {most} primaries");
    }
}

#[test]
fn what_is_even_or_of_unknown_load_stays_where_it_is() {
    let mut state = cluster(16, 2, 1, &["", "", ""]);
    settle(&mut state, &settled());
    settle(&mut state, &Facts { calm: true, ..settled() });
    let before = state.clone();
    let light = |config: &ShardConfig| (config.shard, 100 + u64::from(config.shard.0 % 3));
    let weights = state.shards.iter().map(light).collect();
    for weights in [BTreeMap::new(), weights] {
        assert_eq!(plan(&before, &Facts { calm: true, weights, ..settled() }), []);
    }
}
