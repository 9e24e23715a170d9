//! OTLP metrics walked where they lie: gauges and sums are read point by point, and a point whose labels were seen before
//! costs no more than a hash of them.
//!
//! Whatever is not as nearly all senders write it is built by prost, in the smallest piece that holds it, and goes the way
//! of `metrics`; that is also where broken pieces are named. Nothing of a piece reaches the sink before it is known which
//! way it goes.

use tricord_model::{METRIC_NAME, MetricKind, STALE_NAN, Sample, SeriesBatch, SeriesData, Value};

use super::labels::{Pairs, scope};
use super::metrics::{Family, NO_RECORDED_VALUE, Output, Told, millis};
use super::sent::Point;
use super::target::Target;
use super::{MetricShape, Translation};
use crate::Error;
use crate::decode::otlp::build;
use crate::decode::sent::push_label;
use crate::decode::{Allowance, Message, Sink};

/// Points of so many bytes are reserved for before they are built.
const LARGE_POINT: usize = 4 << 10;

/// Reads a request (`ExportMetricsServiceRequest`) into a sink. Points that cannot be translated are counted as rejected;
/// the others are kept. `reserve` is told how much memory is about to be taken beside the request and the sink.
///
/// # Errors
/// [`Error::Invalid`] for what is not such a request, [`Error::TooLarge`] when the allowance is spent (a point with many
/// buckets repeats its labels for each), and what `reserve` says. The sink has a part of the request then.
pub fn translate(
    bytes: &[u8],
    translation: &Translation,
    allowance: &mut Allowance,
    reserve: &mut dyn FnMut(usize) -> Result<(), Error>,
    sink: &mut impl Sink,
) -> Result<(), Error> {
    if !is_sound(bytes, 1) {
        // Here it is said what is wrong.
        return build::request(bytes, allowance).map(|_| ());
    }
    let mut walk = Walk { output: Output::new(translation, allowance, sink), reserve, sent: Vec::new() };
    each(bytes, 1).try_for_each(|resource| walk.resource(resource))
}

struct Walk<'a, S> {
    output: Output<'a, S>,
    reserve: &'a mut dyn FnMut(usize) -> Result<(), Error>,
    /// Labels as a sender of remote write has them: those of the metric at hand, then those of the point.
    sent: Vec<u8>,
}

/// Whether a message can be walked, and all its fields of that number are messages.
fn is_sound(bytes: &[u8], wanted: u32) -> bool {
    let mut message = Message::new(bytes);
    loop {
        match message.next() {
            Ok(None) => return true,
            Ok(Some((number, field))) if number != wanted || field.bytes(number).is_ok() => {}
            _ => return false,
        }
    }
}

/// The messages in one field of a message that can be walked. They are not gathered: two bytes of a request may be one.
fn each(bytes: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    let mut message = Message::new(bytes);
    let fields = std::iter::from_fn(move || message.next().ok().flatten());
    fields.filter_map(move |(number, field)| if number == wanted { field.bytes(number).ok() } else { None })
}

/// The parts of `ResourceMetrics` and of `ScopeMetrics`, which are alike: one head, many members (field 2), a schema's
/// address.
#[derive(Default)]
struct Group<'a> {
    head: Option<&'a [u8]>,
    schema_url: &'a str,
}

impl<'a> Group<'a> {
    const MEMBERS: u32 = 2;

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (mut group, mut message) = (Self::default(), Message::new(bytes));
        while let Some((number, field)) = message.next().ok()? {
            match number {
                // Two would be merged.
                1 if group.head.is_some() => return None,
                1 => group.head = Some(field.bytes(number).ok()?),
                Self::MEMBERS => drop(field.bytes(number).ok()?),
                3 => group.schema_url = field.str(number).ok()?,
                _ => {}
            }
        }
        Some(group)
    }
}

/// A gauge or a sum, with the texts of its metric.
struct Numbers<'a> {
    told: Told<'a>,
    /// Whether the metric has attributes of its own.
    has_metadata: bool,
    /// Where the points are.
    data: &'a [u8],
}

impl<'a> Numbers<'a> {
    const METADATA: u32 = 12;
    const POINTS: u32 = 1;

    /// Reads a metric; nothing where it is of another kind.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (mut name, mut description, mut unit) = ("", "", "");
        let (mut has_metadata, mut data) = (false, None);
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next().ok()? {
            match number {
                1 => name = field.str(number).ok()?,
                2 => description = field.str(number).ok()?,
                3 => unit = field.str(number).ok()?,
                5 | 7 if data.is_none() => data = Some((number == 7, field.bytes(number).ok()?)),
                5 | 7 | 9..=11 => return None,
                Self::METADATA => {
                    field.bytes(number).ok()?;
                    has_metadata = true;
                }
                _ => {}
            }
        }
        let (is_sum, data) = data?;
        let (mut temporality, mut is_monotonic, mut points) = (0, false, 0);
        let mut message = Message::new(data);
        while let Some((number, field)) = message.next().ok()? {
            match number {
                Self::POINTS => points += field.bytes(number).map(|_| 1).ok()?,
                2 if is_sum => temporality = field.varint(number).ok()? as i32,
                3 if is_sum => is_monotonic = field.varint(number).ok()? != 0,
                _ => {}
            }
        }
        let (shape, kind) = match (is_sum, is_monotonic) {
            (false, _) => (MetricShape::Gauge, MetricKind::Gauge),
            (true, true) => (MetricShape::MonotonicSum, MetricKind::Counter),
            (true, false) => (MetricShape::Other, MetricKind::Gauge),
        };
        let temporality = is_sum.then_some(temporality);
        let told = Told { name, description, unit, shape, kind, temporality, points };
        Some(Self { told, has_metadata, data })
    }
}

