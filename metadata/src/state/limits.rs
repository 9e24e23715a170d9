//! What single tenants may send, where that differs from the settings.

use tricord_model::LimitOverrides;
use tricord_wire::ErrorKind;

use super::{Reply, State, refused};

/// The most tenants with limits of their own: all of them are in every map.
pub(super) const MAX_LIMITED: usize = 4096;

impl State {
    pub(super) fn limit(&mut self, tenant: String, limits: &LimitOverrides, clear: bool) -> Reply {
        let before = self.limits.get(&tenant).cloned().unwrap_or_default();
        let mut after = if clear { LimitOverrides::default() } else { before.clone() };
        after.overlay(limits);
        if after == before {
            return Reply::Done;
        }
        if after.is_empty() {
            self.limits.remove(&tenant);
        } else if self.limits.len() >= MAX_LIMITED && !self.limits.contains_key(&tenant) {
            let text = format!("{MAX_LIMITED} tenants have limits of their own already");
            return refused(ErrorKind::Limit, text);
        } else {
            self.limits.insert(tenant, after);
        }
        self.version += 1;
        Reply::Done
    }
}
