//! Writing windows out: parts in memory become sorted files, and those become part of RocksDB.
//!
//! The index goes in first; the data brings the marks that make the generation count. A crash in between leaves an
//! index without marks, which opening removes, and the log has the entries still.

pub(crate) mod encode;

use std::collections::BTreeMap;
use std::sync::Arc;

use tricord_model::{Labels, Seq, ShardId, Tenant};

use super::head::part::Part;
use super::head::{Mark, Shard};
use super::keys::{self, Generation};
use super::store::Inner;
use super::{Error, FlushReport};
use encode::Writer;

/// What one shard gives to a window's files.
pub(crate) struct Job {
    shard: ShardId,
    parts: Vec<Arc<Part>>,
    through: Seq,
    /// Tenant and labels of the series in the parts.
    series: BTreeMap<u32, (Tenant, Labels)>,
    tenants: BTreeMap<u32, Tenant>,
}

impl Shard {
    /// Seals the open parts of windows; empty ones are not touched.
    pub(crate) fn seal(&mut self, choose: &dyn Fn(&Self, i64) -> bool) {
        let chosen: Vec<i64> = self.windows.keys().copied().filter(|window| choose(self, *window)).collect();
        let through = self.applied.seq;
        for window in chosen {
            if let Some(window) = self.windows.get_mut(&window) {
                window.seal(through);
            }
        }
    }

    /// Sealed parts of a window that are committed, with what is needed to write them.
    fn job(&self, window_ms: i64) -> Option<Job> {
        let window = self.windows.get(&window_ms).filter(|_| self.damage.is_none())?;
        let committed = self.committed;
        let parts: Vec<_> =
            window.sealed.iter().take_while(|part| part.changed() <= committed).cloned().collect();
        let through = parts.last()?.through;
        let mut series = BTreeMap::new();
        let mut tenants = BTreeMap::new();
        for id in parts.iter().flat_map(|part| part.columns.keys()) {
            let Some(found) = self.registry.get(*id) else { continue };
            let Some(tenant) = self.registry.tenant_name(found.tenant) else { continue };
            series.insert(*id, (tenant.clone(), found.labels.clone()));
        }
        for number in parts.iter().flat_map(|part| part.spans.keys()) {
            tenants.extend(self.registry.tenant_name(*number).map(|name| (*number, name.clone())));
        }
        Some(Job { shard: self.id, parts, through, series, tenants })
    }
}

impl Inner {
    /// Seals the chosen windows and writes out every sealed part that is committed.
    pub(crate) fn write_out(&self, choose: &dyn Fn(&Shard, i64) -> bool) -> Result<FlushReport, Error> {
        let _one_at_a_time = self.flushing.lock();
        let mut windows: BTreeMap<i64, u64> = BTreeMap::new();
        let cells = self.cells();
        for cell in &cells {
            let mut shard = cell.state.write();
            if shard.damage.is_some() {
                continue;
            }
            shard.seal(choose);
            for (window_ms, window) in &shard.windows {
                if !window.sealed.is_empty() {
                    let waiting =
                        window.sealed.iter().filter(|part| part.changed() > shard.committed).count();
                    *windows.entry(*window_ms).or_default() += waiting as u64;
                }
            }
        }
        let mut report = FlushReport::default();
        for (window_ms, uncommitted) in windows {
            report.uncommitted += uncommitted;
            self.write_window(window_ms, &mut report)?;
        }
        // Before the shards' bases say that the log is not needed for what was written out.
        self.settle_ledger()?;
        self.write_rows(&cells)?;
        Ok(report)
    }

