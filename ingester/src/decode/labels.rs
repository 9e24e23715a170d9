//! Label sets as senders write them: unsorted, perhaps broken.

use tricord_model::{Labels, METRIC_NAME};

/// Sorts and checks the labels of a series; those without a value are taken out.
///
/// # Errors
/// A reason for people when a name is empty or given twice, or the metric name is missing.
pub fn sort_series(pairs: &mut Vec<(&str, &str)>) -> Result<(), String> {
    sort(pairs)?;
    if pairs.iter().any(|(name, _)| *name == METRIC_NAME) {
        return Ok(());
    }
    Err(format!("series {} has no metric name ({METRIC_NAME})", shown(pairs)))
}

/// Sorts and checks labels that need no metric name, such as an exemplar's.
///
/// # Errors
/// A reason for people when a name is empty or given twice.
pub fn sort(pairs: &mut Vec<(&str, &str)>) -> Result<(), String> {
    // Most senders sort, and then no name is there twice either.
    let ascends = pairs.is_sorted_by(|a, b| precedes(a.0, b.0));
    if !ascends {
        pairs.sort_unstable();
    }
    if pairs.first().is_some_and(|(name, _)| name.is_empty()) {
        return Err(format!("label with an empty name and the value {:?}", short(pairs[0].1)));
    }
    if let Some(twice) = pairs.windows(2).filter(|_| !ascends).find(|two| two[0].0 == two[1].0) {
        let metric = pairs.iter().find(|(name, _)| *name == METRIC_NAME).map_or("", |(_, value)| value);
        return Err(format!(
            "label {:?} is given twice in a series of {:?}",
            short(twice[0].0),
            short(metric)
        ));
    }
    if pairs.iter().any(|(_, value)| value.is_empty()) {
        pairs.retain(|(_, value)| !value.is_empty());
    }
    Ok(())
}

/// Whether a text comes before another one: their first bytes mostly tell.
#[inline]
fn precedes(a: &str, b: &str) -> bool {
    match (a.as_bytes().first(), b.as_bytes().first()) {
        (Some(a), Some(b)) if a != b => a < b,
        _ => a < b,
    }
}

/// [`sort_series`], as a label set.
///
/// # Errors
/// As [`sort_series`].
pub fn series_labels(pairs: &mut Vec<(&str, &str)>) -> Result<Labels, String> {
    sort_series(pairs)?;
    finish(pairs)
}

/// [`sort`], as a label set.
///
/// # Errors
/// As [`sort`].
pub fn plain_labels(pairs: &mut Vec<(&str, &str)>) -> Result<Labels, String> {
    sort(pairs)?;
    finish(pairs)
}

fn finish(pairs: &[(&str, &str)]) -> Result<Labels, String> {
    Labels::from_ascending(pairs).ok_or_else(|| "labels are not sorted".to_owned())
}

/// Sorted labels, for messages.
pub(crate) fn shown(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

/// The first characters of a text that may be long.
pub(crate) fn short(text: &str) -> &str {
    match text.char_indices().nth(80) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: Result<&[(&str, &str)], &str>) {
        let result = series_labels(&mut pairs.to_vec());
        match expected {
            Ok(expected) => assert_eq!(result, Ok(Labels::from_pairs(expected.iter().copied()))),
            Err(part) => assert!(result.clone().is_err_and(|e| e.contains(part)), "{result:?}"),
        }
    }

    #[test]
    fn unsorted_labels_are_sorted_and_broken_ones_named() {
        check(
            &[("b", "2"), ("__name__", "up"), ("a", "1")],
            Ok(&[("__name__", "up"), ("a", "1"), ("b", "2")]),
        );
        check(&[("__name__", "up"), ("a", "")], Ok(&[("__name__", "up")]));
        check(&[("a", "1")], Err("no metric name"));
        check(&[("__name__", "")], Err("no metric name"));
        check(
            &[("__name__", "up"), ("a", "1"), ("a", "2")],
            Err("\"a\" is given twice in a series of \"up\""),
        );
        check(&[("__name__", "up"), ("", "1")], Err("empty name"));
    }
}
