//! Remote read: another Prometheus asks for raw samples and evaluates by itself.
//!
//! A request's queries run one after the other, so that the samples of one query at a time are held. Remote read has no
//! place for warnings: a shard that nobody answers for fails the request. What the routes look like is for `api`.

mod chunks;
mod frames;
mod samples;
mod wire;

use std::time::Instant;

use bytes::Bytes;
use futures::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tricord_fragment::{Fragment, FragmentBody};
use tricord_model::{Labels, Points, Tenant};

use crate::Proxy;
use crate::api::{missing_text, now_ms};
use crate::error::Error;
use crate::merge::lists;
use crate::query::{Turn, too_many_samples};
use crate::scatter::{Job, Shards, Spread};
use frames::Frames;
use wire::{Selection, pb};

/// A request may inflate to this many bytes.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Queries that one request may have.
const MAX_QUERIES: usize = 256;
/// Batches of frames that wait for a slow reader.
const BATCHES_AHEAD: usize = 1;

/// Which kind of answer a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One message with all samples.
    Samples,
    /// A stream of frames with chunks.
    Chunks,
}

/// A request, read and checked.
#[derive(Debug)]
pub(crate) struct ReadRequest {
    tenant: Tenant,
    selections: Vec<Selection>,
    /// What the reader wants.
    pub(crate) form: Form,
}

impl ReadRequest {
    /// Reads a body: protobuf in a snappy block.
    ///
    /// # Errors
    /// [`Error::BadData`] where the body is not that, or asks for what there is not.
    pub(crate) fn decode(tenant: Tenant, body: &[u8]) -> Result<Self, Error> {
        let bad = |what: &str, why: &dyn std::fmt::Display| {
            Error::BadData(format!("cannot read the remote read request: {what}: {why}"))
        };
        let size = snap::raw::decompress_len(body).map_err(|error| bad("snappy", &error))?;
        if size > MAX_REQUEST_BYTES {
            let text = format!("it inflates to {size} bytes, more than {MAX_REQUEST_BYTES}");
            return Err(bad("snappy", &text));
        }
        let bytes = snap::raw::Decoder::new().decompress_vec(body);
        let bytes = bytes.map_err(|error| bad("snappy", &error))?;
        let request = pb::ReadRequest::decode(bytes.as_slice()).map_err(|error| bad("protobuf", &error))?;
        if request.queries.len() > MAX_QUERIES {
            let text = format!(
                "{} queries, more than {MAX_QUERIES}: ask in several requests",
                request.queries.len()
            );
            return Err(bad("queries", &text));
        }
        let form = form(&request.accepted_response_types)?;
        let selections = request.queries.into_iter().map(Selection::of).collect::<Result<_, _>>()?;
        Ok(Self { tenant, selections, form })
    }
}

/// The first kind of answer that there is.
fn form(accepted: &[i32]) -> Result<Form, Error> {
    use pb::read_request::ResponseType;
    let known = accepted.iter().find_map(|kind| ResponseType::try_from(*kind).ok());
    match known {
        Some(ResponseType::StreamedXorChunks) => Ok(Form::Chunks),
        Some(ResponseType::Samples) => Ok(Form::Samples),
        None if accepted.is_empty() => Ok(Form::Samples),
        None => Err(Error::BadData(format!(
            "none of the accepted response types {accepted:?} is supported: accept SAMPLES (0) or \
             STREAMED_XOR_CHUNKS (1)"
        ))),
    }
}

/// A request that is being answered. Dropping it cancels it everywhere.
struct Reading {
    proxy: Proxy,
    tenant: Tenant,
    selections: std::iter::Enumerate<std::vec::IntoIter<Selection>>,
    /// Samples that may still be read.
    samples_left: u64,
    started: Instant,
    _turn: Turn,
}