impl<S: Sink> Walk<'_, S> {
    /// Builds a piece that is not walked, and reserves what it takes.
    fn build<M>(
        &mut self,
        piece: impl FnOnce(&[u8], &mut Allowance) -> Result<M, Error>,
        bytes: &[u8],
    ) -> Result<M, Error> {
        let before = self.output.allowance.used();
        let built = piece(bytes, self.output.allowance)?;
        (self.reserve)(self.output.allowance.used() - before)?;
        Ok(built)
    }

    fn resource(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(group) = Group::read(bytes) else {
            let built = self.build(build::resource_metrics, bytes)?;
            return self.output.resource(&built);
        };
        let head = group.head.map(|head| build::resource(head, self.output.allowance)).transpose()?;
        let Ok(mut target) = Target::new(head.as_ref(), self.output.translation) else {
            // All its points are refused, and counted.
            let built = self.build(build::resource_metrics, bytes)?;
            return self.output.resource(&built);
        };
        each(bytes, Group::MEMBERS).try_for_each(|scoped| self.scope(scoped, &mut target))?;
        self.output.finish(target)
    }

    fn scope(&mut self, bytes: &[u8], target: &mut Target<'_>) -> Result<(), Error> {
        let Some(group) = Group::read(bytes) else {
            let built = self.build(build::scope_metrics, bytes)?;
            return self.output.scope(&built, target);
        };
        let head = group.head.map(|head| build::scope(head, self.output.allowance)).transpose()?;
        let translation = self.output.translation;
        let lent = match translation.promote_scope_metadata {
            true => scope(head.as_ref(), group.schema_url, translation.strategy),
            false => Ok(Pairs::default()),
        };
        let Ok(lent) = lent else {
            let built = self.build(build::scope_metrics, bytes)?;
            return self.output.scope(&built, target);
        };
        each(bytes, Group::MEMBERS).try_for_each(|metric| self.metric(metric, &lent, target))
    }

    fn metric(&mut self, bytes: &[u8], scope: &Pairs<'_>, target: &mut Target<'_>) -> Result<(), Error> {
        let Some(numbers) = Numbers::read(bytes) else {
            let built = self.build(build::metric, bytes)?;
            return self.output.metric(&built, scope, target);
        };
        if numbers.has_metadata {
            let allowance = &mut *self.output.allowance;
            each(bytes, Numbers::METADATA).try_for_each(|pair| build::check_pair(pair, allowance))?;
        }
        let mut points = each(numbers.data, Numbers::POINTS);
        let Some(family) = self.output.family(&numbers.told, scope)? else {
            // Its points are refused and counted, but they must be sound.
            return points.try_for_each(|point| self.build(build::number_point, point).map(|_| ()));
        };
        self.sent.clear();
        let is_short = push_label(METRIC_NAME, &family.name, &mut self.sent)
            && target.push_lent(&mut self.sent)
            && scope.push_to(&mut self.sent);
        let shared = self.sent.len();
        for bytes in points {
            self.sent.truncate(shared);
            let point = is_short.then(|| self.read_point(bytes)).flatten();
            match point {
                Some(point) => self.point(bytes, &point, &family, target)?,
                None => self.build_point(bytes, &family, target, false)?,
            }
        }
        Ok(())
    }

    fn read_point(&mut self, bytes: &[u8]) -> Option<Point> {
        Point::read(bytes, self.output.translation.strategy, &mut self.sent)
    }

    /// Takes a point by its labels if they are remembered.
    fn point(
        &mut self,
        bytes: &[u8],
        point: &Point,
        family: &Family<'_>,
        target: &mut Target<'_>,
    ) -> Result<(), Error> {
        let cost = size_of::<SeriesBatch>() + size_of::<Sample>() + self.sent.len();
        let (t_ms, stale) = (millis(point.time_ns), point.flags & NO_RECORDED_VALUE != 0);
        let sample = Sample {
            t_ms,
            start_ms: if family.started && !stale { millis(point.start_ns) } else { 0 },
            value: Value::Float(if stale { STALE_NAN } else { point.value }),
        };
        let data = SeriesData { samples: &[sample], exemplars: &[], delta: family.delta };
        if !self.output.sink.recall(&self.sent, &data) {
            return self.build_point(bytes, family, target, true);
        }
        target.seen(t_ms);
        self.output.allowance.charge(cost)
    }

    /// Builds a point; with `is_sent` the labels that were read of it are to be remembered if they are the same.
    fn build_point(
        &mut self,
        bytes: &[u8],
        family: &Family<'_>,
        target: &mut Target<'_>,
        is_sent: bool,
    ) -> Result<(), Error> {
        let built = match bytes.len() < LARGE_POINT {
            true => build::number_point(bytes, self.output.allowance)?,
            false => self.build(build::number_point, bytes)?,
        };
        self.output.number(&built, family, target, is_sent.then_some(self.sent.as_slice()))
    }
}
