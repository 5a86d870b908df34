//! Hawker's node daemon as a library: everything `hawkerd` is made of. The program itself only
//! parses arguments and runs it.

pub mod config;
pub mod store;
