//! The log on stderr, for people or as JSON lines, and the place where the collection of own spans hooks in.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::error::Error;
use crate::telemetry::{SpanBuffer, SpanLayer};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people at a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr for the whole process, once. The filter is `info` or `info,tricord_querier=debug`. Finished
/// request spans go to `spans`, where one is given, whatever the filter says.
///
/// # Errors
/// When the filter cannot be parsed. A second call leaves the first one's logging as it is.
pub fn init_logging(format: LogFormat, filter: &str, spans: Option<SpanBuffer>) -> Result<(), Error> {
    let parsed = parse_filter(filter)?;
    let lines = match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            fmt::layer().with_writer(std::io::stderr).with_ansi(colours).boxed()
        }
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
    };
    let collected = spans.map(SpanLayer::filtered);
    // A second start in one process (tests) keeps the first one's log.
    let _ = tracing_subscriber::registry().with(collected).with(lines.with_filter(parsed)).try_init();
    Ok(())
}

/// Whether a log filter can be understood.
///
/// # Errors
/// [`Error::LogFilter`] with what is wrong.
pub fn check_log_filter(filter: &str) -> Result<(), Error> {
    parse_filter(filter).map(|_| ())
}

fn parse_filter(filter: &str) -> Result<EnvFilter, Error> {
    // openraft tells every step of an election at level info, and several errors a second while a member is away,
    // which the metadata service tells once itself; whoever wants more names it.
    let quieter =
        if filter.contains("openraft") { filter.to_owned() } else { format!("openraft=off,{filter}") };
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(quieter)
        .map_err(|error| Error::LogFilter { filter: filter.to_owned(), reason: error.to_string() })
}
