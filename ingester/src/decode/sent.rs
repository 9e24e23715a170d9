//! Labels as senders of remote write 1.0 have them: short protobuf fields of a name and a value. In that form labels are
//! remembered, whatever protocol they came by, and are sent on to data nodes.

use tricord_model::read_sent_labels;

/// Bytes of a label beside its texts, without its own tag and length.
const INNER_BYTES: usize = 4;
/// Labels of so many bytes are not written in that form.
const TOO_LONG: usize = 0x80;

/// Appends a label, unless it is too long.
pub(crate) fn push_label(name: &str, value: &str, labels: &mut Vec<u8>) -> bool {
    push_bytes(name.as_bytes(), value.as_bytes(), labels)
}

/// As [`push_label`], of bytes that may not be text: what is none is never found among what is remembered.
#[inline]
pub(crate) fn push_bytes(name: &[u8], value: &[u8], labels: &mut Vec<u8>) -> bool {
    let inner = name.len() + value.len() + INNER_BYTES;
    if inner >= TOO_LONG {
        return false;
    }
    labels.extend_from_slice(&[0x0a, inner as u8, 0x0a, name.len() as u8]);
    labels.extend_from_slice(name);
    labels.extend_from_slice(&[0x12, value.len() as u8]);
    labels.extend_from_slice(value);
    true
}

/// As [`push_bytes`], of a name and a value that already have the tags and lengths that they get here: `0x0a`, a length,
/// the name, `0x12`, then a length and the value.
#[inline]
pub(crate) fn push_tagged(name: &[u8], value: &[u8], labels: &mut Vec<u8>) -> bool {
    let inner = name.len() + value.len();
    if inner >= TOO_LONG {
        return false;
    }
    labels.extend_from_slice(&[0x0a, inner as u8]);
    labels.extend_from_slice(name);
    labels.extend_from_slice(value);
    true
}

/// Whether labels in that form are just these, which are sorted by name. Those without a value are none.
pub(crate) fn means(sent: &[u8], labels: &[(&str, &str)]) -> bool {
    let mut pairs = Vec::with_capacity(labels.len());
    if read_sent_labels(sent, &mut pairs) != sent.len() {
        return false;
    }
    // A name that comes again would be refused in this form, whatever its value is.
    pairs.sort_unstable();
    let is_twice = pairs.windows(2).any(|two| two[0].0 == two[1].0);
    pairs.retain(|(_, value)| !value.is_empty());
    !is_twice && pairs == labels
}
