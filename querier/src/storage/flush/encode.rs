//! The content of a generation's two files.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;
use tricord_model::codec::Writer as Out;
use tricord_model::{Exemplar, Labels, Points, SpanRecord, Tenant, TraceId};
use tricord_rocks::{Rocks, SortedFile};

use super::Job;
use crate::storage::Error;
use crate::storage::block::times::TimesBuilder;
use crate::storage::block::values::BlockBuilder;
use crate::storage::block::{pack, postings, spans};
use crate::storage::head::Mark;
use crate::storage::head::payload::encode_exemplars;
use crate::storage::keys::{self, Generation, Section};
use crate::storage::merge::merge;

/// Series in a block of the index.
pub(crate) const SERIES_PER_INDEX_BLOCK: u32 = 256;
/// Exemplars of so many bytes are put into one block.
pub(crate) const EXEMPLAR_BLOCK_BYTES: usize = 64 << 10;
/// The version of index blocks, headers and exemplar blocks.
pub(crate) const VERSION: u8 = 1;

/// Writes one generation of a window.
pub(super) struct Writer {
    of: Generation,
    index: (SortedFile, PathBuf),
    data: (SortedFile, PathBuf),
}

/// The files of a generation, complete but not part of the database.
pub(super) struct Written {
    index: Option<PathBuf>,
    data: PathBuf,
    bytes: u64,
}

/// Makes files part of the database: all indexes at once, then all data at once; answers their bytes.
pub(super) fn ingest(rocks: &Rocks, files: Vec<Written>) -> Result<u64, Error> {
    let (mut indexes, mut data, mut bytes) = (Vec::new(), Vec::new(), 0);
    for file in files {
        indexes.extend(file.index);
        data.push(file.data);
        bytes += file.bytes;
    }
    if !indexes.is_empty() {
        rocks.ingest(keys::INDEX, &indexes)?;
    }
    rocks.ingest(keys::DATA, &data)?;
    Ok(bytes)
}

/// A series with its samples, ready to be written.
struct Row {
    labels: Labels,
    points: Points,
    exemplars: Vec<Exemplar>,
}

