//! Random data sets: gauges, counters, classic and native histograms, with everything that makes series awkward.
//!
//! Values are small multiples of 1/8 wherever nothing else is wanted, so that sums of them are exact in any order.
//! Sample times lie off whole seconds, and every question is asked at whole seconds: so it does not matter that ranges
//! and lookback are left-open since Prometheus 3.0.

use std::collections::BTreeMap;
use std::fmt;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Seconds: where the data begins, a whole minute.
pub(crate) const START_S: i64 = 1_600_000_020;

/// Seconds from the first to the last sample. Prometheus' head takes an hour in any order of series.
pub(crate) const SPAN_S: i64 = 2_700;

/// The value of a stale marker.
pub(crate) fn stale() -> f64 {
    f64::from_bits(0x7ff0_0000_0000_0002)
}

/// A native histogram with whole counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Native {
    pub(crate) schema: i32,
    pub(crate) zero_threshold: f64,
    pub(crate) zero_count: u64,
    pub(crate) sum: f64,
    pub(crate) positive: BTreeMap<i32, u64>,
    pub(crate) negative: BTreeMap<i32, u64>,
}

impl Native {
    pub(crate) fn count(&self) -> u64 {
        self.zero_count + self.positive.values().sum::<u64>() + self.negative.values().sum::<u64>()
    }
}

/// A series of floats, or of native histograms.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    /// Label names and values in order.
    pub(crate) labels: BTreeMap<String, String>,
    /// Milliseconds and values.
    pub(crate) floats: Vec<(i64, f64)>,
    /// Milliseconds and histograms.
    pub(crate) histograms: Vec<(i64, Native)>,
}

/// Everything that both sides hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DataSet(pub(crate) Vec<Series>);

impl DataSet {
    pub(crate) fn random(rng: &mut StdRng) -> Self {
        let mut all = Vec::new();
        for name in ["g0", "g1"] {
            all.extend(labelled(rng, name).into_iter().map(|labels| gauge(rng, labels)));
        }
        for name in ["c0_total", "c1_total"] {
            all.extend(labelled(rng, name).into_iter().map(|labels| counter(rng, labels)));
        }
        for a in ["x", "y"] {
            all.extend(classic(rng, a));
        }
        if rng.random_bool(0.5) {
            all.extend(labelled(rng, "n0").into_iter().take(3).map(|labels| native(rng, labels)));
        }
        all.push(Series { labels: labels("one", &[]), floats: steady(1.0), ..Series::default() });
        all.retain(|series| series.floats.len() + series.histograms.len() > 0);
        Self(all)
    }

    pub(crate) fn samples(&self) -> usize {
        self.0.iter().map(|series| series.floats.len() + series.histograms.len()).sum()
    }
}

