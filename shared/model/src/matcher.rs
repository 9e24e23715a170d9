//! Label matchers, as in `{job="api", code=~"5.."}`.

use std::fmt;
use std::sync::Arc;

use regex_automata::meta::Regex;
use serde::{Deserialize, Serialize};

use crate::regexp::compile_anchored;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MatchOp {
    /// `=`
    #[serde(rename = "=")]
    Equal,
    /// `!=`
    #[serde(rename = "!=")]
    NotEqual,
    /// `=~`
    #[serde(rename = "=~")]
    Regex,
    /// `!~`
    #[serde(rename = "!~")]
    NotRegex,
}

impl MatchOp {
    /// The operator's text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// Why a matcher's regular expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {message}")]
pub struct MatcherError {
    /// What is wrong, in the words of Go's `regexp`.
    pub message: String,
}

/// A condition on one label; a label that a series lacks counts as empty.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "RawMatcher", into = "RawMatcher")]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// The comparison.
    pub op: MatchOp,
    /// The value, or the regular expression as written.
    pub value: String,
    regex: Option<Arc<Regex>>,
}

#[derive(Serialize, Deserialize)]
struct RawMatcher {
    name: String,
    op: MatchOp,
    value: String,
}

impl Matcher {
    /// A matcher; regular expressions are anchored at both ends, and `.` matches newlines, as in Prometheus.
    ///
    /// # Errors
    /// [`MatcherError`] when the regular expression does not parse or compiles to more than 4 MiB.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, MatcherError> {
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(compile_anchored(value)?)),
        };
        Ok(Self { name: name.to_owned(), op, value: value.to_owned(), regex })
    }

    /// An equality matcher, which cannot fail.
    #[must_use]
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), op: MatchOp::Equal, value: value.to_owned(), regex: None }
    }

    /// Whether a label's value (empty where the series lacks the label) satisfies the matcher.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let found = self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.op {
            MatchOp::Equal => self.value == value,
            MatchOp::NotEqual => self.value != value,
            MatchOp::Regex => found,
            MatchOp::NotRegex => !found,
        }
    }

    /// Whether series without the label satisfy the matcher.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }
}

impl TryFrom<RawMatcher> for Matcher {
    type Error = MatcherError;

    fn try_from(raw: RawMatcher) -> Result<Self, MatcherError> {
        Self::new(&raw.name, raw.op, &raw.value)
    }
}

impl From<Matcher> for RawMatcher {
    fn from(matcher: Matcher) -> Self {
        Self { name: matcher.name, op: matcher.op, value: matcher.value }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(op: MatchOp, pattern: &str, value: &str, expected: bool) {
        assert_eq!(Matcher::new("l", op, pattern).unwrap().matches(value), expected);
    }

    #[test]
    fn regular_expressions_are_anchored() {
        check(MatchOp::Regex, "a|b", "ab", false);
        check(MatchOp::Regex, "a.c", "a\nc", true);
        check(MatchOp::NotRegex, "5..", "500", false);
        check(MatchOp::Regex, "", "", true);
    }

    #[test]
    fn a_pattern_cannot_break_out_of_its_anchors() {
        assert!(Matcher::new("l", MatchOp::Regex, "a)|(b").is_err());
    }

    #[test]
    fn an_expression_that_explodes_is_refused() {
        assert!(Matcher::new("l", MatchOp::Regex, "((((a{1000}){1000}){1000}){1000})").is_err());
    }
}