    fn write_window(&self, window_ms: i64, report: &mut FlushReport) -> Result<(), Error> {
        let cells = self.cells();
        let jobs: Vec<Job> = cells.iter().filter_map(|cell| cell.state.read().job(window_ms)).collect();
        if jobs.is_empty() {
            return Ok(());
        }
        // What the files say must not be ahead of the log after a power cut.
        self.sync_log()?;
        let of = Generation { window_ms, number: self.next_generation(window_ms) };
        let mut writer = Writer::begin(&self.rocks, &self.staging(), of)?;
        let mut marks = Vec::with_capacity(jobs.len());
        let mut duplicates = 0;
        for job in &jobs {
            let mark = writer.write(job)?;
            duplicates += job.parts.iter().map(|part| part.samples).sum::<u64>() - mark.samples;
            marks.push((job.shard, mark));
        }
        self.books.fall_behind();
        report.bytes += writer.finish(&self.rocks)?;
        for (shard, mark) in marks {
            report.samples += mark.samples;
            report.spans += mark.spans;
            if let Some(cell) = self.find(shard) {
                cell.state.write().written(window_ms, mark);
                cell.measure();
            }
        }
        report.windows += 1;
        self.counters.flushed(duplicates);
        Ok(())
    }

    /// A number that no generation of the window has, not even one of which only the index went in.
    pub(crate) fn next_generation(&self, window_ms: i64) -> u32 {
        let mut used = self.generations.lock();
        let cells = self.cells();
        let known = cells.iter().filter_map(|cell| {
            cell.state.read().marks.get(&window_ms).and_then(|marks| marks.last().map(|mark| mark.number))
        });
        let next = known.chain(used.get(&window_ms).copied()).max().unwrap_or(0) + 1;
        used.insert(window_ms, next);
        next
    }
}

/// The version of the marks of windows as they are written out.
const MARK: u8 = 1;
/// The version of the marks of merged windows.
const MERGED_MARK: u8 = 2;
/// The version of marks in which deletes are carried out that came after everything else in them.
const DELETED_MARK: u8 = 3;
/// No mark goes over more windows.
pub(crate) const MAX_WINDOWS: u64 = 64;

/// The value of a mark. `replaced` are, for each window of a merged generation, the highest of the generations that are
/// in it, or 0.
pub(crate) fn encode_mark(mark: &Mark, replaced: &[u32]) -> Vec<u8> {
    let version = match (mark.deleted > mark.through, replaced.len()) {
        (false, 0) => MARK,
        (false, 2..) => MERGED_MARK,
        _ => DELETED_MARK,
    };
    let mut bytes = vec![version];
    let out = &mut tricord_model::codec::Writer::new(&mut bytes);
    out.u64(mark.through.0);
    out.u64(mark.samples);
    out.u64(mark.spans);
    if version == DELETED_MARK {
        out.u64(mark.deleted.0);
    }
    if version != MARK {
        out.u64(replaced.len() as u64);
        replaced.iter().for_each(|number| out.u64(u64::from(*number)));
    }
    bytes
}

/// Reads what [`encode_mark`] wrote.
pub(crate) fn decode_mark(number: u32, bytes: &[u8]) -> Result<(Mark, Vec<u32>), Error> {
    let input = &mut tricord_model::codec::Reader::new(bytes);
    let version = input.u8()?;
    if !(MARK..=DELETED_MARK).contains(&version) {
        return Err(Error::corrupt("a mark has an unknown version: it may be of a newer build"));
    }
    let (through, samples, spans) = (Seq(input.u64()?), input.u64()?, input.u64()?);
    let deleted = if version == DELETED_MARK { Seq(input.u64()?) } else { through };
    let mut replaced = Vec::new();
    if version != MARK {
        let windows = input.u64()?;
        let least = if version == MERGED_MARK { 2 } else { 0 };
        if !(least..=MAX_WINDOWS).contains(&windows) {
            return Err(Error::corrupt("a mark goes over an impossible number of windows"));
        }
        for _ in 0..windows {
            replaced.push(input.u32()?);
        }
    }
    let (windows, is_merged) = (replaced.len().max(1) as u16, !replaced.is_empty());
    Ok((Mark { number, through, deleted, samples, spans, windows, is_merged }, replaced))
}

/// The key of a mark and its value.
pub(crate) fn mark_pair(of: Generation, shard: ShardId, mark: &Mark) -> (Vec<u8>, Vec<u8>) {
    (keys::mark(of, shard), encode_mark(mark, &[]))
}
