//! The shaper under real traffic: a `hawkerd` that serves one blob at one end of a veth pair, readers at the other.
//! Its end-to-end cases (`cases`) and its benchmark (`bench`).
//!
//! Invariant: traffic stays between the two namespaces, and both go with the stand.

pub(crate) mod bench;
mod capabilities;
mod cases;
mod readers;
mod stand;

pub(crate) use cases::run;
