use super::limits::MAX_LIMITED;
use super::*;

fn birth() -> Birth {
    Birth { cluster_id: "c".into(), shards: 2, replicas: 3, min_insync: 2, members: vec!["m:1".into()] }
}

fn node(id: u64) -> NodeInfo {
    NodeInfo {
        id: NodeId(id),
        role: NodeRole::Querier,
        rpc: format!("n{id}:1"),
        http: String::new(),
        zone: String::new(),
        version: String::new(),
        alive: false,
        draining: false,
    }
}

fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn config(primary: u64, in_sync: &[u64], joining: &[u64]) -> ShardConfig {
    ShardConfig {
        shard: ShardId(0),
        epoch: Epoch(0),
        primary: Some(NodeId(primary)),
        in_sync: nodes(in_sync),
        joining: nodes(joining),
    }
}

/// A cluster of four nodes whose shard 0 is placed as wished.
fn placed(wish: ShardConfig) -> State {
    let mut state = State::default();
    state.apply(Command::Born(birth()));
    for id in 1..=4 {
        let reply = state.apply(Command::Register { token: format!("t{id}"), info: node(0) });
        assert_eq!(reply, Reply::Node(NodeId(id)));
    }
    let joining = wish.joining.clone();
    let first = ShardConfig { joining: vec![], ..wish.clone() };
    assert_eq!(
        state.apply(Command::Plan(vec![Change::Configure { expected: Epoch(0), config: first }])),
        Reply::Taken(1)
    );
    let then = ShardConfig { joining, ..wish };
    state.apply(Command::Plan(vec![Change::Configure { expected: Epoch(1), config: then }]));
    assert_eq!(state.shards[0].epoch, Epoch(2));
    state
}

