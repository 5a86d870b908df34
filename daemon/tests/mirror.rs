//! The mirror as a runtime meets it: over a socket, with a table for the swarm and scripted origins.
#![expect(clippy::unwrap_used, reason = "test code may panic")]

#[path = "mirror/access.rs"]
mod access;
#[path = "mirror/content.rs"]
mod content;
#[path = "mirror/lab.rs"]
mod lab;
#[path = "mirror/ranges.rs"]
mod ranges;
#[path = "mirror/refusals.rs"]
mod refusals;
#[path = "origin/script.rs"]
mod script;
#[path = "mirror/table.rs"]
mod table;
#[path = "mirror/through.rs"]
mod through;
