//! The command line: commands, their own arguments, and a flag for every setting.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::cluster::limits;
use crate::settings::{self, Setting};

const ABOUT: &str = "Metrics, traces and logs in one store: OTLP and Prometheus remote write in, Grafana out";

const EXAMPLES: &str = "\
Examples:
  tricord                                   everything in one process, data in ./tricord-data
  tricord --data-dir /srv/tricord --retention 90d
  tricord --config tricord.yaml             the same settings from a file (see `tricord config`)
  TRICORD_LOG=debug tricord                 every setting is also a variable

  tricord local-cluster --data-nodes 3      a whole cluster of processes on this machine
  tricord query 'up'                        ask a running tricord

A cluster by hand, one process per line:
  tricord metadata --data-dir m1 --rpc-listen 127.0.0.1:17301 --http-listen 127.0.0.1:17300
  tricord querier  --data-dir q1 --rpc-listen 127.0.0.1:17311 --http-listen 127.0.0.1:17310 --metadata 127.0.0.1:17301
  tricord cluster init --metadata 127.0.0.1:17301 --replicas 1 --min-insync 1
  tricord ingester --http-listen 127.0.0.1:17320 --metadata 127.0.0.1:17301
  tricord proxy    --http-listen 127.0.0.1:17330 --metadata 127.0.0.1:17301

Then send something and ask for it:
  echo 'hello{from=\"me\"} 42' | curl --data-binary @- http://127.0.0.1:7300/api/v1/import/prometheus
  curl 'http://127.0.0.1:7300/api/v1/query?query=hello'";

const BACKUP_HELP: &str = "\
Everything that was acknowledged before the command began is in the backup. A copy comes from one in-sync replica of each \
shard; a shard that none can give fails the backup, and is named. backup.json is written last: a directory without it is \
no whole backup. `tricord check DIR` reads one and says what is damaged. Settings are not in it: keep them yourself.

Examples:
  tricord cluster backup --into /backup/monday --metadata 10.0.0.1:7301,10.0.0.2:7301
  tricord cluster backup --into /backup/monday        (of a single process on this machine)";

const RESTORE_HELP: &str = "\
The cluster must run, be empty, and have as many shards as that of the backup; it may have other nodes and other numbers \
of copies. Nothing is changed before all files are read and found to be as they were written. Keep writers away, and start \
the processes with --own-telemetry=false, until it is done.

Examples:
  tricord cluster restore --from /backup/monday --metadata 10.0.0.1:7301
  tricord cluster restore --from /backup/monday       (into a single process on this machine)";

/// The roles that have a command of their own, with what they do.
const ROLES: [(&str, &str); 5] = [
    ("all", "Runs all roles in one process (the default)"),
    ("ingester", "Receives writes and sends them to the data nodes; keeps nothing"),
    ("querier", "A data node: stores shards and runs query fragments"),
    ("proxy", "Answers queries: plans, asks the data nodes, merges; keeps nothing"),
    ("metadata", "A member of the metadata group: nodes and the shard map"),
];

/// The whole command line.
pub(crate) fn command() -> Command {
    let settings = settings::all();
    let mut root = with_settings(Command::new("tricord"), &settings, "all")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .max_term_width(120);
    for (name, about) in ROLES {
        root = root.subcommand(with_settings(Command::new(name).about(about), &settings, name).arg(parent()));
    }
    let print = Command::new("config").about("Prints the effective settings as YAML");
    root.subcommand(local_cluster())
        .subcommand(cluster(&settings))
        .subcommand(query())
        .subcommand(check())
        .subcommand(with_settings(print, &settings, "all"))
}

/// Set by `local-cluster` so that its processes end with it, even when it is killed.
fn parent() -> Arg {
    Arg::new("parent-pid").long("parent-pid").hide(true).value_parser(value_parser!(i32))
}

fn config_file() -> Arg {
    let help = "YAML file with settings [env: TRICORD_CONFIG]";
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("TRICORD_CONFIG")
        .hide_env(true)
        .help(help)
        .value_parser(value_parser!(PathBuf))
}

/// Adds a flag for each setting. Those of other roles' sections work too (a file or a script may give all processes the
/// same flags) but are not shown.
fn with_settings(command: Command, settings: &[Setting], role: &str) -> Command {
    let section = if role == "metadata" { "metadata_service" } else { role };
    // A later flag wins, so that scripts can append to a given command line.
    let mut command = command.args_override_self(true).arg(config_file());
    for setting in settings {
        let own = setting.section().is_none_or(|of| role == "all" || of == section);
        command = command.arg(flag(setting).hide(!own).hide_short_help(setting.section().is_some()));
    }
    command
}

