//! The walk against prost, over random requests, sound and damaged ones.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
    Sum, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;
use tricord_model::{Batch, Tenant};

use super::metrics::Output;
use super::{Strategy as Names, Translation, translate};
use crate::decode::otlp::build;
use crate::decode::{Allowance, Decoded};
use crate::recall::{Memory, Naming};
use crate::route::{Routed, Router};
use crate::{Error, TenantLimits};

/// A request as it is read in production, in memory.
pub(crate) fn walked(bytes: &[u8], allowance: &mut Allowance) -> Result<Decoded, Error> {
    walked_as(bytes, &Translation::default(), allowance)
}

fn walked_as(bytes: &[u8], translation: &Translation, allowance: &mut Allowance) -> Result<Decoded, Error> {
    let mut decoded = Decoded::default();
    translate(bytes, translation, allowance, &mut |_| Ok(()), &mut decoded)?;
    Ok(decoded)
}

/// The same by prost alone.
fn built(bytes: &[u8], translation: &Translation, allowance: &mut Allowance) -> Result<Decoded, Error> {
    let request = build::request(bytes, allowance)?;
    let mut decoded = Decoded::default();
    let mut output = Output::new(translation, allowance, &mut decoded);
    request.resource_metrics.iter().try_for_each(|resource| output.resource(resource))?;
    Ok(decoded)
}

/// Series with the bits of their values, so that NaN are compared too.
fn shown(decoded: &Decoded) -> String {
    let bits = |sample: &tricord_model::Sample| match &sample.value {
        tricord_model::Value::Float(value) => (sample.t_ms, sample.start_ms, value.to_bits(), String::new()),
        other => (sample.t_ms, sample.start_ms, 0, format!("{other:?}")),
    };
    let series = decoded.batch.series.iter().map(|series| {
        let samples: Vec<_> = series.samples.iter().map(bits).collect();
        (&series.labels, samples, format!("{:?}", series.exemplars), series.delta)
    });
    format!("{:?} {:?} {:?}", series.collect::<Vec<_>>(), decoded.batch.metadata, decoded.rejected)
}

/// The walk's answer, once it is seen to be that of prost.
#[track_caller]
pub(crate) fn both(
    bytes: &[u8],
    translation: &Translation,
    allowance: &mut Allowance,
) -> Result<Decoded, Error> {
    let by_prost = built(bytes, translation, &mut allowance.clone());
    let by_walk = walked_as(bytes, translation, allowance);
    match (&by_walk, &by_prost) {
        (Ok(walked), Ok(built)) => assert_eq!(shown(walked), shown(built)),
        (Err(_), Err(_)) => {}
        _ => panic!("the walk says {by_walk:?}, prost {by_prost:?}"),
    }
    by_walk
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-c._]{0,3}", 2 => "job|instance|__name__|le", 1 => ".{0,9}", 1 => "[ab]{100,130}"]
}

fn any_pair() -> impl Strategy<Value = KeyValue> {
    let value = prop_oneof![
        6 => any_text().prop_map(Any::StringValue),
        1 => any::<bool>().prop_map(Any::BoolValue),
        2 => any::<i64>().prop_map(Any::IntValue),
        1 => any::<f64>().prop_map(Any::DoubleValue),
        1 => Just(Any::BytesValue(vec![1, 2])),
        1 => Just(Any::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(Any::IntValue(1)) }] })),
    ];
    let value = prop::option::weighted(0.95, prop::option::weighted(0.95, value));
    (any_text(), value).prop_map(|(key, value)| KeyValue {
        key,
        value: value.map(|value| AnyValue { value }),
        ..KeyValue::default()
    })
}

fn pairs(most: usize) -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec(any_pair(), 0..most)
}

fn any_exemplar() -> impl Strategy<Value = Exemplar> {
    (pairs(2), any::<u64>()).prop_map(|(filtered_attributes, time_unix_nano)| Exemplar {
        filtered_attributes,
        time_unix_nano,
        trace_id: vec![7; 16],
        ..Exemplar::default()
    })
}

