//! Requests that have arrived whole: decoded into pieces, sent, and decoded once more where a shard asks for labels.

use std::sync::Arc;

use tokio::time::Instant;
use tricord_model::Tenant;

use super::Observed;
use crate::in_flight::Held;
use crate::recall::{Memory, Naming, Recalling};
use crate::route::{Routed, Router};
use crate::{Error, Outcome, compute};

/// Where a tenant's request goes, with what is remembered of earlier ones.
pub(super) struct Routing<'a> {
    memory: &'a Memory,
    tenant: &'a Tenant,
    naming: Naming,
    /// Takes what needs no memory.
    pub(super) router: &'a mut Router,
}

impl Routing<'_> {
    /// Hands `work` a sink that remembers labels.
    pub(super) fn recalling<R>(&mut self, work: impl FnOnce(&mut Recalling<'_>) -> R) -> R {
        self.memory.with(self.tenant, self.naming, self.router, work)
    }
}

/// Routes and sends a request. `decode` puts it into the routing and answers its size once unpacked; `cost` is about what
/// that is, in bytes.
pub(super) async fn write<D>(
    observed: &Observed<'_>,
    tenant: &Tenant,
    cost: usize,
    held: Held,
    decode: D,
) -> Result<Outcome, Error>
where
    D: Fn(&mut Held, Routing<'_>) -> Result<usize, Error> + Send + Sync + 'static,
{
    let ingester = observed.ingester;
    let deadline = ingester.deadline();
    let arrived = Arrived { observed, tenant, cost, deadline, decode: Arc::new(decode) };
    let (routed, size, held) = arrived.route(held, Naming::ByFingerprint).await?;
    observed.body(size);
    let mut sent = ingester.send(tenant, routed, deadline).await?;
    if sent.lacks_labels() {
        match arrived.route(held, Naming::ByLabels).await {
            Ok((routed, _, _held)) => ingester.send_named(tenant, routed, deadline, &mut sent).await,
            // Other shards may have taken their part: the answer must say so.
            Err(error) => sent.cannot_name(&error),
        }
    }
    ingester.finish(sent, observed.protocol)
}

struct Arrived<'a, D> {
    observed: &'a Observed<'a>,
    tenant: &'a Tenant,
    cost: usize,
    deadline: Instant,
    decode: Arc<D>,
}

impl<D> Arrived<'_, D>
where
    D: Fn(&mut Held, Routing<'_>) -> Result<usize, Error> + Send + Sync + 'static,
{
    /// The pieces, the size of what was unpacked, and what is held for all of it.
    async fn route(&self, mut held: Held, naming: Naming) -> Result<(Routed, usize, Held), Error> {
        let ingester = self.observed.ingester;
        let mut router = ingester.router(self.tenant, self.cost, self.deadline).await?;
        let (memory, tenant, decode) = (ingester.memory.clone(), self.tenant.clone(), self.decode.clone());
        let work = move || {
            let routing = Routing { memory: &memory, tenant: &tenant, naming, router: &mut router };
            let size = decode(&mut held, routing)?;
            Ok((router.finish(), size, held))
        };
        compute(self.cost, work).await
    }
}
