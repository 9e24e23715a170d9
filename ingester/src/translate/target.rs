//! What sent the metrics: `job`, `instance`, the labels it lends to its series, and its `target_info`.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tricord_model::{Sample, SeriesData};

use super::Translation;
use super::labels::{Pairs, text};
use crate::decode::Sink;
use crate::decode::sent::push_label;

/// Attributes that are in `job` and `instance` already.
const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];
/// Queries look back five minutes; a description every half of that never goes missing.
const INFO_INTERVAL_MS: i64 = 150_000;
/// How many descriptions one request may write for a target; older points have those of earlier requests.
const MAX_INFO: usize = 48;

/// A resource as the labels that it gives.
#[derive(Default)]
pub(super) struct Target<'a> {
    job: String,
    instance: String,
    promoted: Pairs<'a>,
    info: Pairs<'a>,
    /// The oldest and newest point seen.
    range_ms: Option<(i64, i64)>,
}

impl<'a> Target<'a> {
    pub(super) fn new(resource: Option<&'a Resource>, translation: &Translation) -> Result<Self, String> {
        let attributes: &'a [KeyValue] = resource.map_or(&[], |resource| &resource.attributes);
        let find = |key: &str| {
            attributes.iter().find(|attribute| attribute.key == key).map(|a| text(a.value.as_ref()))
        };
        let (namespace, name) =
            (find(IDENTIFYING[0]).unwrap_or_default(), find(IDENTIFYING[1]).unwrap_or_default());
        let job = if namespace.is_empty() || name.is_empty() {
            name.into_owned()
        } else {
            format!("{namespace}/{name}")
        };
        let promoted = attributes.iter().filter(|attribute| {
            translation.promote_all_resource_attributes
                || translation.promote_resource_attributes.contains(&attribute.key)
        });
        let identifying = |attribute: &&KeyValue| IDENTIFYING.contains(&attribute.key.as_str());
        let others = attributes.iter().any(|attribute| !identifying(&attribute));
        let told =
            attributes.iter().filter(|a| translation.keep_identifying_resource_attributes || !identifying(a));
        Ok(Self {
            job,
            instance: find(IDENTIFYING[2]).unwrap_or_default().into_owned(),
            promoted: Pairs::from_attributes(promoted, translation.strategy)?,
            info: if others { Pairs::from_attributes(told, translation.strategy)? } else { Pairs::default() },
            range_ms: None,
        })
    }

    /// The labels of a point: its attributes first, then what the resource and scope lend, `job` and `instance` over all.
    pub(super) fn lend<'p>(&'p self, pairs: &mut Pairs<'p>, scope: &'p Pairs<'_>) {
        pairs.fill(&self.promoted);
        pairs.fill(scope);
        if !self.job.is_empty() {
            pairs.set("job", &*self.job);
        }
        if !self.instance.is_empty() {
            pairs.set("instance", &*self.instance);
        }
    }

    /// Appends what every point is lent, in the form in which labels are remembered, unless one is too long. That a
    /// point's own labels come first is left out.
    pub(super) fn push_lent(&self, labels: &mut Vec<u8>) -> bool {
        let own = [("job", &self.job), ("instance", &self.instance)];
        let mut own = own.iter().filter(|(_, value)| !value.is_empty());
        own.all(|(name, value)| push_label(name, value, labels)) && self.promoted.push_to(labels)
    }

    /// Notes a point's time.
    pub(super) fn seen(&mut self, t_ms: i64) {
        let (oldest, newest) = self.range_ms.unwrap_or((t_ms, t_ms));
        self.range_ms = Some((oldest.min(t_ms), newest.max(t_ms)));
    }

    /// How many samples the series has that describes the target over the time of its points; 0 where there is nothing to
    /// tell.
    pub(super) fn info_samples(&self) -> usize {
        self.info_times().count()
    }

    fn info_times(&self) -> impl Iterator<Item = i64> + use<> {
        let is_told = !(self.info.is_empty() || self.job.is_empty() && self.instance.is_empty());
        let (oldest, newest) = self.range_ms.unzip();
        let times =
            std::iter::successors(newest.filter(|_| is_told), |t_ms| t_ms.checked_sub(INFO_INTERVAL_MS));
        times.take_while(move |t_ms| oldest.is_some_and(|oldest| *t_ms >= oldest)).take(MAX_INFO)
    }

    /// Writes the series that describes the target, where there is something to tell.
    pub(super) fn write_info(mut self, sink: &mut impl Sink) {
        let mut samples: Vec<Sample> = self.info_times().map(|t_ms| Sample::float(t_ms, 1.0)).collect();
        if samples.is_empty() {
            return;
        }
        samples.reverse();
        let mut info = std::mem::take(&mut self.info);
        self.promoted = Pairs::default();
        let no_scope = Pairs::default();
        self.lend(&mut info, &no_scope);
        if let Ok(labels) = info.series("target_info", None) {
            sink.series(&labels, None, &SeriesData { samples: &samples, ..SeriesData::default() });
        }
    }
}
