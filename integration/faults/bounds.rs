//! Too much of everything: more series than memory has room for, clients that come all at once, queries without end.
//! Whoever asks for too much is refused, the processes stay, and others are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tricord_testkit::{Client, LocalCluster, RemoteSeries, Shape, eventually};

use super::oracle::{Writer, acknowledges, now_ms, written};
use super::{BINARY, LIMIT, faces, tricord};

/// What each process may take.
const MEMORY_MIB: u64 = 160;
/// What a process takes beside that which it counts, at most: code, threads, RocksDB's tables, what the allocator keeps.
const BESIDE_MIB: u64 = 200;
const NEW_SERIES_TOGETHER: u64 = 2_000;
/// How long nothing is taken before memory counts as full.
const FULL_FOR: Duration = Duration::from_secs(3);

/// Resident memory of a process, in MiB.
fn resident_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

/// Writes new series until it is told to stop, and counts how many were taken.
async fn flood(client: Client, next: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Result<(u64, u64)> {
    let (mut taken, mut refused) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let first = next.fetch_add(NEW_SERIES_TOGETHER, Ordering::Relaxed);
        let one = |n: u64| {
            let id = format!("a-value-as-long-as-those-of-pods-in-a-cluster-{n}");
            RemoteSeries::new("bomb", &[("id", &id)]).at(now_ms(), 1.0)
        };
        let series: Vec<RemoteSeries> = (first..first + NEW_SERIES_TOGETHER).map(one).collect();
        match client.remote_write(&series).await {
            Ok(()) => taken += NEW_SERIES_TOGETHER,
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains("429") || text.contains("503"), "{text}");
                refused += 1;
            }
        }
    }
    Ok((taken, refused))
}

/// More new series than there is memory for: they are refused, nothing falls, what was acknowledged is there, and when the
/// flood is over room is made for others without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_new_series_is_refused_and_passes() -> Result<()> {
    let flags = ["--own-telemetry=false".to_owned(), format!("--memory-limit={MEMORY_MIB}MiB")];
    let shape = Shape { flags: flags.to_vec(), ..Shape::default() };
    let cluster = LocalCluster::start(BINARY, &shape).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let writer = Writer::at_rate(ingester.clone(), 2_000.0);
    eventually(LIMIT, || written(proxy.clone())).await?;

    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut floods = JoinSet::new();
    for _ in 0..4 {
        floods.spawn(flood(ingester.clone(), next.clone(), stop.clone()));
    }
    // Writing out windows makes room at first; then series alone fill it.
    let full_since = std::sync::Mutex::new(None);
    let full = async || {
        let refused = acknowledges(&ingester).await.err().map(|error| format!("{error:#}"));
        let is_full = refused.is_some_and(|why| why.contains("memory"));
        let mut since = full_since.lock().unwrap();
        *since = since.filter(|_| is_full).or(is_full.then(Instant::now));
        ensure!(since.is_some_and(|since| since.elapsed() > FULL_FOR), "there is still room");
        Ok(())
    };
    eventually(LIMIT * 2, full).await?;
    let members: Vec<(String, u32)> =
        cluster.members().map(|member| (member.name.clone(), member.pid)).collect();
    for (name, pid) in members {
        let mib = resident_mib(pid).with_context(|| format!("{name} is gone"))?;
        println!("{name} takes {mib} MiB");
        ensure!(mib <= MEMORY_MIB + BESIDE_MIB, "{name} takes {mib} MiB, and may count {MEMORY_MIB}");
    }
    stop.store(true, Ordering::Relaxed);
    let (mut taken, mut refused) = (0, 0);
    while let Some(flood) = floods.join_next().await {
        let (more, no) = flood??;
        (taken, refused) = (taken + more, refused + no);
    }
    println!("{taken} new series were taken, {refused} requests refused");
    ensure!(taken > 0 && refused > 0, "{taken} series taken, {refused} requests refused");

    let began = Instant::now();
    let reads = proxy.value("count(bomb)", None).await?;
    ensure!(reads >= taken as f64, "{reads} of {taken} series can be read");
    eventually(LIMIT * 4, || acknowledges(&ingester)).await.context("after the flood")?;
    println!("writes go on after {:?}", began.elapsed());
    let written = writer.finish().await?;
    eventually(LIMIT, || written.check_kept(&proxy)).await
}

