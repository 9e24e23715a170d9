//! Looking at the log: every record's checksum, every entry's payload, and that no entry is missing.

use std::collections::BTreeMap;

use tricord_model::{Seq, ShardId};

use super::rows::Bases;
use super::{Check, Finding, RESTORE};
use crate::storage::Error;
use crate::storage::head::payload::PayloadReader;
use crate::storage::log::files::{Files, RealFiles};
use crate::storage::log::segment::{self, MAGIC, Segment};
use crate::storage::log::{self, Kind, Record, record};

/// The entries of a shard that were met.
#[derive(Default)]
struct Met {
    /// The last one before them.
    base: Seq,
    last: Seq,
    any: bool,
}

impl Check<'_> {
    /// Looks at the log; it must go on from where the shards' rows say.
    pub(super) fn log(&mut self, bases: &Bases) -> Result<(), Error> {
        let dir = log::directory(self.dir);
        let segments = match segment::list(&RealFiles, &dir) {
            Ok(segments) => segments,
            Err(error) if error.is_damage() => {
                self.find(&dir.display().to_string(), error.to_string(), "entries of any shard", RESTORE);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut shards: BTreeMap<ShardId, Met> = BTreeMap::new();
        for (at, segment) in segments.iter().enumerate() {
            self.tell("log segments", at as u64, segments.len() as u64);
            let len = self.segment(segment, at + 1 == segments.len(), &mut shards)?;
            let end = self.ledger.log_end;
            if end.segment == segment.number && len < end.len {
                let what = format!("{len} bytes of it read as records, and {} were synced", end.len);
                self.find(&segment.path.display().to_string(), what, "the newest entries", RESTORE);
            }
            self.report.looked.log_segments += 1;
        }
        let last = segments.last().map_or(0, |segment| segment.number);
        if last < self.ledger.log_end.segment {
            let path = segment::path(&dir, self.ledger.log_end.segment);
            let what = "the segment is missing".to_owned();
            self.find(&path.display().to_string(), what, "the newest entries", RESTORE);
        }
        self.ends(&dir.display().to_string(), &shards, bases);
        Ok(())
    }

    /// Whether each shard's entries go on from its base and reach what is known.
    fn ends(&mut self, place: &str, shards: &BTreeMap<ShardId, Met>, bases: &Bases) {
        for (shard, base) in bases {
            let met = shards.get(shard).filter(|met| met.any);
            if let Some(met) = met.filter(|met| met.base > *base) {
                self.lack(place, *shard, base.next(), met.base);
            }
            let last = met.map_or(*base, |met| met.last.max(*base));
            let known = self.ledger.shards.get(shard).map_or(Seq(0), |account| account.last);
            if last < known {
                self.lack(place, *shard, last.next(), known);
            }
        }
    }

    fn lack(&mut self, place: &str, shard: ShardId, from: Seq, to: Seq) {
        self.add(Finding {
            place: place.to_owned(),
            what: format!("the log lacks entries {from} to {to} of shard {shard}"),
            shard: Some(shard.0),
            lost: "what was written with these entries".to_owned(),
            advice: RESTORE.to_owned(),
            ..Finding::default()
        });
    }

    /// Looks at a segment; answers how many of its bytes read as records.
    fn segment(
        &mut self,
        segment: &Segment,
        is_last: bool,
        shards: &mut BTreeMap<ShardId, Met>,
    ) -> Result<u64, Error> {
        let bytes = RealFiles.read(&segment.path)?;
        let place = segment.path.display().to_string();
        if bytes.get(..MAGIC.len()) != Some(&MAGIC[..]) {
            if !(is_last && bytes.len() < MAGIC.len()) {
                let what = "it does not begin like a log segment".to_owned();
                self.find(&place, what, "entries of any shard", RESTORE);
            }
            if bytes.len() < MAGIC.len() {
                return Ok(0);
            }
        }
        let mut at = MAGIC.len();
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (record, payload) = match record::parse(rest) {
                Ok(found) => found,
                Err(why) => match next_record(rest) {
                    Some((skipped, after_sync)) if after_sync || !is_last => {
                        let what = format!("at byte {at}: {why}; {skipped} bytes do not read as records");
                        self.find(&place, what, "the entries in these bytes", RESTORE);
                        at += skipped;
                        continue;
                    }
                    _ if is_last => break,
                    _ => {
                        let what = format!("at byte {at}: {why}; the rest does not read as records");
                        self.find(&place, what, "the entries in these bytes", RESTORE);
                        break;
                    }
                },
            };
            self.record(&place, at, &record, payload, shards);
            at += record.len as usize;
        }
        Ok(at as u64)
    }

    fn record(
        &mut self,
        place: &str,
        at: usize,
        record: &Record,
        payload: &[u8],
        shards: &mut BTreeMap<ShardId, Met>,
    ) {
        let met = shards.entry(record.shard).or_default();
        match record.kind {
            Kind::Reset => *met = Met { base: record.seq, last: record.seq, any: true },
            Kind::Cut => {
                met.last = met.last.min(record.seq);
                met.base = met.base.min(record.seq);
            }
            Kind::Entry => {
                self.report.looked.log_entries += 1;
                let before = Seq(record.seq.0.saturating_sub(1));
                if !met.any {
                    *met = Met { base: before, last: before, any: true };
                }
                let expected = met.last.next();
                met.last = record.seq;
                if expected < record.seq {
                    self.lack(place, record.shard, expected, before);
                }
                if let Err(error) = decode(payload) {
                    let what = format!("at byte {at}: entry {} cannot be read: {error}", record.seq);
                    self.find(place, what, "what was written with this entry", RESTORE);
                }
            }
        }
    }
}

/// How far away the next whole record is, and whether what is before it had been synced.
fn next_record(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut found = None;
    for at in 1..bytes.len() {
        let rest = &bytes[at..];
        if !record::may_begin(rest) {
            continue;
        }
        let Ok((record, _)) = record::parse(rest) else { continue };
        let (first, _) = *found.get_or_insert((at, false));
        if record.after_sync {
            return Some((first, true));
        }
    }
    found
}

/// Reads all of an entry.
fn decode(payload: &[u8]) -> Result<(), Error> {
    let mut payload = PayloadReader::new(payload)?;
    let mut samples = Vec::new();
    while payload.next(&mut samples)?.is_some() {}
    payload.finish().map(drop)
}
