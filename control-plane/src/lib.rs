//! Manager and scheduler.

pub mod scheduler;
