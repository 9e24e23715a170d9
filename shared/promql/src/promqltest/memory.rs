//! Series in memory, and the evaluator of this crate over them.

use std::collections::BTreeMap;

use tricord_model::{Labels, Points, Sample};

use super::script::LoadedSeries;
use super::{Answer, Target};
use crate::eval::{EvalOptions, NoSources, evaluate};
use crate::parser::{ParserOptions, parse};
use crate::storage::{Selection, Storage, StorageError, set_reset_hints};
use crate::value::Grid;

/// Series in memory, for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    series: BTreeMap<Labels, Points>,
}

impl MemoryStorage {
    /// Stores samples; of two at one time the first stays.
    pub fn insert(&mut self, labels: &Labels, points: &Points) {
        let stored = self.series.entry(labels.clone()).or_default();
        let mut samples: Vec<Sample> = stored.iter().chain(points.iter()).collect();
        samples.sort_by_key(|sample| sample.t_ms);
        samples.dedup_by_key(|sample| sample.t_ms);
        *stored = samples.into_iter().collect();
        set_reset_hints(stored);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.series.clear();
    }
}

impl Storage for MemoryStorage {
    fn select(&self, selection: &Selection<'_>) -> Result<Vec<(Labels, Points)>, StorageError> {
        let mut out = Vec::new();
        for (labels, points) in &self.series {
            let matches = |m: &tricord_model::Matcher| m.matches(labels.get(&m.name).unwrap_or(""));
            if !selection.matchers.iter().all(matches) {
                continue;
            }
            let from = points.t_ms.partition_point(|t| *t <= selection.after_ms);
            let to = points.t_ms.partition_point(|t| *t <= selection.until_ms);
            let chosen: Points = (from..to.max(from)).filter_map(|at| points.get(at)).collect();
            if !chosen.is_empty() {
                out.push((labels.clone(), chosen));
            }
        }
        Ok(out)
    }
}

/// The evaluator over series in memory, with the options of upstream's tests.
#[derive(Clone, Debug, Default)]
pub struct LocalTarget {
    storage: MemoryStorage,
    places: bool,
}

impl LocalTarget {
    /// One whose notes say where in the query they belong, as those of the HTTP API do.
    #[must_use]
    pub fn with_places() -> Self {
        Self { places: true, ..Self::default() }
    }
}

/// What upstream's test engine allows a query.
const MAX_SAMPLES: u64 = 10_000;

/// All of the language.
pub(super) fn parser_options() -> ParserOptions {
    ParserOptions { experimental_functions: true, ..ParserOptions::default() }
}

impl Target for LocalTarget {
    fn clear(&mut self) {
        self.storage.clear();
    }

    fn load(&mut self, series: &[LoadedSeries]) {
        series.iter().for_each(|series| self.storage.insert(&series.labels, &series.points));
    }

    fn query(&mut self, query: &str, grid: Grid, _instant: bool) -> Answer {
        let expr = parse(query, &parser_options()).map_err(|error| error.to_string())?;
        let options = EvalOptions {
            delayed_name_removal: true,
            start_timestamps: true,
            max_samples: MAX_SAMPLES,
            query_text: self.places.then(|| query.into()),
            ..EvalOptions::new(grid)
        };
        let evaluated =
            evaluate(&expr, grid, &self.storage, &NoSources, &options).map_err(|error| error.to_string())?;
        Ok((evaluated.value, evaluated.annotations))
    }

    fn has_histograms(&self, query: &str) -> bool {
        let Ok(expr) = parse(query, &parser_options()) else { return false };
        expr.selectors().iter().any(|selector| {
            self.storage.series.iter().any(|(labels, points)| {
                let matches = |m: &tricord_model::Matcher| m.matches(labels.get(&m.name).unwrap_or(""));
                !points.histograms.is_empty() && selector.matchers.iter().all(matches)
            })
        })
    }
}
