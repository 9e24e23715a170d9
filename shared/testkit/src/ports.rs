//! Free loopback ports below the range that the system gives to clients, so that nobody takes one in between.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::{Result, bail};
use rand::Rng;

/// Where test ports lie.
const PORTS: Range<u16> = 10_000..32_000;

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The first of `count` free ports in a row. The place is random, as other tests look for ports at the same time.
///
/// # Errors
/// When no such row is found.
pub fn free_base_port(count: u16) -> Result<u16> {
    for _ in 0..1_000 {
        let base = rand::rng().random_range(PORTS.start..PORTS.end.saturating_sub(count)) / 10 * 10;
        if (base..base + count).all(is_free) {
            return Ok(base);
        }
    }
    bail!("no {count} free ports in a row")
}

/// As many free ports.
///
/// # Errors
/// When there are none.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let base = free_base_port(N as u16)?;
    Ok(std::array::from_fn(|i| base + i as u16))
}
