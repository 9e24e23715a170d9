//! What is read, and how it is refused.

use tricord_promql::ast::ExprKind;

use super::{Known, is_count_values};

pub(super) const SYNTAX: &[Known] = &[
    Known {
        name: "an empty query has no position",
        since: "2.48.0",
        note: "#12152: positions in annotations and errors; that of an empty query is unknown",
        explains: |asked| {
            asked.both_refuse(
                &["unknown position: parse error: no expression found"],
                &["1:1: parse error: no expression found"],
            )
        },
    },
    Known {
        name: "numbers with underscores",
        since: "2.54.0",
        note: "#12821: accept underscores in literal numbers; what is no number is found by the lexer",
        explains: |asked| {
            asked.both_refuse(
                &["bad number or duration syntax", "error parsing number"],
                &["bad number or duration syntax", "error parsing number", "unexpected number"],
            )
        },
    },
    Known {
        name: "numbers and durations are interchangeable",
        since: "2.54.0",
        note: "#9138: float literal numbers and durations are now interchangeable",
        explains: |asked| {
            asked.is_read_further()
                && asked.they_refuse(&[
                    "unexpected duration",
                    "unexpected number",
                    "missing unit character in duration",
                    // As a duration could not begin an argument.
                    "trailing commas",
                ])
        },
    },
    Known {
        name: "durations are expressions",
        since: "3.4.0",
        note: "#16249: allow arithmetic operations in durations; on by default since 3.14.0 (#19033)",
        explains: |asked| {
            asked.is_read_further()
                && asked.they_refuse(&[
                    "expected duration",
                    "bad duration syntax",
                    "not a valid duration string",
                    "in subquery or range, expected",
                    "in subquery selector, expected",
                ])
        },
    },
    Known {
        name: "operators that trim native histograms",
        since: "3.11.0",
        note: "commit e8bfcfcf1a: implement </ and >/ operators for trimming native histograms",
        explains: |asked| {
            let trims = ["</", ">/"].iter().any(|op| asked.query.contains(op));
            trims && asked.they_refuse(&["<op:<>", "<op:>>", "<op:/>"])
        },
    },
    Known {
        name: "what follows a duration in brackets",
        since: "3.6.0",
        note: "#16777: with step(), min() and max() of durations, only a colon is taken for a colon",
        explains: |asked| asked.both_refuse(&["expected ':'"], &["unexpected colon"]),
    },
    Known {
        name: "strings in parentheses",
        since: "3.7.0",
        note: "#16896: constant expressions are not wrapped as invariant, which a string in parentheses did not survive",
        explains: |asked| {
            asked.they_refuse(&["unexpected result in StepInvariantExpr evaluation"])
                && asked.ends_with(|kind| matches!(kind, ExprKind::String(_)))
        },
    },
    Known {
        name: "@ is printed by its sign",
        since: "3.8.0",
        note: "commit 8d4876f944: add string representation for AT token",
        explains: |asked| asked.both_refuse(&["<op:@>"], &["<Item 57385>"]),
    },
    Known {
        name: "names in quotes",
        since: "3.0.0",
        note: "UTF-8 support: metric and label names may be quoted",
        explains: |asked| {
            // Without quotes a colon is refused no longer either.
            asked.they_refuse(&["unexpected string", "unexpected metric identifier"])
                && asked.they_refuse(&["in label matching", "in grouping opts"])
        },
    },
    Known {
        name: "start(), end(), step() and range() are functions",
        since: "3.12.0",
        note: "#17877: add start(), end(), range(), and step() experimental functions",
        explains: |asked| {
            let lower: String =
                asked.query.to_ascii_lowercase().chars().filter(|c| !c.is_ascii_whitespace()).collect();
            asked.is_read_further()
                && asked.they_refuse(&["unexpected \"(\"", "unknown function with name"])
                && ["start(", "end(", "step(", "range("].iter().any(|call| lower.contains(call))
        },
    },
    Known {
        name: "patterns in errors",
        since: "2.52.0",
        note: "#13461: patterns are parsed before they are anchored, so errors show them without the anchors",
        explains: |asked| asked.both_refuse(&["error parsing regexp"], &["error parsing regexp"]),
    },
    Known {
        name: "any label name in label_replace and count_values",
        since: "3.3.0",
        note: "#15974: allow UTF-8 labels in label_replace(); 3.0.0: UTF-8 support, so in count_values",
        explains: |asked| {
            asked.they_refuse(&["invalid destination label name", "invalid source label name"])
                || asked.any(is_count_values) && asked.they_refuse(&["invalid label name"])
        },
    },
];
