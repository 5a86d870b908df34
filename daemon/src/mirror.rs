//! The registry mirror for the container runtime.

pub mod blobs;
