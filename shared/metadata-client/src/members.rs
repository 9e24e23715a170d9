//! The members of the metadata group as one callee: finds the leader, follows its hints, retries with backoff.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tricord_wire::{Error, ErrorKind, Metadata};

use crate::dial::Dial;
use crate::metrics::Metrics;

/// How long one member may take for one call of a role's ordinary work.
pub(crate) const TRY_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The members of the metadata group, as one runtime talks to them: connections belong to the runtime that opened
/// them, so that the heartbeat thread has its own set.
pub(crate) struct Members {
    dial: Arc<dyn Dial>,
    addresses: Vec<String>,
    try_timeout: Duration,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who answered last, or whom a member named as leader.
    preferred: Option<String>,
    /// Where to go on when nobody is preferred.
    next: usize,
    clients: HashMap<String, Arc<dyn Metadata>>,
}

impl Members {
    pub(crate) fn new(dial: Arc<dyn Dial>, addresses: Vec<String>, metrics: Metrics) -> Self {
        Self { dial, addresses, try_timeout: TRY_TIMEOUT, metrics, state: Mutex::default() }
    }

    /// Only the first of them: whoever births a cluster must not be two.
    pub(crate) fn first(&self) -> Self {
        let first = self.addresses.first().cloned().into_iter().collect();
        Self::new(self.dial.clone(), first, self.metrics.clone())
    }

    /// The same members for another task or runtime, with another limit for one try.
    pub(crate) fn separate(&self, try_timeout: Duration) -> Self {
        Self { try_timeout, ..Self::new(self.dial.clone(), self.addresses.clone(), self.metrics.clone()) }
    }

    /// Whom to ask next.
    pub(crate) fn pick(&self) -> Result<(String, Arc<dyn Metadata>), Error> {
        let mut state = self.state.lock();
        let address = match &state.preferred {
            Some(address) => address.clone(),
            None => {
                let address = self.addresses.get(state.next % self.addresses.len().max(1));
                address
                    .cloned()
                    .ok_or_else(|| Error::new(ErrorKind::Invalid, "no metadata address is known"))?
            }
        };
        if let Some(client) = state.clients.get(&address) {
            return Ok((address, client.clone()));
        }
        let client = self.dial.metadata(&address)?;
        state.clients.insert(address.clone(), client.clone());
        Ok((address, client))
    }

    /// Notes that a member answered.
    pub(crate) fn answered(&self, address: &str) {
        self.state.lock().preferred = Some(address.to_owned());
    }

    /// Notes that a member failed. Returns whether it named another one, which is then asked at once.
    pub(crate) fn failed(&self, address: &str, error: &Error) -> bool {
        let mut state = self.state.lock();
        let hint = leader_hint(error).filter(|hint| *hint != address);
        state.preferred = hint.map(str::to_owned);
        state.next = state.next.wrapping_add(1);
        hint.is_some()
    }

    /// Asks members until one answers, the error is final or the time is over.
    pub(crate) async fn call<T, F, Answer>(&self, limit: Duration, ask: F) -> Result<T, Error>
    where
        F: Fn(Arc<dyn Metadata>) -> Answer,
        Answer: Future<Output = Result<T, Error>>,
    {
        self.call_patiently(limit, self.try_timeout, ask).await
    }

    /// As [`Members::call`], for calls that may take their time.
    pub(crate) async fn call_patiently<T, F, Answer>(
        &self,
        limit: Duration,
        try_timeout: Duration,
        ask: F,
    ) -> Result<T, Error>
    where
        F: Fn(Arc<dyn Metadata>) -> Answer,
        Answer: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + limit;
        let mut backoff = FIRST_BACKOFF;
        let (mut hints, mut cause) = (0, None);
        loop {
            let (address, member) = self.pick()?;
            let left = deadline.saturating_duration_since(Instant::now()).min(try_timeout);
            let error = match timeout(left, ask(member)).await {
                Ok(Ok(answer)) => {
                    self.answered(&address);
                    return Ok(answer);
                }
                Ok(Err(error)) if !tries_again(error.kind) => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => Error::new(
                    ErrorKind::Timeout,
                    format!("metadata member {address} did not answer in time"),
                ),
            };
            self.metrics.retries.inc();
            // During an election two members may name each other; after a few hints the backoff applies again.
            let hinted = self.failed(&address, &error) && hints < self.addresses.len();
            hints += usize::from(hinted);
            let wait = if hinted { Duration::ZERO } else { jitter(backoff) };
            // Who the leader is says less than why the leader cannot be asked.
            let error = cause.take().filter(|_| leader_hint(&error).is_some()).unwrap_or(error);
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            cause = Some(error);
            sleep(wait).await;
            if !hinted {
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
        }
    }
}

/// A wait between half and all of a backoff, so that many callers do not come back together.
pub(crate) fn jitter(backoff: Duration) -> Duration {
    backoff.mul_f64(rand::random_range(0.5..=1.0))
}

fn tries_again(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotServing | ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Overloaded
    )
}

/// The leader's address, which a member that is not the leader puts last in its message.
fn leader_hint(error: &Error) -> Option<&str> {
    let last = error.message.rsplit(' ').next()?;
    let (host, port) = last.rsplit_once(':')?;
    (error.kind == ErrorKind::NotServing && !host.is_empty() && port.parse::<u16>().is_ok()).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_from_the_last_word() {
        let hint = |kind, text: &str| leader_hint(&Error::new(kind, text)).map(str::to_owned);
        assert_eq!(hint(ErrorKind::NotServing, "not the leader, ask m1:7301"), Some("m1:7301".into()));
        assert_eq!(hint(ErrorKind::NotServing, "not the leader, ask [::1]:7301"), Some("[::1]:7301".into()));
        assert_eq!(hint(ErrorKind::NotServing, "not the leader, which is unknown"), None);
        assert_eq!(hint(ErrorKind::Unavailable, "cannot connect to m1:7301"), None);
    }
}
