//! Reading compared with a naive model, over random writes, flushes, restarts and moves of shards.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tricord_model::{Exemplar, MatchOp, Value};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Samples of a series: shard, instance, times and values.
    Write(u32, u32, Vec<(i64, u8)>),
    Flush,
    Maintain(i64),
    /// All that is over at this time, or all there is.
    Merge(Option<i64>),
    Reopen,
    /// A shard is copied to a fresh node, which takes over.
    Move(u32),
    /// A tail that is not committed is written and cut again.
    Cut(u32, u32),
    /// Some instances of a shard's series, by a regular expression, between two times.
    Delete(u32, &'static str, i64, i64),
    /// What was deleted is removed from the disk.
    Clean,
}

fn step() -> impl Strategy<Value = Step> {
    let samples = prop::collection::vec((-3 * WINDOW..WINDOW / 3, any::<u8>()), 1..12);
    prop_oneof![
        12 => (0u32..3, 0u32..6, samples).prop_map(|(shard, instance, list)| {
            // Few distinct times, so that some repeat.
            let list = list.into_iter().map(|(t, v)| (T0 + t / 400_000 * 400_000, v)).collect();
            Step::Write(shard, instance, list)
        }),
        3 => Just(Step::Flush),
        2 => (0i64..10).prop_map(|hours| Step::Maintain(NOW + hours * 3_600_000)),
        3 => prop::option::of(0i64..10)
            .prop_map(|hours| Step::Merge(hours.map(|hours| NOW + hours * 3_600_000))),
        2 => Just(Step::Reopen),
        1 => (0u32..3).prop_map(Step::Move),
        1 => (0u32..3, 0u32..6).prop_map(|(shard, instance)| Step::Cut(shard, instance)),
        4 => (0u32..3, 0usize..4, -4 * WINDOW..WINDOW, 0..3 * WINDOW).prop_map(|(shard, which, from, len)| {
            let which = ["1|2", "[3-9]", ".*", "5"][which];
            // Often just before or behind a sample.
            let start = T0 + from / 400_000 * 400_000 + from % 3 - 1;
            Step::Delete(shard, which, start, start + len / 400_000 * 400_000)
        }),
        2 => Just(Step::Clean),
    ]
}

#[derive(Default)]
struct Model {
    samples: BTreeMap<Labels, BTreeMap<i64, f64>>,
    /// Times and values.
    exemplars: BTreeMap<Labels, BTreeSet<(i64, u64)>>,
}

impl Model {
    /// Label sets of series that have samples.
    fn series(&self) -> BTreeSet<Labels> {
        self.samples.iter().filter(|(_, of)| !of.is_empty()).map(|(labels, _)| labels.clone()).collect()
    }
}

/// A series belongs to one shard.
fn name(shard: u32) -> String {
    format!("metric_{shard}")
}

fn run(node: &mut Node, model: &mut Model, step: &Step) {
    match step {
        Step::Write(shard, instance, list) => {
            let samples: Vec<(i64, f64)> = list.iter().map(|(t, v)| (*t, f64::from(*v) / 10.0)).collect();
            let mut one = series(&name(*shard), *instance, &samples);
            // An exemplar where a sample is, so that both are deleted together.
            let (t_ms, value) = samples[0];
            one.exemplars = vec![Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), t_ms, value }];
            node.write(*shard, batch(vec![one]));
            let labels = labels(&name(*shard), *instance);
            model.exemplars.entry(labels.clone()).or_default().insert((t_ms, value.to_bits()));
            let of = model.samples.entry(labels).or_default();
            for (t, v) in samples {
                of.entry(t).or_insert(v);
            }
        }
        Step::Flush => drop(node.store().flush().unwrap()),
        Step::Maintain(now) => drop(node.store().maintain(*now).unwrap()),
        Step::Merge(now) => {
            // What a reader holds is removed later, or by the next opening.
            let _reading = now.is_some().then(|| node.reader());
            node.store().merge(now.unwrap_or(NOW), now.is_none(), &|_| true).unwrap();
        }
        Step::Reopen => {
            node.reopen();
            // What the primary tells when it has reconciled: until then nobody knows what is committed.
            for shard in node.store().shards() {
                node.store().commit(shard, node.store().position(shard).seq);
            }
        }
        Step::Move(shard) => {
            let fresh =
                Node::with(|config| *config = StoreConfig { dir: config.dir.clone(), ..node.config.clone() });
            for id in 0..3 {
                let (position, mut chunks) = node.store().snapshot(ShardId(id)).unwrap();
                fresh.store().install(ShardId(id), position, &mut chunks).unwrap();
            }
            fresh.store().store_epoch(ShardId(*shard), fresh.store().stored_epoch(ShardId(*shard))).unwrap();
            *node = fresh;
        }
        Step::Cut(shard, instance) => {
            let before = node.store().position(ShardId(*shard)).seq;
            node.append(*shard, batch(vec![series(&name(*shard), *instance, &[(T0 + 77, 7.0)])]), NOW);
            node.append(*shard, batch(vec![series("uncommitted", *instance, &[(T0 + 77, 7.0)])]), NOW);
            node.append_delete(*shard, &deletion(*shard, ".*", i64::MIN, i64::MAX)).unwrap();
            node.store().flush().unwrap();
            node.store().cut(ShardId(*shard), before).unwrap();
            assert_eq!(node.store().position(ShardId(*shard)).seq, Seq(before.0));
        }
        Step::Delete(shard, which, start, end) => {
            let deletion = deletion(*shard, which, *start, *end);
            node.delete(*shard, &deletion);
            let hides = |t: i64| (*start..=*end).contains(&t);
            for (_, of) in model.samples.iter_mut().filter(|(labels, _)| deletion.matches(labels)) {
                of.retain(|t, _| !hides(*t));
            }
            for (_, of) in model.exemplars.iter_mut().filter(|(labels, _)| deletion.matches(labels)) {
                of.retain(|(t, _)| !hides(*t));
            }
        }
        Step::Clean => {
            node.store().flush().unwrap();
            assert_eq!(node.store().clean(&|_| true).unwrap().left, 0);
            assert_eq!(node.store().stats().tombstones, 0);
        }
    }
}

