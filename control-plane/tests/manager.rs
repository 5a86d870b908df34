//! The manager as its users meet it: real REST and gRPC on loopback, a real database file, and the
//! program itself.

#![cfg(test)]

#[path = "manager/clusters.rs"]
mod clusters;
#[path = "manager/harness.rs"]
mod harness;
#[path = "manager/keep_alive.rs"]
mod keep_alive;
#[path = "manager/placements.rs"]
mod placements;
#[path = "manager/program.rs"]
mod program;
#[path = "manager/sign_in.rs"]
mod sign_in;
