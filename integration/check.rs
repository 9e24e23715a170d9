//! Damage on a stopped node's disk: `tricord check` names it and changes nothing, and a start fences it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tricord_testkit::{RemoteSeries, Single};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const HOUR_MS: i64 = 3_600_000;

fn check(dir: &Path, flags: &[&str]) -> Result<Output> {
    Ok(Command::new(BINARY).arg("check").args(flags).arg(dir).output()?)
}

/// The findings of a damaged directory.
fn findings(dir: &Path) -> Result<Vec<Value>> {
    let output = check(dir, &["--json"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(1),
        "{}: {text} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_str(&text)?;
    ensure!(report["clean"] == false, "{text}");
    Ok(report["findings"].as_array().context("findings")?.clone())
}

/// All files with their content.
fn files(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.insert(path.clone(), std::fs::read(path)?);
        }
    }
    Ok(all)
}

fn find(dir: &Path, what: &str) -> Result<PathBuf> {
    let is_it =
        |path: &&PathBuf| path.strip_prefix(dir).is_ok_and(|path| path.to_string_lossy().contains(what));
    files(dir)?.keys().find(is_it).cloned().with_context(|| format!("no file {what}"))
}

/// What is in a directory, damaged elsewhere.
struct Copied {
    dir: tempfile::TempDir,
}

impl Copied {
    fn of(from: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        for (path, bytes) in files(from)? {
            let to = dir.path().join(path.strip_prefix(from)?);
            std::fs::create_dir_all(to.parent().context("a parent")?)?;
            std::fs::write(to, bytes)?;
        }
        Ok(Self { dir })
    }

    fn change(&self, what: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<PathBuf> {
        let path = find(self.dir.path(), what)?;
        let mut bytes = std::fs::read(&path)?;
        change(&mut bytes);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
}

/// A node with samples of now and of some hours ago, stopped.
async fn stopped(old_ms: i64, now_ms: i64) -> Result<Single> {
    let mut tricord = Single::start(BINARY).await?;
    let client = tricord.client();
    for round in 0..3 {
        let series = (0..200).map(|n| {
            let instance = format!("host-{n}");
            let series = RemoteSeries::new("load", &[("job", "a"), ("instance", &instance)]);
            series.at(old_ms + round, f64::from(n) * 0.37).at(now_ms + round, f64::from(n) * 0.73)
        });
        client.remote_write(&series.collect::<Vec<_>>()).await?;
    }
    let output = check(&tricord.data_dir(), &[])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let holder = format!("is in use by process {}", tricord.process().pid());
    ensure!(output.status.code() == Some(2) && told.contains(&holder), "{told}");
    ensure!(tricord.terminate().await?.success(), "{}", tricord.log());
    Ok(tricord)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_and_fenced() -> Result<()> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64 - 5_000;
    let old_ms = now_ms - 5 * HOUR_MS;
    let mut tricord = stopped(old_ms, now_ms).await?;
    let dir = tricord.data_dir();

    let before = files(&dir)?;
    let output = check(&dir, &[])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(0) && text.contains("nothing is damaged"), "{text}");
    ensure!(text.contains("1200 samples"), "{text}");
    ensure!(files(&dir)? == before, "a check writes nothing");

    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change, &str); 8] = [
        ("metadata/MANIFEST", |bytes| flip(bytes), "metadata"),
        ("store/rocks/MANIFEST", |bytes| flip(bytes), "MANIFEST"),
        ("store/rocks/MANIFEST", |bytes| bytes.truncate(bytes.len() / 2), "rocks"),
        ("store/rocks/CURRENT", |bytes| bytes.clear(), "CURRENT"),
        ("store/log/", |bytes| bytes.clear(), "/log/"),
        ("LEDGER", |bytes| flip(bytes), "LEDGER"),
        ("FORMAT", |bytes| bytes.truncate(3), "FORMAT"),
        ("querier/identity.json", |bytes| bytes.truncate(9), "identity"),
    ];
    for (what, change, named) in cases {
        let copy = Copied::of(&dir)?;
        copy.change(what, change)?;
        let before = files(copy.dir.path())?;
        let found = findings(copy.dir.path()).with_context(|| format!("{what} is damaged"))?;
        ensure!(found.iter().any(|finding| finding.to_string().contains(named)), "{what}: {found:?}");
        ensure!(files(copy.dir.path())? == before, "a check of damaged {what} writes nothing");
    }

    // Of a sorted file the shard and the time are named.
    let mut fenced = None;
    for file in files(&dir)?.keys().filter(|path| path.extension().is_some_and(|end| end == "sst")) {
        let name = file.file_name().context("a name")?.to_string_lossy();
        let copy = Copied::of(&dir)?;
        copy.change(&name, |bytes| flip(bytes))?;
        let found = findings(copy.dir.path()).with_context(|| format!("{name} is damaged"))?;
        let is_named = found.iter().any(|finding| finding["what"].to_string().contains(name.as_ref()));
        ensure!(is_named, "{name}: {found:?}");
        fenced =
            found.into_iter().find(|of| of["from_ms"].as_i64().is_some_and(|at| at <= old_ms)).or(fenced);
        if fenced.is_some() {
            std::fs::write(file, std::fs::read(copy.dir.path().join(file.strip_prefix(&dir)?))?)?;
            break;
        }
    }
    let fenced = fenced.context("no window of the old samples was damaged")?;
    let until_ms = fenced["until_ms"].as_i64().context("its end")?;
    ensure!(until_ms > old_ms && until_ms < now_ms, "{fenced}");

    tricord.restart().await?;
    let client = tricord.client();
    let at = |ms: i64| (ms as f64 / 1000.0).to_string();
    let ask = async |ms: i64, more: &[(&str, &str)]| {
        let time = at(ms + 1_000);
        let mut parameters = vec![("query", "count(load)"), ("time", time.as_str())];
        parameters.extend(more);
        client.get("/api/v1/query", &parameters).await
    };
    let answer = ask(old_ms, &[]).await?;
    let body: Value = answer.json()?;
    // Shards share blocks of a small file.
    let warning = "damaged on";
    ensure!(answer.status == 200 && body["warnings"].to_string().contains(warning), "{body}");
    let denied = ask(old_ms, &[("partial_response", "deny")]).await?;
    ensure!(denied.status == 503 && denied.text().contains(warning), "{}", denied.text());
    let whole: Value = ask(now_ms, &[]).await?.json()?;
    ensure!(whole.get("warnings").is_none() && whole["data"]["result"][0]["value"][1] == "200", "{whole}");
    client.import("still_taken 1\n").await?;
    ensure!(client.value("still_taken", None).await? == 1.0);
    let metrics = client.get("/metrics", &[]).await?.text();
    let damaged = metrics.lines().find_map(|line| line.strip_prefix("tricord_querier_damaged_shards "));
    ensure!(damaged.is_some_and(|count| count != "0"), "{metrics}");
    ensure!(tricord.log().contains("stored data is damaged"), "{}", tricord.log());

    // An entry of the log that others follow.
    for n in 0..5 {
        client.import(&format!("more{{n=\"{n}\"}} {n}\n")).await?;
    }
    tricord.kill().await?;
    let of_log = |found: &[Value]| found.iter().any(|one| one["place"].to_string().contains("/log/"));
    ensure!(!of_log(&findings(&dir)?), "what a kill leaves of the log is no damage");
    let copy = Copied::of(&dir)?;
    copy.change("store/log/", |bytes| flip(bytes))?;
    let found = findings(copy.dir.path())?;
    ensure!(of_log(&found), "{found:?}");
    Ok(())
}
