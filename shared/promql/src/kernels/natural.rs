//! Natural order of texts: runs of digits compare as numbers.

use std::cmp::Ordering;

/// Splits into runs of digits and runs of other characters.
fn chunks(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut digits = None;
    for (at, c) in text.char_indices() {
        let is_digit = c.is_ascii_digit();
        if digits.is_some_and(|before| before != is_digit) {
            out.push(&text[start..at]);
            start = at;
        }
        digits = Some(is_digit);
    }
    if start < text.len() {
        out.push(&text[start..]);
    }
    out
}

fn compare_digits(a: &str, b: &str) -> Ordering {
    let (short_a, short_b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    short_a.len().cmp(&short_b.len()).then_with(|| short_a.cmp(short_b)).then_with(|| b.len().cmp(&a.len()))
}

/// The natural order of two texts; equal only where the texts are.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    for (x, y) in chunks(a).iter().zip(chunks(b)) {
        let numbers =
            x.starts_with(|c: char| c.is_ascii_digit()) && y.starts_with(|c: char| c.is_ascii_digit());
        let order = if numbers { compare_digits(x, y) } else { (*x).cmp(y) };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_by_value() {
        let mut texts = vec!["node10", "node2", "a", "node", "10", "9", ""];
        texts.sort_by(|a, b| compare(a, b));
        assert_eq!(texts, ["", "9", "10", "a", "node", "node2", "node10"]);
    }
}
