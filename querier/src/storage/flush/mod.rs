//! Writing windows out: parts in memory become sorted files, and those become part of RocksDB.
//!
//! Each retention class has files of its own. The indexes go in first; the data brings the marks that
//! make the generation count. A crash in between leaves indexes without marks, which opening removes, and the log has the entries
//! still.

pub(crate) mod encode;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tricord_model::{Labels, Seq, ShardId, Tenant};

use super::head::part::Part;
use super::head::{Mark, Shard};
use super::keys::{self, Generation, Section};
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
    /// What there is of the window on disk.
    before: Vec<(i64, Mark)>,
    /// The numbers of the retention classes that tenants' data goes to.
    classes: BTreeMap<Tenant, u8>,
}

impl Job {
    /// Whether a generation of a class has something of it. One without any data needs a mark all the same.
    fn is_for(&self, class: u8) -> bool {
        if self.classes.is_empty() { class == 0 } else { self.classes.values().any(|of| *of == class) }
    }
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
        let longest_ms = self.window_len_ms().saturating_mul(MAX_WINDOWS as i64);
        let covers = |start_ms: i64, mark: &Mark| {
            start_ms.saturating_add(self.window_len_ms().saturating_mul(i64::from(mark.windows))) > window_ms
        };
        let marks = self.marks.range(window_ms.saturating_sub(longest_ms)..=window_ms);
        let before = marks.flat_map(|(start_ms, marks)| marks.iter().map(|mark| (*start_ms, *mark)));
        let before = before.filter(|(start_ms, mark)| covers(*start_ms, mark)).collect();
        let classes = BTreeMap::new();
        Some(Job { shard: self.id, parts, through, series, tenants, before, classes })
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
        let mut jobs: Vec<Job> = cells.iter().filter_map(|cell| cell.state.read().job(window_ms)).collect();
        if jobs.is_empty() {
            return Ok(());
        }
        jobs.iter_mut().try_for_each(|job| self.choose_classes(job))?;
        // What the files say must not be ahead of the log after a power cut.
        self.sync_log()?;
        let number = self.next_generation(window_ms);
        let (mut files, mut marks) = (Vec::new(), Vec::with_capacity(jobs.len()));
        for class in self.classes.numbers() {
            let of_class: Vec<&Job> = jobs.iter().filter(|job| job.is_for(class)).collect();
            if of_class.is_empty() {
                continue;
            }
            let of = Generation { class, window_ms, number };
            let mut writer = Writer::begin(&self.rocks, &self.staging(), of)?;
            for job in of_class {
                marks.push((job.shard, writer.write(job)?));
            }
            files.push(writer.close()?);
        }
        self.books.fall_behind();
        // All classes at once: a mark says that its window has everything up to an entry, whatever its class.
        report.bytes += encode::ingest(&self.rocks, files)?;
        let held: u64 = jobs.iter().flat_map(|job| &job.parts).map(|part| part.samples).sum();
        let written: u64 = marks.iter().map(|(_, mark)| mark.samples).sum();
        for (shard, mark) in marks {
            report.samples += mark.samples;
            report.spans += mark.spans;
            if let Some(cell) = self.find(shard) {
                cell.state.write().written(window_ms, mark);
                cell.measure();
            }
        }
        // Again: it may have been written between, without these.
        self.books.fall_behind();
        report.windows += 1;
        self.counters.flushed(held - written);
        Ok(())
    }

    /// Finds out to which class each tenant's data goes: to that of the tenant, but late data of one that has changed
    /// its class to where the rest of the window is, unless that goes sooner.
    fn choose_classes(&self, job: &mut Job) -> Result<(), Error> {
        let tenants = job.series.values().map(|(tenant, _)| tenant).chain(job.tenants.values());
        for tenant in tenants.collect::<BTreeSet<_>>() {
            let own = self.classes.of(tenant);
            let mut class = own;
            if job.before.iter().any(|(_, mark)| mark.class != class) {
                let mut nearest = self.nearest(job, tenant, class)?;
                for other in self.classes.numbers().filter(|other| self.classes.keeps_as_long(*other, own)) {
                    let span = self.nearest(job, tenant, other)?;
                    if span < nearest {
                        (class, nearest) = (other, span);
                    }
                }
            }
            job.classes.insert(tenant.clone(), class);
        }
        Ok(())
    }

    /// Over how many windows the shortest generation of a class goes that has series of a tenant and the job's window: in
    /// a longer one they may be of other windows.
    fn nearest(&self, job: &Job, tenant: &Tenant, class: u8) -> Result<u16, Error> {
        let mut nearest = u16::MAX;
        for (start_ms, mark) in job.before.iter().filter(|(_, mark)| mark.class == class) {
            let prefix = keys::tenant(mark.generation(*start_ms), job.shard, tenant);
            let header = keys::section(&prefix, Section::Header);
            if mark.windows < nearest && self.rocks.get(keys::INDEX, &header)?.is_some() {
                nearest = mark.windows;
            }
        }
        Ok(nearest)
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
pub(crate) fn decode_mark(of: Generation, bytes: &[u8]) -> Result<(Mark, Vec<u32>), Error> {
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
    let Generation { class, number, .. } = of;
    Ok((Mark { class, number, through, deleted, samples, spans, windows, is_merged }, replaced))
}

/// The key of a mark and its value.
pub(crate) fn mark_pair(of: Generation, shard: ShardId, mark: &Mark) -> (Vec<u8>, Vec<u8>) {
    (keys::mark(of, shard), encode_mark(mark, &[]))
}
