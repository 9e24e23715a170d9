//! Stories through real processes, and rules about the repository itself. One module per story.

mod layering;
mod single_process;
mod starting;
