//! JSON texts and the envelope around every answer.

use std::collections::BTreeSet;
use std::io::Write as _;

use crate::error::Error;

/// Appends a JSON string.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Bytes of longer characters are all above these.
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' ')) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                let _ = write!(out, "\\u{other:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends items between brackets, separated by commas.
pub(super) fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut one: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        one(out, item);
    }
    out.push(b']');
}

/// What surrounds the data of a successful answer.
#[derive(Clone, Debug, Default)]
pub struct Envelope {
    /// The answer may be wrong or cut.
    pub warnings: BTreeSet<String>,
    /// The query may not mean what its writer thinks.
    pub infos: BTreeSet<String>,
}

impl Envelope {
    /// The whole body around data that is JSON already.
    #[must_use]
    pub fn wrap(&self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(data.len() + 64);
        out.extend_from_slice(b"{\"status\":\"success\",\"data\":");
        out.extend_from_slice(data);
        self.end(out)
    }

    /// An object that is JSON already and not empty, with the notes among its fields.
    #[must_use]
    pub fn join(&self, mut object: Vec<u8>) -> Vec<u8> {
        object.pop();
        self.end(object)
    }

    fn end(&self, mut out: Vec<u8>) -> Vec<u8> {
        for (key, notes) in [("warnings", &self.warnings), ("infos", &self.infos)] {
            if !notes.is_empty() {
                let _ = write!(out, ",\"{key}\":");
                write_list(&mut out, notes, |out, note| write_string(out, note));
            }
        }
        out.push(b'}');
        out
    }
}

/// The body of a failed request.
#[must_use]
pub fn error_envelope(error: &Error) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let _ = write!(out, "{{\"status\":\"error\",\"errorType\":\"{}\",\"error\":", error.kind().as_str());
    write_string(&mut out, &error.to_string());
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_json_needs_it() {
        let mut out = Vec::new();
        write_string(&mut out, "a\"b\\c\nd\u{1}ü");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, r#""a\"b\\c\nd\u0001ü""#);
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "a\"b\\c\nd\u{1}ü");
    }

    #[test]
    fn notes_stand_behind_the_data() {
        let envelope = Envelope { warnings: BTreeSet::from(["w".into()]), infos: BTreeSet::new() };
        assert_eq!(envelope.wrap(b"[]"), br#"{"status":"success","data":[],"warnings":["w"]}"#);
        let error = error_envelope(&Error::BadData("no".into()));
        assert_eq!(error, br#"{"status":"error","errorType":"bad_data","error":"no"}"#);
    }
}
