//! States of aggregations: what groups of series are folded into, merged across nodes, and turned back into series.
//!
//! Every state is independent of the order in which series are folded and states are merged, to the bit: sums are exact,
//! ties go by labels. So a cluster's answer equals one process' answer.

mod big;
mod exact;
mod finish;
mod histograms;
mod moments;
mod select;
mod state;
mod sums;

pub use exact::ExactSum;
pub use finish::finish;
pub(crate) use finish::finish_groups;
pub use histograms::HistogramSum;
pub use moments::Moments;
pub use state::{GroupState, MergedGroups, StateError};

pub(crate) use select::keep_ranked;
pub(crate) use state::{StepStates, group_labels, group_labels_of_value};
