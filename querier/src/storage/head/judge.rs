//! What the primary decides about a batch before it becomes an entry: replicas only apply.

use tricord_model::{Batch, Labels, MetricMetadata, Sample, SeriesBatch, SpanRecord, Tenant, Value};

use super::payload::{Payload, PayloadSeries};
use super::{Shard, delta};
use crate::storage::{Counts, Judged};

/// What is accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How long data is kept, in milliseconds; `None` keeps everything.
    pub(crate) retention_ms: Option<i64>,
    /// How far ahead of the clock a time may lie, in milliseconds.
    pub(crate) future_ms: i64,
    /// The primary's clock, in milliseconds.
    pub(crate) now_ms: i64,
}

/// Reasons kept for people; more would repeat them.
const MAX_REASONS: usize = 5;
/// Series forgotten by one entry at most.
const MAX_EVICTED: usize = 1000;
/// Times further from 1970 than this (some 140,000 years) are a mistake of units.
const MAX_TIME_MS: i64 = 1 << 52;
/// Metric families of a shard and tenant that are described; more are left without metadata.
const MAX_FAMILIES: usize = 100_000;

impl Rules {
    /// Why a time is refused.
    fn refuse(&self, time_ms: i64) -> Option<String> {
        let Self { retention_ms, future_ms, now_ms } = *self;
        if time_ms.unsigned_abs() > MAX_TIME_MS.unsigned_abs() {
            return Some(format!("time {time_ms} ms is out of range: are its units milliseconds?"));
        }
        if time_ms > now_ms.saturating_add(future_ms) {
            let (time, ahead) = (moment(time_ms), future_ms / 1000);
            return Some(format!("time {time} is more than {ahead} s in the future: is a clock wrong?"));
        }
        let horizon = retention_ms.map(|retention| now_ms.saturating_sub(retention));
        horizon.filter(|horizon| time_ms < *horizon).map(|horizon| {
            format!("time {} is before {}, where retention ends", moment(time_ms), moment(horizon))
        })
    }
}

/// A time in milliseconds for people: RFC 3339 in UTC.
fn moment(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms)
        .map_or_else(|_| format!("{time_ms} ms"), |time| time.to_string())
}

fn give_reason(counts: &mut Counts, of: &dyn std::fmt::Display, why: &str) {
    if counts.reasons.len() < MAX_REASONS {
        counts.reasons.push(format!("{of}: {why}"));
    }
}

impl Shard {
    /// Judges a batch: what is accepted becomes the payload of the shard's next entry, and is in the registry at once.
    pub(crate) fn judge(&mut self, tenant: &Tenant, batch: Batch, rules: Rules) -> Judged {
        let mut counts = Counts::default();
        let number = self.registry.tenant(tenant);
        let mut payload = Payload { tenant: tenant.clone(), ..Payload::default() };
        for series in batch.series {
            payload.series.extend(self.judge_series(number, series, rules, &mut counts));
        }
        for (family, metadata) in batch.metadata {
            if self.is_news(tenant, &family, &metadata) {
                payload.metadata.push((family, metadata));
            }
        }
        payload.spans = judge_spans(batch.spans, rules, &mut counts);
        let is_empty = payload.series.is_empty() && payload.metadata.is_empty() && payload.spans.is_empty();
        if !is_empty {
            payload.evicted = self.take_evictable(rules.now_ms);
        }
        Judged { payload: payload.encode(), is_empty, counts }
    }

    fn judge_series(
        &mut self,
        tenant: u32,
        batch: SeriesBatch,
        rules: Rules,
        counts: &mut Counts,
    ) -> Option<PayloadSeries> {
        let SeriesBatch { labels, mut samples, mut exemplars, delta } = batch;
        if labels.is_empty() {
            counts.rejected_samples += samples.len() as u64;
            counts.rejected_exemplars += exemplars.len() as u64;
            give_reason(counts, &labels, "a series needs labels");
            return None;
        }
        samples.retain(|sample| match rules.refuse(sample.t_ms) {
            None => true,
            Some(why) => {
                counts.rejected_samples += 1;
                give_reason(counts, &labels, &why);
                false
            }
        });
        exemplars.retain(|exemplar| match rules.refuse(exemplar.t_ms) {
            None => true,
            Some(why) => {
                counts.rejected_exemplars += 1;
                give_reason(counts, &labels, &why);
                false
            }
        });
        if samples.is_empty() && exemplars.is_empty() {
            return None;
        }
        let fingerprint = labels.fingerprint();
        let increments = delta.then(|| self.add_up(tenant, fingerprint, &labels, &mut samples, counts));
        counts.exemplars += exemplars.len() as u64;
        for sample in &samples {
            match sample.value {
                Value::Float(_) => counts.samples += 1,
                Value::Histogram(_) => counts.histograms += 1,
            }
        }
        if samples.is_empty() && exemplars.is_empty() {
            return None;
        }
        let (id, introduce) = self.series_id(tenant, fingerprint, &labels, rules.now_ms);
        let labels = introduce.then_some(labels);
        Some(PayloadSeries { id, labels, samples, increments, exemplars })
    }

