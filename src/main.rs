//! The `tricord` program: reads the command line and the settings, starts a role or all of them, and ends on a signal.
//! This package alone reads files and the environment, and alone knows all roles.

mod backup;
mod banner;
mod check;
mod cli;
mod cluster;
mod data_dir;
mod local_cluster;
mod own_telemetry;
mod process;
mod query;
mod roles;
mod settings;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tricord_runtime::{LogFormat, Shutdown};

use crate::process::Process;
use crate::roles::Role;
use crate::settings::{Settings, Sources};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    use_small_pages();
    let matches = cli::command().get_matches();
    if let Some(("check", matches)) = matches.subcommand() {
        return check::run(matches);
    }
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            banner::say(&format!("tricord: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Turns huge pages off for this process. The allocator asks for them, and then a buffer that a request needs for a moment
/// makes the kernel clear 2 MiB: with them a new series took three times the time, and a process three times the memory.
fn use_small_pages() {
    // Where the kernel has no such switch it has no such pages.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn run(matches: &ArgMatches) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    // Blocking work that outlives the stop (a scan of a cancelled query) must not keep the process.
    let result = runtime.block_on(dispatch(matches));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}

async fn dispatch(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        None => role(Role::All, matches).await,
        Some(("query", matches)) => {
            log_for_commands()?;
            query::run(matches).await
        }
        Some(("config", matches)) => {
            let settings = load(matches)?;
            tricord_runtime::init_logging(settings.log_format, &settings.log, None)?;
            warn_of_unknown_variables();
            table::print(&settings.to_yaml()?)
        }
        Some(("cluster", matches)) => {
            log_for_commands()?;
            let inner = matches.subcommand().map_or(matches, |(_, inner)| inner);
            cluster::run(matches, &load(inner)?).await
        }
        Some(("local-cluster", matches)) => {
            end_with_parent(matches)?;
            tricord_runtime::init_logging(LogFormat::Text, "info", None)?;
            local_cluster::run(matches, on_signals()?).await
        }
        Some((name, matches)) => match Role::from_name(name) {
            Some(found) => role(found, matches).await,
            None => bail!("there is no command {name}"),
        },
    }
}

/// Short commands print their result; their log is for what goes wrong.
fn log_for_commands() -> Result<()> {
    Ok(tricord_runtime::init_logging(LogFormat::Text, "warn", None)?)
}

async fn role(role: Role, matches: &ArgMatches) -> Result<()> {
    end_with_parent(matches)?;
    let process = Process::new(load(matches)?)?;
    let settings = &process.settings;
    let spans = settings.own_telemetry.then(|| process.spans.clone());
    tricord_runtime::init_logging(settings.log_format, &settings.log, spans)?;
    warn_of_unknown_variables();
    let shutdown = on_signals()?;
    roles::run(role, process, shutdown).await
}

fn warn_of_unknown_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for variable in settings::unknown_variables(names) {
        tracing::warn!(
            variable,
            "no setting has this variable, so it has no effect; `tricord --help` lists all"
        );
    }
}

fn load(matches: &ArgMatches) -> Result<Settings> {
    let file = matches.try_get_one::<PathBuf>("config").ok().flatten();
    settings::load(&Sources {
        file: file.map(PathBuf::as_path),
        environment: &|name| std::env::var(name).ok(),
        flags: cli::given_flags(matches),
    })
}

/// For children of `local-cluster`: end when the parent does, however it ends.
fn end_with_parent(matches: &ArgMatches) -> Result<()> {
    let Ok(Some(parent)) = matches.try_get_one::<i32>("parent-pid") else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot follow the parent process")?;
    // It may have ended before the line above.
    if getppid() != Pid::from_raw(*parent) {
        bail!("the parent process {parent} is gone");
    }
    Ok(())
}

/// A shutdown that the first SIGINT or SIGTERM triggers; the second one ends the process at once.
fn on_signals() -> Result<Shutdown> {
    let shutdown = Shutdown::new();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot take signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot take signals")?;
    let triggered = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if triggered.is_triggered() {
                banner::say("tricord: second signal, ending at once\n");
                std::process::exit(130);
            }
            triggered.trigger();
        }
    });
    Ok(shutdown)
}
