//! Merging windows: answers stay, what was replaced goes, whatever comes in between.

use tricord_model::Exemplar;

use super::*;

/// A time at which all windows of the tests are long over.
pub(super) const LATER: i64 = T0 + 400 * WINDOW;
/// The start of a day, so that merges begin with it.
pub(super) const DAY: i64 = T0.div_euclid(48 * WINDOW) * 48 * WINDOW;

fn go_on(_: u64) -> bool {
    true
}

fn merge(node: &Node, now_ms: i64) -> MergeReport {
    node.store().merge(now_ms, false, &go_on).unwrap()
}

/// Five series with a sample a minute over some windows, flushed after each.
pub(super) fn fill(node: &Node, windows: std::ops::Range<i64>) {
    for window in windows {
        let start_ms = DAY + window * WINDOW;
        let list = (0..5).map(|i| {
            let samples: Vec<(i64, f64)> =
                (0..30).map(|n| (start_ms + n * 60_000, (window * 30 + n) as f64 + f64::from(i))).collect();
            series("a", i, &samples)
        });
        let mut list: Vec<SeriesBatch> = list.collect();
        list[0].exemplars =
            vec![Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), t_ms: start_ms, value: 1.0 }];
        // A series that lives for one window alone, and a trace that goes on over all of them.
        list.push(series("short", window as u32, &[(start_ms + 1, 1.0)]));
        let spans = vec![span(window as u8, 1, start_ms), span(200, window as u8, start_ms)];
        node.write(window as u32 % 2, Batch { series: list, spans, ..Batch::default() });
        node.store().flush().unwrap();
    }
}

/// Everything that can be read.
fn answers(node: &Node) -> impl PartialEq + std::fmt::Debug + use<> {
    let reader = node.reader();
    let exemplars = reader.exemplars(&[], DAY, LATER, 0).unwrap();
    let trace = reader.trace(&TraceId([200; 16]), 0, u64::MAX).unwrap();
    let values = reader.label_values("instance", &[], (i64::MIN, i64::MAX), 0, None).unwrap();
    let some = reader.select(&[Matcher::equal("instance", "3")], DAY + WINDOW / 2, DAY + 3 * WINDOW, 1000);
    let some: Vec<_> = some.unwrap().into_iter().map(|(labels, points)| (labels, points.t_ms)).collect();
    (node.all(), node.spans(), exemplars, trace, values, some)
}

