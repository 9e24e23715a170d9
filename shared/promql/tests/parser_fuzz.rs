//! Broken, spliced and doubled queries: the parser never panics, names places inside the text, reads what it prints,
//! and agrees with the parser of another project wherever that one reads a text.
//!
//! `FUZZ_TEXTS` sets how many texts are made, `FUZZ_SEED` where they begin; the same seed makes the same texts.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test, with figures for its reader"
)]

use std::cell::Cell;
use std::collections::BTreeMap;

use tricord_promql::ast::{Duration, Expr, ExprKind};
use tricord_promql::format::pretty;
use tricord_promql::json::to_json;
use tricord_promql::parser::{ParserOptions, parse, parse_selector};

/// Texts when nothing else is said.
const TEXTS: u64 = 60_000;

/// What texts are made of: every rule of the grammar is in one of them.
const CORPUS: &[&str] = &[
    "up",
    "a:b:c{job=\"x\",le!='1',n=~`a.*`,m!~\"[x-z]+\",}",
    "{__name__=~\"node_.+\",\"quoted.label\"='v'}",
    "{\"my.metric\", a!=\"\"}",
    "sum by (a, b) (rate(http_requests_total{code=~\"5..\"}[5m]))",
    "sum(x) without (instance)",
    "avg without () (x)",
    "topk(3, count by (a) (x))",
    "quantile(0.9, x) by (\"a.b\")",
    "count_values(\"version\", build)",
    "limitk(2, x)",
    "limit_ratio(-0.5, x)",
    "histogram_quantile(0.99, sum by (le) (rate(h_bucket[10m] offset 1h)))",
    "label_replace(x, \"dst\", \"$1-$2\", \"src\", \"(.*):(.*)\")",
    "label_join(x, 'dst', ',', 'a', 'b')",
    "a + b * c ^ d ^ e % f - -g",
    "-a ^ 2 == bool 1",
    "a / on (x, y) group_left (z) b",
    "a * ignoring (x) group_right b",
    "a and on () b or c unless ignoring (d) e",
    "a > bool b != c",
    "a atan2 b",
    "a </ 0.5 >/ 0.1",
    "a + fill (0) b",
    "a + on (x) fill_left (1) fill_right (-1) b",
    "x offset 5m",
    "x offset -1h30m @ 1609746000.5",
    "x[5m] @ start() offset 1w",
    "max_over_time(rate(x[5m])[1h:1m] @ end())",
    "deriv(x[1h:] offset 1y2d)",
    "x[5m + 1m] offset (step() * 2)",
    "x[min_of(step(), 1h):max_of(range(), 10)]",
    "rate(x[5m] anchored) + delta(x[5m] smoothed)",
    "info(x, {a=\"b\"})",
    "1 + 0x1F - 1e-3 * .5 / 5. % 1_000 + Inf - NaN + 1h30m5ms",
    "time() - start() + end() + step() + range() + pi()",
    "\"a string\\n\\x41\\u00e9\\\"\"",
    "'single \\' quoted'",
    "`raw \\`",
    "((x))",
    "# a comment\nx # another\n+ y",
    "sum(sum(sum(sum(sum(x)))))",
    "absent(x{a=\"b\"}) or vector(1)",
    "sort_desc(clamp(x, 0, 1))",
    "by + offset + sum{bool=\"a\"}",
    "round(x, 0.1) <= 3",
    "+x - +1",
    "predict_linear(x[1h], 4 * 3600) < 0",
];

/// What is put in between.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "=",
    "=~",
    "!~",
    "!=",
    "==",
    "<",
    ">=",
    "</",
    ">/",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "@",
    "\"",
    "'",
    "`",
    "\\",
    "\\x",
    "#",
    "\n",
    "\r",
    "\t",
    " ",
    "0",
    "1",
    "5m",
    "1h30m",
    "0x",
    "1e",
    "1e+",
    ".",
    "_",
    "1_",
    "Inf",
    "nan",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "and",
    "or",
    "unless",
    "atan2",
    "fill",
    "anchored",
    "start()",
    "end",
    "step()",
    "é",
    "\u{0}",
    "\u{feff}",
    "😀",
    "sum",
    "rate",
    "x",
    "\\u12",
    "\\400",
    "$",
    "~",
    "!",
    ";",
    "&",
    "|",
    "99999999999999999999",
    "1e999",
    "9223372036854775808y",
];

