//! What functions compute from the samples of one window: pure arithmetic without labels or steps.

pub(crate) mod calendar;
pub(crate) mod changes;
pub(crate) mod extended;
pub(crate) mod math;
pub(crate) mod natural;
pub(crate) mod over_time;
pub(crate) mod quantile;
pub(crate) mod rate;
pub(crate) mod rate_columns;
mod rate_layout;
pub(crate) mod regression;
pub(crate) mod sliding;
pub(crate) mod summation;

use std::sync::Arc;

use tricord_model::FloatHistogram;

use crate::ast::{Pos, RangeMode};
use crate::eval::EvalError;
use crate::eval::notes::Notes;
use crate::functions::Function;

/// The samples of one series in one range, floats and histograms apart, each ascending by time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) t_ms: &'a [i64],
    pub(crate) floats: &'a [f64],
    /// Start timestamps of the floats; empty where none is known.
    pub(crate) start_ms: &'a [i64],
    pub(crate) histogram_t_ms: &'a [i64],
    pub(crate) histograms: &'a [Arc<FloatHistogram>],
    /// Start timestamps of the histograms; empty where none is known.
    pub(crate) histogram_start_ms: &'a [i64],
}

impl Window<'_> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    /// Whether there are both floats and histograms.
    #[inline]
    pub(crate) fn is_mixed(&self) -> bool {
        !self.floats.is_empty() && !self.histograms.is_empty()
    }
}

/// What a kernel knows beside its window.
pub(crate) struct KernelContext<'a> {
    pub(crate) function: Function,
    /// Where the range starts (exclusive), whatever more the window holds for interpolation.
    pub(crate) start_ms: i64,
    /// Where the range ends (inclusive).
    pub(crate) end_ms: i64,
    pub(crate) range_ms: i64,
    /// The step's time, which `@` and offsets do not move.
    pub(crate) eval_ms: i64,
    pub(crate) mode: RangeMode,
    /// The scalar arguments at this step, in their order.
    pub(crate) params: [f64; 2],
    pub(crate) start_timestamps: bool,
    /// The metric's name, for notes.
    pub(crate) name: &'a str,
    /// The position of the range argument.
    pub(crate) pos: Pos,
    pub(crate) first_arg_pos: Pos,
    pub(crate) args_pos: Pos,
    pub(crate) notes: &'a mut Notes,
    /// Room for kernels that sort, kept between windows.
    pub(crate) scratch: &'a mut Vec<f64>,
}

impl KernelContext<'_> {
    pub(crate) fn mixed(&mut self) -> Option<Out> {
        self.notes.mixed_floats_histograms(self.pos, self.name);
        None
    }

    #[inline]
    pub(crate) fn range_seconds(&self) -> f64 {
        self.range_ms as f64 / 1000.0
    }
}

/// The value of a window.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    Float(f64),
    Histogram(FloatHistogram),
    /// A sample as it is.
    Shared(Arc<FloatHistogram>),
}

/// The value of a function over a window that is not empty.
pub(crate) fn apply(context: &mut KernelContext<'_>, window: &Window<'_>) -> Result<Option<Out>, EvalError> {
    use Function as F;
    Ok(match context.function {
        F::Rate => rate::extrapolated(context, window, true, true),
        F::Increase => rate::extrapolated(context, window, true, false),
        F::Delta => rate::extrapolated(context, window, false, false),
        F::Irate => rate::instant(context, window, true),
        F::Idelta => rate::instant(context, window, false),
        F::Resets => changes::resets(context, window),
        F::Changes => changes::changes(context, window),
        F::Deriv => regression::deriv(context, window),
        F::PredictLinear => regression::predict_linear(context, window),
        F::DoubleExponentialSmoothing => return regression::double_exponential_smoothing(context, window),
        F::SumOverTime => over_time::sum(context, window),
        F::AvgOverTime => over_time::avg(context, window),
        F::CountOverTime => Some(Out::Float((window.floats.len() + window.histograms.len()) as f64)),
        F::PresentOverTime => Some(Out::Float(1.0)),
        F::FirstOverTime => over_time::first(window),
        F::LastOverTime => over_time::last(window),
        F::MinOverTime | F::MaxOverTime | F::TsOfMinOverTime | F::TsOfMaxOverTime => {
            over_time::extreme(context, window)
        }
        F::TsOfFirstOverTime => over_time::time_of(window, false),
        F::TsOfLastOverTime => over_time::time_of(window, true),
        F::StddevOverTime | F::StdvarOverTime => over_time::variance(context, window),
        F::QuantileOverTime => over_time::quantile(context, window),
        F::MadOverTime => over_time::median_absolute_deviation(context, window),
        other => {
            let text = format!("function {:?} does not take a range vector", other.as_str());
            return Err(EvalError::BadData(text));
        }
    })
}
