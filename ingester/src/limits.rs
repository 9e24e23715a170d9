//! What a tenant may send: a rate, and the shape of its labels. Time is an argument.

use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use parking_lot::{Mutex, RwLock};
use tricord_model::{LimitOverrides, METRIC_NAME, Tenant, TenantOverrides};
use tricord_routing::ShardMap;

use crate::Error;
use crate::config::{Limits, TenantLimits};
use crate::decode::labels::short;

/// Buckets that are remembered at once; a full one is as good as none, so those go first.
const MAX_BUCKETS: usize = 10_000;
/// What a client is told to wait at most.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The limits with the state that rates need.
pub struct Limiter {
    limits: Limits,
    overrides: RwLock<Overrides>,
    buckets: Mutex<HashMap<Tenant, Bucket>>,
}

/// What the metadata service says of single tenants, and in which version of the map.
#[derive(Default)]
struct Overrides {
    version: u64,
    tenants: TenantOverrides,
}

/// How much a tenant may send now, and when that was true.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn refilled(self, limits: &TenantLimits, now: Duration) -> Self {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        Self { tokens: (self.tokens + passed * limits.rate).min(limits.burst), at: now.max(self.at) }
    }
}

impl Limiter {
    /// A limiter whose buckets are full.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, overrides: RwLock::default(), buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes over what a newer map says of single tenants.
    pub fn adopt(&self, map: &ShardMap) {
        if self.overrides.read().version >= map.version {
            return;
        }
        let mut overrides = self.overrides.write();
        if overrides.version < map.version {
            overrides.version = map.version;
            if overrides.tenants != map.limits {
                overrides.tenants.clone_from(&map.limits);
            }
        }
    }

    /// The limits of a tenant: those of the settings, and over them what the metadata service says.
    #[must_use]
    pub fn of(&self, tenant: &Tenant) -> TenantLimits {
        let unnamed = matches!(tenant.as_str(), Tenant::DEFAULT | Tenant::OWN);
        let shared = if unnamed { &self.limits.unnamed } else { &self.limits.named };
        let limits = self.limits.tenants.get(tenant.as_str()).unwrap_or(shared).clone();
        match self.overrides.read().tenants.get(tenant.as_str()) {
            Some(overrides) => overridden(limits, overrides),
            None => limits,
        }
    }

    /// Takes so many samples and spans out of the tenant's rate; `now` is any monotonic time.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the time until there is enough again.
    pub fn take(&self, tenant: &Tenant, items: u64, now: Duration) -> Result<(), Error> {
        let limits = self.of(tenant);
        if limits.rate <= 0.0 || items == 0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(tenant) {
            buckets.retain(|tenant, bucket| {
                let limits = self.of(tenant);
                bucket.refilled(&limits, now).tokens < limits.burst
            });
        }
        let full = Bucket { tokens: limits.burst, at: now };
        let bucket = buckets.get(tenant).map_or(full, |bucket| bucket.refilled(&limits, now));
        let items = items as f64;
        // A request larger than the burst passes when the bucket is full, and leaves a debt.
        if bucket.tokens < items.min(limits.burst) {
            let missing = items.min(limits.burst) - bucket.tokens;
            let retry_after =
                Duration::from_secs_f64((missing / limits.rate).clamp(0.001, MAX_WAIT.as_secs_f64()));
            let message = format!(
                "tenant {tenant} sends more than {} samples and spans per second (burst {}): send less, or raise the rate \
                 (tricord cluster limits {tenant} --rate, or the setting ingester.limits.tenants.{tenant}.rate)",
                limits.rate, limits.burst
            );
            return Err(Error::RateLimited { message, retry_after });
        }
        if buckets.len() < MAX_BUCKETS || buckets.contains_key(tenant) {
            buckets.insert(tenant.clone(), Bucket { tokens: bucket.tokens - items, ..bucket });
        }
        Ok(())
    }
}

fn overridden(limits: TenantLimits, by: &LimitOverrides) -> TenantLimits {
    let length = |said: Option<u64>, otherwise: usize| {
        said.map_or(otherwise, |said| usize::try_from(said).unwrap_or(usize::MAX))
    };
    TenantLimits {
        rate: by.rate.map_or(limits.rate, |rate| rate as f64),
        burst: by.burst.map_or(limits.burst, |burst| burst as f64),
        max_labels: length(by.max_labels, limits.max_labels),
        max_label_name_bytes: length(by.max_label_name_bytes, limits.max_label_name_bytes),
        max_label_value_bytes: length(by.max_label_value_bytes, limits.max_label_value_bytes),
        retention_class: limits.retention_class,
    }
}