fn any_number() -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        any::<u64>().prop_map(|bits| number_data_point::Value::AsDouble(f64::from_bits(bits))),
        any::<i64>().prop_map(number_data_point::Value::AsInt),
    ];
    let exemplars = prop_oneof![5 => Just(Vec::new()), 1 => prop::collection::vec(any_exemplar(), 1..3)];
    let times = (0u64..1 << 62, 0u64..1 << 62);
    let flags = prop_oneof![5 => Just(0u32), 1 => any::<u32>()];
    (pairs(5), times, flags, prop::option::weighted(0.9, value), exemplars).prop_map(
        |(attributes, (start_time_unix_nano, time_unix_nano), flags, value, exemplars)| NumberDataPoint {
            attributes,
            start_time_unix_nano,
            time_unix_nano,
            flags,
            value,
            exemplars,
        },
    )
}

fn any_metric() -> impl Strategy<Value = Metric> {
    let points = || prop::collection::vec(any_number(), 0..4);
    let gauge = points().prop_map(|data_points| Data::Gauge(Gauge { data_points }));
    let sum =
        (points(), 0..4, any::<bool>()).prop_map(|(data_points, aggregation_temporality, is_monotonic)| {
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
        });
    let histogram = (pairs(3), any::<bool>()).prop_map(|(attributes, fits)| {
        let explicit_bounds = vec![0.5; if fits { 1 } else { 3 }];
        let point = HistogramDataPoint {
            attributes,
            explicit_bounds,
            bucket_counts: vec![1, 2],
            ..Default::default()
        };
        Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: 2 })
    });
    let data = prop::option::weighted(0.95, prop_oneof![3 => gauge, 3 => sum, 1 => histogram]);
    (any_text(), any_text(), prop_oneof![Just(""), Just("s"), Just("1")], pairs(2), data).prop_map(
        |(name, description, unit, metadata, data)| Metric {
            name,
            description,
            unit: unit.into(),
            metadata,
            data,
        },
    )
}

fn any_request() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let scope = prop::option::of((any_text(), pairs(3)).prop_map(|(name, attributes)| {
        InstrumentationScope { name, attributes, ..InstrumentationScope::default() }
    }));
    let scoped = (scope, prop::collection::vec(any_metric(), 0..3), any_text())
        .prop_map(|(scope, metrics, schema_url)| ScopeMetrics { scope, metrics, schema_url });
    let service = prop_oneof![Just(None), "[a-z]{1,4}".prop_map(Some)];
    let resource = prop::option::of((pairs(3), service).prop_map(|(mut attributes, service)| {
        let value = |text| Some(AnyValue { value: Some(Any::StringValue(text)) });
        attributes.extend(service.map(|name| KeyValue {
            key: "service.name".into(),
            value: value(name),
            ..KeyValue::default()
        }));
        Resource { attributes, ..Resource::default() }
    }));
    let of_resource = (resource, prop::collection::vec(scoped, 0..3), any_text()).prop_map(
        |(resource, scope_metrics, schema_url)| ResourceMetrics { resource, scope_metrics, schema_url },
    );
    prop::collection::vec(of_resource, 0..3)
        .prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

fn any_translation() -> impl Strategy<Value = Translation> {
    let strategy = prop_oneof![
        Just(Names::UnderscoreEscapingWithSuffixes),
        Just(Names::UnderscoreEscapingWithoutSuffixes),
        Just(Names::NoUTF8EscapingWithSuffixes),
        Just(Names::NoTranslation),
    ];
    (strategy, any::<bool>(), any::<bool>()).prop_map(|(strategy, all, promote_scope_metadata)| Translation {
        strategy,
        promote_all_resource_attributes: all,
        promote_scope_metadata,
        ..Translation::default()
    })
}