/// SplitMix64: what is needed here is that a seed says everything.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pick(&mut self, list: &[&'static str]) -> &'static str {
        list[self.below(list.len())]
    }

    /// A place between two characters.
    fn place(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn span(&mut self, text: &str) -> std::ops::Range<usize> {
        let (a, b) = (self.place(text), self.place(text));
        a.min(b)..a.max(b).min(a.min(b) + 24).max(a.min(b))
    }

    /// One to four changes of a text from the corpus.
    fn text(&mut self) -> String {
        let mut text = self.pick(CORPUS).to_owned();
        for _ in 0..=self.below(4) {
            let span = self.span(&text);
            let span = if text.is_char_boundary(span.end) { span } else { span.start..span.start };
            match self.below(7) {
                0 => text.replace_range(span, ""),
                1 => text.insert_str(span.start, self.pick(PIECES)),
                2 => {
                    let doubled = text[span.clone()].to_owned();
                    text.insert_str(span.start, &doubled);
                }
                3 => text.replace_range(span, self.pick(PIECES)),
                4 => {
                    let other = self.pick(CORPUS);
                    let from = self.place(other);
                    text.replace_range(span.start.., &other[from..]);
                }
                5 => text = format!("{}({text})", self.pick(&["sum", "rate", "abs", "", "-", "scalar"])),
                _ => {
                    let mut bytes = std::mem::take(&mut text).into_bytes();
                    if !bytes.is_empty() {
                        let at = self.below(bytes.len());
                        bytes[at] = self.next() as u8;
                    }
                    text = String::from_utf8_lossy(&bytes).into_owned();
                }
            }
        }
        text
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() {
        otherwise
    } else {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is wanted"))
    }
}

fn options(bits: u64) -> ParserOptions {
    ParserOptions {
        experimental_functions: bits & 1 == 0,
        duration_expressions: bits & 2 == 0,
        extended_range_modifiers: bits & 4 == 0,
        binop_fill: bits & 8 == 0,
    }
}

/// What must hold for any text; whether it was read.
fn check(text: &str) -> bool {
    let _ = parse_selector(text);
    match parse(text, &ParserOptions::default()) {
        Ok(expr) => {
            for printed in [expr.to_string(), pretty(&expr)] {
                let again = parse(&printed, &ParserOptions::default());
                assert_eq!(again.as_ref(), Ok(&expr), "{text:?} is printed as {printed:?}");
            }
            expr.walk(&mut |part| {
                let (start, end) = (part.pos.start as usize, part.pos.end as usize);
                assert!(start <= end && text.get(start..end).is_some(), "{text:?}: place {start}..{end}");
            });
            assert!(to_json(&expr).is_object(), "{text:?}");
            true
        }
        Err(error) => {
            let (start, end) = (error.pos.start as usize, error.pos.end as usize);
            assert!(start <= end && end <= text.len(), "{text:?}: place {start}..{end} of {error}");
            assert!(!error.message.is_empty(), "{text:?}");
            if let Some((line, column)) = error.place {
                assert!(line as usize <= text.matches('\n').count() + 1 && column >= 1, "{text:?}: {error}");
            }
            false
        }
    }
}

#[test]
fn texts_made_by_chance_are_read_or_refused() {
    let (seed, texts) = (setting("FUZZ_SEED", 1), setting("FUZZ_TEXTS", TEXTS));
    let mut random = Random(seed);
    let mut read = 0;
    for _ in 0..texts {
        let text = random.text();
        read += u64::from(check(&text));
        // With parts switched off it is enough that nothing breaks.
        let _ = parse(&text, &options(random.next()));
    }
    println!("seed {seed}: {texts} texts, {read} of them queries");
    assert!(read > texts / 20, "too few texts are queries: the corpus is off");
}

#[test]
fn the_corpus_is_read() {
    for text in CORPUS {
        assert!(parse(text, &ParserOptions::default()).is_ok(), "{text}");
        check(text);
    }
}

/// How the two parsers take a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Agreement {
    BothRefuse,
    OnlyOurs,
    Same,
    /// The same, but for what it is known to read in another way.
    Alike,
    /// It is known that they refuse too little.
    Lenient,
    OnlyTheirs,
    AnotherTree,
}

/// What the other parser lets through and Prometheus does not: a part of our refusal, a part of the text that must be
/// there too, and why.
const LENIENT: [(&str, &str, &str); 15] = [
    ("unary expression only allowed on expressions of type", "", "a sign before a text"),
    ("expected label selectors only", "info", "`info(x, name{…})`"),
    ("unexpected character: '\\f'", "\u{c}", "form feeds are no blanks"),
    ("unexpected character inside braces: '\\f'", "\u{c}", "form feeds are no blanks"),
    ("value out of range", "", "1e999 is no infinity"),
    ("timestamp out of bounds for @ modifier", "@", "beyond 64 bits of milliseconds"),
    ("duration out of range", "", "beyond 63 bits of nanoseconds"),
    ("duration must be greater than 0", "[", "a range or a step of nothing"),
    (
        "filling in missing series only allowed between instant vectors",
        "fill",
        "a scalar has no missing series: Prometheus checks it with the matching labels",
    ),
    (
        "filling in missing series not allowed for set operators",
        "fill",
        "`and`, `or` and `unless` fill nothing",
    ),
    ("error parsing regexp: invalid nested repetition operator", "~", "`a**` is no expression of RE2"),
    ("error parsing regexp: invalid character class range", "~", "`[x--]` is no expression of RE2"),
    ("expected type scalar in aggregation parameter", "limit", "`limitk(x, y)` and `limit_ratio(x, y)`"),
    ("invalid label name for grouping: \"\"", "\"", "a label with an empty name"),
    (
        "invalid UTF-8 in string",
        "\\",
        "our own bound: no label has such a value, and no text of an answer may",
    ),
];

