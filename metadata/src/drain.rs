//! Emptying a data node on purpose: whether the others can carry its copies, and what a drain still waits for. Pure;
//! moving the copies is [`crate::placement`]'s.

use std::collections::BTreeSet;

use tricord_model::NodeId;
use tricord_wire::proto::metadata as pb;
use tricord_wire::{Error, ErrorKind};

use crate::state::State;

/// Whether a node may be emptied: the others must be enough for writes, and for as many copies as now unless the
/// caller agrees to fewer.
///
/// # Errors
/// `NotFound` for a node that holds no data, `Invalid` where writes would stop, `Conflict` where copies would be given
/// up without the caller's word.
pub(crate) fn check(state: &State, node: NodeId, allow_fewer_copies: bool) -> Result<(), Error> {
    if !state.data_nodes().any(|known| known.id == node) {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no data node {node}")));
    }
    let left = left_without(state, node);
    let after = format!("without node {node} there are {left} live data nodes");
    if left < state.min_insync as usize {
        let text = format!(
            "{after}, and a write needs {} copies (min_insync): add a data node first",
            state.min_insync
        );
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let copies = (state.replicas as usize).min(left + 1);
    if left < copies && !allow_fewer_copies {
        let text = format!(
            "{after}, so shards that have {copies} copies would be left with {left}: add a data node first, or accept \
             that with --allow-fewer-copies"
        );
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    Ok(())
}

/// How many data nodes could carry copies if one were not there.
fn left_without(state: &State, node: NodeId) -> usize {
    state.data_nodes().filter(|other| other.id != node && other.alive && !other.draining).count()
}

/// How far a drain is, of a node that had so many copies when it began, where that is known.
pub(crate) fn progress(state: &State, node: NodeId, began_with: Option<u32>) -> pb::DrainStatus {
    let remaining = state.copies_on(node);
    let began_with = began_with.unwrap_or(0).max(remaining);
    pb::DrainStatus { node: node.0, remaining, began_with, waits_for: waits_for(state, node) }
}

/// What keeps the last copies on a node, for people; empty once nothing is there.
pub(crate) fn waits_for(state: &State, node: NodeId) -> String {
    let can_leave = left_without(state, node) >= state.min_insync.max(1) as usize;
    let mut dead = BTreeSet::new();
    let (mut catching_up, mut nowhere, mut soon) = (0, 0, 0);
    for (config, homes) in state.shards.iter().zip(&state.homes) {
        if !config.holds(node) && !homes.contains(&node) {
            continue;
        }
        let missing = homes.iter().filter(|home| !config.in_sync.contains(home) || !state.is_alive(**home));
        let away = missing.clone().copied().filter(|home| !state.is_alive(*home)).collect::<Vec<_>>();
        match missing.count() {
            _ if homes.contains(&node) && !can_leave => nowhere += 1,
            _ if homes.contains(&node) => soon += 1,
            0 => soon += 1,
            _ if away.is_empty() => catching_up += 1,
            _ => dead.extend(away),
        }
    }
    let mut reasons = Vec::new();
    if nowhere > 0 {
        reasons.push(format!(
            "{nowhere} shards have no other data node to go to: add one, or start one that is away"
        ));
    }
    if !dead.is_empty() {
        let nodes = dead.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        reasons.push(format!(
            "shards wait for node {nodes}, which does not answer: start it, or wait until it is replaced"
        ));
    }
    if catching_up > 0 {
        reasons.push(format!("{catching_up} shards are being copied to other nodes"));
    }
    if soon > 0 {
        reasons.push(format!("{soon} shards are about to leave"));
    }
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::{cluster, set_alive, settle, settled};
    use crate::state::Command;

    #[test]
    fn a_node_that_writes_need_is_not_drained() {
        let mut state = cluster(8, 2, 2, &["", "", ""]);
        settle(&mut state, &settled());
        assert!(check(&state, NodeId(1), false).is_ok());
        set_alive(&mut state, 3, false);
        for allow in [false, true] {
            let error = check(&state, NodeId(1), allow).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.message.contains("min_insync"), "{error}");
        }
        assert_eq!(check(&state, NodeId(9), true).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn what_a_drain_waits_for_is_said() {
        let mut state = cluster(8, 2, 2, &["", "", ""]);
        settle(&mut state, &settled());
        set_alive(&mut state, 3, false);
        state.apply(Command::Drain { node: NodeId(1), undo: false });
        settle(&mut state, &settled());
        assert!(state.copies_on(NodeId(1)) > 0);
        let reason = waits_for(&state, NodeId(1));
        assert!(reason.contains("no other data node") || reason.contains("node 3"), "{reason}");
        set_alive(&mut state, 3, true);
        settle(&mut state, &settled());
        assert_eq!((state.copies_on(NodeId(1)), waits_for(&state, NodeId(1)).as_str()), (0, ""));
    }
}
