//! What is written comes back: from memory, from disk, from both, and after opening again.

use std::sync::Arc;

use tricord_model::{
    BatchWriter, Exemplar, FloatHistogram, MatchOp, MetricKind, MetricMetadata, STALE_NAN, SeriesData, Value,
    is_stale,
};

use super::*;

fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher::new(name, op, value).unwrap()
}

#[test]
fn samples_come_back_from_memory_and_disk() {
    let mut node = Node::new();
    node.write(
        0,
        batch(vec![series("up", 1, &[(T0, 1.0), (T0 + 15_000, -0.0)]), series("up", 2, &[(T0, 0.1)])]),
    );
    node.write(1, batch(vec![series("up", 3, &[(T0 + 5, STALE_NAN)])]));
    let before = node.select(&[]);
    assert_eq!(before.len(), 3);
    assert!(is_stale(before[2].1.floats[0]));
    let bits = |found: &[(Labels, Points)]| -> Vec<Vec<u64>> {
        found.iter().map(|(_, points)| points.floats.iter().map(|v| v.to_bits()).collect()).collect()
    };
    let report = node.store().flush().unwrap();
    assert_eq!((report.windows, report.samples, report.uncommitted), (1, 4, 0));
    assert_eq!(bits(&node.select(&[])), bits(&before));
    node.reopen();
    assert_eq!(bits(&node.select(&[])), bits(&before));
    // Later samples of the same window join what is on disk.
    node.write(0, batch(vec![series("up", 1, &[(T0 + 30_000, 3.0)])]));
    let found = node.select(&[Matcher::equal("instance", "1")]);
    assert_eq!(found[0].1.t_ms, [T0, T0 + 15_000, T0 + 30_000]);
    node.store().flush().unwrap();
    assert_eq!(node.select(&[Matcher::equal("instance", "1")]), found);
}

#[test]
fn the_first_value_of_a_time_stays_wherever_the_second_arrives() {
    let mut node = Node::new();
    node.write(0, batch(vec![series("a", 1, &[(T0, 1.0), (T0, 2.0)])]));
    node.write(0, batch(vec![series("a", 1, &[(T0, 3.0)])]));
    assert_eq!(floats(&node.all()[&labels("a", 1)]), [(T0, 1.0)]);
    node.store().flush().unwrap();
    assert_eq!(node.store().stats().duplicate_samples, 2);
    node.write(0, batch(vec![series("a", 1, &[(T0, 4.0), (T0 + 1, 5.0)])]));
    assert_eq!(floats(&node.all()[&labels("a", 1)]), [(T0, 1.0), (T0 + 1, 5.0)]);
    node.store().flush().unwrap();
    node.reopen();
    assert_eq!(floats(&node.all()[&labels("a", 1)]), [(T0, 1.0), (T0 + 1, 5.0)]);
}

#[test]
fn everything_that_belongs_to_a_sample_is_kept() {
    let mut node = Node::new();
    let histogram = Arc::new(FloatHistogram {
        count: 3.0,
        sum: 0.1,
        positive_buckets: vec![],
        ..FloatHistogram::default()
    });
    let samples = vec![
        Sample { t_ms: T0, start_ms: T0 - 5, value: Value::Histogram(histogram) },
        Sample { t_ms: T0 + 1, start_ms: T0 - 5, value: Value::Float(f64::from_bits(0x7ff8_dead_beef_0001)) },
        Sample::float(T0 + 2, 1e-300),
    ];
    let exemplar = |t_ms| Exemplar { labels: Labels::from_pairs([("trace_id", "abc")]), t_ms, value: 0.25 };
    let metadata = MetricMetadata { kind: MetricKind::Counter, unit: "s".into(), help: "h".into() };
    let mut written = series("x", 1, &[]);
    written.samples = samples.clone();
    written.exemplars = vec![exemplar(T0 + 1), exemplar(T0), exemplar(T0)];
    let whole =
        Batch { series: vec![written], metadata: vec![("x".into(), metadata.clone())], spans: vec![] };
    let counts = node.write(0, whole);
    assert_eq!((counts.samples, counts.histograms, counts.exemplars), (2, 1, 3));
    for _ in 0..2 {
        let found = node.all();
        let found = &found[&labels("x", 1)];
        assert_eq!((&found[0], &found[2], found[1].start_ms), (&samples[0], &samples[2], T0 - 5));
        assert!(matches!(found[1].value, Value::Float(v) if v.to_bits() == 0x7ff8_dead_beef_0001));
        let exemplars = node.reader().exemplars(&[], T0, T0 + 10, 0).unwrap();
        assert_eq!(exemplars, [(labels("x", 1), vec![exemplar(T0), exemplar(T0 + 1)])]);
        assert_eq!(node.reader().metadata("x", 0).unwrap(), [("x".to_owned(), metadata.clone())]);
        assert!(node.reader().metadata("y", 0).unwrap().is_empty());
        node.store().flush().unwrap();
        node.reopen();
    }
}

