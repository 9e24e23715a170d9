//! All settings of a process: those that several roles share, and each role's own section. Defaults, then the YAML
//! file, then `TRICORD_…`, then flags.
//!
//! What a section holds is the role's business. Flags and variables are made from the settings' paths, so a new setting
//! of a role has both without a line here.

mod roles;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use documented::DocumentedFields;
use figment::Figment;
use figment::providers::Serialized;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_yaml_ng::{Mapping, Value as Yaml};
use tricord_runtime::LogFormat;

/// The settings, as `tricord config` prints them.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Prometheus, Tempo and Jaeger APIs, remote write, health, metrics.
    pub(crate) http_listen: String,
    /// OTLP over gRPC.
    pub(crate) otlp_grpc_listen: String,
    /// OTLP over HTTP, at /v1/metrics and /v1/traces.
    pub(crate) otlp_http_listen: String,
    /// Calls between roles (gRPC).
    pub(crate) rpc_listen: String,
    /// Where everything is stored.
    pub(crate) data_dir: PathBuf,
    /// Metadata members, HOST:PORT of their --rpc-listen, separated by commas.
    pub(crate) metadata: Vec<String>,
    /// HOST:PORT under which others reach --rpc-listen; needed when that is 0.0.0.0.
    pub(crate) advertise: String,
    /// Failure zone; copies of a shard go to different zones where possible.
    pub(crate) zone: String,
    /// Copies of each shard: 3 in a cluster, 1 in a single process; used at birth.
    pub(crate) replicas: Option<u32>,
    /// Copies that must be in sync for a write: 2 in a cluster, 1 in a single process; used at birth.
    pub(crate) min_insync: Option<u32>,
    /// Parts that the key space is cut into; fixed at birth.
    pub(crate) shards: u32,
    /// How long data is kept (30d, 12h, …); 0 keeps everything.
    pub(crate) retention: String,
    /// Other times to keep data, by name, as {short: 3d, long: 400d}; limits say which tenant is in which class.
    pub(crate) retention_classes: BTreeMap<String, String>,
    /// How long a data node may be away before its copies are made elsewhere.
    pub(crate) node_gone_after: String,
    /// Memory for data and requests (4GiB, 500MiB, …); auto takes half of the machine's.
    pub(crate) memory_limit: String,
    /// Store Tricord's own metrics and traces, under tenant `tricord`.
    pub(crate) own_telemetry: bool,
    /// Seconds between two writes of own telemetry.
    pub(crate) own_telemetry_interval_s: u64,
    /// Log filter, for instance info,tricord_querier=debug.
    pub(crate) log: String,
    /// Log lines for people (text) or machines (json).
    pub(crate) log_format: LogFormat,
    /// The ingester's section.
    pub(crate) ingester: tricord_ingester::Config,
    /// The data node's section.
    pub(crate) querier: tricord_querier::Config,
    /// The query proxy's section.
    pub(crate) proxy: tricord_proxy::Config,
    /// The metadata member's section.
    pub(crate) metadata_service: tricord_metadata::Config,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http_listen: "127.0.0.1:7300".into(),
            otlp_grpc_listen: "127.0.0.1:4317".into(),
            otlp_http_listen: "127.0.0.1:4318".into(),
            rpc_listen: "127.0.0.1:7301".into(),
            data_dir: "./tricord-data".into(),
            metadata: Vec::new(),
            advertise: String::new(),
            zone: String::new(),
            replicas: None,
            min_insync: None,
            shards: 64,
            retention: "30d".into(),
            retention_classes: BTreeMap::new(),
            node_gone_after: "15m".into(),
            memory_limit: "auto".into(),
            own_telemetry: true,
            own_telemetry_interval_s: 15,
            log: "info".into(),
            log_format: LogFormat::Text,
            ingester: Default::default(),
            querier: Default::default(),
            proxy: Default::default(),
            metadata_service: Default::default(),
        }
    }
}

/// Settings of sections that follow from shared ones: they have no flag, and no place in the file.
const DERIVED: [&str; 12] = [
    "proxy.retention",
    "querier.data_dir",
    "querier.retention",
    "querier.zone",
    "metadata_service.data_dir",
    "metadata_service.advertise",
    "metadata_service.auto_init",
    "metadata_service.replicas",
    "metadata_service.min_insync",
    "metadata_service.shards",
    "metadata_service.node_gone_after_ms",
    "querier.memory_limit_bytes",
];