/// What the other parser says, or `None` where it refuses or panics, as it does for very long durations.
fn theirs(text: &str) -> Option<promql_parser::parser::Expr> {
    MAY_PANIC.set(true);
    let read = std::panic::catch_unwind(|| promql_parser::parser::parse(text).ok()).ok().flatten();
    MAY_PANIC.set(false);
    read
}

thread_local! {
    /// Whether a panic of this thread is expected, and need not be shown.
    static MAY_PANIC: Cell<bool> = const { Cell::new(false) };
}

/// Leaves the panics of the other parser out of the test's output.
fn hide_their_panics() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !MAY_PANIC.get() {
            shown(info);
        }
    }));
}

fn agreement(text: &str) -> Agreement {
    match (parse(text, &ParserOptions::default()), theirs(text)) {
        (Err(_), None) => Agreement::BothRefuse,
        (Ok(_), None) => Agreement::OnlyOurs,
        (Err(error), Some(_)) => {
            let lower = text.to_ascii_lowercase();
            let known = |(message, part, _): &(&str, &str, &str)| {
                error.message.contains(message) && lower.contains(part)
            };
            if LENIENT.iter().any(known) { Agreement::Lenient } else { Agreement::OnlyTheirs }
        }
        // Both texts are read by the same parser, as each prints floats in its own way.
        (Ok(expr), Some(read)) => match theirs(&expr.to_string()) {
            Some(printed) if printed.to_string() == read.to_string() => Agreement::Same,
            Some(printed) if alike(text, &expr, printed.to_string(), read.to_string()) => Agreement::Alike,
            _ => Agreement::AnotherTree,
        },
    }
}

/// Whether two prints of the other parser, of our print and of the text, differ only by what it is known to do in
/// another way than Prometheus.
fn alike(text: &str, expr: &Expr, mut ours: String, mut read: String) -> bool {
    let mut drop = |part: &str| {
        ours = ours.replace(part, "");
        read = read.replace(part, "");
    };
    // It prints offsets of nothing.
    drop(" offset 0s");
    drop(" offset -0s");
    // Go leaves carriage returns out of raw strings.
    if text.contains('`') && text.contains('\r') {
        drop("\\r");
    }
    let (mut scalar_side, mut long) = (false, false);
    expr.walk(&mut |part| match &part.kind {
        ExprKind::Binary(binary) => scalar_side |= binary.matching.is_none(),
        ExprKind::VectorSelector(selector) => long |= is_long(&selector.offset),
        ExprKind::MatrixSelector(matrix) => {
            long |= is_long(&matrix.selector.offset) || is_long(&matrix.range)
        }
        ExprKind::Subquery(subquery) => long |= is_long(&subquery.offset) || is_long(&subquery.range),
        _ => {}
    });
    // An operator with a scalar side has no matching, so nothing is left of an `on ()`.
    if scalar_side {
        drop(" on ()");
        drop(" ignoring ()");
    }
    // It cuts milliseconds off a float of nanoseconds, as Prometheus does; what is written in whole milliseconds stays
    // so here, so that it can be printed and read again.
    ours == read || (long && text.contains('.') && without_ms(&ours) == without_ms(&read))
}

/// Whether a duration has more nanoseconds than a float tells one from the next.
fn is_long(duration: &Duration) -> bool {
    matches!(duration, Duration::Constant(ms) if ms.unsigned_abs() > (1 << 53) / 1_000_000)
}

/// A text without `123ms` and the like.
fn without_ms(text: &str) -> String {
    let Some((first, last)) = text.rsplit_once("ms") else { return text.to_owned() };
    let bare = first.split("ms").map(|part| part.trim_end_matches(|c: char| c.is_ascii_digit()));
    bare.collect::<String>() + last
}

#[test]
fn another_parser_agrees_wherever_it_reads() {
    hide_their_panics();
    let (seed, texts) = (setting("FUZZ_SEED", 1), setting("FUZZ_TEXTS", TEXTS) / 4);
    let mut random = Random(seed ^ 0xa9ee);
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    for _ in 0..texts {
        let text = random.text();
        let found = agreement(&text);
        *counts.entry(found).or_insert(0) += 1;
        if found >= Agreement::OnlyTheirs {
            wrong.push((found, text));
        }
    }
    println!("seed {seed}: {counts:?}");
    for (found, text) in wrong.iter().take(40) {
        println!(
            "{found:?}: {text:?}\n  ours   {:?}\n  theirs {:?}",
            parse(text, &ParserOptions::default()).map(|e| e.to_string()).map_err(|e| e.to_string()),
            theirs(text).map(|e| e.to_string())
        );
    }
    assert!(wrong.is_empty(), "{} texts are not read as by promql-parser", wrong.len());
}