#[test]
fn histograms_are_hinted_alike_in_memory_and_on_disk_wherever_a_range_begins() {
    let mut node = Node::new();
    let sample = |at: i64, count: f64| {
        let histogram = FloatHistogram { count, zero_count: count, ..FloatHistogram::default() };
        Sample { t_ms: T0 + at, start_ms: 0, value: Value::Histogram(Arc::new(histogram)) }
    };
    let mut written = series("h", 1, &[]);
    // The third one comes late, the fourth tells of a reset.
    written.samples = vec![sample(0, 1.0), sample(1, 2.0), sample(3, 1.0), sample(4, 3.0), sample(2, 2.0)];
    node.write(0, Batch { series: vec![written], ..Batch::default() });
    use tricord_model::CounterResetHint::{NotReset, Unknown};
    for _ in 0..2 {
        for (after_ms, expected) in [
            (T0 - 1, vec![Unknown, NotReset, NotReset, Unknown, NotReset]),
            (T0, vec![NotReset, NotReset, Unknown, NotReset]),
            (T0 + 3, vec![NotReset]),
        ] {
            let found = node.reader().select(&[], after_ms, T0 + 9, expected.len() as u64).unwrap();
            let hints: Vec<_> = found[0].1.histograms.iter().map(|(_, h)| h.counter_reset_hint).collect();
            assert_eq!(hints, expected, "after {after_ms}");
        }
        assert!(node.reader().select(&[], T0 + 4, T0 + 9, 1).unwrap().is_empty());
        node.store().flush().unwrap();
        node.reopen();
    }
}

#[test]
fn matchers_mean_the_same_in_memory_and_on_disk() {
    let node = Node::new();
    let mut list: Vec<SeriesBatch> = (0..300).map(|n| series("m", n, &[(T0, f64::from(n))])).collect();
    list.push(SeriesBatch {
        labels: Labels::from_pairs([("__name__", "bare")]),
        ..series("", 0, &[(T0, 1.0)])
    });
    node.write(0, batch(list));
    let cases = [
        (vec![matcher("instance", MatchOp::Equal, "7")], 1),
        (vec![matcher("instance", MatchOp::Equal, "")], 1),
        (vec![matcher("instance", MatchOp::NotEqual, "7")], 300),
        (vec![matcher("instance", MatchOp::NotEqual, "")], 300),
        (vec![matcher("instance", MatchOp::Regex, "1.|20")], 11),
        (vec![matcher("instance", MatchOp::Regex, "|5")], 2),
        (vec![matcher("instance", MatchOp::NotRegex, "1.*")], 190),
        (vec![matcher("instance", MatchOp::NotRegex, ".*")], 0),
        (vec![matcher("none", MatchOp::Regex, ".*")], 301),
        (vec![matcher("none", MatchOp::Regex, ".+")], 0),
        (vec![matcher("__name__", MatchOp::Equal, "m"), matcher("instance", MatchOp::Regex, "[0-4]")], 5),
        (vec![matcher("__name__", MatchOp::Equal, "m"), matcher("instance", MatchOp::Equal, "")], 0),
    ];
    let check = || {
        for (matchers, expected) in &cases {
            assert_eq!(node.select(matchers).len(), *expected, "{matchers:?}");
        }
        let reader = node.reader();
        assert_eq!(reader.label_names(&[], (T0, T0), 0, None).unwrap(), ["__name__", "instance", "job"]);
        assert_eq!(reader.label_values("__name__", &[], (T0, T0), 0, None).unwrap(), ["bare", "m"]);
        assert_eq!(reader.label_values("instance", &[], (T0, T0), 3, None).unwrap(), ["0", "1", "10"]);
        let some = [
            vec![matcher("instance", MatchOp::Regex, "5|6")],
            vec![matcher("instance", MatchOp::Equal, "9")],
        ];
        assert_eq!(reader.label_values("instance", &some, (T0, T0), 0, None).unwrap(), ["5", "6", "9"]);
        let series = reader.series(&some, (T0, T0), 0, None).unwrap();
        assert_eq!(series, [labels("m", 5), labels("m", 6), labels("m", 9)]);
        assert!(reader.series(&some, (T0 - 2 * WINDOW, T0 - WINDOW), 0, None).unwrap().is_empty());
    };
    check();
    node.store().flush().unwrap();
    check();
}

