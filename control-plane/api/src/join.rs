//! The join token: what a manager may ask of whoever registers as a daemon or as a scheduler.
//!
//! A file has several, one a line. The manager takes each of them, a program sends the first and, where that is refused, the next: so
//! one is replaced by another without a gap. It is no identity: all who have it are alike.
//!
//! Invariant: no message, error or debug output has a token in it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Key of the manager's own section and of `daemon.yaml`.
pub const MANAGER_KEY: &str = "manager.joinTokenFile";
/// Key of a scheduler.
pub const SCHEDULER_KEY: &str = "scheduler.joinTokenFile";
/// Where a token stands in a call.
pub const HEADER: &str = "authorization";
/// Shorter ones can be guessed.
pub const MIN_TOKEN_CHARS: usize = 16;
/// Longer ones are no tokens but a file that was not meant.
pub const MAX_TOKEN_CHARS: usize = 512;
/// Most tokens of one file: an old and a new one, and some to spare.
pub const MAX_TOKENS: usize = 16;
/// Largest file read, bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A token of a file, fit for a header.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(String);

impl JoinToken {
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(hidden)")
    }
}

/// A file of tokens, and the key that named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenFile {
    key: &'static str,
    path: PathBuf,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {path}: {problem}", path = .path.display())]
pub struct JoinTokenError {
    key: &'static str,
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("read the join tokens: {0}")]
    Read(#[from] io::Error),
    #[error("is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("has no join token: one a line, of at least {MIN_TOKEN_CHARS} characters")]
    Empty,
    #[error("has more than {MAX_TOKENS} join tokens")]
    TooMany,
    #[error(
        "line {line}: a join token has {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters, this one {chars}"
    )]
    Length { line: usize, chars: usize },
    #[error("line {line}: a join token has letters, digits and punctuation of ASCII, and no spaces")]
    Characters { line: usize },
}

impl JoinTokenFile {
    pub fn new(key: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { key, path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens as they stand there now: at least one.
    ///
    /// # Errors
    /// [`JoinTokenError`]: the file cannot be read, has no token, or a line that can be none.
    pub fn read(&self) -> Result<Vec<JoinToken>, JoinTokenError> {
        self.contents().and_then(|text| tokens(&text)).map_err(|problem| JoinTokenError {
            key: self.key,
            path: self.path.clone(),
            problem,
        })
    }

    fn contents(&self) -> Result<String, Problem> {
        // What is no plain file could have its reader wait for ever.
        if !fs::metadata(&self.path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no plain file").into());
        }
        let mut text = String::new();
        if File::open(&self.path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_FILE_BYTES
        {
            return Err(Problem::TooLarge);
        }
        Ok(text)
    }
}

fn tokens(text: &str) -> Result<Vec<JoinToken>, Problem> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (line, token) = (index + 1, line.trim());
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Problem::Characters { line });
        }
        if !(MIN_TOKEN_CHARS..=MAX_TOKEN_CHARS).contains(&token.len()) {
            return Err(Problem::Length { line, chars: token.len() });
        }
        tokens.push(JoinToken(token.to_owned()));
    }
    match tokens.len() {
        0 => Err(Problem::Empty),
        1..=MAX_TOKENS => Ok(tokens),
        _ => Err(Problem::TooMany),
    }
}

/// What a daemon or a scheduler shows a manager.
#[derive(Debug, Clone)]
pub struct Joining {
    key: &'static str,
    file: Option<JoinTokenFile>,
}

/// A manager that takes none of the tokens shown.
#[derive(Debug, thiserror::Error)]
#[error("the manager refuses this program: {said}; {shown}")]
pub struct JoinRefused {
    said: String,
    shown: String,
}

impl Joining {
    /// `key` names the file in this program's configuration; without a file nothing is shown.
    pub fn new(key: &'static str, path: Option<PathBuf>) -> Self {
        Self { key, file: path.map(|path| JoinTokenFile::new(key, path)) }
    }

    /// What to try, in this order, as the file is now; at least one.
    ///
    /// # Errors
    /// There is a file, and it cannot be used.
    pub fn bearers(&self) -> Result<Vec<Bearer>, JoinTokenError> {
        let Some(file) = &self.file else { return Ok(vec![Bearer(None)]) };
        Ok(file.read()?.iter().map(Bearer::of).collect())
    }

    /// In words, what `UNAUTHENTICATED` to all of them means here.
    #[must_use]
    pub fn refused(&self, status: &Status) -> JoinRefused {
        let shown = match &self.file {
            None => format!("none was sent, since {} is not set here", self.key),
            Some(file) => format!("sent was what stands in {}: {}", self.key, file.path.display()),
        };
        JoinRefused { said: status.message().to_owned(), shown }
    }
}

/// Adds a token, where there is one, to every call of a client.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn of(token: &JoinToken) -> Self {
        let value = MetadataValue::try_from(format!("Bearer {}", token.0));
        Self(value.ok().map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert(HEADER, value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0123456789abcdef";

    #[test]
    fn one_a_line_with_room_for_words() {
        let read = tokens(&format!("# of November\n\n  {GOOD}\t\r\n#{GOOD}x\n{GOOD}#y\n")).unwrap();
        assert_eq!(read, [JoinToken(GOOD.into()), JoinToken(format!("{GOOD}#y"))]);
        assert_eq!(format!("{read:?}"), "[JoinToken(hidden), JoinToken(hidden)]");
    }

    #[test]
    fn what_can_be_no_token_is_named_by_line_and_never_shown() {
        for (text, says) in [
            (String::new(), "has no join token"),
            ("# only words\n \n".into(), "has no join token"),
            (
                format!("{GOOD}\nsecret-too-shrt\n"),
                "line 2: a join token has 16 to 512 characters, this one 15",
            ),
            ("secret".repeat(100), "this one 600"),
            ("\nsecret secret secret".into(), "line 2: a join token has letters"),
            ("secretsecretsecreté".into(), "line 1: a join token has letters"),
            (format!("{GOOD}\n").repeat(17), "more than 16"),
        ] {
            let error = tokens(&text).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn errors_name_key_and_file() {
        let dir = std::env::temp_dir();
        let absent = JoinTokenFile::new(MANAGER_KEY, "/nonexistent/token").read().unwrap_err().to_string();
        assert!(
            absent.starts_with("manager.joinTokenFile: /nonexistent/token: read the join tokens"),
            "{absent}"
        );
        let no_file = JoinTokenFile::new(SCHEDULER_KEY, dir).read().unwrap_err().to_string();
        assert!(
            no_file.starts_with("scheduler.joinTokenFile: ") && no_file.contains("no plain file"),
            "{no_file}"
        );
    }

    #[test]
    fn a_token_goes_out_as_a_bearer_and_is_not_printed() {
        let mut bearer = Bearer::of(&JoinToken(GOOD.into()));
        let sent = bearer.call(Request::new(())).unwrap();
        assert_eq!(sent.metadata().get(HEADER).unwrap().to_str().unwrap(), format!("Bearer {GOOD}"));
        assert!(!format!("{bearer:?} {sent:?}").contains(GOOD));
        let nothing = Bearer(None).call(Request::new(())).unwrap();
        assert!(nothing.metadata().get(HEADER).is_none());
    }
}
