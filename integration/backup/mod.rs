//! Backups of clusters and of single processes: what comes back is what was there, and only whole backups come back.

mod data;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tricord_testkit::{Client, LocalCluster, RemoteSeries, Shape, Single, eventually};

use crate::faults::oracle::now_ms;
use crate::prometheus_api::metric;
use data::Data;

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(60);
const ADMIN: &str = "--proxy-enable-admin-api=true";

/// `tricord cluster …`, to be run to its end.
fn command(name: &str, metadata: &str, flag: &str, dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["cluster", name, flag]).arg(dir).arg(format!("--metadata={metadata}")).args(flags);
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn run(mut command: Command) -> Result<Output> {
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

async fn backup(metadata: &str, dir: &Path, flags: &[&str]) -> Result<String> {
    let output = run(command("backup", metadata, "--into", dir, flags)).await?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(text(&output))
}

async fn restore(metadata: &str, dir: &Path) -> Result<String> {
    let output = run(command("restore", metadata, "--from", dir, &[])).await?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(text(&output))
}

/// What a restore that must fail says.
async fn refused(metadata: &str, dir: &Path) -> Result<String> {
    let output = run(command("restore", metadata, "--from", dir, &[])).await?;
    ensure!(!output.status.success(), "it was restored: {}", text(&output));
    Ok(text(&output))
}

fn parts(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut parts: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    parts.retain(|path| path.extension().is_some_and(|extension| extension == "part"));
    parts.sort();
    Ok(parts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_on_other_nodes_as_it_was() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("tricord.yaml");
    data::settings(&config)?;
    let shape = |data_nodes: u16| {
        let mut flags = Shape::default().flags;
        flags.extend([ADMIN.to_owned(), format!("--config={}", config.display())]);
        let replicas = u32::from(data_nodes).min(3);
        Shape { metadata: 1, data_nodes, shards: 8, replicas, min_insync: 2, flags, ..Shape::default() }
    };
    let mut cluster = LocalCluster::start(BINARY, &shape(3)).await?;
    let (writer, asker) = (cluster.ingester()?, cluster.proxy()?);
    let data = Data::write(&writer, &asker).await?;
    let expected = data.answers(&asker).await?;

    // One copy of each shard is enough, and the dead node's are not asked for.
    cluster.kill("querier-2").await?;
    let whole = dir.path().join("whole");
    let told = backup(&cluster.metadata_addresses(), &whole, &["--part-bytes=65536"]).await?;
    ensure!(told.contains("8 shards"), "{told}");
    ensure!(parts(&whole)?.len() > 8, "shards are cut into files: {told}");
    let sent =
        ["querier-1", "querier-3"].map(|node| cluster.member(node).map(|member| Client::new(&member.http)));
    let mut bytes = 0.0;
    for node in sent {
        bytes += metric(&node?, "tricord_backup_bytes_total").await?;
    }
    let on_disk = parts(&whole)?.iter().map(|part| Ok(part.metadata()?.len())).sum::<Result<u64>>()?;
    ensure!(bytes == on_disk as f64, "{bytes} were sent, {on_disk} are there");
    cluster.kill_all().await?;
    drop(cluster);

    // Two nodes, both of which must have everything before a write is taken.
    let mut other = LocalCluster::start(BINARY, &shape(2)).await?;
    let told = restore(&other.metadata_addresses(), &whole).await?;
    ensure!(told.contains("has the 8 shards"), "{told}");
    let (writer, asker) = (other.ingester()?, other.proxy()?);
    data.check(&asker, &expected).await.context("after the restore")?;
    let again = refused(&other.metadata_addresses(), &whole).await?;
    ensure!(again.contains("needs an empty cluster"), "{again}");
    let other_tenant = [writer, asker.clone()].map(|client| client.tenant("new"));
    let new = RemoteSeries::new("new", &[("job", "load")]).at(now_ms(), 1.0);
    eventually(LIMIT, || other_tenant[0].remote_write(std::slice::from_ref(&new))).await?;
    ensure!(other_tenant[1].value("sum(new)", None).await? == 1.0);

    other.kill_all().await?;
    other.restart_all().await?;
    eventually(LIMIT, || data.check(&asker, &expected)).await.context("after all were killed")?;
    // Each has all of it.
    for node in ["querier-1", "querier-2"] {
        other.kill(node).await?;
        eventually(LIMIT, || data.check(&asker, &expected))
            .await
            .with_context(|| format!("without {node}"))?;
        other.restart(node).await?;
    }
    other.kill_all().await?;

    // A single process takes it as well.
    let flags = ["--shards=8".to_owned(), ADMIN.to_owned(), format!("--config={}", config.display())];
    let single = Single::builder(BINARY).flags(flags).start().await?;
    restore(single.rpc(), &whole).await?;
    data.check(&single.client(), &expected).await.context("in one process")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_damaged_or_not_whole_is_refused_before_anything_is_changed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("tricord.yaml");
    data::settings(&config)?;
    let flags = |shards: u32| {
        [ADMIN.to_owned(), format!("--config={}", config.display()), format!("--shards={shards}")]
    };
    let single = Single::builder(BINARY).flags(flags(4)).start().await?;
    let data = Data::write(&single.client(), &single.client()).await?;
    let expected = data.answers(&single.client()).await?;
    let whole = dir.path().join("whole");
    backup(single.rpc(), &whole, &[]).await?;
    let output = run(command("backup", single.rpc(), "--into", &whole, &[])).await?;
    ensure!(!output.status.success() && text(&output).contains("is not empty"), "{}", text(&output));

    // A pace at which nodes would give up is none.
    let none = dir.path().join("none");
    let output = run(command("backup", single.rpc(), "--into", &none, &["--max-bytes-per-s=131071"])).await?;
    ensure!(
        !output.status.success() && text(&output).contains("131071 is not in 131072"),
        "{}",
        text(&output)
    );
    ensure!(!none.exists());

    // One that is killed on its way.
    let half = dir.path().join("half");
    let mut slow = command("backup", single.rpc(), "--into", &half, &["--max-bytes-per-s=131072"]);
    let mut slow = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    eventually(LIMIT, || async {
        ensure!(!parts(&half)?.is_empty(), "no file yet");
        Ok(())
    })
    .await?;
    slow.kill()?;
    slow.wait()?;

    let empty = Single::builder(BINARY).flags(flags(4)).start().await?;
    let metadata = empty.rpc();
    let told = refused(metadata, &half).await?;
    ensure!(told.contains("half is not a whole backup"), "{told}");
    let checked = run(check(&half)).await?;
    ensure!(
        checked.status.code() == Some(2) && text(&checked).contains("not a whole backup"),
        "{}",
        text(&checked)
    );
    let checked = run(check(&whole)).await?;
    ensure!(
        checked.status.code() == Some(0) && text(&checked).contains("nothing is damaged"),
        "{}",
        text(&checked)
    );

    // A byte of a file, a file that is cut, one that is gone: each is named.
    let part = parts(&whole)?.pop().context("a file")?;
    let name = part.file_name().unwrap().to_string_lossy().into_owned();
    let good = std::fs::read(&part)?;
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for bad in [Some(flipped.as_slice()), Some(&good[..good.len() - 1]), None] {
        match bad {
            Some(bad) => std::fs::write(&part, bad)?,
            None => std::fs::remove_file(&part)?,
        }
        let told = refused(metadata, &whole).await?;
        ensure!(told.contains(&name), "{told}");
        let checked = run(check(&whole)).await?;
        ensure!(checked.status.code() == Some(1) && text(&checked).contains(&name), "{}", text(&checked));
    }
    std::fs::write(&part, &good)?;

    // The manifest: a number in it, and a version of later.
    let manifest = whole.join("backup.json");
    let good = std::fs::read_to_string(&manifest)?;
    let mut later: Value = serde_json::from_str(&good)?;
    later["version"] = 2.into();
    let mut changed: Value = serde_json::from_str(&good)?;
    changed["backup"]["copies"][0]["seq"] = 1_000_000.into();
    for (bad, why) in [(later, "has version 2"), (changed, "backup.json is damaged")] {
        std::fs::write(&manifest, bad.to_string())?;
        let told = refused(metadata, &whole).await?;
        ensure!(told.contains(why), "{told}");
    }
    std::fs::write(&manifest, &good)?;

    let others = Single::builder(BINARY).flags(flags(5)).start().await?;
    let told = refused(others.rpc(), &whole).await?;
    ensure!(told.contains("a cluster with 4 shards, this one has 5"), "{told}");
    let classless = Single::builder(BINARY).flags(["--shards=4"]).start().await?;
    let told = refused(classless.rpc(), &whole).await?;
    ensure!(told.contains("retention class \"long\""), "{told}");
    let told = refused(single.rpc(), &whole).await?;
    ensure!(told.contains("needs an empty cluster"), "{told}");
    data.check(&single.client(), &expected).await.context("it has what it had")?;

    // All of that has left the empty one as it was.
    restore(metadata, &whole).await?;
    data.check(&empty.client(), &expected).await
}

fn check(dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("check").arg(dir);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_shard_fails_the_backup_or_is_left_out() -> Result<()> {
    let mut single = Single::builder(BINARY).flags(["--shards=4"]).start().await?;
    let one = |n: usize| {
        let series = RemoteSeries::new("load", &[("job", "load"), ("instance", &n.to_string())]);
        (0..50).fold(series, |series, at| series.at(now_ms() - 60_000 + at * 1_000, (n * 7919) as f64 / 3.0))
    };
    single.client().remote_write(&(0..400).map(one).collect::<Vec<_>>()).await?;
    ensure!(single.terminate().await?.success(), "{}", single.log());
    let rocks = single.data_dir().join("store/rocks");
    let files = std::fs::read_dir(rocks)?.collect::<std::io::Result<Vec<_>>>()?;
    let sorted =
        files.iter().map(std::fs::DirEntry::path).filter(|path| path.extension().is_some_and(|e| e == "sst"));
    let largest =
        sorted.max_by_key(|path| path.metadata().map_or(0, |of| of.len())).context("a sorted file")?;
    let mut bytes = std::fs::read(&largest)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes)?;
    single.restart().await?;

    let dir = tempfile::tempdir()?;
    let (failed, partial) = (dir.path().join("failed"), dir.path().join("partial"));
    let output = run(command("backup", single.rpc(), "--into", &failed, &[])).await?;
    let told = text(&output);
    ensure!(!output.status.success() && told.contains("cannot be copied: node 1"), "{told}");
    ensure!(!failed.join("backup.json").exists(), "{told}");
    let told = backup(single.rpc(), &partial, &["--partial"]).await?;
    ensure!(told.contains("is left out") && told.contains("without the shards"), "{told}");

    let checked = run(check(&partial)).await?;
    let told = text(&checked);
    ensure!(checked.status.code() == Some(1) && told.contains("is not in this backup"), "{told}");

    let empty = Single::builder(BINARY).flags(["--shards=4"]).start().await?;
    let refused = refused(empty.rpc(), &partial).await?;
    ensure!(refused.contains("lacks the shards"), "{refused}");
    let output = run(command("restore", empty.rpc(), "--from", &partial, &["--partial"])).await?;
    ensure!(output.status.success(), "{}", text(&output));
    let there = empty.client().value("count(load)", None).await?;
    ensure!(0.0 < there && there < 400.0, "{there} of 400 series");
    Ok(())
}
