//! The oracle of all fault stories: a writer that numbers what it writes, remembers what it was told is kept, and when.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tricord_testkit::{Client, RemoteSeries};

/// Series that each serial goes into; they spread over the shards.
pub(crate) const SERIES: usize = 24;
/// Serials in one request of a writer that sends as much as it can.
const TOGETHER: u64 = 3;
/// Serials in one request of a writer at a rate that has fallen behind.
const MOST_TOGETHER: u64 = 250;
/// Serials that one query looks at.
const CHUNK: u64 = 20_000;

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Writes serials, each into [`SERIES`] series, a few at a time.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Written>,
}

/// What a writer was told.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) start_ms: i64,
    pub(crate) acknowledged: BTreeSet<u64>,
    /// When requests were sent, and when they were acknowledged.
    pub(crate) moments: Vec<(Instant, Instant)>,
    /// Why others were not.
    pub(crate) refusals: Vec<String>,
}

impl Writer {
    /// Sends as much as it can, one request after another.
    pub(crate) fn start(client: Client) -> Self {
        Self::run(client, None)
    }

    /// Sends so many samples a second: a request every few milliseconds, and what fell due while one was waited for with
    /// the next ones.
    pub(crate) fn at_rate(client: Client, samples_per_s: f64) -> Self {
        Self::run(client, Some(Duration::from_secs_f64(SERIES as f64 / samples_per_s)))
    }

    fn run(client: Client, every: Option<Duration>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut written = Written { start_ms: now_ms(), ..Written::default() };
            let (began, mut next) = (Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let mut together = TOGETHER;
                if let Some(every) = every {
                    tokio::time::sleep_until((began + every * (next + TOGETHER) as u32).into()).await;
                    let due = (began.elapsed().as_nanos() / every.as_nanos()) as u64 - next;
                    together = due.clamp(TOGETHER, MOST_TOGETHER);
                }
                written.send(&client, next..next + together).await;
                next += together;
            }
            written
        });
        Self { stop, task }
    }

    pub(crate) async fn finish(self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

impl Written {
    /// Writes these serials into all series.
    async fn send(&mut self, client: &Client, serials: Range<u64>) {
        let at = |serial: u64| (self.start_ms + serial as i64, serial as f64);
        let one = |n: usize| {
            let series = RemoteSeries::new("serial", &[("writer", &n.to_string())]);
            serials.clone().map(at).fold(series, |series, (t_ms, value)| series.at(t_ms, value))
        };
        let series: Vec<RemoteSeries> = (0..SERIES).map(one).collect();
        let sent = Instant::now();
        match client.remote_write(&series).await {
            Ok(()) => {
                self.acknowledged.extend(serials);
                self.moments.push((sent, Instant::now()));
            }
            Err(error) => self.refusals.push(format!("{error:#}")),
        }
    }

    /// How many samples were acknowledged.
    pub(crate) fn samples(&self) -> usize {
        self.acknowledged.len() * SERIES
    }

    /// The longest time without an acknowledgement that began or ended between two moments.
    pub(crate) fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let ended = |pair: &[(Instant, Instant)]| (pair[0].1, pair[1].1);
        let gaps = self.moments.windows(2).map(ended).filter(|(last, next)| *next >= from && *last <= to);
        gaps.map(|(last, next)| next - last).max().unwrap_or_default()
    }

    /// What 99 of 100 writes took at most between two moments.
    pub(crate) fn p99(&self, from: Instant, to: Instant) -> Result<Duration> {
        let within = self.moments.iter().filter(|(sent, ended)| *sent >= from && *ended <= to);
        let mut taken: Vec<Duration> = within.map(|(sent, ended)| *ended - *sent).collect();
        taken.sort_unstable();
        taken.get(taken.len() * 99 / 100).copied().context("nothing was acknowledged then")
    }

    /// Every acknowledged serial is in every series, with its value, and nothing else is.
    pub(crate) async fn check_kept(&self, client: &Client) -> Result<()> {
        let last = *self.acknowledged.last().context("nothing was acknowledged")?;
        for from in (0..=last).step_by(CHUNK as usize) {
            self.check_chunk(client, from..(from + CHUNK).min(last + 1)).await?;
        }
        Ok(())
    }

    async fn check_chunk(&self, client: &Client, serials: Range<u64>) -> Result<()> {
        let expected: BTreeSet<u64> = self.acknowledged.range(serials.clone()).copied().collect();
        if expected.is_empty() {
            return Ok(());
        }
        let time = format!("{}", (self.start_ms + serials.end as i64 - 1) as f64 / 1000.0);
        let range = format!("serial[{}ms]", serials.end - serials.start);
        let parameters = [("query", range.as_str()), ("time", time.as_str()), ("partial_response", "deny")];
        let data = client.api("/api/v1/query", &parameters).await?;
        let series = data["result"].as_array().context("no matrix")?;
        ensure!(series.len() == SERIES, "{} of {SERIES} series", series.len());
        for one in series {
            let mut found = BTreeSet::new();
            for pair in one["values"].as_array().context("no values")? {
                let t_ms = (pair[0].as_f64().context("no time")? * 1000.0).round() as i64;
                let value: f64 = pair[1].as_str().context("no value")?.parse()?;
                ensure!(value == (t_ms - self.start_ms) as f64, "{value} at {t_ms}");
                ensure!(found.insert(value as u64), "{value} twice in {}", one["metric"]);
            }
            let missing: Vec<_> = expected.difference(&found).take(10).collect();
            ensure!(missing.is_empty(), "acknowledged but missing in {}: {missing:?}", one["metric"]);
        }
        Ok(())
    }
}

/// A write that touches every shard is acknowledged.
pub(crate) async fn acknowledges(client: &Client) -> Result<()> {
    let series = |n: usize| RemoteSeries::new("probe", &[("n", &n.to_string())]).at(now_ms(), 1.0);
    let all: Vec<RemoteSeries> = (0..SERIES * 4).map(series).collect();
    client.remote_write(&all).await
}

/// Something was written and can be read.
pub(crate) async fn written(client: Client) -> Result<()> {
    let count = client.value("count(count_over_time(serial[10m]))", None).await?;
    ensure!(count as usize == SERIES, "{count} series");
    Ok(())
}