fn routed(memory: &Memory, bytes: &[u8], translation: &Translation) -> Result<Routed, Error> {
    let limits = TenantLimits { max_label_value_bytes: 120, ..TenantLimits::default() };
    let mut router = Router::new(Tenant::default(), 8, limits, 1 << 10);
    let allowance = &mut Allowance::new(64 << 20);
    memory.with(&Tenant::default(), Naming::ByLabels, &mut router, |sink| {
        translate(bytes, translation, allowance, &mut |_| Ok(()), sink)
    })?;
    Ok(router.finish())
}

/// What a request's pieces hold.
fn content(routed: &Routed) -> Vec<(u32, String)> {
    let pieces = routed.rounds.iter().flatten();
    let read = |piece: &crate::route::Piece| {
        let batch = Batch::decode(&piece.batch).unwrap();
        (piece.shard.0, shown(&Decoded { batch, ..Decoded::default() }))
    };
    pieces.map(read).collect()
}

proptest! {
    /// The walk reads what prost reads.
    #[test]
    fn any_request_is_translated_as_by_prost(request in any_request(), translation in any_translation()) {
        prop_assert!(both(&request.encode_to_vec(), &translation, &mut Allowance::new(64 << 20)).is_ok());
    }

    /// Points whose labels are remembered are the same as those that are read anew.
    #[test]
    fn memory_changes_nothing(request in any_request(), translation in any_translation()) {
        let bytes = request.encode_to_vec();
        let fresh = routed(&Memory::default(), &bytes, &translation).unwrap();
        let memory = Memory::default();
        for _ in 0..3 {
            let again = routed(&memory, &bytes, &translation).unwrap();
            prop_assert_eq!(content(&again), content(&fresh));
            prop_assert_eq!((again.items, &again.invalid, &again.misshapen), (fresh.items, &fresh.invalid, &fresh.misshapen));
        }
    }

    /// A byte changed or cut off is judged as prost judges it, whether what it was before is remembered or not.
    #[test]
    fn damaged_requests_are_judged_as_by_prost(
        request in any_request(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = request.encode_to_vec();
        prop_assume!(!bytes.is_empty());
        let (translation, memory) = (Translation::default(), Memory::default());
        routed(&memory, &bytes, &translation).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let _ = both(&bytes, &translation, &mut Allowance::new(64 << 20));
        let (fresh, again) =
            (routed(&Memory::default(), &bytes, &translation), routed(&memory, &bytes, &translation));
        prop_assert_eq!(again.ok().map(|routed| content(&routed)), fresh.ok().map(|routed| content(&routed)));
    }
}

#[test]
fn what_was_seen_is_recalled() {
    let pair = |key: &str, value| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let point = |value: f64| NumberDataPoint {
        attributes: vec![
            pair("http.method", Any::StringValue("GET".into())),
            pair("code", Any::IntValue(200)),
        ],
        time_unix_nano: 60_000_000_000,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let request = |value| {
        let data = Data::Gauge(Gauge { data_points: vec![point(value)] });
        let metric = Metric { name: "up".into(), data: Some(data), ..Metric::default() };
        let resource = Resource {
            attributes: vec![pair("service.name", Any::StringValue("shop".into()))],
            ..Resource::default()
        };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
        let of_resource =
            ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() };
        ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }.encode_to_vec()
    };
    let memory = Memory::default();
    let batch = |value| {
        let routed = routed(&memory, &request(value), &Translation::default()).unwrap();
        let bytes = routed.rounds[0][0].batch.clone();
        let views = tricord_model::BatchView::read(&bytes).unwrap();
        let is_sent = matches!(views.series[0].labels, tricord_model::LabelsView::Sent(_));
        (is_sent, Batch::decode(&bytes).unwrap().series)
    };
    let (first, second) = (batch(1.0), batch(2.0));
    assert_eq!((first.0, second.0), (false, true));
    assert_eq!(first.1[0].labels, second.1[0].labels);
    assert_eq!(second.1[0].labels.get("http_method"), Some("GET"));
    assert_eq!(second.1[0].samples[0].value, tricord_model::Value::Float(2.0));
}
