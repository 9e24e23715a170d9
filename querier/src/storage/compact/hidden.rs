//! What a merge leaves out of a source since it was deleted.

use std::collections::{BTreeMap, HashMap, HashSet};

use roaring::RoaringBitmap;
use tricord_model::{Labels, Seq};

use crate::storage::Error;
use crate::storage::deletes::{Deletes, Ranges};
use crate::storage::disk::Disk;

/// The place of a series that is left out.
pub(super) const GONE: u32 = u32::MAX;

/// What is deleted of a source's exemplars.
#[derive(Default)]
pub(in crate::storage) struct HiddenExemplars {
    /// When, by the place of the series.
    pub(super) ranges: HashMap<u32, Ranges>,
    /// Series that have exemplars left.
    pub(super) left: HashSet<u32>,
}

impl HiddenExemplars {
    pub(super) fn read(disk: &Disk<'_>, deletes: &mut Deletes, after: Seq) -> Result<Self, Error> {
        let (mut ids, mut times) = (RoaringBitmap::new(), BTreeMap::new());
        ids.insert_range(0..disk.series_count()?);
        disk.exemplars(&ids, &mut |id, exemplars| {
            times.insert(id, exemplars.iter().map(|exemplar| exemplar.t_ms).collect::<Vec<_>>());
        })?;
        let mut hidden = Self::default();
        disk.series(&times.keys().copied().collect(), &mut |id, found| {
            let labels = found.labels()?;
            let ranges = deletes.ranges(labels.fingerprint(), &labels, after);
            if times.get(&id).into_iter().flatten().any(|t_ms| !ranges.contains(*t_ms)) {
                hidden.left.insert(id);
            }
            if !ranges.is_empty() {
                hidden.ranges.insert(id, ranges);
            }
            Ok(())
        })?;
        Ok(hidden)
    }
}

/// What is deleted of one tenant's series in the sources of a merge.
#[derive(Default)]
pub(in crate::storage) struct Hidden {
    deletes: Deletes,
    /// For each source the entry up to which deletes are carried out in it.
    after: Vec<Seq>,
    /// For each source the series that have exemplars left.
    left: Vec<HashSet<u32>>,
}

impl Hidden {
    /// Also answers what is deleted of each source's exemplars.
    pub(super) fn read(
        mut deletes: Deletes,
        sources: &[(Disk<'_>, Seq)],
    ) -> Result<(Self, Vec<HiddenExemplars>), Error> {
        let (mut left, mut exemplars) = (Vec::new(), Vec::new());
        for (disk, after) in sources {
            let mut of = HiddenExemplars::read(disk, &mut deletes, *after)?;
            left.push(std::mem::take(&mut of.left));
            exemplars.push(of);
        }
        let after = sources.iter().map(|(_, after)| *after).collect();
        Ok((Self { deletes, after, left }, exemplars))
    }

    /// When samples of a series are deleted in a source.
    pub(super) fn ranges(&mut self, source: usize, fingerprint: u128, labels: &Labels) -> Ranges {
        match self.after.get(source) {
            Some(after) => self.deletes.ranges(fingerprint, labels, *after),
            None => Ranges::default(),
        }
    }

    /// Whether a series has exemplars left in a source, by its place there.
    pub(super) fn has_exemplars(&self, source: usize, place: u32) -> bool {
        self.left.get(source).is_some_and(|left| left.contains(&place))
    }
}
