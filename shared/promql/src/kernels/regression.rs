//! Trends: linear regression and double exponential smoothing.

use super::summation::Compensated;
use super::{KernelContext, Out, Window};
use crate::eval::EvalError;

/// Slope per second, and the value at `intercept_ms`.
fn linear_regression(t_ms: &[i64], values: &[f64], intercept_ms: i64) -> (f64, f64) {
    let (mut sum_x, mut sum_y) = (Compensated::default(), Compensated::default());
    let (mut sum_xy, mut sum_x2) = (Compensated::default(), Compensated::default());
    let first = values[0];
    for (t, y) in t_ms.iter().zip(values) {
        let x = (t - intercept_ms) as f64 / 1e3;
        sum_x.add(x);
        sum_y.add(*y);
        sum_xy.add(x * y);
        sum_x2.add(x * x);
    }
    if values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = values.len() as f64;
    let total = |sum: Compensated| sum.sum + sum.error;
    let (sum_x, sum_y, sum_xy, sum_x2) = (total(sum_x), total(sum_y), total(sum_xy), total(sum_x2));
    let covariance = sum_xy - sum_x * sum_y / n;
    let variance = sum_x2 - sum_x * sum_x / n;
    let slope = covariance / variance;
    (slope, sum_y / n - slope * sum_x / n)
}

/// Whether there are floats enough; notes histograms that are passed over.
fn enough(context: &mut KernelContext<'_>, window: &Window<'_>) -> bool {
    if window.is_mixed() {
        context.notes.histograms_ignored_in_range(context.first_arg_pos, context.name);
    }
    window.floats.len() >= 2
}

pub(crate) fn deriv(context: &mut KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    if !enough(context, window) {
        return None;
    }
    Some(Out::Float(linear_regression(window.t_ms, window.floats, window.t_ms[0]).0))
}

pub(crate) fn predict_linear(context: &mut KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    if !enough(context, window) {
        return None;
    }
    let (slope, intercept) = linear_regression(window.t_ms, window.floats, context.eval_ms);
    Some(Out::Float(slope * context.params[0] + intercept))
}

pub(crate) fn double_exponential_smoothing(
    context: &mut KernelContext<'_>,
    window: &Window<'_>,
) -> Result<Option<Out>, EvalError> {
    let [smoothing, trend] = context.params;
    for (word, short, factor) in [("smoothing", "sf", smoothing), ("trend", "tf", trend)] {
        if factor <= 0.0 || factor >= 1.0 {
            let text = format!("invalid {word} factor. Expected: 0 < {short} < 1, got: {factor:.6}");
            return Err(EvalError::Execution(text));
        }
    }
    if !enough(context, window) {
        return Ok(None);
    }
    let values = window.floats;
    let (mut previous, mut current) = (0.0, values[0]);
    let mut slope = values[1] - values[0];
    for (i, value) in values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (current - previous) + (1.0 - trend) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (current + slope);
        (previous, current) = (current, next);
    }
    Ok(Some(Out::Float(current)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found() {
        let (slope, intercept) = linear_regression(&[0, 1000, 2000], &[1.0, 3.0, 5.0], 1000);
        assert_eq!((slope, intercept), (2.0, 3.0));
        assert_eq!(linear_regression(&[0, 1], &[4.0, 4.0], 0), (0.0, 4.0));
    }
}
