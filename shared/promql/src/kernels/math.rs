//! Element-wise functions over floats.

use super::calendar::{civil_of_value, days_in_month};
use crate::ast::BinaryOp;
use crate::functions::Function;

/// The function of one float behind a PromQL function, where there is one.
pub(crate) fn elementwise(function: Function) -> Option<fn(f64) -> f64> {
    use Function as F;
    Some(match function {
        F::Abs => f64::abs,
        F::Ceil => f64::ceil,
        F::Floor => f64::floor,
        F::Exp => f64::exp,
        F::Sqrt => f64::sqrt,
        F::Ln => f64::ln,
        F::Log2 => f64::log2,
        F::Log10 => f64::log10,
        F::Sin => f64::sin,
        F::Cos => f64::cos,
        F::Tan => f64::tan,
        F::Asin => f64::asin,
        F::Acos => f64::acos,
        F::Atan => f64::atan,
        F::Sinh => f64::sinh,
        F::Cosh => f64::cosh,
        F::Tanh => f64::tanh,
        F::Asinh => f64::asinh,
        F::Acosh => f64::acosh,
        F::Atanh => f64::atanh,
        F::Rad => |v| v * std::f64::consts::PI / 180.0,
        F::Deg => |v| v * 180.0 / std::f64::consts::PI,
        F::Sgn => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return date(function),
    })
}

/// The date function of a Unix time in seconds.
fn date(function: Function) -> Option<fn(f64) -> f64> {
    use Function as F;
    Some(match function {
        F::DayOfMonth => |t| f64::from(civil_of_value(t).day),
        F::DayOfWeek => |t| f64::from(civil_of_value(t).weekday),
        F::DayOfYear => |t| f64::from(civil_of_value(t).day_of_year),
        F::DaysInMonth => |t| {
            let civil = civil_of_value(t);
            f64::from(days_in_month(civil.year, civil.month))
        },
        F::Hour => |t| f64::from(civil_of_value(t).hour),
        F::Minute => |t| f64::from(civil_of_value(t).minute),
        F::Month => |t| f64::from(civil_of_value(t).month),
        F::Year => |t| civil_of_value(t).year as f64,
        _ => return None,
    })
}

/// An arithmetic operator, or a comparison as 0 or 1.
#[inline]
pub(crate) fn scalar_operator(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        other => f64::from(u8::from(compare(other, a, b))),
    }
}

/// A comparison; false for other operators.
#[inline]
pub(crate) fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eql => a == b,
        BinaryOp::Neq => a != b,
        BinaryOp::Lss => a < b,
        BinaryOp::Lte => a <= b,
        BinaryOp::Gtr => a > b,
        BinaryOp::Gte => a >= b,
        _ => false,
    }
}
