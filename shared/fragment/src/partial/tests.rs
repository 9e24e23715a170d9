use std::sync::Arc;

use tricord_model::{FloatHistogram, Sample};
use tricord_promql::value::ABSENT;

use super::*;

#[track_caller]
fn check(body: PartialBody) {
    let partial = Partial { truncated: true, ..Partial::of(body) };
    same(&Partial::decode(&partial.encode().unwrap()).unwrap(), &partial);
}

/// States of groups have no equality of their own: different states may stand for the same sum.
#[track_caller]
fn same(left: &Partial, right: &Partial) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
}

fn labels() -> Labels {
    Labels::from_pairs([("__name__", "up"), ("job", "a")])
}

#[test]
fn small_bodies_come_back() {
    check(PartialBody::Names(vec!["a".into(), "b".into()]));
    check(PartialBody::Series(vec![labels()]));
    check(PartialBody::Raw(vec![(
        labels(),
        [Sample::float(5, 1.0), Sample::float(9, 2.0)].into_iter().collect(),
    )]));
    check(PartialBody::Exemplars(vec![(labels(), vec![Exemplar { labels: labels(), t_ms: 1, value: 2.0 }])]));
    check(PartialBody::Metadata(vec![("up".into(), MetricMetadata::default())]));
    check(PartialBody::Traces(vec![TraceSummary { trace_id: [3; 16], ..TraceSummary::default() }]));
}

#[test]
fn columns_keep_histograms_and_compress() {
    let histogram = Arc::new(FloatHistogram { count: 4.0, ..FloatHistogram::default() });
    let column = Column {
        labels: labels(),
        drop_name: true,
        floats: vec![1.5; 2000],
        histograms: vec![(7, histogram)],
    };
    let partial = Partial::of(PartialBody::Columns(vec![column.clone()]));
    let bytes = partial.encode().unwrap();
    assert!(bytes.len() < 4000, "{} bytes", bytes.len());
    same(&Partial::decode(&bytes).unwrap(), &partial);
}

#[test]
fn absent_steps_keep_their_mark() {
    let column = Column { labels: labels(), drop_name: false, floats: vec![ABSENT], histograms: vec![] };
    let bytes = Partial::of(PartialBody::Columns(vec![column])).encode().unwrap();
    let PartialBody::Columns(columns) = Partial::decode(&bytes).unwrap().body else { panic!("another kind") };
    assert_eq!(columns[0].floats[0].to_bits(), ABSENT.to_bits());
}

#[test]
fn every_cut_is_noticed() {
    let bytes = Partial::of(PartialBody::Series(vec![labels(); 3])).encode().unwrap();
    for len in 0..bytes.len() {
        assert!(Partial::decode(&bytes[..len]).is_err(), "cut at {len}");
    }
}
