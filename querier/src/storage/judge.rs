//! What the primary lets into the log: batches, deletes, and that idle series are forgotten.

use tricord_model::{BatchView, Deletion, ShardId, Tenant};

use super::head::Rules;
use super::store::Store;
use super::{Error, Judged, StoreConfig, deletes};

impl Store {
    /// Judges a batch on the primary: what is too old, too new or malformed is refused, increments are added up, and
    /// series get their ids. Must be called in the order of the entries, with the shard's epoch stored before, and
    /// what it answers must be appended unless it is empty.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when memory is at its bound, before anything is changed; [`Error::Closed`] after an
    /// earlier failure; [`Error::UnknownShard`].
    pub(crate) fn judge(
        &self,
        shard: ShardId,
        tenant: &Tenant,
        batch: BatchView<'_>,
        now_ms: i64,
    ) -> Result<Judged, Error> {
        let limit = self.inner.config.memory_limit_bytes;
        let used = self.inner.memory();
        if used > limit {
            return Err(Error::Overloaded { used, limit });
        }
        if let Some(error) = self.inner.log()?.failure() {
            return Err(error);
        }
        let StoreConfig { retention, future_ms, .. } = &self.inner.config;
        let (retention_ms, future_ms) = (retention.of(tenant).keep_ms, *future_ms);
        let cell = self.inner.cell(shard)?;
        let mut state = cell.state.write();
        state.check()?;
        state.judge(tenant, batch, Rules { retention_ms, future_ms, now_ms })
    }

    /// Judges a delete on the primary, as [`Store::judge`] does a batch.
    ///
    /// # Errors
    /// [`Error::TooManyDeletes`] before anything is changed; [`Error::Closed`] after an earlier failure;
    /// [`Error::UnknownShard`].
    pub(crate) fn judge_delete(
        &self,
        shard: ShardId,
        tenant: &Tenant,
        deletion: &Deletion,
    ) -> Result<Judged, Error> {
        if let Some(error) = self.inner.log()?.failure() {
            return Err(error);
        }
        let cell = self.inner.cell(shard)?;
        let state = cell.state.read();
        state.check()?;
        let payload = deletes::payload(tenant, deletion);
        if !state.tombstones.have_room(payload.len()) {
            return Err(Error::TooManyDeletes { shard, deletes: state.tombstones.len() });
        }
        Ok(Judged { payload, ..Judged::default() })
    }

    /// What forgets some of a shard's idle series, on the primary, where [`Store::maintain`] has found any. Writes carry
    /// that along; a shard to which nobody writes, or which refuses writes for want of memory, needs an entry for it.
    ///
    /// # Errors
    /// [`Error::Closed`] after an earlier failure; [`Error::UnknownShard`].
    pub(crate) fn judge_idle(&self, shard: ShardId, now_ms: i64) -> Result<Judged, Error> {
        if let Some(error) = self.inner.log()?.failure() {
            return Err(error);
        }
        let cell = self.inner.cell(shard)?;
        if cell.state.read().evictable.is_empty() {
            return Ok(Judged { is_empty: true, ..Judged::default() });
        }
        let mut state = cell.state.write();
        state.check()?;
        Ok(state.judge_idle(now_ms))
    }
}
