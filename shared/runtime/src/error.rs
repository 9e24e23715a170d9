//! What can go wrong around a role rather than in it.

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A setting is wrong; the same start fails again.
    Setting,
    /// The machine refused something.
    Machine,
}

/// A failure of the process' surroundings, with what to do about it in its text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listen address that is not `HOST:PORT` or does not resolve.
    #[error("{flag} {address}: {reason}; give it as HOST:PORT, for instance 127.0.0.1:7300")]
    Address {
        /// The flag that named the address.
        flag: &'static str,
        /// The address as given.
        address: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// Another process listens there.
    #[error(
        "cannot listen on {address}: the port is taken by another process; stop that process (perhaps another tricord) \
         or choose another port with {flag} HOST:PORT"
    )]
    PortTaken {
        /// The flag that named the address.
        flag: &'static str,
        /// The address as given.
        address: String,
    },
    /// The system refused the address for another reason.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Listen {
        /// The flag that named the address.
        flag: &'static str,
        /// The address as given.
        address: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A log filter that cannot be parsed.
    #[error("log filter {filter:?}: {reason}; write it as `info` or `info,tricord_querier=debug`")]
    LogFilter {
        /// The filter as given.
        filter: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A listener failed while serving.
    #[error("serving failed: {0}")]
    Serve(#[from] std::io::Error),
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Address { .. } | Self::PortTaken { .. } | Self::LogFilter { .. } => ErrorKind::Setting,
            Self::Listen { .. } | Self::Serve(_) => ErrorKind::Machine,
        }
    }
}
