//! The built program, run as a user would: what goes in comes out, and nothing stays behind.
//!
//! The kernel is the one that `SOFT_ROCE_KERNEL` names.

// bed: long host

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod artifacts;
mod causes;
mod debian_programs;
mod ends;
mod isolation;
mod kernel;
mod machine;
mod nested_cargo;
mod program;
mod streams;
mod stress;
mod support;
mod target;
