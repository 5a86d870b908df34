//! What one runtime's planner decided: the texts its files shall have, what makes them take effect, and what
//! a person should know.
//!
//! Invariant: a [`Plan`] says what files shall hold, not how they get there; the same plan applied twice is
//! the same files.

use crate::files::FilesError;
use crate::wanted::Runtime;
use std::path::PathBuf;

/// When a changed file counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// With the next pull.
    AtOnce,
    /// After the runtime read its files again.
    Reload,
    /// After the runtime's restart.
    Restart,
}

/// How to take Hawker out of a file that somebody else has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Lines between two marks.
    Marked,
    /// Endpoints in `config.toml`; a `config_path` stays, it harms nobody.
    ContainerdConfig,
    /// An element of `registry-mirrors`.
    DockerDaemon,
}

/// One file as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub path: PathBuf,
    pub text: String,
    pub kind: Kind,
    /// Which runtimes read it, and when.
    pub readers: Vec<(Runtime, Effect)>,
    /// What is changed, in a few words.
    pub what: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub files: Vec<Desired>,
    /// Whole sentences, each about one thing that was left as it is or that needs a person.
    pub notices: Vec<String>,
}

impl Plan {
    /// Both together; a file that both want the same way is listed once, with both readers.
    ///
    /// # Errors
    /// [`PlanError::Conflict`] where they want it differently.
    pub fn merge(mut self, other: Self) -> Result<Self, PlanError> {
        for desired in other.files {
            match self.files.iter_mut().find(|file| file.path == desired.path) {
                None => self.files.push(desired),
                Some(same) if same.text == desired.text => same.readers.extend(desired.readers),
                Some(_) => return Err(PlanError::Conflict { path: desired.path }),
            }
        }
        self.notices.extend(other.notices);
        Ok(self)
    }
}

/// Why a file cannot be planned. Each names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("{path}:{line}: not valid {format}, left as it is: {message}", path = .path.display())]
    Syntax { path: PathBuf, line: usize, format: &'static str, message: String },
    #[error("{path}:{line}: {problem}", path = .path.display())]
    Shape { path: PathBuf, line: usize, problem: String },
    #[error("two runtimes want {path} differently", path = .path.display())]
    Conflict { path: PathBuf },
}
