//! Remote read: Debian's Prometheus reads through it and answers as Tricord does; and the chunks that it streams are
//! those of Prometheus itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tricord_testkit::remote_read::{
    Frame, ReadHistogram, ReadQuery, ReadSeries, STREAMED_XOR_CHUNKS, frames, remote_read_body, samples,
    write_body,
};
use tricord_testkit::{Client, LocalCluster, Shape, Single, eventually, free_ports};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(60);
/// Prometheus' marker of a series that has ended.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Debian's Prometheus, which ends with the test.
struct Peer {
    child: Child,
    client: Client,
}

impl Peer {
    async fn start(dir: &Path, name: &str, config: &str, flags: &[&str]) -> Result<Self> {
        let [port] = free_ports::<1>()?;
        let file = dir.join(format!("{name}.yml"));
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join(name).display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--enable-feature=native-histograms")
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("prometheus is not installed; `make test` installs it")?;
        let peer = Self { child, client: Client::new(&format!("127.0.0.1:{port}")) };
        let ready = || async { peer.client.get("/-/ready", &[]).await?.success() };
        eventually(LIMIT, ready).await?;
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn labels(name: &str, more: &[(&str, String)]) -> Vec<(String, String)> {
    let mut all = vec![("__name__".to_owned(), name.to_owned())];
    all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    all.sort();
    all
}

/// Minutes ago, on a full two hours: so that Prometheus cuts its chunks where the samples alone tell it to.
fn start_ms() -> i64 {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let block_ms = 2 * 3600 * 1000;
    now_ms / block_ms * block_ms - block_ms
}

/// 20 minutes of scrapes every 15 s, a few milliseconds early or late.
fn times() -> impl Iterator<Item = i64> {
    let start_ms = start_ms();
    (0..80i64).map(move |at| start_ms + at * 15_000 + if at == 0 { 0 } else { at * at % 7 })
}

/// Counters with resets, gauges with gaps, NaN, infinities and stale markers, and native histograms.
fn series() -> Vec<ReadSeries> {
    let mut all = Vec::new();
    for target in 0..6i64 {
        let target_labels = [("instance", format!("host-{target}")), ("job", format!("job-{}", target % 2))];
        let counter = |(at, t_ms): (usize, i64)| (t_ms, ((at as i64 * (target + 3)) % 211) as f64 * 1.25);
        all.push(ReadSeries {
            labels: labels("requests_total", &target_labels),
            floats: times().enumerate().map(counter).collect(),
            histograms: vec![],
        });
        let gauge = |(at, t_ms): (usize, i64)| {
            let value = match at as i64 % 20 {
                3 => f64::NAN,
                7 => f64::INFINITY,
                11 => -0.0,
                15 => STALE,
                // Halves, thirds and powers are far apart in their bits.
                step => (step - 9) as f64 / 3.0 * 10f64.powi((step % 5) as i32),
            };
            (t_ms, value)
        };
        let kept = |(at, _): &(usize, i64)| at % 13 < 10;
        all.push(ReadSeries {
            labels: labels("temperature", &target_labels),
            floats: times().enumerate().filter(kept).map(gauge).collect(),
            histograms: vec![],
        });
    }
    all.extend((0..3).map(native));
    all
}

/// Latencies that only grow.
fn native(target: i64) -> ReadSeries {
    let histogram = |(at, t_ms): (usize, i64)| {
        let n = at as f64 + 1.0;
        let positive = vec![(-2, n * 2.0), (-1, n), (2, (n / 2.0).floor()), (5, n * (target + 1) as f64)];
        let negative = vec![(0, n), (1, n * 3.0)];
        let zero_count = (n / 3.0).floor();
        let all = positive.iter().chain(&negative).map(|(_, population)| population);
        let h = ReadHistogram {
            schema: 1,
            zero_threshold: 0.001,
            count: zero_count + all.sum::<f64>(),
            zero_count,
            sum: n * 3.7,
            positive,
            negative,
            ..ReadHistogram::default()
        };
        (t_ms, h)
    };
    ReadSeries {
        labels: labels("latency", &[("instance", format!("host-{target}")), ("job", "job-n".to_owned())]),
        floats: vec![],
        histograms: times().enumerate().map(histogram).collect(),
    }
}

async fn write(client: &Client) -> Result<()> {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    client.post("/api/v1/write", &headers, write_body(&series())?).await?.success().map(|_| ())
}

async fn read(client: &Client, queries: &[ReadQuery], accepted: &[i32]) -> Result<Vec<u8>> {
    let body = remote_read_body(queries, accepted)?;
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    Ok(client.post("/api/v1/read", &headers, body).await?.success()?.body)
}

/// Of floats alone: Prometheus takes native histograms by remote read since 2.44, and Debian has 2.42. How they come is
/// seen in the chunks below.
const QUERIES: [&str; 10] = [
    "requests_total",
    "temperature",
    "rate(requests_total[2m])",
    "sum by (job) (increase(requests_total{instance=~\"host-[0-3]\"}[5m]))",
    "resets(requests_total[10m])",
    "max_over_time(temperature{job!=\"job-0\"}[3m])",
    "count_over_time(temperature[4m] offset 2m)",
    "temperature > 0 and on (instance) requests_total",
    // Off the grid of samples, on which the subquery's own steps lie.
    "max_over_time(sum by (job) (rate(requests_total[1m] offset 513ms))[5m:30s])",
    "absent(nothing)",
];

/// The answer's series, with numbers that may differ in their last digits rounded.
fn result(data: &Value) -> Vec<String> {
    let number = |value: &Value| match value.as_str().and_then(|text| text.parse::<f64>().ok()) {
        Some(number) => format!("{number:.9e}"),
        None => value.to_string(),
    };
    let points = |series: &Value| -> Vec<String> {
        let floats = series["values"].as_array().into_iter().flatten();
        floats.map(|pair| format!("{}={}", pair[0], number(&pair[1]))).collect()
    };
    let series = data["result"].as_array().into_iter().flatten();
    let mut all: Vec<String> =
        series.map(|series| format!("{} {:?}", series["metric"], points(series))).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_reads_through_it() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    // Debian's 2.42 sends no headers of its own with reads: it reads the default tenant.
    let client = tricord.client();
    write(&client).await?;
    let dir = TempDir::new()?;
    let config =
        format!("remote_read:\n- {{url: 'http://{}/api/v1/read', read_recent: true}}\n", tricord.http());
    let peer = Peer::start(dir.path(), "reader", &config, &[]).await?;
    // Off the grid of samples: 3.x ranges are left-open, those of Debian's 2.42 are not.
    let start = start_ms() as f64 / 1000.0 + 300.513;
    let (start, end) = (format!("{start:.3}"), format!("{:.3}", start + 800.0));
    let mut series = 0;
    for query in QUERIES {
        let parameters = [("query", query), ("start", start.as_str()), ("end", end.as_str()), ("step", "50")];
        let ours = client.api("/api/v1/query_range", &parameters).await.with_context(|| query)?;
        let theirs = peer.client.api("/api/v1/query_range", &parameters).await.with_context(|| query)?;
        let (ours, theirs) = (result(&ours), result(&theirs));
        ensure!(ours == theirs, "{query}:\n{ours:#?}\nagainst\n{theirs:#?}");
        ensure!(!ours.is_empty(), "{query}: nothing to compare");
        series += ours.len();
    }
    ensure!(series > 30, "{series} series were compared");

    // Lists of series come through it too.
    let window = [("match[]", "{job=\"job-1\"}"), ("start", start.as_str()), ("end", end.as_str())];
    let ours = client.api("/api/v1/series", &window).await?;
    let theirs = peer.client.api("/api/v1/series", &window).await?;
    ensure!(ours == theirs && ours.as_array().is_some_and(|list| list.len() == 6), "{ours} against {theirs}");

    // Another tenant's reader sees nothing.
    let everything = [ReadQuery::named("requests_total", 0, i64::MAX / 2)];
    let nothing = samples(&read(&client.clone().tenant("shop"), &everything, &[]).await?)?;
    ensure!(nothing == [vec![]], "{nothing:?}");
    Ok(())
}

/// A series' labels with its chunks: first time, last time, encoding and bytes of each.
type ChunkedSeries = (Vec<(String, String)>, Vec<(i64, i64, i32, Vec<u8>)>);

fn of_series(frames: &[Frame], name: &str) -> Vec<ChunkedSeries> {
    let mut all: Vec<ChunkedSeries> = Vec::new();
    for frame in frames.iter().filter(|frame| frame.labels.iter().any(|(_, value)| value == name)) {
        let chunks = frame.chunks.iter().map(|c| (c.min_ms, c.max_ms, c.encoding, c.data.clone()));
        match all.last_mut().filter(|(labels, _)| *labels == frame.labels) {
            Some((_, known)) => known.extend(chunks),
            None => all.push((frame.labels.clone(), chunks.collect())),
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn its_chunks_are_those_of_prometheus() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let dir = TempDir::new()?;
    let peer = Peer::start(dir.path(), "store", "{}\n", &["--web.enable-remote-write-receiver"]).await?;
    let client = tricord.client();
    write(&client).await?;
    write(&peer.client).await?;
    let (from, until) = (start_ms() - 1, start_ms() + 3_600_000);
    let names = ["requests_total", "temperature", "latency"];
    let queries = names.map(|name| ReadQuery::named(name, from, until));
    for flushed in [false, true] {
        if flushed {
            client.post("/api/v1/admin/flush", &[], "").await?.success()?;
        }
        let ours = frames(&read(&client, &queries, &[STREAMED_XOR_CHUNKS]).await?)?;
        let theirs = frames(&read(&peer.client, &queries, &[STREAMED_XOR_CHUNKS]).await?)?;
        for (at, name) in names.iter().enumerate() {
            let (our, their) = (of_series(&ours, name), of_series(&theirs, name));
            ensure!(our.len() == if at == 2 { 3 } else { 6 }, "{} series of {name}", our.len());
            ensure!(our == their, "{name}, flushed: {flushed}:\n{our:?}\nagainst\n{their:?}");
            let of = ours.iter().filter(|frame| frame.query_index == at as i64).count();
            ensure!(of == our.len(), "{of} frames for query {at}");
        }
        // What was written comes back to the bit, in both kinds of answers.
        let plain = samples(&read(&client, &queries, &[]).await?)?;
        for (read, written) in plain[2].iter().zip((0..3).map(native)) {
            let unknown = |(t, h): (i64, ReadHistogram)| (t, ReadHistogram { hint: 0, ..h });
            let read: Vec<_> = read.histograms.iter().cloned().map(unknown).collect();
            ensure!(read == written.histograms, "{read:?}");
        }
        ensure!(plain.iter().map(Vec::len).eq([6, 6, 3]), "{} results", plain.len());
        let histograms = ours.iter().filter(|frame| frame.query_index == 2).map(Frame::histograms);
        for (read, written) in histograms.zip((0..3).map(native)) {
            let read: Vec<_> = read?.into_iter().map(|(t, h)| (t, ReadHistogram { hint: 0, ..h })).collect();
            ensure!(read == written.histograms, "{read:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_shard_fails_the_read() -> Result<()> {
    let shape = Shape { replicas: 1, min_insync: 1, ..Shape::default() };
    let mut cluster = LocalCluster::start(BINARY, &shape).await?;
    let (ingester, proxy) = (cluster.ingester()?, cluster.proxy()?);
    eventually(LIMIT, || write(&ingester)).await?;
    let everything = [ReadQuery::named("requests_total", 0, i64::MAX / 2)];
    let all = samples(&read(&proxy, &everything, &[]).await?)?;
    ensure!(all[0].len() == 6, "{} series", all[0].len());
    cluster.kill("querier-1").await?;
    let body = remote_read_body(&everything, &[STREAMED_XOR_CHUNKS])?;
    let refused = || async {
        let answer = proxy.post("/api/v1/read", &[], body.clone()).await?;
        let text = answer.text();
        ensure!(answer.status == 503 && text.contains("no live replica"), "{}: {text}", answer.status);
        Ok(())
    };
    eventually(LIMIT, refused).await
}
