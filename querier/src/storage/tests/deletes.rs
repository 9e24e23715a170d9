//! Deletes: their order against writes, what is on disk meanwhile, and their bound.

use tricord_model::Exemplar;

use super::merges::{DAY, LATER, fill};
use super::*;
use crate::storage::deletes::MAX_TOMBSTONES;

fn of(name: &str, start_ms: i64, end_ms: i64) -> Deletion {
    Deletion { selectors: vec![vec![Matcher::equal("__name__", name)]], start_ms, end_ms }
}

fn everything(name: &str) -> Deletion {
    of(name, i64::MIN, i64::MAX)
}

fn clean(node: &Node) -> CleanReport {
    node.store().flush().unwrap();
    node.store().clean(&|_| true).unwrap()
}

#[test]
fn what_is_written_after_a_delete_stays_wherever_the_rest_is() {
    let mut node = Node::new();
    let write = |node: &Node, value| node.write(0, batch(vec![series("a", 1, &[(T0 + 10, value)])]));
    write(&node, 1.0);
    node.delete(0, &everything("a"));
    assert!(node.all().is_empty(), "in memory");
    write(&node, 2.0);
    node.store().flush().unwrap();
    node.delete(0, &everything("a"));
    assert!(node.all().is_empty(), "on disk");
    write(&node, 3.0);
    let expected = BTreeMap::from([(labels("a", 1), vec![Sample::float(T0 + 10, 3.0)])]);
    for step in 0..6 {
        assert_eq!(node.all(), expected, "step {step}");
        match step {
            0 => drop(node.store().flush().unwrap()),
            1 | 3 => node.reopen(),
            2 => drop(node.store().merge(LATER, true, &|_| true).unwrap()),
            _ => drop(clean(&node)),
        }
    }
    assert_eq!(node.store().stats().tombstones, 0);
}

#[test]
fn a_delete_survives_a_restart_and_a_move_while_it_hides_what_is_on_disk() {
    let (mut node, mut joiner) = (Node::new(), Node::new());
    fill(&node, 0..3);
    let kept = node.all().into_iter().filter(|(labels, _)| labels.name() != "a").collect::<BTreeMap<_, _>>();
    (0..2).for_each(|shard| node.delete(shard, &everything("a")));
    assert_eq!(node.store().stats().tombstones, 2);
    for round in 0..3 {
        assert_eq!(node.all(), kept);
        let reader = node.reader();
        assert!(reader.exemplars(&[], DAY, LATER, 0).unwrap().is_empty());
        assert_eq!(reader.label_values("__name__", &[], (DAY, LATER), 0, None).unwrap(), ["short"]);
        assert_eq!(reader.series(&[], (DAY, LATER), 0, None).unwrap().len(), 3);
        drop(reader);
        if round == 1 {
            // Behind the log's begin nothing tells of it but its row.
            node.store().flush().unwrap();
        }
        node.reopen();
        (0..3).for_each(|id| node.store().commit(ShardId(id), node.store().position(ShardId(id)).seq));
    }
    for shard in 0..3 {
        let (position, mut chunks) = node.store().snapshot(ShardId(shard)).unwrap();
        joiner.store().install(ShardId(shard), position, &mut chunks).unwrap();
    }
    assert_eq!((joiner.all(), joiner.store().stats().tombstones), (kept.clone(), 2));
    joiner.reopen();
    assert_eq!(joiner.all(), kept);
    let report = clean(&joiner);
    assert_eq!((report.windows, report.left), (3, 0));
    assert_eq!((joiner.all(), joiner.store().stats().tombstones), (kept, 0));
}

#[test]
fn cleaning_removes_samples_and_leaves_alone_what_has_none_of_them() {
    let mut node = Node::new();
    fill(&node, 0..14);
    node.store().merge(DAY + 14 * WINDOW, false, &|_| true).unwrap();
    let before = node.store().stats().deleted_samples;
    // In the merged windows, in a single one, and in one that has no such series.
    node.delete(0, &of("a", DAY + 2 * WINDOW, DAY + 4 * WINDOW - 1));
    node.delete(0, &of("a", DAY + 12 * WINDOW + 60_000, DAY + 12 * WINDOW + 120_000));
    node.delete(1, &of("nothing", DAY, LATER));
    let (expected, spans) = (node.all(), node.spans());
    let trace = node.reader().trace(&TraceId([200; 16]), 0, u64::MAX).unwrap();
    let report = clean(&node);
    assert_eq!((report.windows, report.left), (2, 0));
    assert_eq!(node.store().stats().deleted_samples - before, 5 * 30 + 5 * 2);
    for _ in 0..2 {
        assert_eq!((node.all(), node.spans()), (expected.clone(), spans.clone()));
        assert_eq!(node.reader().trace(&TraceId([200; 16]), 0, u64::MAX).unwrap(), trace);
        node.reopen();
    }
    assert_eq!(clean(&node), CleanReport::default(), "once is enough");
    node.store().merge(LATER, false, &|_| true).unwrap();
    assert_eq!((node.all(), node.spans()), (expected, spans));
}

#[test]
fn a_merge_drops_what_was_deleted_and_forgets_the_delete() {
    let mut node = Node::new();
    fill(&node, 0..12);
    let last = DAY + 12 * WINDOW;
    (0..2).for_each(|shard| node.delete(shard, &of("a", DAY, last - WINDOW)));
    node.store().flush().unwrap();
    let expected = node.all();
    node.store().merge(LATER, false, &|_| true).unwrap();
    assert_eq!((node.all(), node.store().stats().tombstones), (expected.clone(), 0));
    node.reopen();
    assert_eq!(node.all(), expected);
}

