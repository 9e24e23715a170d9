//! Writing the files of a merge, shard by shard and tenant by tenant, each series alone.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use tricord_model::codec::Writer as Out;
use tricord_model::{Labels, Tenant};

use super::Pace;
use super::hidden::{Hidden, HiddenExemplars};
use super::plan::{Part, Plan, through};
use super::source::{Exemplars, MergedSeries, Traces};
use super::write::{Files, LongTimes};
use crate::storage::Error;
use crate::storage::block::pack;
use crate::storage::block::values::BlockBuilder;
use crate::storage::cache::ReadCache;
use crate::storage::deletes::Deletes;
use crate::storage::disk::Disk;
use crate::storage::flush::encode::{EXEMPLAR_BLOCK_BYTES, VERSION, index, sort_exemplars};
use crate::storage::flush::encode_mark;
use crate::storage::head::Mark;
use crate::storage::head::payload::encode_exemplars;
use crate::storage::keys::{self, Generation, SPAN_BLOCKS_PER_WINDOW, Section};
use crate::storage::store::Inner;

/// The files of a merge, complete but not part of the database.
pub(super) struct Built<'a> {
    pub(super) index: Files<'a>,
    pub(super) data: Files<'a>,
    /// The new mark of each part of the plan.
    pub(super) marks: Vec<Mark>,
    pub(super) duplicates: u64,
    pub(super) deleted: u64,
}

/// Puts the files of a merge together.
pub(super) struct Builder<'a, 'p> {
    inner: &'a Inner,
    plan: &'a Plan,
    of: Generation,
    index: Files<'a>,
    data: Files<'a>,
    /// What is read is read once.
    cache: ReadCache,
    bytes: AtomicU64,
    pace: Pace<'p>,
    duplicates: u64,
    deleted: u64,
}

impl<'a, 'p> Builder<'a, 'p> {
    pub(super) fn new(
        inner: &'a Inner,
        plan: &'a Plan,
        of: Generation,
        pace: Pace<'p>,
    ) -> Result<Self, Error> {
        let dir = inner.staging();
        std::fs::create_dir_all(&dir).map_err(|error| Error::io("make directory", &dir, &error))?;
        let stem = dir.join(format!("merge-{}-{}", of.window_ms, of.number));
        Ok(Self {
            inner,
            plan,
            of,
            index: Files::new(&inner.rocks, keys::INDEX, stem.clone()),
            data: Files::new(&inner.rocks, keys::DATA, stem),
            cache: ReadCache::new(0),
            bytes: AtomicU64::new(0),
            pace,
            duplicates: 0,
            deleted: 0,
        })
    }

