//! Puts partials together. Pure: the same partials in any order give the same answer to the bit.

pub mod lists;
pub mod promql;
pub mod trace;