fn flag(setting: &Setting) -> Arg {
    let arg = Arg::new(setting.path.clone()).long(setting.flag()).help(setting.help()).action(ArgAction::Set);
    let arg = match setting.section() {
        None => arg.help_heading("Settings"),
        Some(section) => arg.help_heading(format!("Settings of the {}", section.replace('_', " "))),
    };
    match setting.path.as_str() {
        _ if setting.is_switch() => {
            let values = PossibleValuesParser::new(["true", "false"]);
            arg.num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(values)
                .hide_possible_values(true)
        }
        "log_format" => arg.value_parser(PossibleValuesParser::new(["text", "json"])),
        "data_dir" => arg.value_name("DIR"),
        path if path.ends_with("_listen") || path == "advertise" => arg.value_name("HOST:PORT"),
        "metadata" => arg.value_name("HOST:PORT,…"),
        path if path.ends_with("retention") || path.ends_with("_after") => arg.value_name("DURATION"),
        path if path.ends_with("_limit") || path.ends_with("_bytes") => arg.value_name("BYTES"),
        _ => arg.value_name("VALUE"),
    }
}

/// The flags that were given, by setting path.
pub(crate) fn given_flags(matches: &ArgMatches) -> BTreeMap<String, String> {
    let mut given = BTreeMap::new();
    for setting in settings::all() {
        if let Ok(Some(value)) = matches.try_get_one::<String>(&setting.path) {
            given.insert(setting.path, value.clone());
        }
    }
    given
}

fn count(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("N")
        .default_value(default)
        .value_parser(value_parser!(u16))
        .help(help)
}

fn local_cluster() -> Command {
    Command::new("local-cluster")
        .about("Runs a whole cluster of processes on this machine, until Ctrl-C")
        .arg(count("metadata", "3", "Members of the metadata group"))
        .arg(count("data-nodes", "3", "Data nodes (queriers)"))
        .arg(count("ingesters", "1", "Ingesters"))
        .arg(count("proxies", "1", "Query proxies"))
        .arg(count("base-port", "17300", "First port; each process takes ten of them, in the order of the table"))
        .arg(
            Arg::new("data-dir").long("data-dir").value_name("DIR").default_value("./tricord-cluster")
                .value_parser(value_parser!(PathBuf))
                .help("Where the processes store and log; DIR/cluster.json says who runs where"),
        )
        .arg(Arg::new("replicas").long("replicas").value_name("N").value_parser(value_parser!(u32)).help("Copies of each shard, at birth [default: 3, or as many as there are data nodes]"))
        .arg(Arg::new("min-insync").long("min-insync").value_name("N").value_parser(value_parser!(u32)).help("Copies that must be in sync for a write, at birth [default: 2, or 1 with one copy]"))
        .arg(Arg::new("shards").long("shards").value_name("N").default_value("64").value_parser(value_parser!(u32)).help("Shards, at birth"))
        .arg(Arg::new("ready-timeout-s").long("ready-timeout-s").value_name("SECONDS").default_value("120").value_parser(value_parser!(u64)).help("How long all processes may take to become ready"))
        .arg(Arg::new("no-restart").long("no-restart").action(ArgAction::SetTrue).help("Leave processes that end as they are; otherwise they are started again"))
        .arg(Arg::new("add-node").long("add-node").action(ArgAction::SetTrue).help("Ask the local cluster that runs in --data-dir for one more data node"))
        .arg(parent())
        .arg(Arg::new("flags").num_args(0..).last(true).help("Flags for every process, after `--`"))
        .after_help("Examples:\n  tricord local-cluster\n  tricord local-cluster --add-node          (in another terminal)\n  tricord local-cluster --data-nodes 5 --data-dir /tmp/five -- --own-telemetry=false --log debug")
}

