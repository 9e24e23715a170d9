//! Asking metadata for another configuration.

use std::sync::Arc;
use std::time::Duration;

use tricord_metadata_client::Proposal;
use tricord_model::NodeId;
use tricord_replication::{ProposalOutcome, View};
use tricord_routing::ShardConfig;

use super::{Hosted, Replicas};

/// How long an answer may take; the machine tries again by itself.
const LIMIT: Duration = Duration::from_secs(2);

impl Replicas {
    /// Proposes what the machine wishes for, and gives it the outcome.
    pub(super) async fn propose(self: Arc<Self>, hosted: Arc<Hosted>, wish: View) {
        let _proposal = hosted.proposal.lock().await;
        let expected = wish.epoch;
        let config = ShardConfig {
            shard: hosted.id,
            epoch: wish.epoch,
            primary: wish.primary,
            in_sync: wish.in_sync,
            joining: wish.joining,
        };
        let answer = self.cluster.propose(self.node, expected, &config, LIMIT).await;
        let outcome = match answer {
            Ok(answer) => {
                self.metrics.proposals(if answer.accepted { "accepted" } else { "refused" });
                report(&config, &answer);
                let newer = answer.config.epoch > expected;
                if newer {
                    let min_insync = self.cluster.map().min_insync as usize;
                    self.adopt_shard(&answer.config, min_insync).await;
                }
                match (answer.accepted, newer) {
                    (true, _) => ProposalOutcome::Accepted,
                    (false, false) => ProposalOutcome::Refused,
                    // The newer configuration did not end the tenure's proposal only if it could not be stored.
                    (false, true) => ProposalOutcome::Unknown,
                }
            }
            Err(error) => {
                self.metrics.proposals("failed");
                if let Some(others) = self.told_unanswered.happened() {
                    tracing::warn!(shard = hosted.id.0, %error, others, "metadata did not answer proposals");
                }
                ProposalOutcome::Unknown
            }
        };
        self.machine(&hosted, |machine, now_ms| machine.proposed(now_ms, outcome));
    }
}

/// Not news: metadata says how many configurations change, and a refusal comes back at every attempt while too few
/// replicas live.
fn report(wish: &ShardConfig, answer: &Proposal) {
    let ids = |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",");
    let (shard, epoch) = (wish.shard.0, wish.epoch.0);
    let (in_sync, joining) = (ids(&wish.in_sync), ids(&wish.joining));
    if answer.accepted {
        tracing::debug!(shard, epoch, in_sync, joining, "metadata took the shard's new configuration");
    } else {
        let why = &answer.message;
        tracing::debug!(shard, epoch, in_sync, joining, %why, "metadata refused a configuration");
    }
}