/// One setting that can be given by flag, variable or file.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// `retention`, or `ingester.request_timeout_ms`.
    pub(crate) path: String,
    pub(crate) default: Value,
}

impl Setting {
    /// `--retention`, `--ingester-request-timeout-ms`, without the dashes in front.
    pub(crate) fn flag(&self) -> String {
        self.path.replace(['.', '_'], "-")
    }

    pub(crate) fn variable(&self) -> String {
        format!("TRICORD_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// The role whose section it is in; `None` for shared settings.
    pub(crate) fn section(&self) -> Option<&str> {
        self.path.split_once('.').map(|(section, _)| section)
    }

    pub(crate) fn is_switch(&self) -> bool {
        self.default.is_boolean()
    }

    /// What it does: the documentation of its field.
    fn meaning(&self) -> String {
        let (within, field) = self.path.rsplit_once('.').unwrap_or(("", &self.path));
        let text = match within {
            "" => Settings::get_field_docs(field),
            "ingester" => tricord_ingester::Config::get_field_docs(field),
            "ingester.otlp" => tricord_ingester::translate::Translation::get_field_docs(field),
            "ingester.limits" => tricord_ingester::Limits::get_field_docs(field),
            "ingester.limits.unnamed" | "ingester.limits.named" => {
                tricord_ingester::TenantLimits::get_field_docs(field)
            }
            "querier" => tricord_querier::Config::get_field_docs(field),
            "proxy" => tricord_proxy::Config::get_field_docs(field),
            _ => tricord_metadata::Config::get_field_docs(field),
        };
        text.unwrap_or(field).replace('\n', " ").trim_end_matches('.').to_owned()
    }

    pub(crate) fn help(&self) -> String {
        let default = match &self.default {
            Value::Null => String::new(),
            Value::Array(values) if values.is_empty() => String::new(),
            Value::String(text) if text.is_empty() => String::new(),
            Value::String(text) => format!(" [default: {text}]"),
            value => format!(" [default: {value}]"),
        };
        format!("{}{default} [env: {}]", self.meaning(), self.variable())
    }

    /// The text of a flag or variable as the kind of value that the default is.
    fn parse(&self, text: &str) -> Result<Value> {
        match &self.default {
            Value::String(_) => Ok(Value::String(text.to_owned())),
            Value::Array(_) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(parts.map(|part| Value::String(part.to_owned())).collect())
            }
            Value::Bool(_) => match text {
                "true" | "1" | "yes" | "on" => Ok(Value::Bool(true)),
                "false" | "0" | "no" | "off" => Ok(Value::Bool(false)),
                _ => bail!("{text:?} is neither true nor false"),
            },
            _ => Ok(serde_yaml_ng::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))),
        }
    }
}

/// Every setting, in the order of the file.
pub(crate) fn all() -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Ok(Yaml::Mapping(fields)) = serde_yaml_ng::to_value(Settings::default()) {
        collect(fields, "", &mut settings);
    }
    settings.retain(|setting| !DERIVED.contains(&setting.path.as_str()));
    settings
}

fn collect(fields: Mapping, prefix: &str, settings: &mut Vec<Setting>) {
    for (name, value) in fields {
        let path = format!("{prefix}{}", name.as_str().unwrap_or_default());
        match value {
            Yaml::Mapping(inner) if !inner.is_empty() => collect(inner, &format!("{path}."), settings),
            value => {
                settings.push(Setting { path, default: serde_json::to_value(value).unwrap_or_default() })
            }
        }
    }
}

impl Settings {
    /// The settings as a file that gives the same ones again.
    pub(crate) fn to_yaml(&self) -> Result<String> {
        let mut value = serde_yaml_ng::to_value(self)?;
        for path in DERIVED {
            if let Some((section, name)) = path.split_once('.')
                && let Some(section) = value.get_mut(section).and_then(Yaml::as_mapping_mut)
            {
                section.shift_remove(name);
            }
        }
        Ok(serde_yaml_ng::to_string(&value)?)
    }

    /// The memory bound in bytes.
    pub(crate) fn memory_limit_bytes(&self) -> Result<u64> {
        let given = parse_bytes(&self.memory_limit).context("setting memory_limit")?;
        Ok(given.unwrap_or_else(|| tricord_runtime::machine_memory_bytes() / 2))
    }
}

/// Where values come from: the file, if one is given, the environment, and flags by setting path.
pub(crate) struct Sources<'a> {
    pub(crate) file: Option<&'a Path>,
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) flags: BTreeMap<String, String>,
}