#[test]
fn tenants_are_walls() {
    let node = Node::new();
    let store = node.store();
    let other = Tenant::new("other").unwrap();
    node.write(0, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    let judged = judge(store, ShardId(0), &other, &batch(vec![series("a", 1, &[(T0, 2.0)])]), NOW).unwrap();
    let entry = Entry { shard: ShardId(0), seq: Seq(2), epoch: Epoch(1), payload: judged.payload };
    store.append(vec![entry]).blocking_recv().unwrap().unwrap();
    store.commit(ShardId(0), Seq(2));
    for _ in 0..2 {
        let found = store.reader(&store.shards(), &other, i64::MIN).select(&[], T0 - 1, T0, 10).unwrap();
        assert_eq!((found.len(), found[0].1.floats[0]), (1, 2.0));
        assert_eq!(floats(&node.all()[&labels("a", 1)]), [(T0, 1.0)]);
        store.flush().unwrap();
    }
}

#[test]
fn bounds_of_time_and_samples_are_kept() {
    let node = Node::new();
    node.write(0, batch(vec![series("a", 1, &[(T0, 0.0), (T0 + 1, 1.0), (T0 + 2, 2.0)])]));
    let check = || {
        let reader = node.reader();
        assert_eq!(reader.select(&[], T0, T0 + 1, 10).unwrap()[0].1.t_ms, [T0 + 1]);
        assert!(matches!(reader.select(&[], T0 - 1, T0 + 2, 2), Err(Error::Limit { limit: 2, .. })));
        assert!(reader.select(&[], T0 + 2, i64::MAX, 10).unwrap().is_empty());
        let store = node.store();
        let late = store.reader(&store.shards(), &Tenant::default(), T0 + 2);
        assert_eq!(late.select(&[], i64::MIN, i64::MAX, 10).unwrap()[0].1.t_ms, [T0 + 2]);
    };
    check();
    node.store().flush().unwrap();
    check();
    let cancelled = node.reader().with_cancel(Arc::new(true.into()));
    assert!(matches!(cancelled.select(&[], T0, T0 + 1, 10), Err(Error::Cancelled)));
}

#[test]
fn what_is_too_old_or_too_new_is_refused_with_reasons() {
    let node = Node::with(|config| config.retention = Retention::keeping(Some(86_400_000)));
    let counts = node.write(
        0,
        Batch {
            series: vec![series(
                "a",
                1,
                &[(NOW - 86_400_001, 1.0), (NOW, 2.0), (NOW + 600_001, 3.0), (i64::MAX, 4.0)],
            )],
            spans: vec![span(1, 1, NOW), span(1, 2, NOW - 86_400_001)],
            ..Batch::default()
        },
    );
    assert_eq!((counts.samples, counts.rejected_samples), (1, 3));
    assert_eq!((counts.spans, counts.rejected_spans), (1, 1));
    assert!(counts.reasons[0].contains("retention ends"), "{:?}", counts.reasons);
    assert!(counts.reasons[1].contains("in the future"), "{:?}", counts.reasons);
    let empty = SeriesBatch { labels: Labels::empty(), ..series("a", 1, &[(NOW, 1.0)]) };
    assert_eq!(node.write(0, batch(vec![empty])).rejected_samples, 1);
}

#[test]
fn any_past_time_is_taken_without_retention() {
    let mut node = Node::with(|config| config.retention = Retention::keeping(None));
    let times = [-1_000_000_000_000, -1, 0, 1, NOW];
    for t_ms in times {
        node.write(0, batch(vec![series("a", 1, &[(t_ms, t_ms as f64)])]));
    }
    node.store().flush().unwrap();
    node.store().maintain(NOW).unwrap();
    node.reopen();
    assert_eq!(node.select(&[])[0].1.t_ms, times);
}

#[test]
fn increments_are_added_up_once_even_over_a_restart() {
    let mut node = Node::new();
    node.store().store_epoch(ShardId(0), Epoch(1)).unwrap();
    let delta = |points: &[(i64, i64, f64)]| {
        let sample = |(start_ms, t_ms, v): &(i64, i64, f64)| Sample {
            t_ms: *t_ms,
            start_ms: *start_ms,
            value: Value::Float(*v),
        };
        batch(vec![SeriesBatch {
            samples: points.iter().map(sample).collect(),
            delta: true,
            ..series("d", 1, &[])
        }])
    };
    node.write(0, delta(&[(T0, T0 + 10, 1.0), (T0 + 10, T0 + 20, 2.0)]));
    assert_eq!(node.write(0, delta(&[(T0 + 10, T0 + 20, 2.0)])).duplicates, 1);
    for round in 0..4 {
        node.reopen();
        let t_ms = T0 + 30 + round * 10;
        node.write(0, delta(&[(t_ms - 10, t_ms, 4.0)]));
        if round % 2 == 0 {
            node.store().flush().unwrap();
        }
        if round == 2 {
            node.store().maintain(NOW).unwrap();
        }
    }
    let found = node.all();
    let expected =
        [(T0 + 10, 1.0), (T0 + 20, 3.0), (T0 + 30, 7.0), (T0 + 40, 11.0), (T0 + 50, 15.0), (T0 + 60, 19.0)];
    assert_eq!(floats(&found[&labels("d", 1)]), expected);
    assert!(found[&labels("d", 1)].iter().all(|sample| sample.start_ms == T0));
}

#[test]
fn spans_are_found_by_trace_and_by_time() {
    let mut node = Node::new();
    let spans: Vec<SpanRecord> =
        (0..40).flat_map(|trace| (0..5).map(move |id| span(trace, id, T0 + i64::from(trace)))).collect();
    node.write(0, Batch { spans: spans.clone(), ..Batch::default() });
    // Sent again, and a late one of a trace that is there.
    node.write(0, Batch { spans: spans[..10].to_vec(), ..Batch::default() });
    let late = span(3, 9, T0 - WINDOW);
    let check = |node: &Node, late_too: bool| {
        let found = node.reader().trace(&TraceId([3; 16]), 0, u64::MAX).unwrap();
        let mut expected = spans[15..20].to_vec();
        if late_too {
            expected.insert(0, late.clone());
        }
        assert_eq!(found, expected);
        assert_eq!(node.spans().len(), 200 + usize::from(late_too));
        assert!(node.reader().trace(&TraceId([99; 16]), 0, u64::MAX).unwrap().is_empty());
        let mut few = Vec::new();
        let visit = &mut |span: &SpanRecord| {
            few.push(span.trace_id);
            if few.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let ns = |ms: i64| ms as u64 * 1_000_000;
        node.reader().scan_spans(ns(T0 + 7), ns(T0 + 7), visit).unwrap();
        assert_eq!(few, [TraceId([7; 16]); 3]);
    };
    check(&node, false);
    node.store().flush().unwrap();
    check(&node, false);
    node.write(0, Batch { spans: vec![late.clone(), spans[16].clone()], ..Batch::default() });
    check(&node, true);
    node.store().flush().unwrap();
    node.reopen();
    check(&node, true);
    assert_eq!(node.spans().last(), Some(&late), "the older window comes last");
}

#[test]
fn windows_past_retention_are_dropped_whole() {
    let mut node = Node::with(|config| config.retention = Retention::keeping(Some(4 * WINDOW)));
    for window in 0..4 {
        let at = T0 + window * WINDOW;
        node.append(0, batch(vec![series("a", 1, &[(at, window as f64)])]), at);
        node.append(0, Batch { spans: vec![span(window as u8, 0, at)], ..Batch::default() }, at);
    }
    node.store().commit(ShardId(0), Seq(8));
    node.store().flush().unwrap();
    let now = T0 + 6 * WINDOW + 1;
    node.store().maintain(now).unwrap();
    assert_eq!(node.select(&[])[0].1.floats, [2.0, 3.0], "the window that is partly inside stays");
    assert_eq!(node.spans().len(), 2);
    node.reopen();
    assert_eq!(node.select(&[])[0].1.floats, [2.0, 3.0]);
    node.store().maintain(T0 + 20 * WINDOW).unwrap();
    node.reopen();
    assert!(node.select(&[]).is_empty());
    assert!(node.spans().is_empty());
}

#[test]
fn a_batch_that_contradicts_itself_changes_nothing() {
    let node = Node::new();
    let store = node.store();
    let mut bytes = batch(vec![series("good", 1, &[(T0, 1.0)])]).encode();
    let bad = batch(vec![series("bad", 1, &[(T0, 1.0)])]).encode();
    // Both series in one batch, the second one under a fingerprint that its labels do not have: behind the version, the
    // kind of the item and the flags.
    bytes.pop();
    let at = bytes.len() + 2;
    bytes.extend_from_slice(&bad[1..]);
    bytes[at] ^= 1;
    let view = BatchView::read(&bytes).unwrap();
    assert_eq!(view.series.len(), 2);
    let error = store.judge(ShardId(0), &Tenant::default(), view, NOW).unwrap_err();
    assert!(matches!(&error, Error::Invalid(why) if why.contains("fingerprint")), "{error}");
    assert_eq!((store.stats().series, node.all().len()), (0, 0));
    // The labels of a known series are not looked at: its fingerprint says which one is meant.
    node.write(0, batch(vec![series("good", 1, &[(T0, 1.0)])]));
    assert_eq!(floats(&node.all()[&labels("good", 1)]), [(T0, 1.0)]);
}

#[test]
fn a_series_without_labels_must_be_known() {
    let node = Node::new();
    let mut out = BatchWriter::default();
    let samples = [Sample::float(T0, 7.0)];
    let data = SeriesData { samples: &samples, ..SeriesData::default() };
    out.known_series(labels("good", 1).fingerprint(), &data);
    let bytes = out.finish();
    let judge = || {
        let batch = BatchView::read(&bytes).unwrap();
        node.store().judge(ShardId(0), &Tenant::default(), batch, NOW)
    };
    let error = judge().unwrap_err();
    assert!(matches!(error, Error::UnknownSeries(ShardId(0))), "{error}");
    assert_eq!((node.store().stats().series, node.all().len()), (0, 0));
    node.write(0, batch(vec![series("good", 1, &[(T0 - 1, 1.0)])]));
    assert_eq!(judge().unwrap().counts.samples, 1);
}

#[test]
fn samples_that_are_refused_need_no_labels() {
    let node = Node::with(|config| config.retention = Retention::keeping(Some(3_600_000)));
    let judged = |t_ms: &[i64]| {
        let samples: Vec<Sample> = t_ms.iter().map(|t_ms| Sample::float(*t_ms, 7.0)).collect();
        let mut out = BatchWriter::default();
        out.known_series(5, &SeriesData { samples: &samples, ..SeriesData::default() });
        let bytes = out.finish();
        node.store().judge(ShardId(0), &Tenant::default(), BatchView::read(&bytes).unwrap(), NOW)
    };
    let old = NOW - 4_000_000;
    let counts = judged(&[old, old + 1]).unwrap().counts;
    assert_eq!((counts.samples, counts.rejected_samples), (0, 2));
    assert!(counts.reasons[0].contains("retention"), "{:?}", counts.reasons);
    assert!(matches!(judged(&[old, NOW]), Err(Error::UnknownSeries(_))));
}

#[test]
fn memory_is_bounded_by_early_flushes_and_then_by_refusing() {
    let node = Node::with(|config| config.memory_limit_bytes = 2 << 20);
    // Values without a pattern, since a constant would take next to no memory.
    let value = |round: i64, n: u32| (f64::from(n) + round as f64 * 0.7).sin();
    let wide =
        |round: i64| batch((0..500).map(|n| series("a", n, &[(T0 + round, value(round, n))])).collect());
    let mut refused = None;
    for round in 0..1000 {
        let store = node.store();
        match judge(store, ShardId(0), &Tenant::default(), &wide(round), NOW) {
            Ok(judged) => {
                let entry = Entry {
                    shard: ShardId(0),
                    seq: Seq(round as u64 + 1),
                    epoch: Epoch(1),
                    payload: judged.payload,
                };
                store.append(vec![entry]).blocking_recv().unwrap().unwrap();
                store.commit(ShardId(0), Seq(round as u64 + 1));
            }
            Err(error) => {
                refused = Some((round, error));
                break;
            }
        }
    }
    let (round, error) = refused.expect("the bound is reached");
    assert!(matches!(error, Error::Overloaded { .. }) && tricord_wire::Error::from(error).retryable());
    assert!(node.store().maintain(NOW).unwrap().windows > 0, "the open window is written early");
    assert!(node.store().memory() < 1 << 20, "{}", node.store().memory());
    judge(node.store(), ShardId(0), &Tenant::default(), &wide(round), NOW).unwrap();
    assert_eq!(node.select(&[])[0].1.len(), round as usize);
}

#[test]
fn old_windows_are_written_by_maintenance_and_the_log_is_trimmed() {
    let mut node = Node::with(|config| {
        config.segment_bytes = 4096;
        config.keep_segments = 0;
    });
    let minutes = |n: i64| T0 + n * 60_000;
    for n in 0..120 {
        node.append(
            0,
            batch((0..20).map(|i| series("a", i, &[(minutes(n), n as f64)])).collect()),
            minutes(n),
        );
        node.append(1, batch(vec![series("idle", 1, &[(T0, 1.0)])]), minutes(n));
    }
    for shard in 0..2 {
        node.store().commit(ShardId(shard), Seq(120));
    }
    let before = node.store().stats().log_bytes;
    node.store().maintain(minutes(120)).unwrap();
    let report = node.store().maintain(minutes(126)).unwrap();
    assert_eq!(report.windows, 3, "all but the newest windows");
    node.store().maintain(minutes(126)).unwrap();
    let after = node.store().stats().log_bytes;
    assert!(after < before / 2, "{before} to {after} bytes of log");
    assert_eq!(node.store().entries(ShardId(0), Seq(0), 100).unwrap(), None, "a snapshot is needed");
    node.reopen();
    assert_eq!(node.select(&[Matcher::equal("instance", "7")])[0].1.len(), 120);
    assert_eq!(node.select(&[Matcher::equal("__name__", "idle")])[0].1.len(), 1);
}

#[test]
fn idle_series_are_forgotten_and_come_back_under_a_new_id() {
    let mut node = Node::new();
    node.store().store_epoch(ShardId(0), Epoch(1)).unwrap();
    node.append(0, batch((0..50).map(|i| series("a", i, &[(T0, 1.0)])).collect()), T0);
    node.store().commit(ShardId(0), Seq(1));
    node.store().flush().unwrap();
    let later = T0 + 5 * WINDOW;
    node.store().maintain(later).unwrap();
    node.append(0, batch(vec![series("b", 1, &[(later, 1.0)])]), later);
    assert_eq!(node.store().series_in(ShardId(0)), 1);
    node.append(0, batch(vec![series("a", 7, &[(later, 2.0)])]), later);
    node.store().commit(ShardId(0), Seq(3));
    assert_eq!(node.select(&[Matcher::equal("instance", "7")])[0].1.floats, [1.0, 2.0]);
    node.reopen();
    assert_eq!(node.store().series_in(ShardId(0)), 2);
    node.store().flush().unwrap();
    node.store().maintain(later).unwrap();
    node.reopen();
    assert_eq!(node.store().series_in(ShardId(0)), 2, "their rows are gone too");
    assert_eq!(node.select(&[Matcher::equal("instance", "7")])[0].1.floats, [1.0, 2.0]);
}

/// A store with series `old` of a window that is written out, and `new` of one so many windows later.
fn renewed(windows: i64, memory_limit_bytes: u64) -> Node {
    let node = Node::with(|config| config.memory_limit_bytes = memory_limit_bytes);
    let write = |name: &str, t_ms| {
        node.append(0, batch((0..50).map(|i| series(name, i, &[(t_ms, 1.0)])).collect()), NOW);
        node.store().commit(ShardId(0), node.store().position(ShardId(0)).seq);
        node.store().flush().unwrap();
    };
    write("old", T0 - windows * WINDOW);
    write("new", T0);
    node
}

#[test]
fn series_that_the_data_has_left_behind_are_forgotten_before_the_clock_says_so() {
    for (windows, left) in [(0, 101), (1, 101), (2, 51), (5, 51)] {
        let node = renewed(windows, u64::MAX);
        // A minute later by the clock.
        node.store().maintain(NOW + 60_000).unwrap();
        node.append(0, batch(vec![series("next", 1, &[(T0, 1.0)])]), NOW + 60_000);
        assert_eq!(node.store().series_in(ShardId(0)), left, "{windows} windows");
        assert_eq!(node.all().len(), 101);
    }
}

#[test]
fn a_series_that_came_back_is_not_forgotten() {
    let node = renewed(5, u64::MAX);
    node.store().maintain(NOW + 60_000).unwrap();
    // Found idle, but in use again when its turn comes.
    node.append(0, batch(vec![series("old", 7, &[(T0, 2.0)])]), NOW + 60_000);
    node.append(0, batch(vec![series("next", 1, &[(T0, 1.0)])]), NOW + 60_000);
    assert_eq!(node.store().series_in(ShardId(0)), 52);
    assert_eq!(node.select(&[Matcher::equal("instance", "7")]).len(), 2);
    let of_old = node.select(&[Matcher::equal("instance", "7"), Matcher::equal("__name__", "old")]);
    assert_eq!(of_old[0].1.floats, [1.0, 2.0]);
}

#[test]
fn short_memory_forgets_series_that_are_written_out_and_not_in_use() {
    let node = renewed(0, 50_000);
    let after = |ms: i64| {
        node.store().maintain(NOW + ms).unwrap();
        node.append(0, batch(vec![series("next", 1, &[(T0 + ms, 1.0)])]), NOW + ms);
        node.store().series_in(ShardId(0))
    };
    assert_eq!(after(60_000), 101, "all were in use a minute ago");
    assert_eq!(after(300_000), 1);
}

#[test]
fn a_flush_leaves_no_log_unless_a_replica_lags() {
    let mut node = Node::with(|config| config.segment_bytes = 4096);
    let write = |node: &Node, n: i64| {
        for shard in 0..3 {
            node.write(shard, batch((0..20).map(|i| series("a", i, &[(T0 + n, n as f64)])).collect()));
        }
    };
    (0..50).for_each(|n| write(&node, n));
    let before = node.store().stats().log_bytes;
    assert!(before > 8 * 4096, "{before}");
    node.store().hold(ShardId(1), Some(Seq(49)));
    node.store().flush().unwrap();
    let kept = node.store().stats();
    assert!(kept.log_kept_bytes > 0 && kept.log_bytes < before / 2, "{kept:?}");
    assert!(node.store().entries(ShardId(1), Seq(49), 1).unwrap().is_some_and(|entries| entries.len() == 1));
    node.store().hold(ShardId(1), None);
    node.store().flush().unwrap();
    let left = node.store().stats();
    assert!(left.log_bytes < 100 && left.log_kept_bytes == 0, "{left:?}");
    for n in 50..53 {
        node.reopen();
        write(&node, n);
    }
    node.reopen();
    assert_eq!(node.store().position(ShardId(2)).seq, Seq(53));
    assert_eq!(node.all().values().map(Vec::len).collect::<Vec<_>>(), [53; 20]);
}

/// Series alone fill memory, so that nothing is taken: once they are idle, the primary forgets them all the same.
#[test]
fn room_is_made_where_series_that_nobody_uses_fill_memory() {
    let node = Node::with(|config| config.memory_limit_bytes = 1 << 20);
    let try_write = |first: u32, now_ms: i64| {
        let all = (first..first + 100).map(|n| series("a", n, &[(T0, 1.0)])).collect();
        judge(node.store(), ShardId(0), &Tenant::default(), &batch(all), now_ms)
    };
    let mut next = 0;
    let is_full = |next: u32, now_ms: i64| matches!(try_write(next, now_ms), Err(Error::Overloaded { .. }));
    while !is_full(next, NOW) {
        while !is_full(next + 100, NOW) {
            next += 200;
            let all = (next..next + 100).map(|n| series("a", n, &[(T0, 1.0)])).collect();
            node.write(0, batch(all));
        }
        node.store().flush().unwrap();
    }
    let later = NOW + 10 * 60_000;
    node.store().maintain(later).unwrap();
    assert!(is_full(next, later), "whoever would write is refused, and nothing else changes that");
    let shard = ShardId(0);
    loop {
        let judged = node.store().judge_idle(shard, later).unwrap();
        if judged.is_empty {
            break;
        }
        let seq = node.store().position(shard).seq.next();
        let entry = Entry { shard, seq, epoch: Epoch(1), payload: judged.payload };
        node.store().append(vec![entry]).blocking_recv().unwrap().unwrap();
    }
    assert!(!is_full(next, later), "{} bytes are held", node.store().memory());
    assert!(node.select(&[]).len() >= 100, "what is forgotten can be read all the same");
}