/// A tenant has a rate: beyond it new series get 429, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_sends_too_much_is_refused_and_others_are_not() -> Result<()> {
    let cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let writer = Writer::at_rate(ingester.clone(), 2_000.0);
    eventually(LIMIT, || written(proxy.clone())).await?;
    let greedy = ingester.clone().tenant("greedy");
    let metadata = cluster.metadata_addresses();
    tricord(&["cluster", "limits", "greedy", "--rate=1000", "--burst=10000", "--metadata", &metadata])
        .await?;
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let floods = tokio::spawn(flood(greedy.clone(), next, stop.clone()));
    let limited = async || {
        let many: String = (0..5_000).map(|n| format!("more{{n=\"{n}\"}} 1\n")).collect();
        let refused = greedy.import(&many).await.err().map(|error| format!("{error:#}"));
        ensure!(refused.is_some_and(|why| why.contains("429")), "the tenant has not reached its rate");
        Ok(())
    };
    eventually(LIMIT, limited).await?;
    for _ in 0..20 {
        acknowledges(&ingester).await.context("another tenant writes")?;
    }
    stop.store(true, Ordering::Relaxed);
    let (taken, refused) = floods.await??;
    ensure!(taken > 0 && refused > 0, "{taken} series taken, {refused} requests refused");
    let written = writer.finish().await?;
    ensure!(written.refusals.is_empty(), "writes of another tenant were refused: {:?}", written.refusals);
    eventually(LIMIT, || written.check_kept(&proxy)).await
}

/// How many clients come at once, and how often.
const CLIENTS: usize = 500;
const ROUNDS: usize = 3;

/// Open files of a process, its connections among them.
fn open_files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// A client of few words: it writes a sample, or stops in the middle of doing so. Either way it keeps its connection.
async fn visit(address: String, n: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let body = format!("visited{{client=\"{n}\"}} 1\n");
    let length = body.len();
    let head =
        format!("POST /api/v1/import/prometheus HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let whole = head + &body;
    if n.is_multiple_of(2) {
        stream.write_all(&whole.as_bytes()[..whole.len() - 5]).await?;
        return Ok(stream);
    }
    stream.write_all(whole.as_bytes()).await?;
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 2"), "client {n}: {answer}");
    Ok(stream)
}

/// Hundreds of clients come at the same moment, half of them stop half-way, and all hang up without a word: others are
/// served meanwhile, and nothing of them stays.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_clients_come_and_go() -> Result<()> {
    let cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let writer = Writer::at_rate(ingester.clone(), 2_000.0);
    eventually(LIMIT, || written(proxy.clone())).await?;
    let member = cluster.members().find(|member| member.role == "ingester").context("no ingester")?;
    let files = open_files(member.pid)?;
    for round in 0..ROUNDS {
        let mut visits = JoinSet::new();
        for n in 0..CLIENTS {
            visits.spawn(visit(member.http.clone(), n));
        }
        let mut here = Vec::new();
        while let Some(visit) = visits.join_next().await {
            here.push(visit?.with_context(|| format!("round {round}"))?);
        }
        eventually(LIMIT, || acknowledges(&ingester)).await.context("while all are here")?;
        ensure!(open_files(member.pid)? >= files + CLIENTS, "all of them are connected");
    }
    eventually(LIMIT, async || {
        let left = open_files(member.pid)?;
        ensure!(left < files + CLIENTS / 10, "{left} files are open, {files} were at first");
        Ok(())
    })
    .await?;
    let mib = resident_mib(member.pid)?;
    ensure!(mib <= BESIDE_MIB, "the ingester takes {mib} MiB");
    ensure!(proxy.value("count(visited)", None).await? == (CLIENTS / 2) as f64, "who spoke was heard");
    let written = writer.finish().await?;
    ensure!(written.refusals.is_empty(), "writes were refused: {:?}", written.refusals.first());
    eventually(LIMIT, || written.check_kept(&proxy)).await
}

/// Queries that would take for ever, more of them than may run at once.
#[tokio::test(flavor = "multi_thread")]
async fn queries_without_end_are_refused() -> Result<()> {
    let cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let writer = Writer::at_rate(ingester.clone(), 2_000.0);
    eventually(LIMIT, || written(proxy.clone())).await?;
    let endless = [
        "max_over_time(sum(rate(serial[5m]))[10d:1ms])",
        "count_over_time((serial * on() group_left() vector(1))[30d:1ms])",
        "label_replace(avg_over_time({__name__=~\".+\"}[365d:10ms]), \"a\", \"b\", \"\", \"\")",
    ];
    let mut asked = JoinSet::new();
    for n in 0..60 {
        let (proxy, query) = (proxy.clone(), endless[n % endless.len()]);
        asked.spawn(async move {
            Ok::<_, anyhow::Error>((query, proxy.post_form("/api/v1/query", &[("query", query)]).await?))
        });
    }
    while let Some(answer) = asked.join_next().await {
        let (query, answer) = answer??;
        ensure!([400, 422, 503].contains(&answer.status), "{query}: {} {}", answer.status, answer.text());
        ensure!(answer.json()?["error"].as_str().is_some_and(|why| !why.is_empty()), "{query}: no reason");
    }
    ensure!(proxy.value("count(serial)", None).await? > 0.0, "an ordinary query is answered");
    let written = writer.finish().await?;
    ensure!(written.refusals.is_empty(), "writes were refused: {:?}", written.refusals.first());
    eventually(LIMIT, || written.check_kept(&proxy)).await
}