/// The effective settings.
pub(crate) fn load(sources: &Sources<'_>) -> Result<Settings> {
    let known = all();
    let mut layers = Figment::from(Serialized::defaults(Settings::default()));
    if let Some(path) = sources.file {
        layers = layers.merge(Serialized::defaults(read_file(path, &known)?));
    }
    let mut given = Map::new();
    for setting in &known {
        let variable = setting.variable();
        if let Some(text) = (sources.environment)(&variable) {
            let value = setting.parse(&text).with_context(|| format!("variable {variable}"))?;
            insert(&mut given, &setting.path, value);
        }
        if let Some(text) = sources.flags.get(&setting.path) {
            let value = setting.parse(text).with_context(|| format!("--{}", setting.flag()))?;
            insert(&mut given, &setting.path, value);
        }
    }
    let settings: Settings = layers.merge(Serialized::defaults(given)).extract().map_err(|error| {
        let paths = error.path.join(".");
        let reason = match &error.kind {
            figment::error::Kind::UnknownVariant(given, known) => {
                format!("{given:?} is none of {}", known.join(", "))
            }
            kind => kind.to_string(),
        };
        anyhow::anyhow!("setting {}: {reason}", if paths.is_empty() { "file" } else { &paths })
    })?;
    settings.check()?;
    Ok(settings)
}

/// Variables that start like ours and that no setting has: most likely misspelt, so that they are without effect.
/// Kubernetes adds some of its own for each service named tricord-…, which nobody wrote.
pub(crate) fn unknown_variables(given: impl Iterator<Item = String>) -> Vec<String> {
    const OTHERS: [&str; 5] =
        ["TRICORD_CONFIG", "TRICORD_URL", "TRICORD_TENANT", "TRICORD_CACHE", "TRICORD_VENV"];
    let known: Vec<String> = all().iter().map(Setting::variable).collect();
    let from_kubernetes = |name: &str| {
        name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.contains("_PORT_")
            || name.ends_with("_PORT")
    };
    let is_unknown = |name: &String| {
        name.starts_with("TRICORD_")
            && !known.contains(name)
            && !OTHERS.contains(&name.as_str())
            && !from_kubernetes(name)
    };
    given.filter(is_unknown).collect()
}

fn insert(fields: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            fields.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = fields.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// Reads the file and refuses names that no setting has: a misspelt one would be silently without effect.
fn read_file(path: &Path, known: &[Setting]) -> Result<Value> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read settings file {}", path.display()))?;
    let value: Value = serde_yaml_ng::from_str(&text)
        .with_context(|| format!("settings file {} is not YAML", path.display()))?;
    let fields = match value {
        Value::Null => Map::new(),
        Value::Object(fields) => fields,
        _ => bail!("settings file {} must be a mapping of names to values", path.display()),
    };
    let mut unknown = Vec::new();
    find_unknown(&fields, "", known, &mut unknown);
    if let Some(name) = unknown.first() {
        bail!(
            "settings file {}: there is no setting {name:?}; `tricord config` lists all of them",
            path.display()
        );
    }
    Ok(Value::Object(fields))
}

fn find_unknown(fields: &Map<String, Value>, prefix: &str, known: &[Setting], unknown: &mut Vec<String>) {
    for (name, value) in fields {
        let path = format!("{prefix}{name}");
        if known.iter().any(|setting| setting.path == path) {
            continue;
        }
        let inner_prefix = format!("{path}.");
        match value {
            Value::Object(inner) if known.iter().any(|setting| setting.path.starts_with(&inner_prefix)) => {
                find_unknown(inner, &inner_prefix, known, unknown);
            }
            _ => unknown.push(path),
        }
    }
}

/// Bytes from `4GiB`, `500MB`, `1073741824`; `None` for `auto`.
pub(crate) fn parse_bytes(text: &str) -> Result<Option<u64>> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => bail!("{text:?} is not a size; write it as 4GiB, 500MiB or auto"),
    };
    let number: f64 = number.parse().with_context(|| format!("{text:?} is not a size; write it as 4GiB"))?;
    Ok(Some((number * factor as f64) as u64))
}

/// Milliseconds from `15m`, `30s`, `2d`.
pub(crate) fn parse_duration_ms(text: &str) -> Result<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => bail!("{text:?} is not a duration; write it as 30s, 15m, 12h or 30d"),
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .with_context(|| format!("{text:?} is not a duration"))
}