fn generations(node: &Node) -> Vec<(i64, u16, u32)> {
    let cells = node.store().inner.cells();
    let marks = cells.iter().flat_map(|cell| cell.state.read().marks.clone()).collect::<Vec<_>>();
    let of = |(start, marks): (i64, Vec<head::Mark>)| {
        marks
            .into_iter()
            .map(move |mark| ((start - DAY) / WINDOW, mark.windows, mark.number))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<_> = marks.into_iter().flat_map(of).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn files(node: &Node) -> usize {
    let rocks = &node.store().inner.rocks;
    rocks.files(keys::INDEX).unwrap().len() + rocks.files(keys::DATA).unwrap().len()
}

#[test]
fn merged_windows_answer_as_those_they_were_made_of() {
    let mut node = Node::new();
    fill(&node, 0..14);
    let expected = answers(&node);
    assert_eq!(merge(&node, DAY + 13 * WINDOW), MergeReport::default(), "they are not over for long enough");
    let report = merge(&node, DAY + 14 * WINDOW);
    assert_eq!((report.windows, generations(&node)), (1, vec![(0, 12, 2), (12, 1, 1), (13, 1, 1)]));
    assert_eq!(answers(&node), expected);
    assert_eq!(files(&node), 2 * 2 + 3, "what was replaced is gone");
    node.reopen();
    assert_eq!(answers(&node), expected);
    assert_eq!(merge(&node, DAY + 14 * WINDOW), MergeReport::default(), "once is enough");
    // The day takes in what was merged before.
    assert_eq!(merge(&node, LATER).windows, 1);
    assert_eq!(generations(&node), [(0, 48, 3)]);
    assert_eq!(answers(&node), expected);
    node.reopen();
    assert_eq!(answers(&node), expected);
    let stats = node.store().stats();
    assert_eq!((stats.merges_waiting, stats.duplicate_samples), (0, 0));
}

#[test]
fn late_data_comes_behind_what_is_merged_and_joins_it() {
    let mut node = Node::new();
    fill(&node, 0..12);
    merge(&node, LATER);
    // Values for times that are there do not count, others do.
    let at = DAY + 4 * WINDOW;
    for round in 0..8 {
        let t = at + 7 + round;
        node.write(0, batch(vec![series("a", 1, &[(at, -1.0), (t, -2.0)]), series("late", 1, &[(t, 1.0)])]));
        node.store().flush().unwrap();
        assert_eq!(merge(&node, LATER).windows, u64::from(round == 7), "round {round}");
    }
    let check = |node: &Node| {
        let all = node.all();
        let a = floats(&all[&labels("a", 1)]);
        assert!(a.contains(&(at, 121.0)) && a.contains(&(at + 7, -2.0)) && a.contains(&(at + 14, -2.0)));
        assert_eq!((a.len(), all[&labels("late", 1)].len()), (12 * 30 + 8, 8));
        assert_eq!(generations(node), [(0, 48, 2), (0, 48, 3)], "the other shard had no late data");
    };
    check(&node);
    assert_eq!(node.store().stats().duplicate_samples, 8);
    node.reopen();
    check(&node);
}

#[test]
fn a_reader_goes_on_with_what_a_merge_has_replaced() {
    let node = Node::new();
    fill(&node, 0..12);
    let expected = node.all();
    let before = node.reader();
    merge(&node, LATER);
    let after = node.reader();
    let count = files(&node);
    assert!(count > 20, "{count}: files stay while somebody reads");
    for reader in [&before, &after] {
        let found = reader.select(&[], i64::MIN, i64::MAX - 1, u64::MAX).unwrap();
        let found: BTreeMap<_, Vec<_>> =
            found.into_iter().map(|(labels, points)| (labels, points.iter().collect())).collect();
        assert_eq!(found, expected);
    }
    drop(before);
    node.store().maintain(T0).unwrap();
    assert!(files(&node) < 6, "the other reader began later");
}

#[test]
fn a_merge_that_is_given_up_leaves_everything_as_it_was() {
    let mut node = Node::new();
    fill(&node, 0..12);
    let expected = answers(&node);
    for most in 0..40 {
        let asked = std::sync::atomic::AtomicU64::new(0);
        let pace = |_| asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < most;
        if node.store().merge(LATER, false, &pace).is_ok() {
            assert!(most > 3, "it was asked {most} times");
            break;
        }
        assert!(generations(&node).iter().all(|(_, windows, _)| *windows == 1));
        let staging = std::fs::read_dir(node.config.dir.join("staging")).map_or(0, Iterator::count);
        assert_eq!(staging, 0, "its files are removed");
    }
    assert_eq!(answers(&node), expected);
    node.reopen();
    assert_eq!(answers(&node), expected);
}

/// Copies a directory, as a crash would leave it.
fn crashed(node: &Node) -> Node {
    let dir = tempfile::tempdir().unwrap();
    super::crash::copy(&node.config.dir, &dir.path().join("store"));
    let config = StoreConfig { dir: dir.path().join("store"), ..node.config.clone() };
    let mut copy = Node { dir, config, files: Arc::new(RealFiles), store: None };
    copy.open().unwrap();
    copy
}

#[test]
fn a_crash_before_what_was_replaced_is_removed_leaves_nothing_twice() {
    let node = Node::new();
    fill(&node, 0..12);
    let reading = node.reader();
    node.store().merge(DAY + 14 * WINDOW, false, &go_on).unwrap();
    let at = DAY + 40 * WINDOW;
    node.append(0, batch(vec![series("a", 9, &[(at, 1.0)])]), at);
    node.store().commit(ShardId(0), node.store().position(ShardId(0)).seq);
    node.store().flush().unwrap();
    let once = crashed(&node);
    // Again, while the first ones still wait for their reader.
    node.store().merge(LATER, false, &go_on).unwrap();
    let twice = crashed(&node);
    drop(reading);
    for (mut node, windows) in [(once, 12), (twice, 48)] {
        assert!(generations(&node).iter().any(|(start, long, _)| (*start, *long) == (0, windows)));
        assert_eq!(generations(&node).len(), 2, "the other shard has but one after the first merge");
        assert!(files(&node) < 9, "{}", files(&node));
        // Late data is not taken for what was replaced.
        node.write(0, batch(vec![series("late", 1, &[(DAY + 3 * WINDOW, 1.0)])]));
        node.store().flush().unwrap();
        node.reopen();
        let mut all = node.all();
        assert_eq!(all.remove(&labels("late", 1)).map(|samples| samples.len()), Some(1));
        assert_eq!(all.remove(&labels("a", 9)).map(|samples| samples.len()), Some(1));
        assert_eq!(all.values().map(Vec::len).sum::<usize>(), 12 * (5 * 30 + 1));
        assert_eq!(node.spans().len(), 24);
    }
}

#[test]
fn a_crash_between_the_index_and_the_data_of_a_merge_leaves_what_there_was() {
    let node = Node::new();
    fill(&node, 0..12);
    let expected = answers(&node);
    let inner = &node.store().inner;
    let path = inner.config.dir.join("half.sst");
    let of = keys::Generation { class: 0, window_ms: DAY, number: 2 };
    let prefix = keys::tenant(of, ShardId(0), &Tenant::default());
    let mut file = inner.rocks.sorted_file(keys::INDEX, &path).unwrap();
    file.put(keys::label_value(&prefix, "instance", "left over"), vec![1]);
    file.finish().unwrap();
    inner.rocks.ingest(keys::INDEX, &[path]).unwrap();
    let copy = crashed(&node);
    assert_eq!(answers(&copy), expected);
    merge(&copy, LATER);
    assert_eq!(answers(&copy), expected);
}

#[test]
fn merged_windows_are_dropped_whole_when_all_of_them_is_past_retention() {
    let node = Node::with(|config| config.retention = Retention::keeping(Some(100 * WINDOW)));
    for window in 0..26 {
        let at = DAY + window * WINDOW;
        node.append(0, batch(vec![series("a", 1, &[(at, window as f64)])]), at);
    }
    node.store().commit(ShardId(0), Seq(26));
    node.store().flush().unwrap();
    assert_eq!(merge(&node, DAY + 28 * WINDOW).windows, 2, "a day is too long for this retention");
    let count = |now_ms| {
        node.store().maintain(now_ms).unwrap();
        node.select(&[]).first().map_or(0, |(_, points)| points.len())
    };
    let end = DAY + 100 * WINDOW;
    assert_eq!(count(end + 11 * WINDOW), 26, "some of the first one is inside");
    assert_eq!(count(end + 12 * WINDOW), 14);
    assert_eq!(count(end + 24 * WINDOW), 2);
    assert_eq!(generations(&node), [(24, 1, 1), (25, 1, 1)]);
    assert_eq!(count(end + 26 * WINDOW), 0);
}

#[test]
fn a_merged_shard_moves_and_is_dropped_with_all_it_has() {
    let (node, mut joiner) = (Node::new(), Node::new());
    fill(&node, 0..14);
    let reading = node.reader();
    node.store().merge(DAY + 14 * WINDOW, false, &go_on).unwrap();
    let expected = answers(&node);
    // The joiner has generations of its own under the same numbers, and some that a merge has replaced.
    fill(&joiner, 0..14);
    let joiners = joiner.reader();
    joiner.store().merge(DAY + 14 * WINDOW, false, &go_on).unwrap();
    for shard in 0..3 {
        let (position, mut chunks) = node.store().snapshot(ShardId(shard)).unwrap();
        joiner.store().install(ShardId(shard), position, &mut chunks).unwrap();
    }
    drop(joiners);
    joiner.store().maintain(T0).unwrap();
    for _ in 0..2 {
        assert_eq!(answers(&joiner), expected);
        joiner.reopen();
    }
    merge(&joiner, LATER);
    assert_eq!(answers(&joiner), expected);
    drop(reading);
    node.store().drop_shard(ShardId(1)).unwrap();
    node.store().create_shard(ShardId(1)).unwrap();
    node.store().maintain(T0).unwrap();
    let left = node.all();
    assert!(
        left.len() < 5 + 14 && left.keys().all(|labels| labels.name() == "a" || labels.name() == "short")
    );
}

#[test]
fn what_a_replay_must_know_by_window_is_not_merged() {
    let node = Node::new();
    // A window that stays open keeps the log's begin before what is written out.
    node.write(0, batch(vec![series("a", 1, &[(DAY + 15 * WINDOW, 1.0)])]));
    for window in 0..12 {
        node.write(0, batch(vec![series("a", 1, &[(DAY + window * WINDOW, 1.0)])]));
    }
    node.store().inner.write_out(&|_, window_ms| window_ms < DAY + 12 * WINDOW).unwrap();
    assert_eq!(node.store().merge(LATER, true, &go_on).unwrap(), MergeReport::default());
    assert_eq!(crashed(&node).all(), node.all());
    node.store().flush().unwrap();
    assert_eq!(node.store().merge(DAY + 14 * WINDOW, false, &go_on).unwrap().windows, 1);
    assert_eq!((node.all()[&labels("a", 1)].len(), crashed(&node).all()), (13, node.all()));
}

#[test]
fn the_newest_indexes_are_read_after_a_start() {
    let mut node = Node::new();
    let all = |node: &Node| node.store().warm(&|| true).unwrap();
    assert_eq!(all(&node), 0, "there is nothing to read");
    fill(&node, 0..3);
    node.reopen();
    let (three, newest) = (all(&node), node.store().warm(&|| false).unwrap());
    assert!(0 < newest && newest < three, "{newest} of {three} bytes, when it must stop");
    fill(&node, 3..4);
    assert!(all(&node) > three);
}