fn deletion(shard: u32, which: &str, start_ms: i64, end_ms: i64) -> Deletion {
    let instance = Matcher::new("instance", MatchOp::Regex, which).unwrap();
    Deletion { selectors: vec![vec![Matcher::equal("__name__", &name(shard)), instance]], start_ms, end_ms }
}

/// Lists of series, of label values and of exemplars, over all time.
fn check_lists(node: &Node, model: &Model) {
    let (expected, reader) = (model.series(), node.reader());
    let found = reader.series(&[], (i64::MIN, i64::MAX), 0, None).unwrap();
    assert_eq!(found, expected.iter().cloned().collect::<Vec<_>>());
    let first = reader.series(&[], (i64::MIN, i64::MAX), 3, None).unwrap();
    assert_eq!(first, found[..found.len().min(3)]);
    for name in ["__name__", "instance"] {
        let of = expected.iter().filter_map(|labels| labels.get(name)).map(str::to_owned);
        let of: BTreeSet<String> = of.collect();
        let selector = [vec![Matcher::equal("job", "test")]];
        for matchers in [&[][..], &selector] {
            let found = reader.label_values(name, matchers, (i64::MIN, i64::MAX), 0, None).unwrap();
            assert_eq!(found, of.iter().cloned().collect::<Vec<_>>());
        }
    }
    let found = reader.exemplars(&[], i64::MIN, i64::MAX, 0).unwrap();
    let found: BTreeMap<Labels, BTreeSet<(i64, u64)>> = found
        .into_iter()
        .map(|(labels, of)| (labels, of.iter().map(|one| (one.t_ms, one.value.to_bits())).collect()))
        .collect();
    let expected = model.exemplars.iter().filter(|(_, of)| !of.is_empty());
    assert_eq!(found, expected.map(|(labels, of)| (labels.clone(), of.clone())).collect());
}

fn check(node: &Node, model: &Model, matchers: &[Matcher], after_ms: i64, until_ms: i64) {
    let matches = |labels: &Labels| matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
    let expected: Vec<(Labels, Vec<(i64, f64)>)> = model
        .samples
        .iter()
        .filter(|(labels, _)| matches(labels))
        .map(|(labels, samples)| {
            let inside = samples.iter().filter(|(t, _)| **t > after_ms && **t <= until_ms);
            (labels.clone(), inside.map(|(t, v)| (*t, *v)).collect::<Vec<_>>())
        })
        .filter(|(_, samples)| !samples.is_empty())
        .collect();
    let found = node.reader().select(matchers, after_ms, until_ms, u64::MAX).unwrap();
    let found: Vec<(Labels, Vec<(i64, f64)>)> = found
        .into_iter()
        .map(|(labels, points)| {
            let samples = points.iter().map(|sample| match sample.value {
                Value::Float(value) => (sample.t_ms, value),
                Value::Histogram(_) => panic!("a histogram"),
            });
            (labels, samples.collect())
        })
        .collect();
    assert_eq!(found, expected, "{matchers:?} after {after_ms} until {until_ms}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn reading_equals_a_naive_model(epoch in 0u64..2, steps in prop::collection::vec(step(), 1..30)) {
        let mut node = Node::with(|config| {
            config.retention = Retention::keeping(None);
            config.segment_bytes = 2000;
            config.keep_segments = 0;
            config.merge_windows = vec![2, 4];
        });
        for shard in 0..3 {
            node.store().store_epoch(ShardId(shard), Epoch(epoch)).unwrap();
        }
        let mut model = Model::default();
        let with = |name: &str, op, value: &str| vec![Matcher::new(name, op, value).unwrap()];
        for step in &steps {
            run(&mut node, &mut model, step);
            check(&node, &model, &[], i64::MIN, i64::MAX - 1);
            check_lists(&node, &model);
        }
        for matchers in [
            with("__name__", MatchOp::Equal, "metric_1"),
            with("__name__", MatchOp::NotEqual, "metric_1"),
            with("instance", MatchOp::Regex, "[1-3]"),
            with("instance", MatchOp::NotRegex, "[1-3]|"),
            with("missing", MatchOp::Equal, ""),
        ] {
            check(&node, &model, &matchers, T0 - 2 * WINDOW, T0);
            check(&node, &model, &matchers, T0 - 1_200_000, T0 + 400_000);
        }
    }
}
