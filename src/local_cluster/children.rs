//! The child processes: started with logs of their own, started again when they end, and stopped in an order that loses
//! nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::plan::{self, Process};
use super::restart::Restart;

/// How long a process may take to drain before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The processes of a cluster, each with its row of the table.
pub(super) struct Children {
    dir: PathBuf,
    binary: PathBuf,
    processes: Vec<Process>,
    /// In the order of the rows; `None` once ended.
    running: Vec<Option<Child>>,
    /// In the order of the rows.
    restarts: Vec<Restart>,
}

impl Children {
    /// Starts all of them. When one cannot be started, those before it end with this value.
    pub(super) fn start(processes: Vec<Process>, dir: &Path) -> Result<Self> {
        let binary = std::env::current_exe().context("cannot find this program's own file")?;
        let (running, restarts) = (Vec::new(), Vec::new());
        let mut children = Self { dir: dir.to_owned(), binary, processes: Vec::new(), running, restarts };
        processes.into_iter().try_for_each(|process| children.add(process))?;
        Ok(children)
    }

    /// Starts one more.
    pub(super) fn add(&mut self, mut process: Process) -> Result<()> {
        let child = spawn(&self.binary, &process, &self.dir)?;
        process.pid = child.id();
        self.processes.push(process);
        self.running.push(Some(child));
        self.restarts.push(Restart::new(Instant::now()));
        Ok(())
    }

    pub(super) fn processes(&self) -> &[Process] {
        &self.processes
    }

    pub(super) fn processes_mut(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    /// Where the processes of a role are called by others.
    pub(super) fn addresses(&self, role: &str) -> Vec<String> {
        self.processes.iter().filter(|process| process.role == role).filter_map(|p| p.rpc.clone()).collect()
    }

    /// An error with the last lines of its log when a process has ended.
    pub(super) fn fail_if_ended(&mut self) -> Result<()> {
        for (process, running) in self.processes.iter().zip(&mut self.running) {
            let Some(status) = ended(running) else { continue };
            let log = plan::log_file(&self.dir, &process.name);
            bail!(
                "{} ended with {status}; the end of {}:\n{}",
                process.name,
                log.display(),
                last_lines(&log)
            );
        }
        Ok(())
    }

    /// Says which processes have ended since the last look, and starts them again where that is wanted. The others go
    /// on: that is what a cluster is for. Returns whether a process has another id now.
    pub(super) fn look(&mut self, restart: bool) -> bool {
        let now = Instant::now();
        let mut changed = false;
        let rows = self.processes.iter_mut().zip(&mut self.running).zip(&mut self.restarts);
        for ((process, running), restarts) in rows {
            if let Some(status) = ended(running) {
                let log = plan::log_file(&self.dir, &process.name);
                tracing::warn!(process = process.name, %status, log = %log.display(), "a process ended");
                if restart {
                    let seconds = restarts.ended(now).as_secs_f64();
                    tracing::info!(process = process.name, seconds, "it is started again");
                }
            }
            if !restarts.is_due(now) {
                continue;
            }
            match spawn(&self.binary, process, &self.dir) {
                Ok(child) => {
                    process.pid = child.id();
                    *running = Some(child);
                    changed = true;
                }
                Err(error) => {
                    restarts.ended(now);
                    tracing::error!(process = process.name, error = format!("{error:#}"), "cannot start it");
                }
            }
        }
        changed
    }

    /// Stops everything: those that take from users first, then the data nodes, then metadata.
    pub(super) async fn stop(&mut self) {
        for roles in [&["ingester", "proxy"][..], &["querier"], &["metadata"]] {
            let of_role = |process: &Process| roles.contains(&process.role);
            for (process, running) in self.processes.iter().zip(&self.running) {
                let pid =
                    running.as_ref().and_then(Child::id).and_then(|pid| Pid::from_raw(pid.cast_signed()));
                if let Some(pid) = pid.filter(|_| of_role(process)) {
                    // It may have ended in between, which is what is wanted.
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            for (process, running) in self.processes.iter().zip(&mut self.running) {
                if !of_role(process) {
                    continue;
                }
                let Some(mut child) = running.take() else { continue };
                if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
                    tracing::warn!(process = process.name, "did not stop in time and is killed");
                    let _ = child.kill().await;
                }
            }
        }
    }
}

fn ended(running: &mut Option<Child>) -> Option<std::process::ExitStatus> {
    let status = running.as_mut()?.try_wait().ok()??;
    *running = None;
    Some(status)
}

fn spawn(binary: &Path, process: &Process, dir: &Path) -> Result<Child> {
    let path = plan::log_file(dir, &process.name);
    let open = || OpenOptions::new().create(true).append(true).open(&path);
    let log = open().with_context(|| format!("cannot open {}", path.display()))?;
    std::fs::create_dir_all(plan::folder(dir, &process.name))?;
    Command::new(binary)
        .args(&process.args)
        .arg(format!("--parent-pid={}", std::process::id()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // A Ctrl-C at the terminal is for the parent, which stops its children in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", process.name))
}

/// The last lines of a log, for an error text.
fn last_lines(path: &Path) -> String {
    const TAIL_BYTES: u64 = 2_000;
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        file.read_to_end(&mut text)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => error.to_string(),
    }
}
