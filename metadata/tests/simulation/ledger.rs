//! What must never be broken, checked at every step. There is one true history per shard: the entries that somebody
//! called committed, in order.

use std::collections::BTreeMap;

use tricord_model::{Epoch, NodeId, Seq, ShardId};

use crate::disk::Disk;

/// Something that a replica did and that must hold for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News {
    /// Entries up to this one may be written out.
    Committed(ShardId, Seq),
    /// Writers of entries up to this one were told that they are kept.
    Acknowledged(ShardId, Epoch, Seq),
}

/// A shard's truth.
#[derive(Default)]
struct History {
    payloads: Vec<u64>,
    acknowledged: usize,
    acknowledgers: BTreeMap<Epoch, NodeId>,
}

impl History {
    /// Compares a disk with the history up to an entry.
    fn compare(&self, disk: &mut Disk, upto: usize) -> Result<(), String> {
        while disk.checked < upto {
            let (is, should) = (disk.payload(disk.checked), self.payloads.get(disk.checked).copied());
            if is != should || is.is_none() {
                return Err(format!("has {is:?} at {} where {should:?} is committed", disk.checked + 1));
            }
            disk.checked += 1;
        }
        Ok(())
    }
}

/// The truth of all shards.
#[derive(Default)]
pub(crate) struct Ledger(BTreeMap<ShardId, History>);

impl Ledger {
    /// Takes what a node said of a shard, whose disk there this is.
    pub(crate) fn take(&mut self, node: NodeId, disk: &mut Disk, news: News) -> Result<(), String> {
        let (shard, seq) = match news {
            News::Committed(shard, seq) | News::Acknowledged(shard, _, seq) => (shard, seq),
        };
        let history = self.0.entry(shard).or_default();
        let upto = seq.0 as usize;
        if disk.durable() < seq {
            return Err(format!("{node} calls entry {seq} of {shard} committed, which is not durable there"));
        }
        for at in history.payloads.len()..upto {
            history.payloads.extend(disk.payload(at));
        }
        history.compare(disk, upto).map_err(|what| format!("{node} {what} in {shard} ({news:?})"))?;
        if let News::Acknowledged(_, epoch, _) = news {
            let first = *history.acknowledgers.entry(epoch).or_insert(node);
            if first != node {
                return Err(format!("{first} and {node} acknowledge in epoch {epoch} of {shard}"));
            }
            history.acknowledged = history.acknowledged.max(upto);
        }
        Ok(())
    }

    /// Whether a disk has everything that was acknowledged, and nothing else in its place.
    pub(crate) fn holds_all(&self, shard: ShardId, disk: &mut Disk) -> Result<(), String> {
        let Some(history) = self.0.get(&shard) else { return Ok(()) };
        if disk.durable().0 < history.acknowledged as u64 {
            return Err(format!("lacks entry {} of {shard}, which is acknowledged", history.acknowledged));
        }
        history.compare(disk, history.acknowledged).map_err(|what| format!("{what} in {shard}"))
    }

    /// How many entries of a shard are acknowledged.
    pub(crate) fn acknowledged(&self, shard: ShardId) -> usize {
        self.0.get(&shard).map_or(0, |history| history.acknowledged)
    }
}
