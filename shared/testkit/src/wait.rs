//! Waiting for something to become true.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a start may take on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(90);

/// Asks again and again until the answer is `Ok`, and gives that back.
///
/// # Errors
/// The last answer's error when `limit` is over.
pub async fn eventually<T, F, Asked>(limit: Duration, mut ask: F) -> Result<T>
where
    F: FnMut() -> Asked,
    Asked: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            bail!("not within {limit:?}: {error:#}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
