//! From a query to fragments. Pure: no clock, no network.

pub mod explain;
pub mod promql;
pub mod pushdown;
pub mod trace;
pub mod tree;
