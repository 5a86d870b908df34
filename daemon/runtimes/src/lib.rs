//! Container runtimes as clients of the mirror: what must stand in their files so that they use it, how that
//! is written and taken back ([`init`]), and why it is not used where it is not ([`doctor`]).
//!
//! One module a runtime ([`containerd`], [`registries_conf`] for CRI-O and podman, [`docker`]), each a
//! function from the files found and the settings wanted to a [`plan::Plan`]. Only `disk`, `apply` and
//! the doctor's probes touch the machine.
//!
//! Invariant: what a runtime's file held before is there again, byte for byte, after `--revert`; and nothing
//! in it that Hawker did not write changes its meaning.

mod apply;
pub mod containerd;
mod detect;
mod disk;
pub mod docker;
pub mod doctor;
mod files;
pub mod init;
pub mod plan;
mod process;
pub mod registries_conf;
pub mod settings;
mod state;
mod toml_text;
pub mod wanted;

pub use doctor::{DoctorOptions, Report, doctor};
pub use files::{Files, FilesError, Memory};
pub use init::{InitError, InitOptions, Outcome, init};
pub use plan::{Effect, Plan, PlanError};
pub use settings::DaemonSettings;
pub use wanted::{Registry, Runtime, Version, Wanted};
