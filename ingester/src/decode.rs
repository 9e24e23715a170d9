//! From bodies to batches: remote write 1.0 and 2.0, OTLP and the Prometheus text format.
//!
//! Everything here is a function of its input: no clock, no I/O. What is valid in a request is kept, what is not is
//! counted with the first reasons for people to read. Decompression and transport are `receive`'s.

pub mod histogram;
pub mod labels;
pub mod otlp;
pub mod remote_write;
pub mod remote_write_v2;
pub(crate) mod sent;
pub mod text;
mod wire;

pub(crate) use wire::put;
pub(crate) use wire::{Field, Message, WireError};

use tricord_model::{Batch, Labels, MetricMetadata, SeriesBatch, SeriesData};

use crate::Error;

/// How many reasons an answer names; the rest is only counted.
const MAX_REASONS: usize = 10;
/// How much of one reason an answer shows.
const MAX_REASON_CHARS: usize = 400;

/// Where decoded data goes: into memory, or straight into what is sent to the shards.
pub trait Sink {
    /// Takes a series. Its labels ascend strictly by name, have values, and a metric name is among them. `sent` is what
    /// the sender wrote of them, where [`tricord_model::read_sent_labels`] may read it.
    fn series(&mut self, labels: &[(&str, &str)], sent: Option<&[u8]>, data: &SeriesData<'_>);
    /// Takes a series by what the sender wrote of its labels, if that is remembered; answers whether it was taken.
    fn recall(&mut self, _sent: &[u8], _data: &SeriesData<'_>) -> bool {
        false
    }
    /// Takes the metadata of a metric family.
    fn metadata(&mut self, family: String, metadata: MetricMetadata);
    /// Where what is not valid is counted.
    fn rejected(&mut self) -> &mut Rejected;
}

/// A decoded request of one tenant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// What is valid.
    pub batch: Batch,
    /// What is not.
    pub rejected: Rejected,
}

impl Sink for Decoded {
    fn series(&mut self, labels: &[(&str, &str)], _sent: Option<&[u8]>, data: &SeriesData<'_>) {
        self.batch.series.push(SeriesBatch {
            labels: Labels::from_pairs(labels.iter().copied()),
            samples: data.samples.to_vec(),
            exemplars: data.exemplars.to_vec(),
            delta: data.delta,
        });
    }

    fn metadata(&mut self, family: String, metadata: MetricMetadata) {
        self.batch.metadata.push((family, metadata));
    }

    fn rejected(&mut self) -> &mut Rejected {
        &mut self.rejected
    }
}

/// What was refused for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Samples (floats and histograms), or data points of an OTLP request.
    pub samples: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Spans.
    pub spans: u64,
    /// The first reasons, for people.
    pub reasons: Vec<String>,
}

impl Rejected {
    /// Keeps a reason while there are few; repeated ones are kept once.
    pub fn reason(&mut self, reason: impl Into<String>) {
        if self.reasons.len() < MAX_REASONS {
            let mut reason = reason.into();
            // Label values may be long, and the answer goes into somebody's log.
            if let Some((end, _)) = reason.char_indices().nth(MAX_REASON_CHARS) {
                reason.truncate(end);
                reason.push('…');
            }
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
    }

    /// Whether nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples == 0 && self.exemplars == 0 && self.spans == 0 && self.reasons.is_empty()
    }

    /// Adds what another part refused.
    pub fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.exemplars += other.exemplars;
        self.spans += other.spans;
        other.reasons.into_iter().for_each(|reason| self.reason(reason));
    }
}

/// How much memory a request may take once decoded: an encoder that repeats two-byte messages is stopped here.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    left: usize,
    limit: usize,
}

impl Allowance {
    /// An allowance of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { left: limit, limit }
    }

    /// Takes some of it.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when not enough is left.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::TooLarge(format!(
                "request holds more than {} MiB once decoded: send smaller requests",
                self.limit >> 20
            ))),
        }
    }

    /// How many bytes are taken.
    #[must_use]
    pub fn used(&self) -> usize {
        self.limit - self.left
    }
}

#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
pub(crate) mod tests;
