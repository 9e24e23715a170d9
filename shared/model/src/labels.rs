//! Label sets: sorted, immutable, cheap to clone.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_128;

use crate::codec::{CodecError, Reader, Writer};

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A label set, sorted by name, without empty values and without two labels of one name.
///
/// The text of all names and values lies in one allocation; a clone is a reference count.
#[derive(Clone)]
pub struct Labels(Arc<Packed>);

struct Packed {
    /// Names and values in turn, without separators.
    text: Box<str>,
    /// Where each name and each value ends in `text`.
    ends: Box<[u32]>,
}

impl Labels {
    /// The empty label set.
    #[must_use]
    pub fn empty() -> Self {
        LabelsBuilder::new().finish()
    }

    /// Builds a label set from pairs in any order; of two pairs with one name the later one stays, and a pair with
    /// an empty value is left out.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.finish()
    }

    /// Builds a label set from pairs that ascend strictly by name and have no empty value; `None` where they do not.
    ///
    /// Unlike [`Labels::from_pairs`] it copies the text once, which matters where every sample brings its labels.
    #[must_use]
    pub fn from_ascending(pairs: &[(&str, &str)]) -> Option<Self> {
        let ascending = pairs.windows(2).all(|two| two[0].0 < two[1].0);
        let filled = pairs.iter().all(|(_, value)| !value.is_empty());
        (ascending && filled).then(|| Self::from_sorted(pairs))
    }

    fn from_sorted<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Self {
        let size = pairs.iter().map(|(n, v)| n.as_ref().len() + v.as_ref().len()).sum();
        let mut text = String::with_capacity(size);
        let mut ends = Vec::with_capacity(pairs.len() * 2);
        for (name, value) in pairs {
            text.push_str(name.as_ref());
            ends.push(text.len() as u32);
            text.push_str(value.as_ref());
            ends.push(text.len() as u32);
        }
        Self(Arc::new(Packed { text: text.into_boxed_str(), ends: ends.into_boxed_slice() }))
    }

    /// How many labels there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.0.ends.len() / 2
    }

    /// Whether there is no label at all.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.ends.is_empty()
    }

    #[inline]
    fn piece(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.0.ends[at - 1] as usize };
        &self.0.text[start..self.0.ends[at] as usize]
    }

    /// The pairs of name and value, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        (0..self.len()).map(|i| (self.piece(2 * i), self.piece(2 * i + 1)))
    }

    /// The value of a label, or `None` where the set lacks it.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &str) -> Option<&str> {
        // Label sets are small: a scan beats a binary search over variable-length pieces.
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The metric's name, or an empty string.
    #[must_use]
    pub fn name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// A builder that starts from these labels.
    #[must_use]
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// The labels whose names satisfy `keep`.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let kept: Vec<_> = self.iter().filter(|(n, _)| keep(n)).collect();
        if kept.len() == self.len() { self.clone() } else { Self::from_sorted(&kept) }
    }

    /// These labels without `__name__`.
    #[must_use]
    pub fn without_name(&self) -> Self {
        self.filtered(|n| n != METRIC_NAME)
    }

    /// A 128-bit fingerprint (xxh3) of the encoded labels; equal sets have equal fingerprints on every machine.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        let mut bytes = Vec::with_capacity(self.0.text.len() + self.0.ends.len() * 2 + 2);
        self.encode(&mut Writer::new(&mut bytes));
        Self::fingerprint_of_encoded(&bytes)
    }

    /// The fingerprint of labels from what [`Labels::encode`] wrote of them, without reading them.
    #[must_use]
    pub fn fingerprint_of_encoded(encoded: &[u8]) -> u128 {
        xxh3_128(encoded)
    }

    /// Writes the pairs as a count and length-prefixed strings.
    pub fn encode(&self, out: &mut Writer<'_>) {
        encode_pairs(self.iter(), out);
    }

    /// Reads what [`Labels::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early, are not UTF-8, or are not sorted by name.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let count = input.count(2)?;
        let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(count);
        for _ in 0..count {
            let pair = (input.str()?, input.str()?);
            if pairs.last().is_some_and(|last| last.0 >= pair.0) {
                return Err(CodecError::Invalid("labels are not sorted"));
            }
            pairs.push(pair);
        }
        Ok(Self::from_sorted(&pairs))
    }

    /// Goes past what [`Labels::encode`] wrote, without reading it; answers its bytes.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early.
    pub fn skip<'a>(input: &mut Reader<'a>) -> Result<&'a [u8], CodecError> {
        let bytes = input.rest();
        for _ in 0..input.count(2)? {
            input.bytes()?;
            input.bytes()?;
        }
        Ok(&bytes[..bytes.len() - input.rest().len()])
    }

    /// Reads what [`Labels::encode`] wrote, and nothing may follow.
    ///
    /// # Errors
    /// As [`Labels::decode`], and when bytes are left.
    pub fn decode_all(bytes: &[u8]) -> Result<Self, CodecError> {
        let input = &mut Reader::new(bytes);
        let labels = Self::decode(input)?;
        if input.is_empty() { Ok(labels) } else { Err(CodecError::Invalid("bytes after the end of labels")) }
    }
}

