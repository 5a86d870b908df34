//! The manager as its users meet it: real REST and gRPC on loopback, a real database file, and the
//! program itself.

#![cfg(test)]

#[path = "manager/bandwidth.rs"]
mod bandwidth;
#[path = "manager/clusters.rs"]
mod clusters;
#[path = "manager/console.rs"]
mod console;
#[path = "manager/harness.rs"]
mod harness;
#[path = "manager/jobs.rs"]
mod jobs;
#[path = "manager/join.rs"]
mod join;
#[path = "manager/keep_alive.rs"]
mod keep_alive;
#[path = "manager/oidc.rs"]
mod oidc;
#[path = "manager/people.rs"]
mod people;
#[path = "manager/placements.rs"]
mod placements;
#[path = "manager/program.rs"]
mod program;
#[path = "manager/rest.rs"]
mod rest;
#[path = "manager/route_walk.rs"]
mod route_walk;
#[path = "support/schema.rs"]
mod schema;
#[path = "manager/sessions.rs"]
mod sessions;
#[path = "manager/several.rs"]
mod several;
#[path = "manager/sign_in.rs"]
mod sign_in;
