//! Why the manager did not do what was asked, in words that say what to do.
//!
//! Invariant: the manager's own detail is never lost, and no message holds a token.

use crate::daemon::chain;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::RETRY_AFTER;
use std::path::PathBuf;

/// Most of an answer that is no problem document that is shown, characters.
const MAX_SHOWN_CHARS: usize = 300;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagerError {
    #[error("`{text}` is no address of a manager: {problem}")]
    Address { text: String, problem: String },
    #[error("read {path}: {detail}", path = .path.display())]
    File { path: PathBuf, detail: String },
    #[error("nobody is signed in{at}: `hawker login` first, or name a --token-file", at = .manager.as_ref().map_or_else(String::new, |manager| format!(" at {manager}")))]
    NotSignedIn { manager: Option<String> },
    #[error("ask the manager at {base} (is it running? --manager names another one): {detail}")]
    NoAnswer { base: String, detail: String },
    #[error("{base} does not know this token (401): {detail}; `hawker login` again")]
    Unknown { base: String, detail: String },
    #[error("not allowed (403): {detail}")]
    Forbidden { detail: String },
    #[error("not found (404): {detail}")]
    NotFound { detail: String },
    #[error(
        "changed by somebody else meanwhile (412): {detail}; look at it again, and repeat the change if it still fits"
    )]
    Stale { detail: String },
    #[error("the manager cannot answer now (503): {detail}; try again{after}")]
    Busy { detail: String, after: String },
    #[error("the manager refused ({status}): {detail}")]
    Refused { status: u16, detail: String },
}

impl ManagerError {
    /// A manager that is busy, or starts again.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Busy { .. })
    }

    /// What is not there, or a manager that has no such thing yet.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    pub(super) fn no_answer(base: &str, error: &reqwest::Error) -> Self {
        Self::NoAnswer { base: base.to_owned(), detail: chain(error) }
    }

    pub(super) fn refused(base: &str, path: &str, answer: Response) -> Self {
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.map_or_else(|| " later".to_owned(), |seconds| format!(" in {seconds} s"));
        let text = answer.text().unwrap_or_default();
        let detail = detail(&text).unwrap_or_else(|| format!("{status} at {path}"));
        let base = base.to_owned();
        match status {
            StatusCode::UNAUTHORIZED => Self::Unknown { base, detail },
            StatusCode::FORBIDDEN => Self::Forbidden { detail },
            StatusCode::NOT_FOUND => Self::NotFound { detail },
            StatusCode::PRECONDITION_FAILED => Self::Stale { detail },
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Self::Busy { detail, after },
            other => Self::Refused { status: other.as_u16(), detail },
        }
    }
}

/// The `detail` of a problem document (RFC 9457), else what the answer says, shortened.
fn detail(text: &str) -> Option<String> {
    let problem: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let told = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    let plain: String = told.unwrap_or(text.trim()).chars().take(MAX_SHOWN_CHARS).collect();
    // A proxy's page may hold anything; a terminal obeys control characters.
    let plain: String = plain.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_of_a_problem_is_shown_and_a_proxys_page_is_tamed() {
        assert_eq!(detail(r#"{"title":"Conflict","detail":"name is taken"}"#).unwrap(), "name is taken");
        assert_eq!(detail("<h1>\u{1b}[2JBad</h1>").unwrap(), "<h1> [2JBad</h1>");
        assert_eq!(detail(&"x".repeat(10_000)).unwrap().len(), MAX_SHOWN_CHARS);
        assert_eq!(detail(" \n"), None);
    }
}
