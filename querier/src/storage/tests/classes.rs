//! Retention classes: each goes by itself, and a tenant that changes its class keeps what it has.

use tricord_model::RetentionTexts;

use super::merges::{DAY, LATER};
use super::*;

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

/// A default class of 100 windows, and others, with tenants in them.
fn retention(classes: &[(&str, i64)], tenants: &[(&str, &str)]) -> Retention {
    let texts = RetentionTexts {
        classes: classes.iter().map(|(name, windows)| ((*name).to_owned(), minutes(*windows))).collect(),
        tenants: tenants.iter().map(|(name, class)| ((*name).to_owned(), (*class).to_owned())).collect(),
        ..RetentionTexts::default()
    };
    Retention::read(&minutes(100), &texts).unwrap()
}

fn minutes(windows: i64) -> String {
    format!("{}m", windows * WINDOW / 60_000)
}

const CLASSES: [(&str, i64); 2] = [("long", 400), ("short", 10)];

fn node(tenants: &[(&str, &str)]) -> Node {
    Node::with(|config| {
        config.retention = retention(&CLASSES, tenants);
        config.future_ms = 1000 * WINDOW;
    })
}

/// A sample in each of some windows.
fn fill(node: &Node, name: &str, windows: std::ops::Range<i64>, value: f64) {
    for window in windows {
        let at = DAY + window * WINDOW;
        let batch =
            Batch { spans: vec![span(window as u8, 1, at)], ..batch(vec![series("a", 1, &[(at, value)])]) };
        node.append_as(&tenant(name), 0, batch, DAY);
    }
    node.store().commit(ShardId(0), node.store().position(ShardId(0)).seq);
    node.store().flush().unwrap();
}

fn spans(node: &Node, name: &str) -> usize {
    let (mut count, store) = (0, node.store());
    let visit = &mut |_: &SpanRecord| {
        count += 1;
        ControlFlow::Continue(())
    };
    store.reader(&store.shards(), &tenant(name), i64::MIN).scan_spans(0, u64::MAX, visit).unwrap();
    count
}

/// The values of tenant `a`.
fn values(node: &Node) -> Vec<f64> {
    let store = node.store();
    let reader = store.reader(&store.shards(), &tenant("a"), i64::MIN);
    let found = reader.select(&[], i64::MIN, i64::MAX - 1, 100).unwrap();
    found.into_iter().flat_map(|(_, points)| points.floats).collect()
}

fn stats(node: &Node) -> Vec<(String, u64, u64)> {
    let of = |class: ClassStats| (class.name, class.samples, class.dropped);
    node.store().class_stats().into_iter().map(of).collect()
}

#[test]
fn windows_of_a_class_are_dropped_when_they_are_past_there() {
    let mut node = node(&[("a", "long"), ("b", "short")]);
    ["a", "b", "c"].into_iter().for_each(|name| fill(&node, name, 0..4, 1.0));
    let named = |list: [(&str, u64, u64); 3]| {
        list.map(|(name, samples, dropped)| (name.to_owned(), samples, dropped))
    };
    assert_eq!(stats(&node), named([("default", 4, 0), ("long", 4, 0), ("short", 4, 0)]));
    for (now, left, dropped) in [
        (10, [4, 4, 4], [0, 0, 0]),
        (12, [4, 2, 4], [0, 0, 2]),
        (104, [4, 0, 0], [4, 0, 4]),
        (404, [0, 0, 0], [4, 4, 4]),
    ] {
        node.store().maintain(DAY + now * WINDOW).unwrap();
        let check = |node: &Node| {
            let found = ["a", "b", "c"].map(|name| node.samples_of(&tenant(name)));
            assert_eq!(found, left, "{now}");
            assert_eq!(["a", "b", "c"].map(|name| spans(node, name)), left, "{now}");
        };
        check(&node);
        assert_eq!(
            stats(&node),
            named([
                ("default", left[2] as u64, dropped[0]),
                ("long", left[0] as u64, dropped[1]),
                ("short", left[1] as u64, dropped[2]),
            ])
        );
        let (position, mut chunks) = node.store().snapshot(ShardId(0)).unwrap();
        let copy = Node::with(|config| config.retention = node.config.retention.clone());
        copy.store().install(ShardId(0), position, &mut chunks).unwrap();
        check(&copy);
    }
    node.reopen();
    assert_eq!(node.samples_of(&tenant("a")), 0);
}

#[test]
fn a_tenant_in_another_class_keeps_what_it_has_until_that_is_past() {
    let mut node = node(&[("a", "long")]);
    fill(&node, "a", 0..2, 1.0);
    node.config.retention = retention(&CLASSES, &[("a", "short")]);
    node.reopen();
    fill(&node, "a", 2..4, 2.0);
    // Late values for times that are there do not count, wherever they are.
    fill(&node, "a", 0..4, 3.0);
    assert_eq!(values(&node), [1.0, 1.0, 2.0, 2.0]);
    let samples = |node: &Node| stats(node).into_iter().map(|(_, samples, _)| samples).collect::<Vec<_>>();
    assert_eq!(samples(&node), [0, 4, 4], "late data goes to where the rest of its window is");
    node.store().merge(LATER, false, &|_| true).unwrap();
    assert_eq!((values(&node), samples(&node)), (vec![1.0, 1.0, 2.0, 2.0], vec![0, 2, 4]));
    node.delete_as(
        &tenant("a"),
        0,
        &Deletion {
            selectors: vec![vec![Matcher::equal("__name__", "a")]],
            start_ms: DAY + WINDOW,
            end_ms: DAY + 2 * WINDOW,
        },
    );
    for step in 0..3 {
        assert_eq!(values(&node), [1.0, 2.0], "in both classes, step {step}");
        match step {
            0 => node.reopen(),
            _ => {
                node.store().commit(ShardId(0), node.store().position(ShardId(0)).seq);
                node.store().flush().unwrap();
                assert_eq!(node.store().clean(&|_| true).unwrap().left, 0);
            }
        }
    }
    node.store().maintain(DAY + 60 * WINDOW).unwrap();
    assert_eq!(values(&node), [1.0], "the new class is past");
}