/// Why labels pass a limit.
pub(crate) fn misshapen(labels: &[(&str, &str)], limits: &TenantLimits) -> Option<String> {
    let name = || labels.iter().find(|(name, _)| *name == METRIC_NAME).map_or("", |(_, value)| value);
    let metric = || short(name()).to_owned();
    if labels.len() > limits.max_labels {
        return Some(format!(
            "series of {:?} has {} labels, {} are allowed (max_labels)",
            metric(),
            labels.len(),
            limits.max_labels
        ));
    }
    labels.iter().find_map(|(name, value)| {
        if name.len() > limits.max_label_name_bytes {
            let limit = limits.max_label_name_bytes;
            Some(format!("label name of {} bytes in a series of {:?}, {limit} are allowed (max_label_name_bytes)", name.len(), metric()))
        } else if value.len() > limits.max_label_value_bytes {
            let (name, limit) = (short(name), limits.max_label_value_bytes);
            Some(format!(
                "value of label {name:?} has {} bytes in a series of {:?}, {limit} are allowed (max_label_value_bytes)",
                value.len(),
                metric()
            ))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_rate_refills_with_time() {
        let limiter = Limiter::new(Limits::default());
        let tenant = Tenant::new("shop").unwrap();
        assert!(limiter.take(&tenant, 200_000, seconds(5.0)).is_ok());
        let error = limiter.take(&tenant, 10_000, seconds(5.5)).unwrap_err();
        assert_eq!(error.retry_after(), Some(seconds(0.5)));
        assert!(limiter.take(&tenant, 10_000, seconds(6.0)).is_ok());
        assert!(limiter.take(&tenant, 1, seconds(6.0)).is_err());
        assert!(limiter.take(&Tenant::new("other").unwrap(), 1, seconds(6.0)).is_ok());
    }

    #[test]
    fn a_request_above_the_burst_passes_once_and_is_paid_back() {
        let limiter = Limiter::new(Limits::default());
        let tenant = Tenant::new("shop").unwrap();
        assert!(limiter.take(&tenant, 400_000, seconds(0.0)).is_ok());
        assert!(limiter.take(&tenant, 1, seconds(19.0)).is_err());
        assert!(limiter.take(&tenant, 1, seconds(20.1)).is_ok());
    }

    #[test]
    fn who_names_no_tenant_has_no_rate() {
        let limiter = Limiter::new(Limits::default());
        for tenant in [Tenant::default(), Tenant::own()] {
            assert!(limiter.take(&tenant, u64::MAX, seconds(0.0)).is_ok());
        }
    }

    #[test]
    fn what_metadata_says_of_a_tenant_holds_over_the_settings() {
        let own = TenantLimits { rate: 1.0, burst: 1.0, max_labels: 7, ..TenantLimits::default() };
        let limiter =
            Limiter::new(Limits { tenants: [("shop".to_owned(), own)].into(), ..Limits::default() });
        let shop = Tenant::new("shop").unwrap();
        let limits = LimitOverrides { rate: Some(50), burst: Some(500), ..LimitOverrides::default() };
        let map = |version, limits| ShardMap { version, limits, ..ShardMap::default() };
        limiter.adopt(&map(3, [("shop".to_owned(), limits)].into()));
        assert!(limiter.take(&shop, 500, seconds(0.0)).is_ok());
        assert!(limiter.take(&shop, 51, seconds(1.0)).is_err());
        assert_eq!(limiter.of(&shop).max_labels, 7, "what is not said is as the settings say");
        assert_eq!(limiter.of(&Tenant::new("other").unwrap()), TenantLimits::default());
        // A map that comes late changes nothing; a newer one takes it back.
        limiter.adopt(&map(2, TenantOverrides::new()));
        assert_eq!(limiter.of(&shop).rate, 50.0);
        limiter.adopt(&map(4, TenantOverrides::new()));
        assert_eq!(limiter.of(&shop).rate, 1.0);
    }

    #[test]
    fn a_tenant_may_have_limits_of_its_own() {
        let own = TenantLimits { rate: 1.0, burst: 1.0, ..TenantLimits::default() };
        let limiter =
            Limiter::new(Limits { tenants: [("shop".to_owned(), own)].into(), ..Limits::default() });
        assert!(limiter.take(&Tenant::new("shop").unwrap(), 1, seconds(0.0)).is_ok());
        assert!(limiter.take(&Tenant::new("shop").unwrap(), 1, seconds(0.0)).is_err());
    }
}
