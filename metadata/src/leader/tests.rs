use tricord_model::Epoch;
use tricord_routing::{NodeInfo, NodeRole};

use super::*;
use crate::state::Birth;

struct Scene {
    state: State,
    watchman: Watchman,
    now: Instant,
}

impl Scene {
    /// Three data nodes, three copies, leases of three seconds; the leader begins now.
    fn new() -> Self {
        let now = Instant::now();
        let mut state = State::default();
        let birth = Birth {
            cluster_id: "c".into(),
            shards: 6,
            replicas: 3,
            min_insync: 2,
            members: vec!["m:1".into()],
        };
        state.apply(Command::Born(birth));
        let config = Config { node_lease_ms: 3_000, ..Config::default() };
        let mut scene = Self { state, watchman: Watchman::new(&config, now), now };
        for _ in 0..3 {
            scene.join(NodeRole::Querier);
        }
        scene
    }

    fn join(&mut self, role: NodeRole) -> NodeId {
        let (rpc, http, zone, version) = Default::default();
        let info = NodeInfo { id: NodeId(0), role, rpc, http, zone, version, alive: true, draining: false };
        let id = NodeId(self.state.next_node);
        self.state.apply(Command::Register { token: format!("t{id}"), info });
        id
    }

    /// Lets time pass in small steps with heartbeats of some nodes.
    fn pass(&mut self, ms: u64, beating: &[u64], term: u64) {
        for _ in 0..ms / 100 {
            self.now += Duration::from_millis(100);
            for node in beating {
                let said = HeartbeatRequest { node: *node, ..Default::default() };
                self.watchman.hear(NodeId(*node), said, self.now);
            }
            self.look(term);
        }
    }

    fn look(&mut self, term: u64) {
        for _ in 0..100 {
            let commands = self.watchman.look(&self.state, term, self.now);
            if commands.is_empty() {
                return;
            }
            for command in commands {
                self.state.apply(command);
            }
        }
        panic!("the leader never rests");
    }

    fn alive(&self) -> Vec<u64> {
        self.state.nodes.values().filter(|node| node.info.alive).map(|node| node.info.id.0).collect()
    }
}

#[test]
fn the_first_placement_waits_for_latecomers() {
    let mut scene = Scene::new();
    scene.pass(800, &[1, 2, 3], 1);
    assert!(scene.state.shards[0].primary.is_none());
    let late = scene.join(NodeRole::Querier);
    scene.pass(800, &[1, 2, 3, late.0], 1);
    assert!(scene.state.shards[0].primary.is_none());
    scene.pass(500, &[1, 2, 3, late.0], 1);
    assert!(scene.state.shards.iter().all(|shard| shard.primary.is_some()));
    assert!(scene.state.shards.iter().any(|shard| shard.in_sync.contains(&late)));
}

#[test]
fn a_silent_node_dies_with_its_lease_and_its_shards_fail_over() {
    let mut scene = Scene::new();
    scene.pass(2_000, &[1, 2, 3], 1);
    scene.pass(2_900, &[2, 3], 1);
    assert_eq!(scene.alive(), [1, 2, 3]);
    scene.pass(300, &[2, 3], 1);
    assert_eq!(scene.alive(), [2, 3]);
    assert!(scene.state.shards.iter().all(|shard| shard.primary != Some(NodeId(1))));
    scene.pass(200, &[1, 2, 3], 1);
    assert_eq!(scene.alive(), [1, 2, 3]);
}

#[test]
fn a_goodbye_is_believed_at_once() {
    let mut scene = Scene::new();
    scene.pass(2_000, &[1, 2, 3], 1);
    let said = HeartbeatRequest { node: 1, leaving: true, ..Default::default() };
    scene.watchman.hear(NodeId(1), said, scene.now);
    scene.look(1);
    assert_eq!(scene.alive(), [2, 3]);
}

