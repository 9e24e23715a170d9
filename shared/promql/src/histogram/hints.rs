//! Counter reset hints: what a store knows of neighbouring samples, and what queries of counts and sums alone need.

use std::sync::Arc;

use tricord_model::{CounterResetHint, FloatHistogram, Points, is_stale};

use super::compare::detect_reset;

/// The hint with which a store keeps a histogram, given the sample right before it in the series where that is a
/// histogram: no reset is certain within a run of equal layout, anything else is unknown, as in Prometheus' chunks.
pub fn stored_reset_hint(previous: Option<&FloatHistogram>, current: &FloatHistogram) -> CounterResetHint {
    if current.counter_reset_hint == CounterResetHint::Gauge {
        return CounterResetHint::Gauge;
    }
    let Some(previous) = previous else { return CounterResetHint::Unknown };
    let breaks = current.counter_reset_hint == CounterResetHint::Reset
        || previous.counter_reset_hint == CounterResetHint::Gauge
        || is_stale(previous.sum)
        || is_stale(current.sum)
        || current.schema != previous.schema
        || current.zero_threshold != previous.zero_threshold
        || current.custom_values != previous.custom_values
        || fell(current, previous);
    if breaks { CounterResetHint::Unknown } else { CounterResetHint::NotReset }
}

/// Gives the histograms of a series, in the order of time, the hints of a store. A run of histograms begins anew at the
/// first sample and behind each float.
pub fn set_reset_hints(points: &mut Points) {
    let mut previous: Option<(u32, Arc<FloatHistogram>)> = None;
    for (at, histogram) in &mut points.histograms {
        let before = previous.as_ref().filter(|(place, _)| place + 1 == *at).map(|(_, before)| &**before);
        let hint = stored_reset_hint(before, histogram);
        let given = Arc::clone(histogram);
        if hint != given.counter_reset_hint {
            Arc::make_mut(histogram).counter_reset_hint = hint;
        }
        previous = Some((*at, given));
    }
}

/// Whether the populations themselves tell of a reset.
fn fell(current: &FloatHistogram, previous: &FloatHistogram) -> bool {
    let told = current.counter_reset_hint != CounterResetHint::Unknown;
    if told {
        let unknown = FloatHistogram { counter_reset_hint: CounterResetHint::Unknown, ..current.clone() };
        return detect_reset(&unknown, previous);
    }
    detect_reset(current, previous)
}

/// Histograms without buckets, for queries that read counts and sums alone; resets are found before the buckets go.
pub(crate) fn stats_only(points: &mut Points) {
    let mut last: Option<Arc<FloatHistogram>> = None;
    for (_, histogram) in &mut points.histograms {
        let full = Arc::clone(histogram);
        let stale = is_stale(full.sum);
        let hint = match (&last, full.counter_reset_hint) {
            (Some(last), CounterResetHint::Unknown) if !stale => match detect_reset(&full, last) {
                true => CounterResetHint::Reset,
                false => CounterResetHint::NotReset,
            },
            (_, hint) => hint,
        };
        *histogram = Arc::new(FloatHistogram {
            counter_reset_hint: hint,
            schema: full.schema,
            count: full.count,
            sum: full.sum,
            ..FloatHistogram::default()
        });
        if !stale {
            last = Some(full);
        }
    }
}

#[cfg(test)]
mod tests {
    use tricord_model::{Sample, Value};

    use super::*;

    #[test]
    fn only_a_run_of_one_layout_is_known_to_have_no_reset() {
        let of = |count: f64, schema: i32| FloatHistogram { count, schema, ..FloatHistogram::default() };
        let hint =
            |previous: &FloatHistogram, current: &FloatHistogram| stored_reset_hint(Some(previous), current);
        assert_eq!(stored_reset_hint(None, &of(1.0, 0)), CounterResetHint::Unknown);
        assert_eq!(hint(&of(1.0, 0), &of(2.0, 0)), CounterResetHint::NotReset);
        assert_eq!(hint(&of(2.0, 0), &of(1.0, 0)), CounterResetHint::Unknown);
        assert_eq!(hint(&of(1.0, 1), &of(2.0, 0)), CounterResetHint::Unknown);
    }

    #[test]
    fn runs_begin_anew_behind_floats() {
        let of = |count: f64, counter_reset_hint: CounterResetHint| {
            Value::Histogram(Arc::new(FloatHistogram {
                count,
                counter_reset_hint,
                ..FloatHistogram::default()
            }))
        };
        use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
        let values = [
            of(1.0, NotReset),
            of(2.0, Unknown),
            Value::Float(3.0),
            of(3.0, Unknown),
            of(4.0, Reset),
            of(5.0, NotReset),
            of(1.0, NotReset),
            of(2.0, Gauge),
            of(3.0, Unknown),
        ];
        let samples =
            values.into_iter().enumerate().map(|(at, value)| Sample { t_ms: at as i64, start_ms: 0, value });
        let mut points: Points = samples.collect();
        set_reset_hints(&mut points);
        let hints: Vec<_> = points.histograms.iter().map(|(_, h)| h.counter_reset_hint).collect();
        assert_eq!(hints, [Unknown, NotReset, Unknown, Unknown, NotReset, Unknown, Gauge, Unknown]);
    }
}
