//! Debian's Prometheus scrapes itself and a node-exporter and remote-writes to Tricord; then both are asked the same.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tricord_testkit::{Client, Single, eventually, free_ports};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(90);

/// A child that ends with the test.
struct Peer(Child);

impl Peer {
    fn start(program: &str, args: &[String], log: &Path) -> Result<Self> {
        let log = std::fs::File::create(log)?;
        let child = Command::new(program).args(args).stdout(Stdio::null()).stderr(log).spawn();
        Ok(Self(child.with_context(|| format!("{program} is not installed; `make test` installs it"))?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Scraped {
    tricord: Single,
    prometheus: Client,
    address: String,
    _peers: Vec<Peer>,
    _dir: TempDir,
}

async fn scrape() -> Result<Scraped> {
    let tricord = Single::start(BINARY).await?;
    let dir = TempDir::new()?;
    let [port, node] = free_ports::<2>()?;
    let config = format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs:\n\
         - {{job_name: prometheus, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n\
         - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{node}']}}]}}\n\
         remote_write:\n\
         - {{url: 'http://{}/api/v1/write', queue_config: {{batch_send_deadline: 1s}}}}\n",
        tricord.http()
    );
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, config)?;
    let exporter_args = [format!("--web.listen-address=127.0.0.1:{node}")];
    let exporter = Peer::start("prometheus-node-exporter", &exporter_args, &dir.path().join("node.log"))?;
    let args = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let peer = Peer::start("prometheus", &args, &dir.path().join("prometheus.log"))?;
    let address = format!("127.0.0.1:{port}");
    let prometheus = Client::new(&address);
    Ok(Scraped { tricord, prometheus, address, _peers: vec![exporter, peer], _dir: dir })
}

/// Questions over counters, gauges and classic histograms of both targets.
const QUERIES: [&str; 44] = [
    "up",
    "sum(up)",
    "count by (job) (up)",
    "count({__name__=~\".+\"}) by (job)",
    "topk(2, sum by (mode) (node_cpu_seconds_total))",
    "bottomk(1, sum by (mode) (node_cpu_seconds_total{mode=~\"idle|user|system\"}))",
    "rate(node_cpu_seconds_total[15s])",
    "sum by (mode) (rate(node_cpu_seconds_total[15s]))",
    "avg without (cpu) (rate(node_cpu_seconds_total[15s]))",
    "sum(rate(node_cpu_seconds_total{mode!=\"idle\"}[15s])) / count(count by (cpu) (node_cpu_seconds_total))",
    "max by (mode) (irate(node_cpu_seconds_total[15s]))",
    "increase(prometheus_tsdb_head_samples_appended_total[15s])",
    "delta(node_memory_MemFree_bytes[15s])",
    "deriv(node_memory_MemFree_bytes[15s])",
    "predict_linear(node_memory_MemFree_bytes[15s], 60)",
    "idelta(node_memory_MemFree_bytes[15s])",
    "changes(node_memory_MemFree_bytes[15s])",
    "resets(prometheus_tsdb_head_samples_appended_total[15s])",
    "avg_over_time(node_load1[15s])",
    "max_over_time(node_memory_MemFree_bytes[15s]) - min_over_time(node_memory_MemFree_bytes[15s])",
    "stddev_over_time(node_memory_MemFree_bytes[15s])",
    "quantile_over_time(0.9, node_memory_MemFree_bytes[15s])",
    "count_over_time(up[15s])",
    "last_over_time(node_load1[15s])",
    "node_memory_MemFree_bytes / node_memory_MemTotal_bytes * 100",
    "100 * (1 - node_filesystem_avail_bytes / node_filesystem_size_bytes)",
    "node_memory_MemFree_bytes > bool 1e9",
    "node_network_receive_bytes_total and on (device) node_network_up == 1",
    "node_network_info * on (instance, device) group_left (operstate) node_network_up",
    "sum by (instance) (node_filesystem_size_bytes) unless on (instance) up{job=\"prometheus\"}",
    "histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[15s])))",
    "histogram_quantile(0.5, rate(prometheus_http_request_duration_seconds_bucket{handler=\"/metrics\"}[15s]))",
    "sum by (handler) (prometheus_http_requests_total)",
    "label_replace(up, \"host\", \"$1\", \"instance\", \"(.*):.*\")",
    "label_join(up, \"both\", \"/\", \"job\", \"instance\")",
    "absent(no_such_metric{job=\"node\"})",
    "absent_over_time(up{job=\"node\"}[15s])",
    "scalar(count(up)) + 1",
    "sort_desc(sum by (mode) (node_cpu_seconds_total))",
    "quantile(0.5, node_cpu_seconds_total)",
    "stddev by (mode) (node_cpu_seconds_total)",
    "count_values(\"value\", up)",
    "max_over_time(rate(node_cpu_seconds_total{mode=\"user\"}[10s])[15s:3s])",
    "avg_over_time(sum by (job) (up)[15s:5s] offset 2s)",
];

/// The answers as series in the order of their labels, values as numbers.
fn series(data: &Value) -> Vec<(String, Vec<(f64, f64)>)> {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
    let point = |pair: &Value| (pair[0].as_f64().unwrap_or_default(), number(&pair[1]));
    let one = |series: &Value| {
        let mut labels: Vec<_> = series["metric"].as_object().into_iter().flatten().collect();
        labels.sort_by_key(|(name, _)| *name);
        (format!("{labels:?}"), series["values"].as_array().into_iter().flatten().map(point).collect())
    };
    let mut all: Vec<_> = data["result"].as_array().into_iter().flatten().map(one).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn close(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

fn check_same(query: &str, ours: &Value, theirs: &Value) -> Result<()> {
    let (ours, theirs) = (series(ours), series(theirs));
    let names =
        |of: &[(String, Vec<(f64, f64)>)]| of.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    ensure!(names(&ours) == names(&theirs), "{query}: {:?} against {:?}", names(&ours), names(&theirs));
    for ((name, our), (_, their)) in ours.iter().zip(&theirs) {
        let same =
            our.len() == their.len() && our.iter().zip(their).all(|(a, b)| a.0 == b.0 && close(a.1, b.1));
        ensure!(same, "{query} {name}: {our:?} against {their:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_as_prometheus_does() -> Result<()> {
    let scraped = scrape().await?;
    let client = scraped.tricord.client();
    let enough = || async {
        for job in ["prometheus", "node"] {
            let count = client.value(&format!("count_over_time(up{{job=\"{job}\"}}[5m])"), None).await?;
            ensure!(count >= 30.0, "{count} scrapes of {job}");
        }
        Ok(())
    };
    eventually(LIMIT, enough).await?;
    // Off the grid of scrapes: 3.x ranges are left-open, those of Debian's 2.42 are not. The last seconds are left out,
    // since they may still be on their way.
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64().floor() - 4.0 + 0.0137;
    let (start, end) = (format!("{:.4}", now_s - 10.0), format!("{now_s:.4}"));
    for query in QUERIES {
        let parameters = [("query", query), ("start", start.as_str()), ("end", end.as_str()), ("step", "2")];
        let ours = client.api("/api/v1/query_range", &parameters).await.with_context(|| query)?;
        let theirs =
            scraped.prometheus.api("/api/v1/query_range", &parameters).await.with_context(|| query)?;
        check_same(query, &ours, &theirs)?;
    }
    promtool(scraped.tricord.http(), &scraped.address)
}

/// `promtool query instant` reads our answers as it reads Prometheus' own.
fn promtool(ours: &str, theirs: &str) -> Result<()> {
    let ask = |address: &str| -> Result<String> {
        let url = format!("http://{address}");
        let output = Command::new("promtool").args(["query", "instant", &url, "count(up)"]).output()?;
        ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split('@').next().unwrap_or_default().trim().to_owned())
    };
    let (ours, theirs) = (ask(ours)?, ask(theirs)?);
    ensure!(ours == theirs && ours.contains("=> 2"), "{ours:?} against {theirs:?}");
    Ok(())
}
