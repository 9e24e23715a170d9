//! Lists of series, names and values over more series than are looked at one by one, compared with a naive list.

use std::collections::BTreeSet;

use tricord_model::MatchOp;

use super::*;

/// Series of each window and shard.
const SERIES: u32 = 900;

/// Some have a label that sorts before the name, some have no name, most have a value of their own.
fn label_set(shard: u32, window: i64, n: u32) -> Labels {
    let own = format!("pod-{window}-{shard}-{n}");
    let (shard, few) = (shard.to_string(), (n % 7).to_string());
    let mut pairs = vec![("job", shard.as_str()), ("few", few.as_str())];
    if n % 11 != 3 {
        pairs.push(("__name__", if n.is_multiple_of(2) { "even" } else { "odd" }));
    }
    if n % 13 == 5 {
        pairs.push(("Zone", if n.is_multiple_of(3) { "a" } else { "b" }));
    }
    // A third is in all windows.
    let of_all = format!("quiet-{n}");
    pairs.push(if n.is_multiple_of(3) { ("quiet", of_all.as_str()) } else { ("pod", own.as_str()) });
    Labels::from_pairs(pairs)
}

/// Windows on disk in several generations, the last ones partly in memory; some of it deleted.
fn filled() -> (Node, BTreeSet<Labels>) {
    let node = Node::with(|config| {
        config.retention = Retention::keeping(None);
        config.merge_windows = vec![2, 4];
    });
    let mut all = BTreeSet::new();
    for window in -3i64..1 {
        for shard in 0..3 {
            let t_ms = T0 + window * WINDOW;
            let of = |n| SeriesBatch {
                labels: label_set(shard, window, n),
                samples: [Sample::float(t_ms, 1.0)].into_iter().collect(),
                ..SeriesBatch::default()
            };
            node.write(shard, batch((0..SERIES).map(of).collect()));
            all.extend((0..SERIES).map(|n| label_set(shard, window, n)));
        }
        if window == -2 {
            node.store().flush().unwrap();
            node.store().merge(NOW, true, &|_| true).unwrap();
        } else if window == -1 {
            node.store().flush().unwrap();
        }
    }
    let few = Matcher::equal("few", "5");
    let deletion = Deletion { selectors: vec![vec![few.clone()]], start_ms: i64::MIN, end_ms: i64::MAX };
    node.delete(1, &deletion);
    all.retain(|labels| labels.get("job") != Some("1") || labels.get("few") != Some("5"));
    (node, all)
}

fn selections() -> Vec<Vec<Vec<Matcher>>> {
    let with = |name: &str, op, value: &str| Matcher::new(name, op, value).unwrap();
    vec![
        vec![],
        vec![vec![Matcher::equal("__name__", "odd")]],
        vec![vec![Matcher::equal("__name__", "")]],
        vec![vec![with("__name__", MatchOp::Regex, ".+")]],
        vec![vec![with("pod", MatchOp::NotEqual, "")]],
        vec![
            vec![Matcher::equal("job", "2"), Matcher::equal("few", "4")],
            vec![with("Zone", MatchOp::Regex, "a|c")],
        ],
        vec![vec![Matcher::equal("quiet", "quiet-33")]],
        vec![vec![Matcher::equal("job", "none")]],
    ]
}

fn check(node: &Node, all: &BTreeSet<Labels>) {
    let (reader, range) = (node.reader(), (i64::MIN, i64::MAX));
    for matchers in selections() {
        let matches = |labels: &Labels| {
            let of = |matcher: &Matcher| matcher.matches(labels.get(&matcher.name).unwrap_or_default());
            matchers.is_empty() || matchers.iter().any(|all| all.iter().all(of))
        };
        let expected: Vec<Labels> = all.iter().filter(|labels| matches(labels)).cloned().collect();
        for limit in [0, 1, 700, 100_000] {
            let first = if limit == 0 { expected.len() } else { expected.len().min(limit as usize) };
            let found = reader.series(&matchers, range, limit, None).unwrap();
            assert!(found == expected[..first], "{matchers:?}, limit {limit}");
        }
        if let Some(until) = expected.get(expected.len() / 2) {
            let found = reader.series(&matchers, range, 0, Some(until)).unwrap();
            assert!(found == expected[..=expected.len() / 2], "{matchers:?}, until {until}");
        }
        let names: BTreeSet<&str> =
            expected.iter().flat_map(|labels| labels.iter().map(|pair| pair.0)).collect();
        let names: Vec<&str> = names.into_iter().collect();
        assert_eq!(reader.label_names(&matchers, range, 0, None).unwrap(), names, "{matchers:?}");
        for name in ["__name__", "Zone", "few", "pod", "quiet", "none"] {
            let values: BTreeSet<&str> = expected.iter().filter_map(|labels| labels.get(name)).collect();
            let values: Vec<&str> = values.into_iter().collect();
            let found = reader.label_values(name, &matchers, range, 0, None).unwrap();
            assert_eq!(found, values, "{matchers:?} {name}");
            let found = reader.label_values(name, &matchers, range, 2, None).unwrap();
            assert_eq!(found, values[..values.len().min(2)], "{matchers:?} {name}");
            if let Some(until) = values.get(values.len() / 2) {
                let found = reader.label_values(name, &matchers, range, 0, Some(until)).unwrap();
                assert_eq!(found, values[..=values.len() / 2], "{matchers:?} {name}");
            }
        }
    }
}

#[test]
fn lists_are_those_of_all_series_wherever_they_are() {
    let (mut node, all) = filled();
    check(&node, &all);
    check(&node, &all);
    node.store().flush().unwrap();
    check(&node, &all);
    node.store().merge(NOW, true, &|_| true).unwrap();
    check(&node, &all);
    node.reopen();
    check(&node, &all);
}
