//! Limits of single tenants that the metadata service keeps, beside those of the settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What differs for one tenant from what the settings say; nothing where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitOverrides {
    /// Samples and spans per second over time; 0 for no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Samples and spans that may come at once on top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Labels of a series, its name included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_labels: Option<u64>,
    /// Length of a label's name in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_label_name_bytes: Option<u64>,
    /// Length of a label's value in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_label_value_bytes: Option<u64>,
}

impl LimitOverrides {
    /// Takes over what another one says, and keeps the rest.
    pub fn overlay(&mut self, other: &Self) {
        let pairs = [
            (&mut self.rate, other.rate),
            (&mut self.burst, other.burst),
            (&mut self.max_labels, other.max_labels),
            (&mut self.max_label_name_bytes, other.max_label_name_bytes),
            (&mut self.max_label_value_bytes, other.max_label_value_bytes),
        ];
        for (own, said) in pairs {
            *own = said.or(*own);
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The overrides of all tenants that have some, by name.
pub type TenantOverrides = BTreeMap<String, LimitOverrides>;
