//! Each role's configuration, made from the settings of the process, and whether all of them make sense.

use anyhow::{Context, Result, bail};
use tricord_ingester::TenantLimits;
use tricord_model::RetentionTexts;

use super::{Settings, parse_duration_ms};

/// The least memory with which a process does anything useful, in bytes.
const MIN_MEMORY_BYTES: u64 = 32 << 20;

impl Settings {
    /// The metadata member's configuration; `advertise` is where others reach it.
    pub(crate) fn metadata_config(&self, single: bool, advertise: &str) -> Result<tricord_metadata::Config> {
        let replicas = self.replicas.unwrap_or(if single { 1 } else { 3 });
        Ok(tricord_metadata::Config {
            data_dir: self.data_dir.join("metadata"),
            advertise: advertise.to_owned(),
            auto_init: single,
            replicas,
            min_insync: self.min_insync.unwrap_or(replicas.min(2)),
            shards: self.shards,
            node_gone_after_ms: parse_duration_ms(&self.node_gone_after)
                .context("setting node_gone_after")?,
            settle_ms: if single { 0 } else { self.metadata_service.settle_ms },
            ..self.metadata_service.clone()
        })
    }

    /// The data node's configuration.
    pub(crate) fn querier_config(&self) -> Result<tricord_querier::Config> {
        Ok(tricord_querier::Config {
            data_dir: self.data_dir.clone(),
            retention: self.retention.clone(),
            retention_texts: self.retention_texts(),
            zone: self.zone.clone(),
            // Half of what the process may take; requests and queries share the rest.
            memory_limit_bytes: self.memory_limit_bytes()? / 2,
            ..self.querier.clone()
        })
    }

    /// The classes of retention, and which tenant is in which: data nodes and proxies must agree on that.
    fn retention_texts(&self) -> RetentionTexts {
        let limits = &self.ingester.limits;
        let class =
            |(tenant, limits): (&String, &TenantLimits)| (tenant.clone(), limits.retention_class.clone());
        RetentionTexts {
            classes: self.retention_classes.clone(),
            unnamed: limits.unnamed.retention_class.clone(),
            named: limits.named.retention_class.clone(),
            tenants: limits.tenants.iter().map(class).collect(),
        }
    }

    /// The query proxy's configuration.
    pub(crate) fn proxy_config(&self) -> tricord_proxy::Config {
        tricord_proxy::Config {
            retention: self.retention.clone(),
            retention_texts: self.retention_texts(),
            ..self.proxy.clone()
        }
    }

    /// Refuses what no role could start with, whichever role this process has: one file may serve all of them.
    pub(crate) fn check(&self) -> Result<()> {
        let memory = self.memory_limit_bytes()?;
        if memory < MIN_MEMORY_BYTES {
            bail!("setting memory_limit: {memory} bytes are too few; give at least 32MiB, or auto");
        }
        for (name, address) in [
            ("http_listen", &self.http_listen),
            ("otlp_grpc_listen", &self.otlp_grpc_listen),
            ("otlp_http_listen", &self.otlp_http_listen),
            ("rpc_listen", &self.rpc_listen),
        ] {
            check_address(address).with_context(|| format!("setting {name}"))?;
        }
        for address in self.metadata.iter().chain(Some(&self.advertise).filter(|text| !text.is_empty())) {
            check_address(address).context("settings metadata and advertise")?;
        }
        tricord_runtime::check_log_filter(&self.log)?;
        if self.own_telemetry_interval_s == 0 {
            bail!(
                "setting own_telemetry_interval_s: 0 would write without a pause; --own-telemetry=false turns it off"
            );
        }
        self.metadata_config(false, "any:1")?.check().context("settings of the metadata service")?;
        self.querier_config()?.check().context("settings of the data node")?;
        self.proxy_config().check().context("settings of the query proxy")?;
        self.ingester.check().context("settings of the ingester")
    }
}

/// `HOST:PORT`; port 0 asks for any free one.
fn check_address(address: &str) -> Result<()> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        _ => bail!("{address:?} is not HOST:PORT"),
    }
}
