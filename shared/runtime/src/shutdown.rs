//! The one way to tell every task of a process that it should finish. What a task does then is its own business.

use tokio_util::sync::CancellationToken;

/// A clonable token: triggered once, seen by all clones and children.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A token that nobody has triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells everybody to finish. Doing so again changes nothing.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Returns once the token is triggered, at once if it already is.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// Whether the token is triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// A token that follows this one and can be triggered alone, for stopping parts in order.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}