impl Writer {
    /// Begins both files in a directory beside the database.
    pub(super) fn begin(rocks: &Rocks, dir: &Path, of: Generation) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io("make directory", dir, &error))?;
        let file = |family: &str| -> Result<(SortedFile, PathBuf), Error> {
            let path = dir.join(format!("{}-{}-{}-{family}.sst", of.class, of.window_ms, of.number));
            Ok((rocks.sorted_file(family, &path)?, path))
        };
        Ok(Self { of, index: file(keys::INDEX)?, data: file(keys::DATA)? })
    }

    /// Adds what a shard's parts have for the class; answers its mark.
    pub(super) fn write(&mut self, job: &Job) -> Result<Mark, Error> {
        let mut mark = Mark::written_out(self.of, job.through);
        for (tenant, rows) in rows(self.of, job) {
            mark.samples += rows.iter().map(|row| row.points.len() as u64).sum::<u64>();
            let prefix = keys::tenant(self.of, job.shard, &tenant);
            self.write_series(&prefix, rows)?;
        }
        for (tenant, spans) in spans_by_tenant(self.of.class, job) {
            mark.spans += spans.len() as u64;
            let prefix = keys::tenant(self.of, job.shard, &tenant);
            self.write_spans(&prefix, spans)?;
        }
        let (key, value) = super::mark_pair(self.of, job.shard, &mark);
        self.data.0.put(key, value);
        Ok(mark)
    }

    /// Closes both files.
    pub(super) fn close(self) -> Result<Written, Error> {
        let Self { index: (index, index_path), data: (data, data_path), .. } = self;
        let mut written = Written { index: None, data: data_path, bytes: 0 };
        if !index.is_empty() {
            written.bytes += index.finish()?;
            written.index = Some(index_path);
        }
        written.bytes += data.finish()?;
        Ok(written)
    }

    fn write_series(&mut self, prefix: &[u8], rows: Vec<Row>) -> Result<(), Error> {
        let mut times = TimesBuilder::default();
        let mut block = BlockBuilder::default();
        let mut block_number = 0;
        let mut places = Vec::with_capacity(rows.len());
        for row in &rows {
            let number = times.number(&row.points.t_ms);
            places.push((block_number, block.len() as u32));
            block.push(number, &row.points);
            if block.is_full() {
                self.data.0.put(keys::block(prefix, Section::Values, block_number), block.finish()?);
                block_number += 1;
            }
        }
        if block.len() > 0 {
            self.data.0.put(keys::block(prefix, Section::Values, block_number), block.finish()?);
        }
        for (number, block) in times.finish()?.into_iter().enumerate() {
            self.data.0.put(keys::block(prefix, Section::Times, number as u32), block);
        }
        let labels: Vec<&Labels> = rows.iter().map(|row| &row.labels).collect();
        index(prefix, &labels, &places, &mut |key, value| self.index.0.put(key, value))?;
        self.write_exemplars(prefix, &rows)
    }

    fn write_exemplars(&mut self, prefix: &[u8], rows: &[Row]) -> Result<(), Error> {
        let mut number = 0;
        let mut body = Vec::new();
        for (id, row) in rows.iter().enumerate().filter(|(_, row)| !row.exemplars.is_empty()) {
            Out::new(&mut body).u64(id as u64);
            encode_exemplars(&row.exemplars, &mut Out::new(&mut body));
            if body.len() >= EXEMPLAR_BLOCK_BYTES {
                self.data.0.put(keys::block(prefix, Section::Exemplars, number), pack(VERSION, &body)?);
                number += 1;
                body.clear();
            }
        }
        if !body.is_empty() {
            self.data.0.put(keys::block(prefix, Section::Exemplars, number), pack(VERSION, &body)?);
        }
        Ok(())
    }

    fn write_spans(&mut self, prefix: &[u8], mut all: Vec<SpanRecord>) -> Result<(), Error> {
        sort_spans(&mut all);
        let mut traces: Vec<(TraceId, u32)> = Vec::new();
        let mut block = Vec::new();
        let (mut bytes, mut number) = (0, 0);
        for span in all {
            if bytes >= spans::BLOCK_BYTES {
                let full = std::mem::take(&mut block);
                self.data.0.put(keys::block(prefix, Section::Spans, number), spans::encode(full)?);
                number += 1;
                bytes = 0;
            }
            if traces.last().is_none_or(|(id, _)| *id != span.trace_id) {
                traces.push((span.trace_id, number));
            }
            bytes += spans::size(&span);
            block.push(span);
        }
        if !block.is_empty() {
            self.data.0.put(keys::block(prefix, Section::Spans, number), spans::encode(block)?);
        }
        for (id, first) in traces {
            let mut value = Vec::new();
            Out::new(&mut value).u64(u64::from(first));
            self.index.0.put(keys::trace(prefix, &id), value);
        }
        Ok(())
    }
}

/// Sorts spans by trace, start and id, and drops exact repetitions, which are what a client sent again.
pub(crate) fn sort_spans(spans: &mut Vec<SpanRecord>) {
    spans.sort_by(|a, b| {
        (a.trace_id, a.start_ns, a.span_id)
            .cmp(&(b.trace_id, b.start_ns, b.span_id))
            .then_with(|| a.span.cmp(&b.span))
            .then_with(|| a.resource.cmp(&b.resource))
    });
    spans.dedup();
}

/// The index of a tenant's series: labels, where the values are, and postings.
pub(crate) fn index(
    prefix: &[u8],
    labels: &[&Labels],
    places: &[(u32, u32)],
    put: &mut dyn FnMut(Vec<u8>, Vec<u8>),
) -> Result<(), Error> {
    let mut header = vec![VERSION];
    Out::new(&mut header).u64(labels.len() as u64);
    put(keys::section(prefix, Section::Header), header);
    let size = SERIES_PER_INDEX_BLOCK as usize;
    for (number, (labels, places)) in labels.chunks(size).zip(places.chunks(size)).enumerate() {
        put(keys::block(prefix, Section::Series, number as u32), index_block(labels, places));
    }
    let mut sets: BTreeMap<(&str, &str), RoaringBitmap> = BTreeMap::new();
    for (id, labels) in labels.iter().enumerate() {
        for pair in labels.iter() {
            sets.entry(pair).or_default().insert(id as u32);
        }
    }
    for ((name, value), ids) in sets {
        put(keys::label_value(prefix, name, value), postings::encode(&ids)?);
    }
    Ok(())
}

