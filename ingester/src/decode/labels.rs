//! Label sets as senders write them: unsorted, perhaps broken.

use tricord_model::{Labels, METRIC_NAME};

/// Sorts and checks the labels of a series.
///
/// # Errors
/// A reason for people when a name is empty or given twice, or the metric name is missing.
pub fn series_labels<'a>(pairs: &mut Vec<(&'a str, &'a str)>) -> Result<Labels, String> {
    let labels = plain_labels(pairs)?;
    if labels.name().is_empty() {
        return Err(format!("series {labels} has no metric name ({METRIC_NAME})"));
    }
    Ok(labels)
}

/// Sorts and checks labels that need no metric name, such as an exemplar's.
///
/// # Errors
/// A reason for people when a name is empty or given twice.
pub fn plain_labels<'a>(pairs: &mut Vec<(&'a str, &'a str)>) -> Result<Labels, String> {
    if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        pairs.sort_unstable();
    }
    if pairs.first().is_some_and(|(name, _)| name.is_empty()) {
        return Err(format!("label with an empty name and the value {:?}", short(pairs[0].1)));
    }
    if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
        let metric = pairs.iter().find(|(name, _)| *name == METRIC_NAME).map_or("", |(_, value)| value);
        return Err(format!(
            "label {:?} is given twice in a series of {:?}",
            short(twice[0].0),
            short(metric)
        ));
    }
    pairs.retain(|(_, value)| !value.is_empty());
    Labels::from_ascending(pairs).ok_or_else(|| "labels are not sorted".to_owned())
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
