//! Starting: settings from file, variables and flags, and errors that say what to do.

use std::process::{Command, Output};

use anyhow::Result;
use tricord_testkit::Single;

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");

fn tricord(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("TRICORD_")) {
        command.env_remove(variable);
    }
    command.args(args).envs(variables.iter().copied()).output().expect("tricord starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn file_then_variables_then_flags() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("tricord.yaml");
    std::fs::write(
        &file,
        "retention: 90d\nzone: from-file\nhttp_listen: 127.0.0.1:1\nproxy:\n  max_samples: 7\n",
    )?;
    let file = file.to_string_lossy();
    let variables = [
        ("TRICORD_ZONE", "from-variable"),
        ("TRICORD_PROXY_MAX_SERIES", "8"),
        ("TRICORD_HTTP_LISTEN", "127.0.0.1:2"),
    ];
    let flags = [
        "config",
        "--config",
        &file,
        "--http-listen",
        "127.0.0.1:3",
        "--metadata",
        "a:1,b:2",
        "--own-telemetry=false",
    ];
    let output = tricord(&flags, &variables);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for line in [
        "retention: 90d",
        "zone: from-variable",
        "http_listen: 127.0.0.1:3",
        "  max_samples: 7",
        "  max_series: 8",
        "metadata:\n- a:1\n- b:2",
        "own_telemetry: false",
    ] {
        assert!(printed.contains(line), "no {line:?} in\n{printed}");
    }

    // What is printed is a file that gives the same again.
    let again = dir.path().join("again.yaml");
    std::fs::write(&again, &printed)?;
    let output = tricord(&["config", "--config", &again.to_string_lossy()], &[]);
    assert_eq!(text(&output.stdout), printed);
    Ok(())
}

#[test]
fn mistakes_in_settings_are_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("tricord.yaml");
    std::fs::write(&file, "retntion: 90d\n")?;
    let path = file.to_string_lossy();
    let cases: [(&[&str], &str); 17] = [
        (&["config", "--config", &path], "retntion"),
        (&["config", "--config", "/nowhere/tricord.yaml"], "/nowhere/tricord.yaml"),
        (&["config", "--shards", "many"], "shards"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["config", "--log", "a=b=c"], "log filter"),
        (&["config", "--querier-fsync", "maybe"], "\"maybe\" is none of always, interval"),
        (&["config", "--memory-limit", "0"], "memory_limit"),
        (&["config", "--http-listen", "7300"], "http_listen"),
        (&["config", "--retention", "soon"], "retention"),
        (&["config", "--retention-classes", "{short: soon}"], "retention class \"short\""),
        (&["config", "--retention-classes", "{default: 3d}"], "retention class \"default\""),
        (&["config", "--ingester-limits-named-retention-class", "x"], "retention_classes lacks"),
        (&["config", "--shards", "0"], "shards"),
        (&["config", "--proxy-query-timeout", "fast"], "query_timeout"),
        (&["config", "--replicas", "2", "--min-insync", "3"], "min_insync"),
        (&["all", "--metadata", "127.0.0.1:1"], "leave --metadata out"),
        (&["local-cluster", "--data-nodes", "2", "--min-insync", "3"], "2 data nodes"),
    ];
    for (args, expected) in cases {
        let output = tricord(args, &[]);
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(text(&output.stderr).contains(expected), "{args:?}: {}", text(&output.stderr));
    }
    let output =
        tricord(&["config"], &[("TRICORD_RETNTION", "90d"), ("TRICORD_PROXY_SERVICE_HOST", "10.0.0.1")]);
    let error = text(&output.stderr);
    assert!(output.status.success() && error.contains("TRICORD_RETNTION"), "{error}");
    assert!(!error.contains("SERVICE_HOST"), "{error}");
    Ok(())
}

#[test]
fn help_teaches() {
    let help = text(&tricord(&["--help"], &[]).stdout);
    for part in ["tricord local-cluster", "--http-listen", "TRICORD_RETENTION", "curl", "Examples"] {
        assert!(help.contains(part), "no {part} in\n{help}");
    }
    let ingester = text(&tricord(&["ingester", "--help"], &[]).stdout);
    for part in
        ["--ingester-max-body-bytes", "once decompressed", "--ingester-limits-named-rate", "per second"]
    {
        assert!(ingester.contains(part), "no {part} in\n{ingester}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_says_what_is_taken() -> Result<()> {
    let running = Single::start(BINARY).await?;
    let data_dir = format!("--data-dir={}", running.data_dir().display());
    let output = tricord(&[&data_dir], &[]);
    assert!(!output.status.success());
    let error = text(&output.stderr);
    assert!(error.contains("in use by process") && error.contains("--data-dir"), "{error}");

    let elsewhere = format!("--data-dir={}", running.dir().join("other").display());
    let http = format!("--http-listen={}", running.http());
    let output = tricord(&[&elsewhere, &http], &[]);
    assert!(!output.status.success());
    let error = text(&output.stderr);
    assert!(error.contains("port is taken") && error.contains("--http-listen"), "{error}");
    Ok(())
}

/// The disk is a small tmpfs in a mount namespace of its own, filled to the brim.
#[test]
fn a_start_on_a_full_disk_says_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = r#"
        mount -t tmpfs -o size=128k tmpfs "$1" && head -c 200000 /dev/zero > "$1/fill"
        exec "$2" --data-dir "$1/data" --http-listen 127.0.0.1:0 --rpc-listen 127.0.0.1:0 \
            --otlp-grpc-listen 127.0.0.1:0 --otlp-http-listen 127.0.0.1:0
    "#;
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(BINARY)
        .output()?;
    let error = text(&output.stderr);
    assert!(!output.status.success(), "{error}");
    assert!(error.contains("is full: free space"), "{error}");
    Ok(())
}
