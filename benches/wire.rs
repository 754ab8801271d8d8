//! Micro-benchmarks of the wire layer.

fn main() {}
