//! What the primary decides about a batch before it becomes an entry: replicas only apply.

use std::ops::RangeInclusive;

use tricord_model::{
    BatchView, Epoch, Labels, LabelsView, MetricMetadata, PlainSamples, Sample, SeriesView, SpanRecord,
    Tenant, Value,
};

use super::payload::{Others, PayloadSeries, PayloadWriter};
use super::{Shard, delta};
use crate::storage::{Counts, Error, Judged};

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

/// A series of a batch, as it was found before anything is changed.
enum Place {
    /// It is known, and lies in this slot.
    Known(u32),
    /// It is new; its labels are checked.
    New(Labels),
    /// It is new and without labels, and no sample of it is accepted: nobody need send them for that.
    Refused,
}

impl Rules {
    /// The times that [`Rules::refuse`] does not refuse.
    fn accepted(&self) -> RangeInclusive<i64> {
        let latest = self.now_ms.saturating_add(self.future_ms).min(MAX_TIME_MS);
        let horizon = self.retention_ms.map(|retention| self.now_ms.saturating_sub(retention));
        horizon.unwrap_or(i64::MIN).max(-MAX_TIME_MS)..=latest
    }

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
    ///
    /// # Errors
    /// [`Error::Invalid`] where the batch contradicts itself, [`Error::UnknownSeries`] where it lacks the labels of a
    /// series that is new here; nothing has changed then.
    pub(crate) fn judge(
        &mut self,
        tenant: &Tenant,
        batch: BatchView<'_>,
        rules: Rules,
    ) -> Result<Judged, Error> {
        let BatchView { series, metadata, spans } = batch;
        let number = self.registry.tenant(tenant);
        let accepted = rules.accepted();
        let places = self.places(number, &series, &accepted)?;
        let mut counts = Counts::default();
        let mut payload = PayloadWriter::with_capacity(series.len());
        for (one, place) in series.iter().zip(places) {
            match (one.only_plain(), &place) {
                (Some(plain), Place::Known(slot))
                    if plain.iter().all(|(t_ms, _)| accepted.contains(&t_ms)) =>
                {
                    self.judge_plain(*slot, plain, rules.now_ms, &mut payload, &mut counts);
                }
                _ => self.judge_series(number, one, place, rules, &mut payload, &mut counts),
            }
        }
        let mut others = Others::default();
        for (family, metadata) in metadata {
            if self.is_news(tenant, &family, &metadata) {
                others.metadata.push((family, metadata));
            }
        }
        others.spans = judge_spans(spans, rules, &mut counts);
        let is_empty = payload.is_empty() && others.metadata.is_empty() && others.spans.is_empty();
        if !is_empty {
            others.evicted = self.take_evictable(rules.now_ms);
        }
        Ok(Judged { payload: payload.finish(tenant, &others), is_empty, counts })
    }

    /// The payload of an entry that only forgets idle series; empty where none is left.
    pub(crate) fn judge_idle(&mut self, now_ms: i64) -> Judged {
        let others = Others { evicted: self.take_evictable(now_ms), ..Others::default() };
        let is_empty = others.evicted.is_empty();
        // Ids are the shard's own: whose entry it is does not matter.
        let payload = PayloadWriter::with_capacity(0).finish(&Tenant::own(), &others);
        Judged { payload, is_empty, counts: Counts::default() }
    }

    /// Looks for all series of a batch, and checks the labels of those that are new.
    fn places(
        &self,
        tenant: u32,
        series: &[SeriesView<'_>],
        accepted: &RangeInclusive<i64>,
    ) -> Result<Vec<Place>, Error> {
        let mut guess = 0;
        let mut places = Vec::with_capacity(series.len());
        for one in series {
            places.push(match self.registry.find(tenant, one.fingerprint, guess) {
                Some(slot) => {
                    guess = slot + 1;
                    Place::Known(slot)
                }
                None if matches!(one.labels, LabelsView::Known) => {
                    let is_accepted = |sample: Sample| accepted.contains(&sample.t_ms);
                    if one.samples().iter().any(is_accepted) || !one.exemplars().is_empty() {
                        return Err(Error::UnknownSeries(self.id));
                    }
                    Place::Refused
                }
                None => Place::New(
                    one.decode_labels()
                        .map_err(|error| Error::Invalid(format!("cannot read a series: {error}")))?,
                ),
            });
        }
        Ok(places)
    }

    /// Judges what nearly every series is: a known one, with floats that are accepted.
    #[inline]
    fn judge_plain(
        &mut self,
        slot: u32,
        samples: PlainSamples<'_>,
        now_ms: i64,
        payload: &mut PayloadWriter,
        counts: &mut Counts,
    ) {
        let Some(series) = self.registry.in_slot(slot).filter(|_| samples.iter().len() > 0) else { return };
        series.used_ms = now_ms;
        let introduce = is_to_introduce(series.announced, self.epoch);
        series.announced = self.epoch;
        payload.plain(series.id, introduce.then_some(&series.labels), samples);
        counts.samples += samples.iter().len() as u64;
    }

    fn judge_series(
        &mut self,
        tenant: u32,
        one: &SeriesView<'_>,
        place: Place,
        rules: Rules,
        payload: &mut PayloadWriter,
        counts: &mut Counts,
    ) {
        let labels = match place {
            Place::New(labels) => labels,
            Place::Refused => return refuse_nameless(one, rules, counts),
            Place::Known(slot) => match self.registry.in_slot(slot) {
                Some(series) => series.labels.clone(),
                None => return,
            },
        };
        let (fingerprint, samples, mut exemplars) =
            (one.fingerprint, one.samples(), one.exemplars().to_vec());
        if labels.is_empty() {
            counts.rejected_samples += samples.len() as u64;
            counts.rejected_exemplars += exemplars.len() as u64;
            give_reason(counts, &labels, "a series needs labels");
            return;
        }
        let mut samples: Vec<Sample> = samples.iter().collect();
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
            return;
        }
        let increments =
            one.is_delta().then(|| self.add_up(tenant, fingerprint, &labels, &mut samples, counts));
        counts.exemplars += exemplars.len() as u64;
        for sample in &samples {
            match sample.value {
                Value::Float(_) => counts.samples += 1,
                Value::Histogram(_) => counts.histograms += 1,
            }
        }
        if samples.is_empty() && exemplars.is_empty() {
            return;
        }
        let (id, introduce) = self.series_id(tenant, fingerprint, &labels, rules.now_ms);
        payload.series(&PayloadSeries {
            id,
            labels: introduce.then_some(&labels),
            samples: &samples,
            increments: increments.as_deref(),
            exemplars: &exemplars,
        });
    }

