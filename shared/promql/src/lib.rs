//! PromQL: parser, typed plan and pure evaluation over columns of steps.
//!
//! Nothing here reads a clock, a file or a socket: time, samples and limits are arguments, so a data node, the proxy
//! and a test run exactly the same code.

pub mod aggregate;
pub mod ast;
pub mod eval;
pub mod format;
pub mod functions;
pub mod histogram;
pub mod json;
mod kernels;
mod lexer;
pub mod parser;
pub mod promqltest;
pub mod storage;
mod text;
mod typecheck;
pub mod value;
mod value_codec;
mod visit;
