use tricord_wire::proto::metadata as pb;

use super::*;

/// A cluster of four data nodes whose shards have copies on 1, 2 and 3, led by 1, 10 entries long each.
fn healthy(shards: u32) -> pb::MetadataStatusResponse {
    let node = |node: u64| pb::NodeInfo {
        node,
        address: Some(pb::NodeAddress {
            role: "querier".into(),
            rpc: format!("n{node}:1"),
            ..Default::default()
        }),
        alive: true,
        draining: false,
    };
    let config =
        |shard: u32| pb::ShardConfig { shard, epoch: 1, primary: 1, in_sync: vec![1, 2, 3], joining: vec![] };
    let report = |node: u64| pb::NodeReport {
        node,
        heartbeat_age_ms: 100,
        replicas: (0..shards)
            .map(|shard| pb::ReplicaReport {
                shard,
                epoch: 1,
                durable_seq: 10,
                series: 5,
                ..Default::default()
            })
            .collect(),
        disk_used_bytes: 1 << 20,
        disk_free_bytes: 1 << 30,
    };
    let member = |member| pb::MemberStatus {
        member,
        rpc: format!("m{member}:1"),
        voter: true,
        heard_age_ms: Some(80),
    };
    pb::MetadataStatusResponse {
        map: Some(pb::ShardMap {
            version: 7,
            cluster_id: "c".into(),
            shards: (0..shards).map(config).collect(),
            nodes: (1..=4).map(node).collect(),
            replicas: 3,
            min_insync: 2,
            limits: vec![],
        }),
        leader: 1,
        members: (1..=3).map(member).collect(),
        reports: (1..=3).map(report).collect(),
        raft_term: 2,
        raft_applied: 9,
        homes: (0..shards).map(|_| pb::ShardHomes { nodes: vec![1, 2, 3] }).collect(),
        drains: vec![],
    }
}

fn kill(status: &mut pb::MetadataStatusResponse, nodes: &[u64]) {
    let known = status.map.as_mut().unwrap().nodes.iter_mut();
    known.filter(|node| nodes.contains(&node.node)).for_each(|node| node.alive = false);
}

fn shard(status: &mut pb::MetadataStatusResponse, shard: usize) -> &mut pb::ShardConfig {
    &mut status.map.as_mut().unwrap().shards[shard]
}

#[test]
fn a_healthy_cluster_is_said_to_be_so() {
    let view = ClusterView::new(&healthy(8));
    assert_eq!((view.level, view.notes.len()), (Level::Ok, 0));
    assert_eq!(view.headline, "everything is in sync: 8 shards with 3 copies each");
    assert_eq!(view.shard_states, BTreeMap::from([(ShardState::Ok, 8)]));
    let node = &view.nodes[0];
    assert_eq!((node.primaries, node.copies, node.joining, node.leaving), (8, 8, 0, 0));
    assert_eq!((node.series, node.disk_used_bytes), (Some(40), Some(1 << 20)));
    let empty = &view.nodes[3];
    assert_eq!((empty.copies, empty.series, empty.heartbeat_age_ms), (0, None, None));
    assert!(view.shards.iter().all(|shard| shard.todo.is_empty() && shard.worst_lag() == Some(0)));
    assert!(view.members.iter().all(|member| member.answers == Some(true)));
}

#[test]
fn states_go_by_live_copies_in_sync() {
    let states = |nodes: &[u64]| {
        let mut status = healthy(2);
        shard(&mut status, 1).primary = 2;
        kill(&mut status, nodes);
        let view = ClusterView::new(&status);
        (view.shards[0].state, view.shards[1].state, view.level, view.headline)
    };
    let (first, second, level, headline) = states(&[3]);
    assert_eq!((first, second, level), (ShardState::Degraded, ShardState::Degraded, Level::Degraded));
    assert_eq!(headline, "2 shards lack copies: fewer than 3 are alive and in sync");
    let (first, second, level, headline) = states(&[1, 3]);
    assert_eq!((first, second, level), (ShardState::NoPrimary, ShardState::ReadOnly, Level::Trouble));
    assert_eq!(headline, "writes have stopped on 1 shard: each needs 2 copies alive and in sync");
    let (first, _, level, headline) = states(&[1, 2, 3]);
    assert_eq!((first, level), (ShardState::Down, Level::Trouble));
    assert_eq!(headline, "2 shards are down: no copy in sync is alive");
    let mut status = healthy(1);
    kill(&mut status, &[2]);
    let view = ClusterView::new(&status);
    assert_eq!(view.notes, ["data node 2 does not answer"]);
    assert_eq!(view.shards[0].todo, ["node 2 does not answer"]);
}

