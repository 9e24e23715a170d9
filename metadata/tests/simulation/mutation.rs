//! Bugs that are put in on purpose: a simulation that does not catch each of them proves nothing about the protocol.
//! They live in the simulated drivers and the simulated network, so that the product carries no trace of them.

/// One bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The first follower's answer counts for all of them.
    AcknowledgeBeforeTheSlowest,
    /// A follower answers a primary of an older epoch as if that one still led.
    SkipTheEpochCheck,
    /// Metadata names a joiner primary.
    PromoteWithoutBeingInSync,
    /// Metadata and primaries go on with one copy.
    ShrinkBelowTheMinimum,
    /// A new primary neither waits for older leases nor for its followers' logs.
    ServeBeforeReconciling,
    /// What followers were granted is forgotten when they are removed.
    AcknowledgeBeforeTheRemovedLeaseEnds,
    /// A snapshot lacks an entry in its middle.
    AdmitAJoinerWithAHole,
    /// Clocks differ by more than the grace allows for.
    ClocksDriftTooFar,
    /// A crash loses entries whose sync was reported as done.
    LoseWhatWasSynced,
    /// A primary that restarts goes on under the epoch that it had, and takes its tail for that of the new process.
    ForgetTheStoredEpoch,
    /// Whoever learns of a new primary tells it that older leases are over.
    ReleaseWhatStillRuns,
    /// A follower says that it answers no more queries, and goes on answering them.
    LeaveAndGoOnReading,
    /// Whatever a follower that was removed answers, a primary takes it as having heard of its removal.
    TakeEveryAnswerForALeave,
    /// An empty shard is filled from a backup at its primary while others without the data are in sync.
    RestoreBesideOthers,
    /// A damaged joiner says that it holds nothing, although it may have acknowledged entries under the same epoch.
    BeginAnewWhereOthersCountOnIt,
    /// A joiner takes a snapshot, although an earlier process may have acknowledged later entries under the same epoch.
    TakeASnapshotAfterARestart,
    /// A node makes a shard by a map from before it let the shard go.
    ForgetWhatWasLetGo,
}

impl Mutation {
    /// All of them.
    pub(crate) const ALL: [Self; 17] = [
        Self::AcknowledgeBeforeTheSlowest,
        Self::SkipTheEpochCheck,
        Self::PromoteWithoutBeingInSync,
        Self::ShrinkBelowTheMinimum,
        Self::ServeBeforeReconciling,
        Self::AcknowledgeBeforeTheRemovedLeaseEnds,
        Self::AdmitAJoinerWithAHole,
        Self::ClocksDriftTooFar,
        Self::LoseWhatWasSynced,
        Self::ForgetTheStoredEpoch,
        Self::ReleaseWhatStillRuns,
        Self::LeaveAndGoOnReading,
        Self::TakeEveryAnswerForALeave,
        Self::RestoreBesideOthers,
        Self::BeginAnewWhereOthersCountOnIt,
        Self::TakeASnapshotAfterARestart,
        Self::ForgetWhatWasLetGo,
    ];
}
