//! The view's words for people: how the cluster is in a sentence, what else is going on, what a shard still lacks.

use std::collections::HashSet;

use super::{ClusterView, Level, NodeView, ShardState, ShardView};

/// Writes the headline and the notes into a view of which everything else is there.
pub(super) fn add(view: &mut ClusterView) {
    let mut said = shards(view);
    said.extend(dead_nodes(view));
    said.extend(silent_members(view));
    said.extend(view.nodes.iter().filter_map(drain));
    said.extend(copies(view));
    let level = said.iter().map(|(level, _)| *level).max().unwrap_or(Level::Ok);
    if level == Level::Ok {
        let text = format!(
            "everything is in sync: {} with {} each",
            many(view.shards.len(), "shard"),
            many(view.replicas as usize, "copy")
        );
        said.insert(0, (Level::Ok, text));
    }
    // What is worst comes first; of equals, what was said first.
    said.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let mut texts = said.into_iter().map(|(_, text)| text);
    view.level = level;
    view.headline = texts.next().unwrap_or_default();
    view.notes = texts.collect();
}

fn shards(view: &ClusterView) -> Vec<(Level, String)> {
    if view.shards.iter().all(|shard| shard.in_sync.is_empty()) {
        let alive = view.nodes.iter().filter(|node| node.stores && node.alive).count();
        let text = format!(
            "no shard is placed yet: {} alive, and a write needs {}",
            are(alive, "data node"),
            many(view.min_insync as usize, "copy")
        );
        return vec![(Level::Trouble, text)];
    }
    let mut said = Vec::new();
    let mut say = |state: ShardState, level: Level, text: &dyn Fn(usize) -> String| {
        let count = view.count(state);
        if count > 0 {
            said.push((level, text(count)));
        }
    };
    say(ShardState::Down, Level::Trouble, &|count| {
        format!("{} down: no copy in sync is alive", are(count, "shard"))
    });
    say(ShardState::ReadOnly, Level::Trouble, &|count| {
        let needed = many(view.min_insync as usize, "copy");
        format!("writes have stopped on {}: each needs {needed} alive and in sync", many(count, "shard"))
    });
    say(ShardState::NoPrimary, Level::Trouble, &|count| {
        format!("writes wait on {}: no live copy leads yet", many(count, "shard"))
    });
    say(ShardState::Degraded, Level::Degraded, &|count| {
        let lacks = if count == 1 { "lacks" } else { "lack" };
        let wanted = view.replicas;
        format!("{} {lacks} copies: fewer than {wanted} are alive and in sync", many(count, "shard"))
    });
    said
}

fn dead_nodes(view: &ClusterView) -> Option<(Level, String)> {
    let is_off = |node: &&NodeView| node.drain.as_ref().is_some_and(|drain| drain.left == 0);
    let dead = view.nodes.iter().filter(|node| node.stores && !node.alive && !is_off(node));
    let dead: Vec<String> = dead.map(|node| node.id.to_string()).collect();
    let text = match dead.as_slice() {
        [] => return None,
        [one] => format!("data node {one} does not answer"),
        _ => format!("data nodes {} do not answer", dead.join(", ")),
    };
    Some((Level::Degraded, text))
}

fn silent_members(view: &ClusterView) -> Option<(Level, String)> {
    let silent = view.members.iter().filter(|member| member.answers == Some(false)).count();
    let does = if silent == 1 { "does" } else { "do" };
    let of = many(view.members.len(), "metadata member");
    (silent > 0).then(|| (Level::Degraded, format!("{silent} of {of} {does} not answer")))
}

fn drain(node: &NodeView) -> Option<(Level, String)> {
    let (id, drain) = (node.id, node.drain.as_ref()?);
    if drain.left == 0 {
        let text = match node.alive {
            true => format!("node {id} is drained and can be switched off"),
            false => format!("node {id} is drained and off"),
        };
        return Some((Level::Ok, text));
    }
    let mut text =
        format!("node {id} is draining: {} of {} left", drain.left, many(drain.of as usize, "copy"));
    if !drain.waits_for.is_empty() {
        text.push_str("; ");
        text.push_str(&drain.waits_for);
    }
    Some((Level::Working, text))
}

fn copies(view: &ClusterView) -> Option<(Level, String)> {
    let text = match (view.copies_joining, view.copies_waiting) {
        (0, 0) => return None,
        (joining, 0) => format!("{} being made", are(joining, "copy")),
        (0, waiting) => format!("{} about to be made", are(waiting, "copy")),
        (joining, waiting) => {
            format!("{} being made, {} more to come", are(joining, "copy"), grouped(waiting))
        }
    };
    Some((Level::Working, text))
}

/// What a shard still lacks, or has too much of.
pub(super) fn todo(shard: &ShardView, alive: &HashSet<u64>) -> Vec<String> {
    let mut texts = Vec::new();
    for node in shard.in_sync.iter().filter(|node| !alive.contains(node)) {
        texts.push(format!("node {node} does not answer"));
    }
    texts.extend(shard.joining.iter().map(|node| joining(shard, *node, alive.contains(node))));
    for node in &shard.waiting {
        texts.push(match alive.contains(node) {
            true => format!("node {node} gets a copy when its turn comes"),
            false => format!("node {node} does not answer"),
        });
    }
    for node in &shard.leaving {
        texts.push(format!("then node {node} gives its copy up"));
    }
    texts
}

/// How far a joining copy is.
fn joining(shard: &ShardView, node: u64, is_alive: bool) -> String {
    if !is_alive {
        return format!("node {node} does not answer");
    }
    if let Some(arrived) = shard.arrived_bytes.get(&node) {
        return format!("node {node} is sent a copy: {} have arrived", bytes(*arrived));
    }
    match shard.lag.get(&node).copied().flatten() {
        Some(0) => format!("node {node} is about to be in sync"),
        Some(1) => format!("node {node} catches up: 1 entry behind"),
        Some(lag) => format!("node {node} catches up: {} entries behind", grouped(lag as usize)),
        None => format!("node {node} catches up"),
    }
}

/// `1 shard`, `2 copies`.
fn many(count: usize, thing: &str) -> String {
    let number = grouped(count);
    match (count, thing.strip_suffix('y')) {
        (1, _) => format!("{number} {thing}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {thing}s"),
    }
}

/// `1 shard is`, `2 copies are`.
fn are(count: usize, thing: &str) -> String {
    format!("{} {}", many(count, thing), if count == 1 { "is" } else { "are" })
}

/// `1.5 GiB` and the like.
#[must_use]
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `12,345`.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([many(1, "copy"), many(2, "copy"), many(0, "shard")], ["1 copy", "2 copies", "0 shards"]);
        assert_eq!([0, 1_023, 1_536, 5 << 40].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]);
        assert_eq!([are(1, "copy"), are(12, "shard")], ["1 copy is", "12 shards are"]);
    }
}
