//! Bombs, garbage, oversized and half-sent bodies: each gets a clear error, and the process goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tricord_testkit::{Client, Single};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");

const PROTOBUF: (&str, &str) = ("Content-Type", "application/x-protobuf");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const SNAPPY: (&str, &str) = ("Content-Encoding", "snappy");
const GZIP: (&str, &str) = ("Content-Encoding", "gzip");
const ZSTD: (&str, &str) = ("Content-Encoding", "zstd");

/// What a body inflates to: far beyond every bound.
const BOMB_BYTES: usize = 1 << 30;

fn gzip_bomb() -> Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..BOMB_BYTES >> 20 {
        packed.write_all(&zeros)?;
    }
    Ok(packed.finish()?)
}

fn zstd_bomb() -> Result<Vec<u8>> {
    let mut packed = zstd::stream::Encoder::new(Vec::new(), 1)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..BOMB_BYTES >> 20 {
        packed.write_all(&zeros)?;
    }
    Ok(packed.finish()?)
}

/// A snappy block that declares 4 GiB and holds nothing.
fn snappy_bomb() -> Vec<u8> {
    vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]
}

/// Nested messages, deep enough to end a recursive decoder.
fn deep_json() -> String {
    let deep = "{\"arrayValue\":{\"values\":[".repeat(20_000);
    format!("{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":[{{\"key\":\"a\",\"value\":{deep}")
}

async fn check(
    client: &Client,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
    expected: &[u16],
) -> Result<()> {
    let what = format!("{path} {headers:?}, {} bytes", body.len());
    let answer = client.post(path, headers, body).await.with_context(|| what.clone())?;
    ensure!(expected.contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    ensure!(!answer.body.is_empty(), "{what}: no text says why");
    // The OTLP port has no health page: any answer says that the process is there.
    client.get("/", &[]).await.map(|_| ()).with_context(|| format!("after {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_get_an_error_and_nothing_falls() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let (client, otlp) = (tricord.client(), Client::new(tricord.otlp_http()));
    client.import("before 1\n").await?;
    let garbage: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();

    let write = "/api/v1/write";
    check(&client, write, &[PROTOBUF, SNAPPY], snappy_bomb(), &[400, 413]).await?;
    check(&client, write, &[PROTOBUF, SNAPPY], garbage.clone(), &[400, 413]).await?;
    check(&client, write, &[PROTOBUF, SNAPPY], snap::raw::Encoder::new().compress_vec(&garbage)?, &[400])
        .await?;
    check(&client, write, &[JSON, SNAPPY], vec![1], &[415]).await?;
    check(&client, write, &[PROTOBUF, GZIP], vec![1], &[415]).await?;
    for path in ["/v1/metrics", "/v1/traces"] {
        check(&otlp, path, &[PROTOBUF, GZIP], gzip_bomb()?, &[413]).await?;
        check(&otlp, path, &[PROTOBUF, ZSTD], zstd_bomb()?, &[413]).await?;
        check(&otlp, path, &[PROTOBUF], garbage.clone(), &[400]).await?;
        check(&otlp, path, &[JSON], garbage.clone(), &[400]).await?;
        check(&otlp, path, &[("Content-Type", "text/csv")], vec![b'a'], &[415]).await?;
        check(&otlp, path, &[PROTOBUF, GZIP], garbage.clone(), &[400]).await?;
        check(&otlp, path, &[PROTOBUF], vec![0; 80 << 20], &[413]).await?;
    }
    check(&otlp, "/v1/traces", &[JSON], deep_json().into_bytes(), &[400]).await?;
    check(&client, "/api/v1/import/prometheus", &[], b"} not { a metric\n".to_vec(), &[400]).await?;
    let deep = "(".repeat(200_000);
    let answer = client.post_form("/api/v1/query", &[("query", &deep)]).await?;
    ensure!(answer.status == 400, "deep query: {} {}", answer.status, answer.text());

    half_sent(tricord.http())?;
    ensure!(client.value("before", None).await? == 1.0, "what was there is still there");
    Ok(())
}

/// A request whose body stops half-way: the connection is closed by the sender, and nothing is written.
fn half_sent(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let head = "POST /api/v1/import/prometheus HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf 1\n";
    stream.write_all(head.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    // Either an error status or a closed connection is right; waiting for ever is not.
    let _ = stream.read_to_end(&mut answer);
    ensure!(
        !String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 2"),
        "half a body was taken for a whole one"
    );
    Ok(())
}