impl Reading {
    async fn start(proxy: &Proxy, request: ReadRequest) -> Result<Self, Error> {
        let started = Instant::now();
        let settings = proxy.settings();
        let turn = proxy.engine().gate.enter(started + settings.query_timeout).await?;
        Ok(Self {
            proxy: proxy.clone(),
            tenant: request.tenant,
            selections: request.selections.into_iter().enumerate(),
            samples_left: settings.config.max_samples,
            started,
            _turn: turn,
        })
    }

    /// The next query's place and its series, sorted by labels; `None` behind the last.
    async fn next(&mut self) -> Result<Option<(usize, Vec<(Labels, Points)>)>, Error> {
        let Some((at, selection)) = self.selections.next() else { return Ok(None) };
        if selection.is_empty() {
            return Ok(Some((at, vec![])));
        }
        let settings = self.proxy.settings();
        let (now_ms, mut limits) = (now_ms(), settings.limits());
        limits.max_samples = self.samples_left;
        let body = match selection.series_only {
            true => FragmentBody::Series(selection.query),
            false => FragmentBody::Raw(selection.query),
        };
        let horizon_ms = settings.horizon_ms(&self.tenant, now_ms);
        let fragment = Fragment { now_ms, horizon_ms, limits, body };
        let job = Job {
            tenant: self.tenant.clone(),
            shards: Shards::All,
            fragment,
            spread: Spread::Even,
            deadline: Instant::now() + settings.query_timeout,
        };
        let scattered = self.proxy.scatter().run(&job).await?;
        if !scattered.missing.is_empty() {
            return Err(Error::Unavailable(missing_text(&scattered.missing)));
        }
        let samples: u64 = scattered.calls.iter().map(|call| call.stats.samples).sum();
        self.proxy.metrics().samples.inc_by(samples);
        self.samples_left = self
            .samples_left
            .checked_sub(samples)
            .ok_or_else(|| too_many_samples(settings.config.max_samples))?;
        let partials = scattered.partials;
        let merged = tricord_runtime::blocking(move || match selection.series_only {
            true => {
                let series = lists::series(partials, 0)?.items;
                Ok::<_, Error>(series.into_iter().map(|labels| (labels, Points::default())).collect())
            }
            false => lists::raw(partials),
        });
        Ok(Some((at, merged.await?)))
    }

    fn count(&self, result: Result<(), &Error>) {
        let outcome = result.map_or_else(|error| error.kind().as_str(), |()| "ok");
        self.proxy.count("read", outcome, self.started);
    }
}

/// The whole answer with `SAMPLES`, as a snappy block.
///
/// # Errors
/// As a query; with [`Error::Unavailable`] for shards without a live replica.
pub(crate) async fn samples(proxy: &Proxy, request: ReadRequest) -> Result<Bytes, Error> {
    let mut reading = Reading::start(proxy, request).await?;
    let result = all_samples(&mut reading).await;
    reading.count(result.as_ref().map(|_| ()));
    result
}

async fn all_samples(reading: &mut Reading) -> Result<Bytes, Error> {
    let max_bytes = reading.proxy.settings().config.max_partial_bytes;
    let mut answer = Vec::new();
    while let Some((_, series)) = reading.next().await? {
        let encoded = tricord_runtime::blocking(move || {
            samples::append_result(series, &mut answer);
            answer
        });
        answer = encoded.await;
        if answer.len() as u64 > max_bytes {
            return Err(Error::Execution(format!(
                "the answer has more than {max_bytes} bytes: ask for fewer series or a shorter range, accept \
                 STREAMED_XOR_CHUNKS, or raise the proxy's max_partial_bytes"
            )));
        }
    }
    let compressed = tricord_runtime::blocking(move || snap::raw::Encoder::new().compress_vec(&answer));
    compressed.await.map(Bytes::from).map_err(|error| Error::Internal(format!("snappy: {error}")))
}

