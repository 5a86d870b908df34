//! What `hawker login` remembers: a manager, and a token for it, in a file of the user alone.
//!
//! Invariant: the file never exists with a wider mode than 0600, and one that others may read is not used.

use super::ManagerError;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The user alone.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Where it lies instead of `$XDG_CONFIG_HOME/hawker/session.json`.
const PATH_VARIABLE: &str = "HAWKER_SESSION_FILE";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) manager: String,
    pub(crate) user: String,
    pub(crate) token: String,
    /// As the manager said it.
    #[serde(default)]
    pub(crate) expires_at: Option<String>,
}

impl Session {
    /// `None`: nobody is signed in.
    pub(crate) fn read() -> Result<Option<Self>, ManagerError> {
        read(&path()?)
    }

    pub(crate) fn keep(&self) -> Result<PathBuf, ManagerError> {
        let path = path()?;
        write(self, &path).map_err(|error| failed(&path, &error))?;
        Ok(path)
    }

    /// Whether there was one.
    pub(crate) fn forget() -> Result<bool, ManagerError> {
        let path = path()?;
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(&path, &error)),
        }
    }
}

fn path() -> Result<PathBuf, ManagerError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set(PATH_VARIABLE) {
        return Ok(path);
    }
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let config = config.ok_or_else(|| ManagerError::File {
        path: PathBuf::from("session.json"),
        detail: format!("neither {PATH_VARIABLE} nor XDG_CONFIG_HOME nor HOME is set"),
    })?;
    Ok(config.join("hawker/session.json"))
}

fn read(path: &Path) -> Result<Option<Session>, ManagerError> {
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| failed(path, &error))?,
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        let detail = format!("others may read it: chmod 600 {}, and sign in again", path.display());
        return Err(ManagerError::File { path: path.to_owned(), detail });
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(path, &error))?;
    let session = serde_json::from_str(&text).map_err(|error| ManagerError::File {
        path: path.to_owned(),
        detail: format!("{error}; `hawker login` writes it anew"),
    })?;
    Ok(Some(session))
}

fn write(session: &Session, path: &Path) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
    // Made with mode 0600 under another name; the rename replaces an older one in one step.
    let mut file =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(FILE_MODE)).tempfile_in(dir)?;
    serde_json::to_writer_pretty(&mut file, session)?;
    file.write_all(b"\n")?;
    file.persist(path)?;
    Ok(())
}

fn failed(path: &Path, error: &std::io::Error) -> ManagerError {
    ManagerError::File { path: path.to_owned(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_for_the_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/session.json");
        assert_eq!(read(&path).unwrap(), None);
        let session = Session {
            manager: "http://m:8080".to_owned(),
            user: "root".to_owned(),
            token: "secret".to_owned(),
            expires_at: None,
        };
        write(&session, &path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(read(&path).unwrap(), Some(session));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