/// Offsets of each series, then for each: block and slot of its values, and its labels.
fn index_block(labels: &[&Labels], places: &[(u32, u32)]) -> Vec<u8> {
    let mut offsets = Vec::with_capacity(labels.len() * 4);
    let mut body = Vec::new();
    for (labels, (block, slot)) in labels.iter().zip(places) {
        offsets.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let out = &mut Out::new(&mut body);
        out.u64(u64::from(*block));
        out.u64(u64::from(*slot));
        labels.encode(out);
    }
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&(labels.len() as u16).to_le_bytes());
    bytes.extend(offsets);
    bytes.extend(body);
    bytes
}

/// The order in which series are stored: by metric name first.
pub(crate) fn by_name(a: &Labels, b: &Labels) -> Ordering {
    a.name().cmp(b.name()).then_with(|| a.cmp(b))
}

/// The series of a job's tenants in a class, by tenant, sorted by name and labels, each with all its samples.
fn rows(of: Generation, job: &Job) -> BTreeMap<Tenant, Vec<Row>> {
    let is_in = |tenant: &Tenant| job.classes.get(tenant) == Some(&of.class);
    let mut series: Vec<(&u32, &(Tenant, Labels))> =
        job.series.iter().filter(|(_, (tenant, _))| is_in(tenant)).collect();
    // Ids ascend in the order of the log: of two ids for equal labels the smaller one's samples came first.
    series.sort_by(|(a_id, (a_tenant, a)), (b_id, (b_tenant, b))| {
        a_tenant.cmp(b_tenant).then_with(|| by_name(a, b)).then_with(|| a_id.cmp(b_id))
    });
    let mut tenants: BTreeMap<Tenant, Vec<Row>> = BTreeMap::new();
    for same in series.chunk_by(|(_, a), (_, b)| a == b) {
        let Some((_, (tenant, labels))) = same.first() else { continue };
        let mut columns = Vec::new();
        let mut exemplars: Vec<Exemplar> = Vec::new();
        for part in &job.parts {
            for column in same.iter().filter_map(|(id, _)| part.columns.get(id)) {
                columns.push(column.points(of.window_ms, i64::MIN, i64::MAX));
                exemplars.extend(column.exemplars().iter().cloned());
            }
        }
        let (points, _) = merge(columns);
        sort_exemplars(&mut exemplars);
        tenants.entry(tenant.clone()).or_default().push(Row { labels: labels.clone(), points, exemplars });
    }
    tenants
}

/// Sorts exemplars by time and drops exact repetitions.
pub(crate) fn sort_exemplars(exemplars: &mut Vec<Exemplar>) {
    exemplars.sort_by(|a, b| {
        a.t_ms.cmp(&b.t_ms).then_with(|| a.value.total_cmp(&b.value)).then_with(|| a.labels.cmp(&b.labels))
    });
    exemplars
        .dedup_by(|a, b| a.t_ms == b.t_ms && a.value.to_bits() == b.value.to_bits() && a.labels == b.labels);
}

fn spans_by_tenant(class: u8, job: &Job) -> BTreeMap<Tenant, Vec<SpanRecord>> {
    let mut tenants: BTreeMap<Tenant, Vec<SpanRecord>> = BTreeMap::new();
    for part in &job.parts {
        for (number, traces) in &part.spans {
            let Some(tenant) = job.tenants.get(number) else { continue };
            if job.classes.get(tenant) != Some(&class) {
                continue;
            }
            let spans = tenants.entry(tenant.clone()).or_default();
            traces.values().for_each(|of| spans.extend_from_slice(of));
        }
    }
    tenants
}