/// The body with `STREAMED_XOR_CHUNKS`. What fails later than the first query breaks the body off.
///
/// # Errors
/// As [`samples`], for the first query.
pub(crate) async fn chunks(
    proxy: &Proxy,
    request: ReadRequest,
) -> Result<impl Stream<Item = Result<Bytes, Error>> + use<>, Error> {
    let mut reading = Reading::start(proxy, request).await?;
    let first = match reading.next().await {
        Ok(first) => first,
        Err(error) => {
            reading.count(Err(&error));
            return Err(error);
        }
    };
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    tokio::spawn(async move {
        let result = tokio::select! {
            result = send_all(&mut reading, first, &sender) => result,
            // The reader has gone: what runs for it is dropped, and so cancelled.
            () = sender.closed() => Err(gone()),
        };
        reading.count(result.as_ref().copied());
        if let Err(error) = result {
            tracing::debug!(%error, "a remote read broke off");
            // Nobody may be there to hear it.
            let _ = sender.try_send(Err(error));
            return;
        }
        // A reader that takes its time over the last piece holds no turn.
        let patience = reading.proxy.settings().query_timeout;
        drop(reading);
        let _ = tokio::time::timeout(patience, sender.send(Ok(Bytes::new()))).await;
    });
    Ok(body(receiver))
}

/// A reader that takes no more.
fn gone() -> Error {
    Error::Canceled("the reader has gone".to_owned())
}

async fn send_all(
    reading: &mut Reading,
    first: Option<(usize, Vec<(Labels, Points)>)>,
    sender: &mpsc::Sender<Result<Bytes, Error>>,
) -> Result<(), Error> {
    let patience = reading.proxy.settings().query_timeout;
    let mut next = first;
    while let Some((at, series)) = next {
        let mut frames = Frames::new(at, series);
        loop {
            let encoding = tricord_runtime::blocking(move || {
                let batch = frames.next_batch();
                (frames, batch)
            });
            let (rest, batch) = encoding.await;
            frames = rest;
            let Some(batch) = batch else { break };
            match tokio::time::timeout(patience, sender.send(Ok(batch.into()))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(gone()),
                Err(_) => return Err(Error::Timeout("the reader is too slow".to_owned())),
            }
        }
        next = reading.next().await?;
    }
    Ok(())
}

/// What is sent, up to the empty piece that marks the end. Without that mark the body ends with an error, so that an
/// answer that was cut is never taken for a whole one.
fn body(receiver: mpsc::Receiver<Result<Bytes, Error>>) -> impl Stream<Item = Result<Bytes, Error>> {
    futures::stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Ok(piece)) if piece.is_empty() => None,
            Some(Ok(piece)) => Some((Ok(piece), Some(receiver))),
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(Error::Internal("the remote read broke off".to_owned())), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_kind_of_answer_is_taken() {
        assert_eq!(form(&[]).unwrap(), Form::Samples);
        assert_eq!(form(&[9, 1, 0]).unwrap(), Form::Chunks);
        assert_eq!(form(&[0, 1]).unwrap(), Form::Samples);
        assert!(form(&[9]).unwrap_err().to_string().contains("[9]"));
    }

    #[test]
    fn bodies_are_checked_before_they_are_inflated() {
        let refused = |body: &[u8]| {
            let error = ReadRequest::decode(Tenant::default(), body).unwrap_err();
            assert_eq!(error.kind().status(), 400);
            error.to_string()
        };
        assert!(refused(b"").contains("snappy"));
        // A claim of 4 GiB less one byte.
        assert!(refused(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]).contains("inflates to 4294967295 bytes"));
        let snappy = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
        assert!(refused(&snappy(b"\x0a\xff")).contains("protobuf"));
        let many = pb::ReadRequest { queries: vec![pb::Query::default(); 257], ..Default::default() };
        assert!(refused(&snappy(&many.encode_to_vec())).contains("257 queries"));
        let none = ReadRequest::decode(Tenant::default(), &snappy(b"")).unwrap();
        assert_eq!((none.selections.len(), none.form), (0, Form::Samples));
    }
}