fn propose(state: &mut State, from: u64, expected: u64, wish: ShardConfig) -> (bool, ShardConfig, String) {
    match state.apply(Command::Propose { from: NodeId(from), expected: Epoch(expected), wish }) {
        Reply::Proposal { accepted, config, message } => (accepted, config, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_birth_is_refused() {
    let mut state = State::default();
    assert_eq!(state.apply(Command::Born(birth())), Reply::Done);
    let again = state.apply(Command::Born(Birth { cluster_id: "d".into(), ..birth() }));
    assert!(matches!(again, Reply::Refused { kind, .. } if kind == "conflict"));
    assert_eq!(state.cluster_id, "c");
}

#[test]
fn ids_are_given_once_and_a_repeated_registration_is_harmless() {
    let mut state = State::default();
    state.apply(Command::Born(birth()));
    let register = |token: &str, id| Command::Register { token: token.into(), info: node(id) };
    assert_eq!(state.apply(register("a", 0)), Reply::Node(NodeId(1)));
    assert_eq!(state.apply(register("b", 0)), Reply::Node(NodeId(2)));
    let version = state.version;
    assert_eq!(state.apply(register("a", 0)), Reply::Node(NodeId(1)));
    assert_eq!(state.nodes.len(), 2);
    // The address differs by the id in it, so that this is news; saying it again is not.
    assert_eq!(state.apply(register("a", 1)), Reply::Node(NodeId(1)));
    assert_eq!(state.version, version + 1);
    assert_eq!(state.apply(register("a", 1)), Reply::Node(NodeId(1)));
    assert_eq!(state.version, version + 1);
    assert!(matches!(state.apply(register("x", 1)), Reply::Refused { kind, .. } if kind == "conflict"));
    assert!(matches!(state.apply(register("x", 9)), Reply::Refused { kind, .. } if kind == "invalid"));
}

#[test]
fn a_forgotten_node_keeps_its_id_and_the_id_is_not_given_again() {
    let mut state = State::default();
    state.apply(Command::Born(birth()));
    let register = |token: &str, id| Command::Register { token: token.into(), info: node(id) };
    state.apply(register("a", 0));
    state.apply(Command::Forget(nodes(&[1])));
    assert_eq!(state.nodes.len(), 1, "a living node is not forgotten");
    state.apply(Command::Liveness(vec![(NodeId(1), false)]));
    state.apply(Command::Forget(nodes(&[1])));
    assert!(state.nodes.is_empty());
    assert_eq!(state.apply(register("b", 0)), Reply::Node(NodeId(2)));
    assert_eq!(state.apply(register("a", 1)), Reply::Node(NodeId(1)));
}

#[test]
fn a_proposal_is_compare_and_set() {
    let mut state = placed(config(1, &[1, 2, 3], &[]));
    let (accepted, now, _) = propose(&mut state, 1, 2, config(1, &[1, 2], &[]));
    assert!(accepted);
    assert_eq!((now.epoch, now.in_sync), (Epoch(3), nodes(&[1, 2])));
    // The loser learns what holds.
    let (accepted, now, message) = propose(&mut state, 1, 2, config(1, &[1, 3], &[]));
    assert!(!accepted);
    assert_eq!((now.epoch, message.as_str()), (Epoch(3), "the epoch of shard 0 is 3, not 2"));
    // The winner may ask again when its answer was lost.
    let (accepted, now, _) = propose(&mut state, 1, 2, config(1, &[1, 2], &[]));
    assert!(accepted);
    assert_eq!(now.epoch, Epoch(3));
}

#[test]
fn what_would_break_a_promise_is_refused() {
    let cases: &[(u64, ShardConfig, &str)] = &[
        (2, config(2, &[1, 2, 3], &[]), "node 2 is not the primary of shard 0"),
        (1, config(1, &[1], &[]), "1 in-sync replicas would be fewer than min_insync 2"),
        (1, config(4, &[1, 2], &[4]), "the primary is not in the in-sync set"),
        (1, config(1, &[1, 2, 2], &[]), "a node has two copies"),
        (1, config(1, &[1, 2], &[2]), "a node has two copies"),
        (1, config(1, &[1, 2, 9], &[]), "there is no node 9"),
        (1, config(1, &[1, 3, 5], &[]), "there is no node 5"),
    ];
    for (from, wish, expected) in cases {
        let mut state = placed(config(1, &[1, 2, 3], &[]));
        let before = state.clone();
        let (accepted, _, message) = propose(&mut state, *from, 2, wish.clone());
        assert!(!accepted, "{wish:?}");
        assert_eq!(message, *expected);
        assert_eq!(state, before);
    }
    let mut state = placed(config(1, &[1, 2, 3], &[]));
    let (_, _, message) = propose(&mut state, 1, 2, config(1, &[1, 2, 3, 4], &[]));
    assert_eq!(message, "node 4 holds no complete copy");
    let (_, _, message) = propose(&mut state, 1, 2, config(1, &[1, 2, 3], &[4]));
    assert_eq!(message, "node 4 has no copy to complete");
}

#[test]
fn only_the_primary_promotes_a_joiner() {
    let mut state = placed(config(1, &[1, 2, 3], &[4]));
    let promoted = config(1, &[1, 2, 3, 4], &[]);
    let plan = Command::Plan(vec![Change::Configure { expected: Epoch(2), config: promoted.clone() }]);
    assert_eq!(state.apply(plan), Reply::Taken(0));
    // It may take the place of a dead member at the same time.
    let (accepted, now, _) = propose(&mut state, 1, 2, config(1, &[1, 4], &[]));
    assert!(accepted);
    assert_eq!(now.in_sync, nodes(&[1, 4]));
}

#[test]
fn a_state_survives_json() {
    let state = placed(config(1, &[1, 2, 3], &[4]));
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
}

#[test]
fn a_primary_that_is_to_be_filled_from_a_backup_is_alone_in_sync() {
    let mut state = placed(config(1, &[1, 2], &[3]));
    assert_eq!(state.min_insync, 2);
    let mut restore = |from, expected| match state.apply(Command::Restore {
        from: NodeId(from),
        expected: Epoch(expected),
        shard: ShardId(0),
    }) {
        Reply::Proposal { accepted, config, .. } => (accepted, config),
        other => panic!("{other:?}"),
    };
    assert!(!restore(2, 2).0, "only the primary knows that there is nothing");
    assert!(!restore(1, 1).0, "something has changed meanwhile");
    let (accepted, alone) = restore(1, 2);
    assert!(accepted);
    assert_eq!((alone.epoch, &alone.in_sync, &alone.joining), (Epoch(3), &nodes(&[1]), &nodes(&[2, 3])));
    assert_eq!(restore(1, 2), (true, alone), "the answer was lost");

    // It may stay as it is and grow, one by one, but not become another one alone.
    assert!(propose(&mut state, 1, 3, config(1, &[1], &[2, 3])).0, "after a restart");
    let (accepted, _, why) = propose(&mut state, 1, 4, config(2, &[2], &[1, 3]));
    assert!(accepted, "a joiner that its primary vouches for may take over: {why}");
    let grown = propose(&mut state, 2, 5, config(2, &[2, 1], &[3]));
    assert!(grown.0, "{}", grown.2);
    let (accepted, _, why) = propose(&mut state, 2, 6, config(2, &[2], &[1, 3]));
    assert!(!accepted && why.contains("min_insync"), "{why}");
    let missing = Command::Restore { from: NodeId(1), expected: Epoch(1), shard: ShardId(9) };
    assert!(matches!(state.apply(missing), Reply::Refused { kind, .. } if kind == "not_found"));
}

#[test]
fn limits_of_tenants_are_overlaid_and_taken_back() {
    let mut state = State::default();
    let limit = |state: &mut State, tenant: &str, rate, burst, clear| {
        let limits = LimitOverrides { rate, burst, ..LimitOverrides::default() };
        state.apply(Command::Limits { tenant: tenant.to_owned(), limits, clear })
    };
    limit(&mut state, "shop", Some(5), None, false);
    limit(&mut state, "shop", None, Some(50), false);
    let shop = LimitOverrides { rate: Some(5), burst: Some(50), ..LimitOverrides::default() };
    assert_eq!((state.map().limits.get("shop"), state.version), (Some(&shop), 2));
    limit(&mut state, "shop", Some(5), None, false);
    assert_eq!(state.version, 2, "nothing new: nobody is told");
    limit(&mut state, "shop", Some(7), None, true);
    assert_eq!(state.limits["shop"].burst, None, "what was said before is taken back");
    limit(&mut state, "shop", None, None, true);
    assert!(state.limits.is_empty());
    for tenant in 0..MAX_LIMITED {
        limit(&mut state, &tenant.to_string(), Some(1), None, false);
    }
    let version = state.version;
    let over = limit(&mut state, "one too many", Some(1), None, false);
    assert!(matches!(over, Reply::Refused { .. }) && state.version == version);
    assert_eq!(limit(&mut state, "0", Some(2), None, false), Reply::Done);
}

/// What builds before limits wrote can be read.
#[test]
fn a_state_without_limits_is_read() {
    let mut text = serde_json::to_value(State::default()).unwrap();
    text.as_object_mut().unwrap().remove("limits");
    assert_eq!(serde_json::from_value::<State>(text).unwrap(), State::default());
}