#[test]
fn exemplars_and_samples_are_deleted_by_their_own_times() {
    let node = Node::new();
    let exemplar = |t_ms| Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), t_ms, value: 1.0 };
    let one = SeriesBatch {
        exemplars: vec![exemplar(T0 + 5), exemplar(T0 + 25)],
        ..series("a", 1, &[(T0, 1.0), (T0 + 10, 2.0)])
    };
    node.write(0, batch(vec![one.clone(), series("b", 1, &[(T0, 1.0)])]));
    node.store().flush().unwrap();
    node.delete(0, &of("a", T0, T0 + 20));
    let check = |node: &Node| {
        let found = node.reader().exemplars(&[], T0, T0 + 100, 0).unwrap();
        assert_eq!(found, [(labels("a", 1), vec![exemplar(T0 + 25)])]);
        assert_eq!(node.all().into_keys().collect::<Vec<_>>(), [labels("b", 1)]);
    };
    check(&node);
    clean(&node);
    check(&node);
    // The same in memory.
    let node = Node::new();
    node.write(0, batch(vec![one, series("b", 1, &[(T0, 1.0)])]));
    node.delete(0, &of("a", T0, T0 + 20));
    check(&node);
    node.store().flush().unwrap();
    check(&node);
}

#[test]
fn a_delete_that_is_cut_again_takes_nothing_with_it() {
    let mut node = Node::new();
    node.append(0, batch(vec![series("a", 1, &[(T0, 1.0)])]), NOW);
    assert_eq!(node.store().flush().unwrap().uncommitted, 1, "it is sealed, and waits");
    node.append_delete(0, &everything("a")).unwrap();
    assert!(node.all().is_empty());
    node.store().commit(ShardId(0), Seq(1));
    assert_eq!(node.store().flush().unwrap().uncommitted, 1, "without its samples it must not go out");
    node.store().cut(ShardId(0), Seq(1)).unwrap();
    for _ in 0..2 {
        assert_eq!((node.all().len(), node.store().stats().tombstones), (1, 0));
        node.store().flush().unwrap();
        node.reopen();
    }
}

#[test]
fn deletes_are_bounded_and_cleaning_makes_room() {
    let node = Node::new();
    fill(&node, 0..1);
    for n in 0..MAX_TOMBSTONES as i64 {
        node.delete(0, &of("a", DAY + n, DAY + n));
    }
    let refused = node.append_delete(0, &everything("a")).unwrap_err();
    assert!(refused.to_string().contains("clean_tombstones"), "{refused}");
    node.delete(1, &everything("a"));
    assert_eq!(clean(&node).left, 0);
    node.append_delete(0, &everything("a")).unwrap();
    // By their size, too.
    let long = "x".repeat(Deletion::MAX_BYTES - 1000);
    let taken = (0..MAX_TOMBSTONES).take_while(|_| node.append_delete(1, &everything(&long)).is_ok()).count();
    assert!((32..70).contains(&taken), "{taken}");
}

#[test]
fn other_tenants_keep_what_they_have() {
    let node = Node::new();
    let other = Tenant::new("other").unwrap();
    for tenant in [&Tenant::default(), &other] {
        node.write_as(tenant, 0, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    }
    node.store().flush().unwrap();
    node.delete(0, &everything("a"));
    assert_eq!((node.all().len(), node.samples_of(&other)), (0, 1));
    clean(&node);
    assert_eq!((node.all().len(), node.samples_of(&other)), (0, 1));
}

#[test]
fn whether_there_is_anything_to_delete_is_seen_in_memory_and_on_disk() {
    let node = Node::new();
    node.write(0, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    let has_any = |deletion: &Deletion| node.reader().has_any(deletion).unwrap();
    assert!(has_any(&everything("a")) && !has_any(&everything("b")));
    node.store().flush().unwrap();
    assert!(has_any(&everything("a")) && !has_any(&everything("b")));
    // The series is forgotten in memory.
    let later = NOW + 10 * WINDOW;
    for now_ms in [later, later + 61_000 + 2 * WINDOW, later + 130_000 + 4 * WINDOW] {
        node.store().maintain(now_ms).unwrap();
        node.append(0, batch(vec![series("b", 1, &[(now_ms, 1.0)])]), now_ms);
        node.store().commit(ShardId(0), node.store().position(ShardId(0)).seq);
    }
    assert_eq!(node.store().series_in(ShardId(0)), 1);
    assert!(has_any(&everything("a")));
    assert!(!has_any(&of("a", T0 + WINDOW, T0 + 2 * WINDOW)));
}

#[test]
fn a_copy_knows_nothing_of_deletes_that_come_after_it() {
    let (source, mut other) = (Node::new(), Node::new());
    source.write(0, batch(vec![series("a", 1, &[(T0 + 10, 1.0)]), series("b", 1, &[(T0 + 10, 2.0)])]));
    source.store().flush().unwrap();
    let (position, mut chunks) = source.store().snapshot(ShardId(0)).unwrap();
    // It hides nothing, so that the marks say at once that it is carried out, before any was read for the copy.
    source.delete(0, &everything("nothing"));
    assert_eq!((clean(&source).left, source.store().stats().tombstones), (0, 0));
    other.store().install_backup(ShardId(0), position.seq, &mut chunks).unwrap();
    // Its next entry has the number of that delete.
    other.delete(0, &everything("a"));
    assert_eq!(other.store().position(ShardId(0)).seq, source.store().position(ShardId(0)).seq);
    let expected = BTreeMap::from([(labels("b", 1), vec![Sample::float(T0 + 10, 2.0)])]);
    assert_eq!(other.all(), expected);
    clean(&other);
    other.reopen();
    assert_eq!((other.all(), other.store().stats().tombstones), (expected, 0));
}