#[test]
fn a_drain_shows_what_is_left_and_how_far_the_new_copies_are() {
    let mut status = healthy(4);
    let map = status.map.as_mut().unwrap();
    map.nodes[2].draining = true;
    // Shard 0 is being copied, 1 and 2 wait, 3 has left.
    map.shards[0].joining = vec![4];
    map.shards[3].in_sync = vec![1, 2, 4];
    status.homes.iter_mut().for_each(|homes| homes.nodes = vec![1, 2, 4]);
    let behind = pb::ReplicaReport { shard: 0, durable_seq: 4, ..Default::default() };
    status.reports.push(pb::NodeReport { node: 4, replicas: vec![behind], ..Default::default() });
    let waits_for = "3 shards are being copied to other nodes".to_owned();
    status.drains.push(pb::DrainStatus { node: 3, remaining: 3, began_with: 4, waits_for });
    let view = ClusterView::new(&status);
    assert_eq!(view.level, Level::Working);
    assert_eq!(
        view.headline,
        "node 3 is draining: 3 of 4 copies left; 3 shards are being copied to other nodes"
    );
    assert_eq!(view.notes, ["1 copy is being made, 2 more to come"]);
    let (from, to) = (&view.nodes[2], &view.nodes[3]);
    assert_eq!((from.copies, from.leaving, from.drain.as_ref().unwrap().left), (3, 3, 3));
    assert_eq!((to.copies, to.joining, to.waiting), (1, 1, 2));
    assert_eq!(from.series, Some(15), "what has left it is not counted, though it still reports it");
    assert_eq!(view.shards[0].lag[&4], Some(6));
    assert_eq!(view.shards[0].todo, ["node 4 catches up: 6 entries behind", "then node 3 gives its copy up"]);
    status.reports[3].replicas[0].arrived_bytes = 3 << 19;
    let copied = &ClusterView::new(&status).shards[0];
    assert_eq!((copied.arrived_bytes[&4], copied.todo.len()), (3 << 19, 2));
    assert_eq!(copied.todo[0], "node 4 is sent a copy: 1.5 MiB have arrived");
    assert_eq!(view.shards[1].todo[0], "node 4 gets a copy when its turn comes");
    assert!(view.shards[3].todo.is_empty());

    status.drains[0].remaining = 0;
    let map = status.map.as_mut().unwrap();
    for config in &mut map.shards {
        (config.in_sync, config.joining) = (vec![1, 2, 4], vec![]);
    }
    let view = ClusterView::new(&status);
    assert_eq!(view.headline, "everything is in sync: 4 shards with 3 copies each");
    assert_eq!(view.notes, ["node 3 is drained and can be switched off"]);
    kill(&mut status, &[3]);
    let view = ClusterView::new(&status);
    assert_eq!((view.level, view.notes), (Level::Ok, vec!["node 3 is drained and off".to_owned()]));
}

#[test]
fn silent_members_are_counted_where_the_leader_tells() {
    let mut status = healthy(1);
    status.members[1].heard_age_ms = Some(9_000);
    status.members[2].heard_age_ms = None;
    let view = ClusterView::new(&status);
    let answers: Vec<_> = view.members.iter().map(|member| member.answers).collect();
    assert_eq!(answers, [Some(true), Some(false), Some(false)]);
    assert_eq!(
        (view.level, view.headline.as_str()),
        (Level::Degraded, "2 of 3 metadata members do not answer")
    );
}

#[test]
fn an_older_leader_tells_less() {
    let mut status = healthy(1);
    status.homes.clear();
    status.members.iter_mut().for_each(|member| member.heard_age_ms = None);
    shard(&mut status, 0).joining = vec![4];
    let view = ClusterView::new(&status);
    assert!(view.members.iter().all(|member| member.answers.is_none()));
    let shard = &view.shards[0];
    assert_eq!((shard.waiting.len(), shard.leaving.len(), shard.lag[&4]), (0, 0, None));
    assert_eq!(shard.todo, ["node 4 catches up"]);
}

#[test]
fn a_cluster_without_data_nodes_says_what_it_waits_for() {
    let mut status = healthy(2);
    let map = status.map.as_mut().unwrap();
    map.nodes.truncate(1);
    for config in &mut map.shards {
        (config.primary, config.in_sync) = (0, vec![]);
    }
    status.homes.iter_mut().for_each(|homes| homes.nodes.clear());
    let view = ClusterView::new(&status);
    assert_eq!(view.headline, "no shard is placed yet: 1 data node is alive, and a write needs 2 copies");
    assert_eq!(view.shards[0].state, ShardState::Down);
}

#[test]
fn the_json_form_keeps_the_names_that_scripts_know() {
    let json = serde_json::to_value(ClusterView::new(&healthy(1))).unwrap();
    assert_eq!((&json["level"], &json["shard_states"]["ok"]), (&"ok".into(), &1.into()));
    assert_eq!(json["shards"][0]["state"], "ok");
    assert_eq!(json["shards"][0]["lag"]["2"], 0);
    assert_eq!(json["nodes"][0]["drain"], serde_json::Value::Null);
    assert_eq!((&json["members"][0]["leader"], &json["term"]), (&true.into(), &2.into()));
    assert_eq!(serde_json::to_value(ShardState::NoPrimary).unwrap(), ShardState::NoPrimary.as_str());
}
