//! Manager and scheduler.