    /// The id of a series, and whether the entry must carry its labels.
    fn series_id(&mut self, tenant: u32, fingerprint: u128, labels: &Labels, now_ms: i64) -> (u32, bool) {
        let epoch = self.epoch;
        let found = self.registry.find(tenant, fingerprint, u32::MAX);
        if let Some(series) = found.and_then(|slot| self.registry.in_slot(slot)) {
            series.used_ms = now_ms;
            let introduce = is_to_introduce(series.announced, epoch);
            series.announced = epoch;
            return (series.id, introduce);
        }
        let id = self.registry.next_id();
        let slot = self.registry.insert(id, tenant, labels, fingerprint, epoch);
        if let Some(series) = slot.and_then(|slot| self.registry.in_slot(slot)) {
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
        let slot = self.registry.find(tenant, fingerprint, u32::MAX);
        let known = slot.and_then(|slot| self.registry.in_slot(slot));
        let mut state = known.and_then(|series| series.delta.as_deref().cloned());
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
            let slot = slot.or_else(|| {
                let id = self.registry.next_id();
                // Under an epoch that never is, so that the entry still introduces it.
                self.registry.insert(id, tenant, labels, fingerprint, Epoch(0))
            });
            if let Some(series) = slot.and_then(|slot| self.registry.in_slot(slot)) {
                series.delta = state.map(Box::new);
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

    /// Some of the series that maintenance found idle, and that are still so; none that the batch at hand has.
    fn take_evictable(&mut self, now_ms: i64) -> Vec<u32> {
        let keep = self.evictable.len().saturating_sub(MAX_EVICTED);
        let candidates = self.evictable.split_off(keep);
        let is_idle = |id: &u32| self.registry.is_idle(*id, self.idle, now_ms);
        let evicted: Vec<u32> = candidates.into_iter().filter(is_idle).collect();
        // At once, so that the next batch gives the series a new id instead of using one that this entry forgets.
        evicted.iter().for_each(|id| self.registry.retire(*id, self.epoch));
        evicted
    }
}

/// Counts samples of which none is accepted, and of which only a fingerprint says whose they are.
fn refuse_nameless(one: &SeriesView<'_>, rules: Rules, counts: &mut Counts) {
    counts.rejected_samples += one.samples().len() as u64;
    if let Some(why) = one.samples().iter().find_map(|sample| rules.refuse(sample.t_ms)) {
        give_reason(counts, &"a series that was sent before", &why);
    }
}

/// Whether the next entry must carry the labels of a series that were last in the log under an epoch.
fn is_to_introduce(announced: Epoch, now: Epoch) -> bool {
    announced != now || now.0 == 0
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_accepted_is_what_is_not_refused(
            retention_ms in proptest::option::of(0i64..1 << 40),
            future_ms in 0i64..1 << 40,
            now_ms in prop_oneof![any::<i64>(), 0i64..1 << 42],
            near in -3i64..4,
        ) {
            let rules = Rules { retention_ms, future_ms, now_ms };
            let horizon = now_ms.saturating_sub(retention_ms.unwrap_or(0));
            let edges = [0, MAX_TIME_MS, -MAX_TIME_MS, now_ms.saturating_add(future_ms), horizon, i64::MIN, i64::MAX];
            for edge in edges {
                let time_ms = edge.saturating_add(near);
                prop_assert_eq!(rules.accepted().contains(&time_ms), rules.refuse(time_ms).is_none());
            }
        }
    }
}