/// One line per series: labels, then seconds since [`START_S`] with values.
impl fmt::Display for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |t_ms: i64| (t_ms - START_S * 1000) as f64 / 1000.0;
        for series in &self.0 {
            write!(f, "  {:?}:", series.labels)?;
            for (t_ms, value) in &series.floats {
                match value.to_bits() == stale().to_bits() {
                    true => write!(f, " {}:stale", seconds(*t_ms))?,
                    false => write!(f, " {}:{value}", seconds(*t_ms))?,
                }
            }
            for (t_ms, value) in &series.histograms {
                write!(f, " {}:{value:?}", seconds(*t_ms))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn labels(name: &str, pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let named = [("__name__", name)];
    named.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The label sets of one metric: some of the combinations of `a` and `b`, now and then with a label `c`.
fn labelled(rng: &mut StdRng, name: &str) -> Vec<BTreeMap<String, String>> {
    let mut all = Vec::new();
    for a in ["x", "y", "z"] {
        for b in ["1", "2"] {
            if rng.random_bool(0.6) {
                let mut set = labels(name, &[("a", a), ("b", b)]);
                if rng.random_bool(0.2) {
                    set.insert(
                        "c".to_owned(),
                        ["ü", "x-1", "1"].choose(rng).copied().unwrap_or_default().to_owned(),
                    );
                }
                all.push(set);
            }
        }
    }
    all
}

/// Sample times, with jitter, gaps, and now and then a late start or an early end.
fn times(rng: &mut StdRng) -> Vec<i64> {
    let interval_ms = *[10_000, 15_000, 30_000, 60_000].choose(rng).unwrap_or(&15_000);
    let jitter = if rng.random_bool(0.3) { interval_ms / 4 } else { 0 };
    let mut from = START_S * 1000;
    let mut until = from + SPAN_S * 1000;
    if rng.random_bool(0.2) {
        from += rng.random_range(0..SPAN_S) * 1000;
    }
    if rng.random_bool(0.2) {
        until -= rng.random_range(0..SPAN_S) * 1000;
    }
    let gaps = if rng.random_bool(0.3) { 0.05 } else { 0.0 };
    let mut all = Vec::new();
    let mut t_ms = from + rng.random_range(0..interval_ms);
    while t_ms < until {
        let jittered = t_ms + if jitter > 0 { rng.random_range(0..jitter) } else { 0 };
        // Off whole seconds.
        all.push(jittered - jittered.rem_euclid(1000) + rng.random_range(1..1000));
        t_ms += interval_ms;
        if gaps > 0.0 && rng.random_bool(gaps) {
            t_ms += rng.random_range(1..40) * 15_000;
        }
    }
    all.dedup();
    all
}

fn steady(value: f64) -> Vec<(i64, f64)> {
    (0..SPAN_S / 15).map(|i| (START_S * 1000 + i * 15_000 + 500, value)).collect()
}

/// Puts stale markers in, one at most per twenty samples.
fn with_stale_markers(rng: &mut StdRng, mut floats: Vec<(i64, f64)>) -> Vec<(i64, f64)> {
    if rng.random_bool(0.3) {
        for (_, value) in &mut floats {
            if rng.random_bool(0.05) {
                *value = stale();
            }
        }
    }
    floats
}

fn eighth(rng: &mut StdRng, range: i64) -> f64 {
    rng.random_range(-range * 8..=range * 8) as f64 / 8.0
}

fn gauge(rng: &mut StdRng, labels: BTreeMap<String, String>) -> Series {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e6, -1e-9];
    let odd = if rng.random_bool(0.25) { 0.08 } else { 0.0 };
    let held = eighth(rng, 50);
    let constant = rng.random_bool(0.15);
    let range = *[1, 4, 100, 10_000].choose(rng).unwrap_or(&100);
    let value = |rng: &mut StdRng| match () {
        () if odd > 0.0 && rng.random_bool(odd) => *special.choose(rng).unwrap_or(&0.0),
        () if constant => held,
        () if range == 1 => rng.random_range(-1..=1) as f64,
        () => eighth(rng, range),
    };
    let floats = times(rng).into_iter().map(|t_ms| (t_ms, value(rng))).collect();
    Series { labels, floats: with_stale_markers(rng, floats), ..Series::default() }
}

fn counter(rng: &mut StdRng, labels: BTreeMap<String, String>) -> Series {
    let resets = if rng.random_bool(0.4) { 0.05 } else { 0.0 };
    let mut total = if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0..10_000) as f64 };
    let mut floats = Vec::new();
    for t_ms in times(rng) {
        if resets > 0.0 && rng.random_bool(resets) {
            total = rng.random_range(0..3) as f64;
        }
        floats.push((t_ms, total));
        total += if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0..200) as f64 / 8.0 };
    }
    Series { labels, floats: with_stale_markers(rng, floats), ..Series::default() }
}

/// The buckets of a classic histogram as series; now and then malformed as real ones are.
fn classic(rng: &mut StdRng, a: &str) -> Vec<Series> {
    let mut bounds = vec!["0.1", "0.5", "1", "2.5", "10", "+Inf"];
    match rng.random_range(0..10) {
        0 => bounds.retain(|bound| *bound != "+Inf"),
        1 => bounds.push("oops"),
        2 => bounds.insert(0, "-1"),
        3 => bounds = vec!["+Inf"],
        _ => {}
    }
    let mut counts = vec![0.0; bounds.len()];
    let mut all: Vec<Series> = bounds
        .iter()
        .map(|le| Series { labels: labels("h_bucket", &[("a", a), ("le", le)]), ..Series::default() })
        .collect();
    let uneven = rng.random_bool(0.15);
    for t_ms in times(rng) {
        for _ in 0..rng.random_range(0..6) {
            let from = rng.random_range(0..bounds.len());
            let until = if uneven { (from + 2).min(bounds.len()) } else { bounds.len() };
            counts[from..until].iter_mut().for_each(|count| *count += 1.0);
        }
        all.iter_mut().zip(&counts).for_each(|(series, count)| series.floats.push((t_ms, *count)));
    }
    all
}

fn native(rng: &mut StdRng, labels: BTreeMap<String, String>) -> Series {
    let schema = rng.random_range(-1..=3);
    let mut now = Native {
        schema,
        zero_threshold: 2f64.powi(-128),
        zero_count: 0,
        sum: 0.0,
        positive: BTreeMap::new(),
        negative: BTreeMap::new(),
    };
    let empty = now.clone();
    let negative = rng.random_bool(0.3);
    let resets = if rng.random_bool(0.3) { 0.05 } else { 0.0 };
    let mut histograms = Vec::new();
    for t_ms in times(rng) {
        if resets > 0.0 && rng.random_bool(resets) {
            now = empty.clone();
        }
        for _ in 0..rng.random_range(0..5) {
            match rng.random_range(0..10) {
                0 => now.zero_count += 1,
                1..=3 if negative => *now.negative.entry(rng.random_range(-2..6)).or_default() += 1,
                _ => *now.positive.entry(rng.random_range(-2..8)).or_default() += 1,
            }
            now.sum += eighth(rng, 20);
        }
        histograms.push((t_ms, now.clone()));
    }
    Series { labels, histograms, ..Series::default() }
}