/// Writes pairs that are sorted by name as [`Labels::encode`] does.
pub(crate) fn encode_pairs<'a>(
    pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    out: &mut Writer<'_>,
) {
    out.u64(pairs.len() as u64);
    for (name, value) in pairs {
        out.str(name);
        out.str(value);
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.ends == other.0.ends && self.0.text == other.0.text)
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
        self.0.ends.hash(state);
    }
}

impl Ord for Labels {
    /// By name, then value, pair by pair; a prefix sorts before what extends it, as in Prometheus.
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, theirs) = (&*self.0, &*other.0);
        let common = common_prefix(own.text.as_bytes(), theirs.text.as_bytes());
        // Pieces that end alike within what is common are equal; the next one decides.
        let ends = own.ends.iter().zip(&theirs.ends);
        let equal = ends.take_while(|(a, b)| a == b && **a as usize <= common).count();
        if equal == own.ends.len().min(theirs.ends.len()) {
            return own.ends.len().cmp(&theirs.ends.len());
        }
        self.piece(equal).cmp(other.piece(equal))
    }
}

/// How many bytes two texts have in common at their begin.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let ((a_words, _), (b_words, _)) = (a[..len].as_chunks::<8>(), b[..len].as_chunks::<8>());
    let alike = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count() * 8;
    alike + a[alike..len].iter().zip(&b[alike..len]).take_while(|(a, b)| a == b).count()
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(Self::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
    }
}

/// Puts a label set together.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    /// Sorted by name at all times.
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// A builder without labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) if value.is_empty() => drop(self.pairs.remove(at)),
            Ok(at) => value.clone_into(&mut self.pairs[at].1),
            Err(_) if value.is_empty() => {}
            Err(at) => self.pairs.insert(at, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes a label where it is there.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// The value set so far for a label.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The finished label set.
    #[must_use]
    pub fn finish(&self) -> Labels {
        Labels::from_sorted(&self.pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascending_pairs_need_no_builder() {
        let pairs = [("a", "1"), ("b", "2")];
        assert_eq!(Labels::from_ascending(&pairs), Some(Labels::from_pairs(pairs)));
        for wrong in [[("b", "1"), ("a", "2")], [("a", "1"), ("a", "2")], [("a", ""), ("b", "2")]] {
            assert_eq!(Labels::from_ascending(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn pairs_are_sorted_deduplicated_and_never_empty() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("b", "3"), ("c", "")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3")]);
        assert_eq!((labels.get("b"), labels.get("c")), (Some("3"), None));
    }

    #[test]
    fn order_is_by_pairs_and_not_by_concatenated_text() {
        let short = Labels::from_pairs([("a", "1"), ("b", "1")]);
        let long = Labels::from_pairs([("a", "10")]);
        assert!(short < long);
        assert!(Labels::empty() < short);
    }

    proptest::proptest! {
        #[test]
        fn order_is_that_of_the_pairs(
            a in proptest::collection::btree_map("[ab]{1,3}", "[abü]{1,10}", 0..5),
            b in proptest::collection::btree_map("[ab]{1,3}", "[abü]{1,10}", 0..5),
            common in proptest::collection::btree_map("[AB]{1,3}", "[ab]{1,3}", 0..5),
        ) {
            let of = |own: &std::collections::BTreeMap<String, String>| {
                Labels::from_pairs(common.iter().chain(own).map(|(name, value)| (&**name, &**value)))
            };
            let (a, b) = (of(&a), of(&b));
            proptest::prop_assert_eq!(a.cmp(&b), a.iter().cmp(b.iter()));
            proptest::prop_assert_eq!(a.cmp(&a), Ordering::Equal);
        }
    }

    #[test]
    fn equal_text_with_other_boundaries_differs() {
        let left = Labels::from_pairs([("ab", "c")]);
        let right = Labels::from_pairs([("a", "bc")]);
        assert_ne!(left, right);
        assert_ne!(left.fingerprint(), right.fingerprint());
    }

    #[test]
    fn encoding_round_trips_and_refuses_unsorted_input() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "ü")]);
        let mut bytes = Vec::new();
        labels.encode(&mut Writer::new(&mut bytes));
        assert_eq!(Labels::fingerprint_of_encoded(&bytes), labels.fingerprint());
        let followed = [&bytes[..], &[7]].concat();
        let mut input = Reader::new(&followed);
        assert_eq!((Labels::skip(&mut input), input.rest()), (Ok(&bytes[..]), &[7u8][..]));
        assert!(Labels::skip(&mut Reader::new(&bytes[..bytes.len() - 1])).is_err());
        assert_eq!(Labels::decode_all(&bytes), Ok(labels.clone()));
        assert!(Labels::decode_all(&followed).is_err());
        assert_eq!(Labels::decode(&mut Reader::new(&bytes)), Ok(labels));
        let unsorted = [2, 1, b'b', 1, b'x', 1, b'a', 1, b'x'];
        assert!(Labels::decode(&mut Reader::new(&unsorted)).is_err());
    }
}