    /// The id of a series, and whether the entry must carry its labels.
    fn series_id(&mut self, tenant: u32, fingerprint: u128, labels: &Labels, now_ms: i64) -> (u32, bool) {
        let epoch = self.epoch;
        let found = self.registry.find(tenant, fingerprint);
        if let Some((id, series)) = found.and_then(|id| self.registry.get_mut(id).map(|series| (id, series)))
        {
            series.used_ms = now_ms;
            let introduce = series.announced != epoch || epoch.0 == 0;
            series.announced = epoch;
            return (id, introduce);
        }
        let id = self.registry.next_id();
        self.registry.insert(id, tenant, labels, fingerprint, epoch);
        if let Some(series) = self.registry.get_mut(id) {
            series.used_ms = now_ms;
        }
        (id, true)
    }

    /// Replaces increments by totals; answers the increments that counted.
    fn add_up(
        &mut self,
        tenant: u32,
        fingerprint: u128,
        labels: &Labels,
        samples: &mut Vec<Sample>,
        counts: &mut Counts,
    ) -> Vec<Sample> {
        samples.sort_by_key(|sample| sample.t_ms);
        let id = self.registry.find(tenant, fingerprint);
        let mut state = id.and_then(|id| self.registry.get(id)).and_then(|series| series.delta.clone());
        let mut increments = Vec::with_capacity(samples.len());
        let mut totals = Vec::with_capacity(samples.len());
        for increment in samples.drain(..) {
            match delta::add(&mut state, &increment) {
                delta::Added::Total(total) => {
                    totals.push(total);
                    increments.push(increment);
                }
                delta::Added::Duplicate => counts.duplicates += 1,
            }
        }
        *samples = totals;
        if !samples.is_empty() {
            let id = id.unwrap_or_else(|| {
                let id = self.registry.next_id();
                // Under an epoch that never is, so that the entry still introduces it.
                self.registry.insert(id, tenant, labels, fingerprint, tricord_model::Epoch(0));
                id
            });
            if let Some(series) = self.registry.get_mut(id) {
                series.delta = state;
            }
        }
        increments
    }

    fn is_news(&self, tenant: &Tenant, family: &str, metadata: &MetricMetadata) -> bool {
        match self.metadata.get(&(tenant.clone(), family.to_owned())) {
            Some(known) => known != metadata,
            None => self.metadata.len() < MAX_FAMILIES,
        }
    }

    /// Some of the series that maintenance found idle, and that are still so.
    fn take_evictable(&mut self, now_ms: i64) -> Vec<u32> {
        let keep = self.evictable.len().saturating_sub(MAX_EVICTED);
        let idle_ms = 2 * self.window_len_ms;
        let candidates = self.evictable.split_off(keep);
        let is_idle = |id: &u32| {
            self.registry.get(*id).is_some_and(|series| {
                series.parts == 0 && !series.evicted && series.used_ms < now_ms.saturating_sub(idle_ms)
            })
        };
        let evicted: Vec<u32> = candidates.into_iter().filter(is_idle).collect();
        // At once, so that the next batch gives the series a new id instead of using one that this entry forgets.
        evicted.iter().for_each(|id| self.registry.evict(*id));
        evicted
    }
}

fn judge_spans(mut spans: Vec<SpanRecord>, rules: Rules, counts: &mut Counts) -> Vec<SpanRecord> {
    spans.retain(|span| match rules.refuse(span.start_ms()) {
        None => true,
        Some(why) => {
            counts.rejected_spans += 1;
            give_reason(counts, &format_args!("span of trace {}", span.trace_id), &why);
            false
        }
    });
    counts.spans += spans.len() as u64;
    spans
}
