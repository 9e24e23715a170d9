//! Labels as nearly every sender of remote write 1.0 has them: protobuf fields at the start of a series, a name and then a
//! value in each, all of them short.
//!
//! Then tags and lengths are ASCII, so that all labels are checked to be text at once. What is written in any other way is
//! left to a reader that looks at each field.

/// A label's field in its series, a name's in the label, a value's in the label: numbers with the type of what follows.
const LABEL: u8 = 0x0a;
const NAME: u8 = 0x0a;
const VALUE: u8 = 0x12;
/// Bytes of a label beside its texts: three tags and three lengths.
const LABEL_BYTES: usize = 6;

/// The labels at the start of a series' message: all bytes before the first field that is none, or that is long.
#[must_use]
pub fn leading_labels(series: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some([LABEL, len @ 0..0x80]) = series.get(end..end + 2) {
        end += 2 + usize::from(*len);
    }
    series.get(..end).unwrap_or_default()
}

/// Reads the pairs of leading labels, in the sender's order, up to the first one that is written in another way. Answers
/// how many bytes they take.
pub fn read_sent_labels<'a>(labels: &'a [u8], pairs: &mut Vec<(&'a str, &'a str)>) -> usize {
    let Ok(text) = std::str::from_utf8(labels) else { return 0 };
    let mut read = 0;
    while let Some(pair) = pair_at(text, read) {
        pairs.push(pair);
        read += LABEL_BYTES + pair.0.len() + pair.1.len();
    }
    read
}

fn pair_at(text: &str, at: usize) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let [LABEL, label_len, NAME, name_len] = *bytes.get(at..)?.first_chunk::<4>()? else { return None };
    let name_end = at + 4 + usize::from(name_len);
    let [VALUE, value_len] = *bytes.get(name_end..)?.first_chunk::<2>()? else { return None };
    let value_end = name_end + 2 + usize::from(value_len);
    let is_whole = usize::from(label_len) == value_end - at - 2;
    // A length of 128 or more would be the start of a longer one; in text it is the start of a character, and the slice
    // then begins within it.
    if is_whole { Some((text.get(at + 4..name_end)?, text.get(name_end + 2..value_end)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(pairs: &[(String, String)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in pairs {
            out.extend_from_slice(&[LABEL, (name.len() + value.len() + 4) as u8, NAME, name.len() as u8]);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&[VALUE, value.len() as u8]);
            out.extend_from_slice(value.as_bytes());
        }
        out
    }

    proptest! {
        #[test]
        fn short_labels_are_read_at_once(
            pairs in prop::collection::vec(("[a-zü]{0,20}", ".{0,20}"), 0..8),
            rest in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let pairs: Vec<_> = pairs.into_iter().filter(|(n, v)| n.len() + v.len() < 124).collect();
            let labels = write(&pairs);
            let series = [&labels[..], &[0x12], &rest].concat();
            prop_assert_eq!(leading_labels(&series), &labels[..]);
            let mut read = Vec::new();
            prop_assert_eq!(read_sent_labels(&labels, &mut read), labels.len());
            prop_assert_eq!(read, pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>());
        }

        #[test]
        fn anything_else_is_left(bytes in prop::collection::vec(prop_oneof![Just(LABEL), Just(VALUE), 0u8..9, any::<u8>()], 0..60)) {
            let labels = leading_labels(&bytes);
            prop_assert!(bytes.starts_with(labels));
            let mut pairs = Vec::new();
            let read = read_sent_labels(labels, &mut pairs);
            let owned: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            prop_assert_eq!(write(&owned), &labels[..read]);
        }
    }
}