    /// Writes everything; the marks, which make it count, into a file of their own.
    pub(super) fn build(mut self) -> Result<Built<'a>, Error> {
        let mut marks = Vec::new();
        for part in &self.plan.parts {
            let mut mark = Mark {
                class: self.of.class,
                number: self.of.number,
                through: through(&part.sources),
                deleted: part.deleted(),
                samples: 0,
                spans: 0,
                windows: self.plan.windows,
                is_merged: true,
            };
            for tenant in self.tenants(part)? {
                self.index.split()?;
                self.data.split()?;
                mark.samples += self.series(part, &tenant)?;
                self.spans(part, &tenant)?;
            }
            // Spans lie as they did: those that were sent twice are still there twice.
            mark.spans = part.sources.iter().map(|(_, mark)| mark.spans).sum();
            marks.push(mark);
        }
        self.index.close()?;
        self.data.close()?;
        for (part, mark) in self.plan.parts.iter().zip(&marks) {
            let value = encode_mark(mark, &self.replaced(part));
            self.data.put(keys::mark(self.of, part.cell.id), value)?;
        }
        let Self { index, data, duplicates, deleted, .. } = self;
        Ok(Built { index, data, marks, duplicates, deleted })
    }

    /// For each window the highest of the generations that go in.
    fn replaced(&self, part: &Part) -> Vec<u32> {
        let mut replaced = vec![0; usize::from(self.plan.windows)];
        for (window_ms, mark) in &part.sources {
            if let Some(highest) = replaced.get_mut(self.plan.place(*window_ms, self.inner.config.window_ms))
            {
                *highest = mark.number.max(*highest);
            }
        }
        replaced
    }

    fn tenants(&self, part: &Part) -> Result<BTreeSet<Tenant>, Error> {
        let mut tenants = BTreeSet::new();
        for (window_ms, mark) in &part.sources {
            let of = mark.generation(*window_ms);
            let prefix = keys::shard(of, part.cell.id);
            let mut cursor = self.inner.rocks.cursor(keys::INDEX, &prefix, &keys::after(&prefix))?;
            while let Some((key, _)) = cursor.item() {
                let name = keys::parse_tenant(&prefix, key).and_then(|name| Tenant::new(name).ok());
                let tenant = name.ok_or_else(|| Error::corrupt("a key of the index is malformed"))?;
                cursor.seek(&keys::after(&keys::tenant(of, part.cell.id, &tenant)));
                tenants.insert(tenant);
            }
            cursor.status()?;
        }
        Ok(tenants)
    }

    /// Tells what was written since the last call, and waits for as long as it takes.
    fn paced(index: &mut Files<'_>, data: &mut Files<'_>, pace: Pace<'_>) -> Result<(), Error> {
        let bytes = index.take_put() + data.take_put();
        if bytes == 0 || pace(bytes) { Ok(()) } else { Err(Error::Cancelled) }
    }

    /// Writes a tenant's series and exemplars; answers how many samples there are.
    fn series(&mut self, part: &Part, tenant: &Tenant) -> Result<u64, Error> {
        let prefix = keys::tenant(self.of, part.cell.id, tenant);
        let inner = self.inner;
        let (shard, cache, bytes) = (part.cell.id, &self.cache, &self.bytes);
        let disk = |of: &(i64, Mark)| Disk::new(inner.on_disk(), cache, *of, shard, tenant, bytes);
        let (hidden, hidden_exemplars) = self.hidden(part, tenant)?;
        let mut merged = MergedSeries::new(part.sources.iter().map(disk).collect(), hidden)?;
        let (mut labels, mut places): (Vec<Labels>, Vec<(u32, u32)>) = (Vec::new(), Vec::new());
        let (mut times, mut block) = (LongTimes::new(), BlockBuilder::sliced());
        let (mut block_number, mut samples) = (0, 0);
        while let Some((of, points)) = merged.next()? {
            samples += points.len() as u64;
            places.push((block_number, block.len() as u32));
            block.push(times.number(&points.t_ms)?, &points);
            labels.push(of);
            if block.is_full() {
                self.data.put(keys::block(&prefix, Section::Values, block_number), block.finish()?)?;
                self.data.split()?;
                Self::paced(&mut self.index, &mut self.data, self.pace)?;
                block_number += 1;
            }
        }
        if block.len() > 0 {
            self.data.put(keys::block(&prefix, Section::Values, block_number), block.finish()?)?;
        }
        self.duplicates += merged.repeated;
        self.deleted += merged.deleted;
        let olds = std::mem::take(&mut merged.places);
        drop(merged);
        self.exemplars(part, tenant, olds.into_iter().zip(hidden_exemplars))?;
        for (number, block) in times.finish()?.into_iter().enumerate() {
            self.data.put(keys::block(&prefix, Section::LongTimes, number as u32), block)?;
        }
        if !labels.is_empty() {
            let labels: Vec<&Labels> = labels.iter().collect();
            let mut put = Ok(());
            index(&prefix, &labels, &places, &mut |key, value| {
                if put.is_ok() {
                    put = self.index.put(key, value);
                }
            })?;
            put?;
        }
        Self::paced(&mut self.index, &mut self.data, self.pace)?;
        Ok(samples)
    }

    /// What is deleted of a tenant's series, and of the exemplars in each source.
    fn hidden(&self, part: &Part, tenant: &Tenant) -> Result<(Hidden, Vec<HiddenExemplars>), Error> {
        let deletes: Vec<_> = part.deletes.iter().filter(|one| one.tenant == *tenant).cloned().collect();
        if deletes.is_empty() {
            let none = part.sources.iter().map(|_| HiddenExemplars::default());
            return Ok((Hidden::default(), none.collect()));
        }
        let disk = |of: &(i64, Mark)| {
            let disk = Disk::new(self.inner.on_disk(), &self.cache, *of, part.cell.id, tenant, &self.bytes);
            (disk, of.1.deleted)
        };
        Hidden::read(Deletes::new(deletes), &part.sources.iter().map(disk).collect::<Vec<_>>())
    }

    /// `places` are the new places of each source's series.
    fn exemplars(
        &mut self,
        part: &Part,
        tenant: &Tenant,
        places: impl Iterator<Item = (Vec<u32>, HiddenExemplars)>,
    ) -> Result<(), Error> {
        let prefix = keys::tenant(self.of, part.cell.id, tenant);
        let inner = self.inner;
        let mut sources = Vec::new();
        for (of, (places, hidden)) in part.sources.iter().zip(places) {
            let disk = Disk::new(inner.on_disk(), &self.cache, *of, part.cell.id, tenant, &self.bytes);
            sources.push(Exemplars::new(&inner.rocks, &disk, places, hidden)?);
        }
        let (mut number, mut body) = (0, Vec::new());
        loop {
            let mut next: Option<u32> = None;
            for source in &mut sources {
                next = source.place()?.into_iter().chain(next).min();
            }
            if body.len() >= EXEMPLAR_BLOCK_BYTES || (next.is_none() && !body.is_empty()) {
                self.data.put(keys::block(&prefix, Section::Exemplars, number), pack(VERSION, &body)?)?;
                number += 1;
                body.clear();
            }
            let Some(place) = next else { return Ok(()) };
            let mut all = Vec::new();
            for source in &mut sources {
                if source.place()? == Some(place) {
                    all.extend(source.take());
                }
            }
            sort_exemplars(&mut all);
            Out::new(&mut body).u64(u64::from(place));
            encode_exemplars(&all, &mut Out::new(&mut body));
        }
    }

    /// Takes a tenant's spans over as they lie, the blocks of each window under numbers of their own, since a search
    /// mostly wants a short time.
    fn spans(&mut self, part: &Part, tenant: &Tenant) -> Result<(), Error> {
        let prefix = keys::tenant(self.of, part.cell.id, tenant);
        let (inner, rocks) = (self.inner, &self.inner.rocks);
        let mut used = vec![0u32; usize::from(self.plan.windows)];
        let mut sources = Vec::new();
        for of in part.sources.iter().filter(|(_, mark)| mark.spans > 0) {
            let first = self.plan.place(of.0, inner.config.window_ms);
            let disk = Disk::new(inner.on_disk(), &self.cache, *of, part.cell.id, tenant, &self.bytes);
            let mut bases = Vec::new();
            for place in 0..of.1.windows {
                let window = first + usize::from(place);
                let base = used.get(window).copied().unwrap_or(0);
                bases.push(window as u32 * SPAN_BLOCKS_PER_WINDOW + base);
                let (from, to) = disk.span_range(of.1.is_merged.then_some(place));
                let mut count = 0;
                rocks.scan::<Error>(keys::DATA, &from, &to, &mut |_, block| {
                    let number = window as u32 * SPAN_BLOCKS_PER_WINDOW + base + count;
                    self.data.put(keys::block(&prefix, Section::Spans, number), block.to_vec())?;
                    Self::paced(&mut self.index, &mut self.data, self.pace)?;
                    count += 1;
                    Ok(true)
                })?;
                if base + count >= SPAN_BLOCKS_PER_WINDOW {
                    return Err(Error::Invalid("a window has too many spans to be merged".to_owned()));
                }
                if let Some(used) = used.get_mut(window) {
                    *used = base + count;
                }
            }
            sources.push((Traces::new(rocks, &disk)?, bases));
        }
        self.traces(&prefix, sources)
    }

    fn traces(&mut self, prefix: &[u8], mut sources: Vec<(Traces<'_>, Vec<u32>)>) -> Result<(), Error> {
        loop {
            let mut next: Option<Vec<u8>> = None;
            for (source, _) in &sources {
                next = source.id()?.into_iter().chain(next).min();
            }
            let Some(id) = next else { return Ok(()) };
            let mut value = Vec::new();
            for (source, bases) in &mut sources {
                if source.id()?.as_ref() != Some(&id) {
                    continue;
                }
                for first in source.take()? {
                    let (place, number) = (first / SPAN_BLOCKS_PER_WINDOW, first % SPAN_BLOCKS_PER_WINDOW);
                    let base = bases.get(place as usize).copied();
                    let base = base.ok_or_else(|| Error::corrupt("a trace lies outside its windows"))?;
                    Out::new(&mut value).u64(u64::from(base + number));
                }
            }
            let mut key = keys::section(prefix, Section::Traces);
            key.extend_from_slice(&id);
            self.index.put(key, value)?;
            Self::paced(&mut self.index, &mut self.data, self.pace)?;
        }
    }
}
