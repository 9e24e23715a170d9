//! Answers as Prometheus writes them: JSON put together by hand, since an answer may hold millions of numbers.

mod explain;
mod histogram;
mod json;
mod number;
mod value;

pub use explain::{Explained, explain_text};
pub use json::{Envelope, error_envelope};
pub use value::{ResultShape, exemplars_json, labels_json, metadata_json, texts_json, write_result};
