//! Durations and times of a query in milliseconds, and the grids of subqueries.

use super::EvalError;
use super::EvalOptions;
use crate::ast::{AtModifier, BinaryOp, Duration, DurationExpr, Subquery, UnaryOp};
use crate::value::Grid;

/// A duration in milliseconds, with `step()` and `range()` of the whole query.
///
/// # Errors
/// [`EvalError::BadData`] where it is no number, out of range, or not above zero while `negative` is not allowed.
pub fn resolve_duration_ms(
    duration: &Duration,
    negative: bool,
    options: &EvalOptions,
) -> Result<i64, EvalError> {
    let Duration::Expr(expr) = duration else {
        let Duration::Constant(ms) = duration else { return Ok(0) };
        return Ok(*ms);
    };
    let bad = |text: &str| Err(EvalError::BadData(text.to_owned()));
    let seconds = duration_seconds(expr, options)?;
    if !seconds.is_finite() {
        return bad("duration is NaN or infinite");
    }
    if seconds <= 0.0 && !negative {
        return bad("duration must be greater than 0");
    }
    if seconds.abs() > 9_223_372_036.0 {
        return bad("duration is out of range");
    }
    Ok((seconds * 1000.0) as i64)
}

fn duration_seconds(expr: &DurationExpr, options: &EvalOptions) -> Result<f64, EvalError> {
    let query = options.query;
    Ok(match expr {
        DurationExpr::Number(number) => number.value,
        DurationExpr::Step => step_seconds(query),
        DurationExpr::Range => (query.end_ms - query.start_ms) as f64 / 1000.0,
        DurationExpr::MinOf(a, b) => go_min(duration_seconds(a, options)?, duration_seconds(b, options)?),
        DurationExpr::MaxOf(a, b) => go_max(duration_seconds(a, options)?, duration_seconds(b, options)?),
        DurationExpr::Unary(UnaryOp::Plus, a) | DurationExpr::Paren(a) => duration_seconds(a, options)?,
        DurationExpr::Unary(UnaryOp::Minus, a) => -duration_seconds(a, options)?,
        DurationExpr::Binary(op, a, b) => {
            let (a, b) = (duration_seconds(a, options)?, duration_seconds(b, options)?);
            match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                BinaryOp::Div if b == 0.0 => return Err(EvalError::BadData("division by zero".to_owned())),
                BinaryOp::Div => a / b,
                BinaryOp::Mod if b == 0.0 => return Err(EvalError::BadData("modulo by zero".to_owned())),
                BinaryOp::Mod => a % b,
                BinaryOp::Pow => a.powf(b),
                other => {
                    let text = format!("unexpected duration expression operator {:?}", other.as_str());
                    return Err(EvalError::BadData(text));
                }
            }
        }
    })
}

/// The smaller of two, as Go's `math.Min`: negative infinity before NaN, NaN before numbers, -0 before 0.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    match (a, b) {
        _ if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY => f64::NEG_INFINITY,
        _ if a.is_nan() || b.is_nan() => f64::NAN,
        (0.0, 0.0) => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => a.min(b),
    }
}

/// The larger of two, as Go's `math.Max`: infinity before NaN, NaN before numbers, 0 before -0.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    -go_min(-a, -b)
}

/// `step()`: zero for instant queries.
pub(super) fn step_seconds(query: Grid) -> f64 {
    if query.start_ms == query.end_ms { 0.0 } else { query.step_ms as f64 / 1000.0 }
}

/// The time that an `@` names, in milliseconds.
pub(super) fn at_ms(at: Option<AtModifier>, options: &EvalOptions) -> Option<i64> {
    at.map(|at| match at {
        AtModifier::Time(t_ms) => t_ms,
        AtModifier::Start => options.query.start_ms,
        AtModifier::End => options.query.end_ms,
    })
}

/// The grid on which a subquery's body is evaluated when the subquery itself is evaluated on `outer`: steps lie on
/// multiples of the subquery's step, after the start of the first range and up to the end of the last one.
///
/// # Errors
/// [`EvalError::BadData`] where one of its durations is wrong.
pub fn subquery_grid(subquery: &Subquery, outer: Grid, options: &EvalOptions) -> Result<Grid, EvalError> {
    let range_ms = resolve_duration_ms(&subquery.range, false, options)?;
    let offset_ms = resolve_duration_ms(&subquery.offset, true, options)?;
    let step_ms = match &subquery.step {
        Some(step) => resolve_duration_ms(step, false, options)?,
        None => options.default_subquery_step_ms,
    };
    let step_ms = step_ms.max(1);
    let last = outer.time(outer.steps().saturating_sub(1));
    let (first, last) = match at_ms(subquery.at, options) {
        Some(t_ms) => (t_ms, t_ms),
        None => (outer.start_ms, last),
    };
    let after = first.saturating_sub(offset_ms).saturating_sub(range_ms);
    let mut start_ms = after / step_ms * step_ms;
    if start_ms <= after {
        start_ms += step_ms;
    }
    Ok(Grid { start_ms, end_ms: last.saturating_sub(offset_ms), step_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::{Expr, ExprKind, NumberLiteral, Pos};

    fn subquery(range_ms: i64, step_ms: i64) -> Subquery {
        let number = ExprKind::Number(NumberLiteral { value: 1.0, duration: false });
        Subquery {
            expr: Expr { pos: Pos::default(), kind: number },
            range: Duration::Constant(range_ms),
            step: Some(Duration::Constant(step_ms)),
            offset: Duration::Constant(0),
            at: None,
        }
    }

    #[test]
    fn a_subquery_has_aligned_steps_and_an_open_start() {
        let options = EvalOptions::new(Grid::instant(100));
        let grid = subquery_grid(&subquery(40, 20), Grid::instant(100), &options).unwrap();
        assert_eq!((grid.start_ms, grid.end_ms, grid.steps()), (80, 100, 2));
        let grid = subquery_grid(&subquery(40, 20), Grid::instant(-95), &options).unwrap();
        assert_eq!((grid.start_ms, grid.end_ms), (-120, -95));
    }

    #[test]
    fn step_is_that_of_the_query() {
        let options = EvalOptions::new(Grid { start_ms: 0, end_ms: 60_000, step_ms: 15_000 });
        let twice = DurationExpr::Binary(
            BinaryOp::Mul,
            Box::new(DurationExpr::Step),
            Box::new(DurationExpr::Number(NumberLiteral { value: 2.0, duration: false })),
        );
        let duration = Duration::Expr(Box::new(twice));
        assert_eq!(resolve_duration_ms(&duration, false, &options), Ok(30_000));
        let options = EvalOptions::new(Grid::instant(5));
        assert!(resolve_duration_ms(&duration, false, &options).is_err());
    }
}