#[test]
fn a_new_leader_gives_everybody_a_full_lease() {
    let mut scene = Scene::new();
    scene.pass(2_000, &[1, 2, 3], 1);
    scene.watchman.rest();
    scene.now += Duration::from_secs(60);
    scene.look(2);
    scene.pass(2_900, &[1, 2], 2);
    assert_eq!(scene.alive(), [1, 2, 3]);
    scene.pass(300, &[1, 2], 2);
    assert_eq!(scene.alive(), [1, 2]);
}

#[test]
fn a_leader_that_slept_blames_nobody() {
    let mut scene = Scene::new();
    scene.pass(2_000, &[1, 2, 3], 1);
    scene.now += Duration::from_secs(60);
    scene.look(1);
    assert_eq!(scene.alive(), [1, 2, 3]);
}

#[test]
fn gone_nodes_without_data_are_forgotten_and_those_with_data_replaced() {
    let mut scene = Scene::new();
    let proxy = scene.join(NodeRole::Proxy);
    let fourth = scene.join(NodeRole::Querier);
    scene.pass(3_000, &[1, 2, 3, fourth.0, proxy.0], 1);
    assert!(scene.state.copies_on(NodeId(1)) > 0);
    scene.pass(10_000, &[2, 3, fourth.0], 1);
    assert!(scene.state.nodes.contains_key(&proxy), "it may still come back");
    scene.pass(15 * 60_000, &[2, 3, fourth.0], 1);
    assert!(!scene.state.nodes.contains_key(&proxy));
    for (shard, homes) in scene.state.shards.iter().zip(&scene.state.homes) {
        // Promoting the joiners, and dropping the dead from the in-sync set, is the living primary's part.
        assert!(!homes.contains(&NodeId(1)) && homes.len() == 3, "{homes:?}");
        assert!(homes.iter().all(|home| shard.holds(*home)));
    }
}

#[test]
fn primaries_are_evened_out_one_by_one_when_all_is_calm() {
    let mut scene = Scene::new();
    scene.pass(2_000, &[1, 2, 3], 1);
    for shard in scene.state.shards.clone() {
        let from = shard.primary.unwrap();
        let wish = tricord_routing::ShardConfig { primary: Some(NodeId(1)), ..shard.clone() };
        scene.state.apply(Command::Propose { from, expected: shard.epoch, wish });
    }
    let epochs = |state: &State| state.shards.iter().map(|shard| shard.epoch.0).sum::<u64>();
    let before = epochs(&scene.state);
    assert!(
        scene.state.shards.iter().all(|shard| shard.primary == Some(NodeId(1)) && shard.epoch > Epoch(0))
    );
    scene.pass(29_000, &[1, 2, 3], 1);
    assert_eq!(epochs(&scene.state), before);
    scene.pass(2_000, &[1, 2, 3], 1);
    assert!((1..=2).contains(&(epochs(&scene.state) - before)), "not all at once");
    scene.pass(10_000, &[1, 2, 3], 1);
    let on = |node| scene.state.shards.iter().filter(|shard| shard.primary == Some(NodeId(node))).count();
    assert_eq!([on(1), on(2), on(3)], [2, 2, 2]);
}

#[test]
fn a_drain_is_counted_from_when_it_was_first_seen() {
    let mut scene = Scene::new();
    let fourth = scene.join(NodeRole::Querier);
    scene.pass(3_000, &[1, 2, 3, 4], 1);
    let held = scene.state.copies_on(fourth);
    assert!(held > 0);
    assert_eq!(scene.watchman.began_with(fourth), None);
    scene.state.apply(Command::Drain { node: fourth, undo: false });
    scene.pass(1_000, &[1, 2, 3, 4], 1);
    let progress = crate::drain::progress(&scene.state, fourth, scene.watchman.began_with(fourth));
    // Homes are elsewhere by now; the copies leave once their primaries say that those are in sync.
    assert_eq!((progress.remaining, progress.began_with), (held, held));
    assert!(progress.waits_for.contains("being copied"), "{}", progress.waits_for);
    scene.state.apply(Command::Drain { node: fourth, undo: true });
    scene.pass(1_000, &[1, 2, 3, 4], 1);
    assert_eq!(scene.watchman.began_with(fourth), None);
}
