//! Regular expressions as PromQL means them: the syntax and the error texts of Go's `regexp`, matched in linear time.
//!
//! A pattern is translated, not passed on: `\d` and its kin mean ASCII, `x{` and `[a--b]` are literal where Go takes
//! them so, and what Go refuses (`a**`, `\1`, a repeat count above 1000) is refused in its words.

mod class;
mod escape;
mod translate;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use crate::MatcherError;

/// The memory that one compiled expression may take; beyond it the expression is refused.
const SIZE_LIMIT_BYTES: usize = 4 << 20;

/// Compiles a pattern in Go's syntax, anchored at both ends; `.` matches newlines.
///
/// # Errors
/// [`MatcherError`] when the pattern does not parse or compiles to more than 4 MiB.
pub fn compile_anchored(pattern: &str) -> Result<Regex, MatcherError> {
    // Translated alone, so that an unbalanced parenthesis cannot close the anchoring group.
    compile(&format!("^(?:{})$", translate::translate(pattern)?))
}

fn compile(translated: &str) -> Result<Regex, MatcherError> {
    let refused = |error: regex_automata::meta::BuildError| {
        let message = match (error.syntax_error(), error.size_limit()) {
            (Some(regex_syntax::Error::Parse(error)), _) => error.kind().to_string(),
            (Some(regex_syntax::Error::Translate(error)), _) => error.kind().to_string(),
            (_, Some(limit)) => format!("expression compiles to more than {limit} bytes"),
            _ => error.to_string(),
        };
        MatcherError { message }
    };
    Regex::builder()
        .configure(Regex::config().nfa_size_limit(Some(SIZE_LIMIT_BYTES)))
        // `\B` in ASCII's sense may hold within a character; texts are whole ones, so nothing else is matched by that.
        .syntax(syntax::Config::new().dot_matches_new_line(true).utf8(false))
        .build(translated)
        .map_err(refused)
}

#[cfg(test)]
mod tests;