fn cluster(settings: &[Setting]) -> Command {
    let with = |command: Command, paths: &[&str]| {
        let wanted = settings.iter().filter(|setting| paths.contains(&setting.path.as_str()));
        wanted.fold(command.arg(config_file()), |command, setting| command.arg(flag(setting)))
    };
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("For machines");
    let timeout = || {
        Arg::new("timeout-s")
            .long("timeout-s")
            .value_name("SECONDS")
            .default_value("30")
            .value_parser(value_parser!(u64))
            .help("How long to wait for the metadata group")
    };
    let absent = Arg::new("if-absent")
        .long("if-absent")
        .action(ArgAction::SetTrue)
        .help("Succeed when the cluster exists already");
    let init = Command::new("init")
        .about("Births the cluster, once: the metadata members form a group and mint its id");
    let status = Command::new("status").about("Prints nodes, shards, in-sync sets and lag");
    let drain = Command::new("drain").about("Moves everything off a data node, before it is taken away");
    let join = Command::new("join").about("Adds a member to the metadata group");
    let remove = Command::new("remove").about("Takes a member out of the metadata group");
    let replace = Command::new("replace")
        .about("Adds a metadata member in the place of another one, which may be lost");
    let address =
        || Arg::new("address").value_name("HOST:PORT").required(true).help("The new member's --rpc-listen");
    let member = || {
        let help = "The old member's id, from `cluster status`";
        Arg::new("member").value_name("MEMBER").required(true).value_parser(value_parser!(u64)).help(help)
    };
    let backup = Command::new("backup")
        .about("Copies all data of a cluster, or of a single process, into a directory while it runs")
        .after_help(BACKUP_HELP);
    let restore = Command::new("restore")
        .about("Fills an empty cluster, or an empty single process, with a backup")
        .after_help(RESTORE_HELP);
    let bytes = |name: &'static str, least: u64, help: &'static str| {
        let parser = value_parser!(u64).range(least..);
        Arg::new(name).long(name).value_name("BYTES").value_parser(parser).help(help)
    };
    // Nodes do not wait for ever until a piece of a copy is taken, or the next one of a restore comes.
    let pace =
        || bytes("max-bytes-per-s", 131_072, "Read or send no more per second [default: without bound]");
    let directory = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("DIR")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    let partial =
        |help: &'static str| Arg::new("partial").long("partial").action(ArgAction::SetTrue).help(help);
    let wait = || {
        let help = "How long to wait until enough copies are made [default: for ever]";
        Arg::new("wait-s").long("wait-s").value_name("SECONDS").value_parser(value_parser!(u64)).help(help)
    };
    Command::new("cluster")
        .about("Births, shows, changes, backs up and restores a cluster")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with(init, &["metadata", "replicas", "min_insync", "shards"])
                .arg(absent)
                .arg(timeout())
                .arg(json()),
        )
        .subcommand(with(status, &["metadata"]).arg(timeout()).arg(json()))
        .subcommand(
            with(backup, &["metadata", "rpc_listen"])
                .arg(directory("into", "An empty or new directory for the backup"))
                .arg(partial("Leave shards out that no replica can give, instead of failing"))
                .arg(pace())
                .arg(
                    bytes("part-bytes", 65_536, "Begin another file of a shard after so many bytes")
                        .default_value("1073741824"),
                )
                .arg(timeout()),
        )
        .subcommand(
            with(restore, &["metadata", "rpc_listen"])
                .arg(directory("from", "The directory of the backup"))
                .arg(partial("Restore a backup that lacks shards"))
                .arg(pace())
                .arg(wait())
                .arg(timeout()),
        )
        .subcommand(with(limits::command(), &["metadata", "rpc_listen"]).arg(timeout()).arg(json()))
        .subcommand(with(join, &["metadata"]).arg(address()).arg(timeout()))
        .subcommand(with(remove, &["metadata"]).arg(member()).arg(timeout()))
        .subcommand(with(replace, &["metadata"]).arg(member()).arg(address()).arg(timeout()))
        .subcommand(
            with(drain, &["metadata"])
                .arg(
                    Arg::new("node")
                        .required(true)
                        .value_parser(value_parser!(u64))
                        .help("The node's id, from `cluster status`"),
                )
                .arg(Arg::new("undo").long("undo").action(ArgAction::SetTrue).help("Take the mark back"))
                .arg(
                    Arg::new("no-wait")
                        .long("no-wait")
                        .action(ArgAction::SetTrue)
                        .help("Mark it and return at once"),
                )
                .arg(
                    Arg::new("wait-s")
                        .long("wait-s")
                        .value_name("SECONDS")
                        .value_parser(value_parser!(u64))
                        .conflicts_with("no-wait")
                        .help("How long to wait until nothing is left there [default: for ever]"),
                )
                .arg(
                    Arg::new("allow-fewer-copies")
                        .long("allow-fewer-copies")
                        .action(ArgAction::SetTrue)
                        .help("Drain even where shards are then left with fewer copies than --replicas"),
                )
                .arg(timeout()),
        )
}

fn check() -> Command {
    Command::new("check")
        .about("Looks at all that a data node has stored, while it is stopped, or at a backup, and says what is damaged")
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The data directory (--data-dir), or the directory of a backup"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("For machines"))
        .after_help(
            "Nothing is written. Ends with 0 where nothing is damaged, 1 where something is or a backup lacks shards, 2 where \
             the directory cannot be looked at.\n\nExamples:\n  tricord check ./tricord-data\n  tricord check --json /srv/tricord",
        )
}

fn query() -> Command {
    Command::new("query")
        .about("Asks a running tricord (or Prometheus) one PromQL query and prints the answer")
        .arg(Arg::new("expression").required(true).help("PromQL"))
        .arg(Arg::new("url").long("url").default_value("http://127.0.0.1:7300").env("TRICORD_URL").help("Whom to ask"))
        .arg(Arg::new("time").long("time").help("At which time: RFC 3339 or seconds [default: now]"))
        .arg(Arg::new("start").long("start").requires("end").help("Over a range: from when [with --end, --step]"))
        .arg(Arg::new("end").long("end").requires("start").help("Over a range: until when"))
        .arg(Arg::new("step").long("step").default_value("1m").help("Over a range: in which steps"))
        .arg(Arg::new("tenant").long("tenant").help("Tenant (header X-Scope-OrgID)"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("The answer as it came"))
        .arg(Arg::new("allow-partial").long("allow-partial").action(ArgAction::SetTrue).help("Succeed even when shards are missing from the answer"))
        .arg(
            Arg::new("explain")
                .long("explain")
                .action(ArgAction::SetTrue)
                .help("Runs it, and prints where the time goes: the plan as a tree, with what is read"),
        )
        .after_help("Examples:\n  tricord query 'sum by (job) (up)'\n  tricord query --explain 'sum by (job) (rate(up[5m]))'\n  tricord query --tenant tricord 'rate(tricord_ingester_samples_total[1m])'")
}
