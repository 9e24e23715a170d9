//! One child process with its log, and the signals that tests send to it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// How much of a log is shown when a test fails.
const SHOWN_LOG_BYTES: usize = 6_000;

/// A process that this test runs, or one that a local cluster runs for it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: Pid,
    /// `None` for a grandchild: only signals reach it.
    child: Option<Child>,
    running: bool,
}

impl Process {
    /// Starts a role with its output appended to `log`; it ends with this process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, binary: &Path, args: &[String], log: &Path) -> Result<Self> {
        let mut args = args.to_vec();
        args.push(format!("--parent-pid={}", std::process::id()));
        Self::start_as_given(name, binary, &args, log)
    }

    /// Starts a program with exactly these arguments and its output appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_as_given(name: &str, binary: &Path, args: &[String], log: &Path) -> Result<Self> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let file = open().with_context(|| format!("log {}", log.display()))?;
        let mut command = Command::new(binary);
        command.args(args);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // Settings of whoever runs the tests must not change them.
        for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("TRICORD_")) {
            command.env_remove(variable);
        }
        let child = spawn(command).with_context(|| format!("cannot start {}", binary.display()))?;
        let pid = Pid::from_raw(child.id().cast_signed()).context("a process without an id")?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), pid, child: Some(child), running: true })
    }

    /// Takes hold of a process that somebody else started.
    ///
    /// # Errors
    /// When the id is not one.
    pub fn adopt(name: &str, pid: u32, log: &Path) -> Result<Self> {
        let pid = Pid::from_raw(pid.cast_signed()).with_context(|| format!("{pid} is not a process id"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), pid, child: None, running: true })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Everything it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("signal {signal:?} to {}", self.name))
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// When it is gone already, or does not end.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_ended(Duration::from_secs(20)).await.map(|_| ())
    }

    /// `SIGSTOP`: it stands still and holds its connections.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// `SIGCONT`.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// `SIGTERM`, and waits for the end. The exit status is known for own children only.
    ///
    /// # Errors
    /// When it is gone already, or does not end in time.
    pub async fn terminate(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.signal(Signal::TERM)?;
        self.wait_ended(limit).await
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.ended().is_some()
    }

    /// Some once ended, with the status of an own child.
    fn ended(&mut self) -> Option<Option<ExitStatus>> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait().ok().flatten().map(Some),
            // A grandchild that its parent has not yet waited for is still there as a zombie.
            None => (test_kill_process(self.pid).is_err() || self.is_zombie()).then_some(None),
        };
        self.running &= ended.is_none();
        ended
    }

    fn is_zombie(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn wait_ended(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {limit:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(SHOWN_LOG_BYTES);
            let tail = log.get(from..).unwrap_or(&log);
            let _ = writeln!(std::io::stderr(), "--- the end of the log of {}\n{tail}\n---", self.name);
        }
        if let Some(child) = self.child.as_mut().filter(|_| self.running) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

type Started = std::io::Result<Child>;
type SpawnRequest = (Command, Sender<Started>);

/// Spawns from a thread that lives as long as this process: children end with the thread that started them, so that
/// none is left over when the tests are killed, and a thread of one test would end too early.
fn spawn(command: Command) -> Started {
    static SPAWNER: OnceLock<Mutex<Sender<SpawnRequest>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, taken) = channel::<SpawnRequest>();
        std::thread::spawn(move || {
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, started) = channel();
    let gone = || std::io::Error::other("the spawning thread is gone");
    spawner.lock().map_err(|_| gone())?.send((command, answer)).map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}
