//! Texts that are almost queries: parsers must refuse them alike.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// What is put in by chance.
const PIECES: [&str; 44] = [
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    "=",
    "==",
    "!=",
    "=~",
    "!~",
    "+",
    "-",
    "*",
    "^",
    "%",
    "/",
    "@",
    ":",
    "\"",
    "'",
    "`",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "bool",
    "offset",
    "and",
    "or",
    "unless",
    "sum",
    "rate",
    "1",
    "5m",
    "0x1f",
    "1e3",
    ".5",
    "NaN",
    "start()",
    "#",
    "\\",
];

/// The text with one to three tokens left out, doubled, swapped or put in.
pub(super) fn mutated(rng: &mut StdRng, text: &str) -> String {
    let mut tokens = tokens(text);
    for _ in 0..rng.random_range(1..=3) {
        if tokens.is_empty() {
            break;
        }
        let at = rng.random_range(0..tokens.len());
        match rng.random_range(0..5) {
            0 => drop(tokens.remove(at)),
            1 => tokens.insert(at, tokens[at].clone()),
            2 => {
                let other = rng.random_range(0..tokens.len());
                tokens.swap(at, other);
            }
            3 => tokens.insert(at, piece_of(rng)),
            _ => tokens[at] = piece_of(rng),
        }
    }
    tokens.concat()
}

fn piece_of(rng: &mut StdRng) -> String {
    PIECES.choose(rng).map_or(String::new(), |piece| (*piece).to_owned())
}

/// Words, numbers and single other characters; together they are the text.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    for c in text.chars() {
        match tokens.last_mut() {
            Some(last) if word(c) && last.chars().all(word) => last.push(c),
            _ => tokens.push(c.to_string()),
        }
    }
    tokens
}
