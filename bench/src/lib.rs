//! Benchmarks: what they measure and how figures become results.
