//! What `tricord cluster status` prints for people: how the cluster is, and tables of members, nodes and shards. What is
//! in them is for `tricord_metadata_client::view` to work out.

use tricord_metadata_client::view::{ClusterView, NodeView, ShardState};

use crate::table;

/// The whole text.
pub(super) fn text(view: &ClusterView) -> String {
    let states =
        [ShardState::Ok, ShardState::Degraded, ShardState::ReadOnly, ShardState::NoPrimary, ShardState::Down];
    let states = states.iter().map(|state| (state, view.count(*state))).filter(|(_, count)| *count > 0);
    let states = states.map(|(state, count)| format!("{count} {}", state.as_str())).collect::<Vec<_>>();
    let mut head = format!(
        "cluster {}  map version {}  copies {}  min in sync {}  shards {}: {}\n{}\n",
        view.cluster_id,
        view.version,
        view.replicas,
        view.min_insync,
        view.shards.len(),
        states.join(", "),
        view.headline,
    );
    for note in &view.notes {
        head.push_str(&format!("{note}\n"));
    }
    [head, members(view), nodes(view), shards(view)].join("\n")
}

fn members(view: &ClusterView) -> String {
    let rows = view.members.iter().map(|member| {
        let votes = if member.voter { "voter" } else { "learner" };
        let is = match (member.leader, member.answers) {
            (true, _) => "leader",
            (false, Some(false)) => "silent",
            _ => "",
        };
        vec![member.id.to_string(), member.rpc.clone(), votes.to_owned(), is.to_owned()]
    });
    table::render(&["metadata", "rpc", "kind", ""], &rows.collect::<Vec<_>>())
}

fn nodes(view: &ClusterView) -> String {
    let heads =
        ["node", "role", "state", "heard", "primaries", "in sync", "joining", "disk", "zone", "rpc", "http"];
    table::render(&heads, &view.nodes.iter().map(node).collect::<Vec<_>>())
}

fn node(node: &NodeView) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let state = match (node.alive, node.draining) {
        (true, false) => "alive",
        (true, true) => "draining",
        (false, _) => "dead",
    };
    vec![
        node.id.to_string(),
        node.role.clone(),
        state.to_owned(),
        or_dash(node.heartbeat_age_ms.map(|age_ms| format!("{:.1}s", age_ms as f64 / 1e3))),
        node.primaries.to_string(),
        node.copies.to_string(),
        node.joining.to_string(),
        or_dash(node.disk_used_bytes.map(table::bytes)),
        node.zone.clone(),
        node.rpc.clone(),
        node.http.clone(),
    ]
}

fn shards(view: &ClusterView) -> String {
    let list = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let rows = view.shards.iter().map(|shard| {
        vec![
            shard.shard.to_string(),
            shard.state.as_str().to_owned(),
            shard.epoch.to_string(),
            if shard.primary == 0 { "-".to_owned() } else { shard.primary.to_string() },
            list(&shard.in_sync),
            list(&shard.joining),
            shard.worst_lag().map_or("-".to_owned(), |lag| lag.to_string()),
            shard.todo.join("; "),
        ]
    });
    let heads = ["shard", "state", "epoch", "primary", "in sync", "joining", "lag", ""];
    table::render(&heads, &rows.collect::<Vec<_>>())
}
