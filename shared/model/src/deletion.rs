//! What a request to delete series says: which of them, and over what time.

use crate::codec::{CodecError, Reader, Writer};
use crate::{Labels, MatchOp, Matcher};

/// Samples to delete: those of series that satisfy all matchers of any selector, within a range of time.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Alternatives; within one, all matchers must hold.
    pub selectors: Vec<Vec<Matcher>>,
    /// From, in milliseconds (inclusive).
    pub start_ms: i64,
    /// To, in milliseconds (inclusive).
    pub end_ms: i64,
}

/// The layout's version.
const VERSION: u8 = 1;
const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];

impl Deletion {
    /// The most bytes that one takes when it is encoded.
    pub const MAX_BYTES: usize = 64 << 10;

    /// Whether a series is meant.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let holds = |matcher: &Matcher| matcher.matches(labels.get(&matcher.name).unwrap_or(""));
        self.selectors.iter().any(|selector| selector.iter().all(holds))
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Writer<'_>) {
        out.u8(VERSION);
        out.i64(self.start_ms);
        out.i64(self.end_ms);
        out.u64(self.selectors.len() as u64);
        for selector in &self.selectors {
            out.u64(selector.len() as u64);
            for matcher in selector {
                out.str(&matcher.name);
                out.u8(OPS.iter().position(|op| *op == matcher.op).unwrap_or(0) as u8);
                out.str(&matcher.value);
            }
        }
    }

    /// Reads what [`Deletion::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are malformed, of a newer version, or name a regular expression that is none.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        if input.u8()? != VERSION {
            return Err(CodecError::Invalid("a deletion has an unknown version: it may be of a newer build"));
        }
        let (start_ms, end_ms) = (input.i64()?, input.i64()?);
        let mut selectors = Vec::new();
        for _ in 0..input.count(1)? {
            let mut selector = Vec::new();
            for _ in 0..input.count(3)? {
                let name = input.str()?;
                let op = OPS.get(usize::from(input.u8()?)).copied();
                let op = op.ok_or(CodecError::Invalid("a matcher has an unknown operator"))?;
                let matcher = Matcher::new(name, op, input.str()?);
                selector
                    .push(matcher.map_err(|_| CodecError::Invalid("a matcher has no regular expression"))?);
            }
            selectors.push(selector);
        }
        Ok(Self { selectors, start_ms, end_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Deletion {
        let matcher = |name: &str, op, value: &str| Matcher::new(name, op, value).unwrap();
        let selectors = vec![
            vec![matcher("job", MatchOp::Equal, "a"), matcher("code", MatchOp::NotRegex, "2..")],
            vec![matcher("__name__", MatchOp::Regex, "up|down"), matcher("x", MatchOp::NotEqual, "")],
        ];
        Deletion { selectors, start_ms: -5, end_ms: 1_700_000_000_000 }
    }

    fn encoded(deletion: &Deletion) -> Vec<u8> {
        let mut bytes = Vec::new();
        deletion.encode(&mut Writer::new(&mut bytes));
        bytes
    }

    #[test]
    fn a_deletion_comes_back_as_it_was() {
        let bytes = encoded(&example());
        let mut input = Reader::new(&bytes);
        let back = Deletion::decode(&mut input).unwrap();
        assert!(input.is_empty());
        assert_eq!((back.start_ms, back.end_ms, encoded(&back)), (-5, 1_700_000_000_000, bytes.clone()));
        for (labels, expected) in [
            (Labels::from_pairs([("job", "a"), ("code", "500")]), true),
            (Labels::from_pairs([("job", "a"), ("code", "200")]), false),
            (Labels::from_pairs([("__name__", "up"), ("x", "1")]), true),
            (Labels::from_pairs([("__name__", "up")]), false),
        ] {
            assert_eq!(back.matches(&labels), expected, "{labels}");
        }
    }

    #[test]
    fn every_cut_is_noticed_and_no_damage_is_a_panic() {
        let bytes = encoded(&example());
        for at in 0..bytes.len() {
            assert!(Deletion::decode(&mut Reader::new(&bytes[..at])).is_err(), "cut at {at}");
            for bits in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= bits;
                let _ = Deletion::decode(&mut Reader::new(&damaged));
            }
        }
    }
}
