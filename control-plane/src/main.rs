//! Manager and scheduler.
fn main() {}
