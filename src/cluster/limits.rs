//! `tricord cluster limits`: what single tenants may send, where that differs from the settings.

use std::time::Duration;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};
use tricord_metadata_client::{Cluster, convert};
use tricord_model::LimitOverrides;
use tricord_wire::proto::metadata as pb;

use crate::table;

/// The limits by the names of their flags, with what they mean.
const FLAGS: [(&str, &str); 5] = [
    ("rate", "Samples and spans per second over time; 0 for no bound"),
    ("burst", "Samples and spans that may come at once on top"),
    ("max-labels", "Labels of a series, its name included"),
    ("max-label-name-bytes", "Length of a label's name"),
    ("max-label-value-bytes", "Length of a label's value"),
];

const HELP: &str =
    "Ingesters take them over within a second or so, and keep them while metadata is away. What is not said \
                    here is as ingester.limits in their settings says; so is always the retention class.

Examples:
  tricord cluster limits                                    (all tenants with limits of their own)
  tricord cluster limits shop --rate 50000 --burst 1000000
  tricord cluster limits shop --clear                       (as the settings say again)";

/// The command's own arguments.
pub(crate) fn command() -> Command {
    let limit = |(name, help): (&'static str, &'static str)| {
        Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u64)).help(help)
    };
    let clear = "Take everything back that was said of the tenant before";
    Command::new("limits")
        .about("Shows and changes what single tenants may send")
        .after_help(HELP)
        .arg(Arg::new("tenant").value_name("TENANT").help("Without it all are shown"))
        .args(FLAGS.map(|(name, help)| limit((name, help)).requires("tenant")))
        .arg(Arg::new("clear").long("clear").action(ArgAction::SetTrue).requires("tenant").help(clear))
}

/// Shows all, shows one, or changes one.
pub(super) async fn run(cluster: &Cluster, limit: Duration, matches: &ArgMatches) -> Result<()> {
    let [rate, burst, max_labels, max_label_name_bytes, max_label_value_bytes] =
        FLAGS.map(|(name, _)| matches.get_one::<u64>(name).copied());
    let said = LimitOverrides { rate, burst, max_labels, max_label_name_bytes, max_label_value_bytes };
    let tenant = matches.get_one::<String>("tenant");
    let clear = matches.get_flag("clear");
    let mut limits = match tenant {
        Some(tenant) if clear || !said.is_empty() => {
            let request = pb::SetLimitsRequest {
                tenant: tenant.clone(),
                limits: Some(convert::limits_to_proto(&said)),
                clear,
            };
            let limits = cluster.set_limits(request, limit).await?.limits;
            vec![pb::TenantLimits { tenant: tenant.clone(), limits }]
        }
        _ => cluster.status(limit).await?.map.unwrap_or_default().limits,
    };
    limits.retain(|one| tenant.is_none_or(|tenant| *tenant == one.tenant) && one.limits.is_some());
    let limits: Vec<(String, LimitOverrides)> = limits
        .into_iter()
        .map(|one| (one.tenant, convert::limits_from_proto(&one.limits.unwrap_or_default())))
        .collect();
    table::print(&if matches.get_flag("json") { as_json(&limits)? } else { as_text(tenant, &limits) })
}

fn as_json(limits: &[(String, LimitOverrides)]) -> Result<String> {
    let tenants = limits.iter().map(|(tenant, limits)| Ok((tenant.clone(), serde_json::to_value(limits)?)));
    let tenants: serde_json::Map<String, Value> = tenants.collect::<Result<_>>()?;
    Ok(format!("{:#}\n", json!({ "tenants": tenants })))
}

fn as_text(tenant: Option<&String>, limits: &[(String, LimitOverrides)]) -> String {
    if limits.is_empty() {
        let who = tenant.map_or("no tenant has".to_owned(), |tenant| format!("tenant {tenant} has no"));
        let what = if tenant.is_some() { "limits" } else { "limits of its own" };
        return format!("{who} {what} here: what ingester.limits in the settings says holds\n");
    }
    let mut heads = vec!["tenant"];
    heads.extend(FLAGS.map(|(name, _)| name));
    let row = |(tenant, of): &(String, LimitOverrides)| {
        let said = [of.rate, of.burst, of.max_labels, of.max_label_name_bytes, of.max_label_value_bytes];
        let cell = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        std::iter::once(tenant.clone()).chain(said.map(cell)).collect()
    };
    let rows: Vec<Vec<String>> = limits.iter().map(row).collect();
    format!("{}\n- is as the settings say\n", table::render(&heads, &rows))
}