#[test]
fn cleaning_one_class_leaves_others_of_the_same_window_alone() {
    let mut node = node(&[("a", "long"), ("b", "short")]);
    let names = ["a", "b", "c"];
    for name in names {
        node.append_as(&tenant(name), 0, batch(vec![series("a", 1, &[(DAY, 1.0), (DAY + 1, 2.0)])]), DAY);
    }
    node.store().commit(ShardId(0), node.store().position(ShardId(0)).seq);
    node.store().flush().unwrap();
    let selectors = vec![vec![Matcher::equal("__name__", "a")]];
    node.delete_as(&tenant("b"), 0, &Deletion { selectors, start_ms: DAY, end_ms: DAY });
    node.store().flush().unwrap();
    assert_eq!(node.store().clean(&|_| true).unwrap().left, 0);
    for _ in 0..2 {
        assert_eq!(names.map(|name| node.samples_of(&tenant(name))), [2, 1, 2]);
        node.reopen();
    }
}

#[test]
fn late_data_is_not_kept_for_less_time_than_its_tenant_has() {
    let mut node = node(&[("a", "short")]);
    fill(&node, "a", 0..2, 1.0);
    node.config.retention = retention(&CLASSES, &[]);
    node.reopen();
    fill(&node, "a", 0..3, 3.0);
    let samples: Vec<u64> = stats(&node).into_iter().map(|(_, samples, _)| samples).collect();
    assert_eq!(samples, [3, 0, 2]);
    for _ in 0..2 {
        assert_eq!(values(&node), [1.0, 1.0, 3.0], "what came first stays, whatever its class");
        node.reopen();
    }
    node.store().maintain(DAY + 50 * WINDOW).unwrap();
    assert_eq!(values(&node), [3.0, 3.0, 3.0], "what was there first is past");
}

#[test]
fn classes_have_numbers_of_their_own_on_each_node() {
    let node = node(&[("a", "long"), ("b", "short")]);
    ["a", "b", "c"].into_iter().for_each(|name| fill(&node, name, 0..2, 1.0));
    let copy_to = |joiner: &Node| {
        let (position, mut chunks) = node.store().snapshot(ShardId(0)).unwrap();
        joiner.store().install(ShardId(0), position, &mut chunks)
    };
    // Made with other classes first.
    let mut joiner = Node::with(|config| config.retention = retention(&[("old", 5), ("short", 10)], &[]));
    let refused = copy_to(&joiner).unwrap_err().to_string();
    assert!(refused.contains("\"long\"") && refused.contains("retention_classes"), "{refused}");
    assert!(joiner.store().shards().iter().all(|shard| shard.0 != 0), "nothing is left of it");
    joiner.config.retention = node.config.retention.clone();
    joiner.reopen();
    copy_to(&joiner).unwrap();
    let samples = |node: &Node| ["a", "b", "c"].map(|name| node.samples_of(&tenant(name)));
    for _ in 0..2 {
        assert_eq!(samples(&joiner), [2, 2, 2]);
        joiner.reopen();
    }
    joiner.store().maintain(DAY + 50 * WINDOW).unwrap();
    assert_eq!(samples(&joiner), [2, 0, 2]);
}

#[test]
fn a_class_that_has_data_cannot_be_taken_away() {
    let mut node = node(&[("b", "short")]);
    fill(&node, "b", 0..1, 1.0);
    let (before, without) = (node.config.retention.clone(), retention(&CLASSES[..1], &[]));
    node.store = None;
    node.config.retention = without.clone();
    let refused = node.open().unwrap_err().to_string();
    assert!(refused.contains("\"short\"") && refused.contains("put it back"), "{refused}");
    node.config.retention = before;
    node.reopen();
    assert_eq!(node.samples_of(&tenant("b")), 1);
    node.store().maintain(DAY + 50 * WINDOW).unwrap();
    node.config.retention = without;
    node.reopen();
    fill(&node, "b", 0..1, 1.0);
    assert_eq!(node.samples_of(&tenant("b")), 1, "in the default class now");
}

#[test]
fn numbers_that_are_gone_are_not_given_anew() {
    let mut node = node(&[("a", "long")]);
    fill(&node, "a", 0..2, 1.0);
    node.store = None;
    let path = node.config.dir.join("CLASSES");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // Either says it: the ledger, and the marks.
    for has_ledger in [true, false] {
        if !has_ledger {
            std::fs::remove_file(node.config.dir.join("LEDGER")).unwrap();
        }
        let error = node.open().expect_err("it is refused");
        assert!(error.is_damage() && error.to_string().contains("CLASSES is missing"), "{error}");
        assert!(!path.exists(), "nothing is made up");
    }
    std::fs::write(&path, bytes).unwrap();
    node.open().unwrap();
    assert_eq!(values(&node).len(), 2);
    // Where only the default class has data, numbers mean nothing yet.
    let mut other = self::node(&[]);
    fill(&other, "a", 0..2, 1.0);
    other.store = None;
    std::fs::remove_file(other.config.dir.join("CLASSES")).unwrap();
    other.open().unwrap();
    assert_eq!(values(&other).len(), 2);
}
