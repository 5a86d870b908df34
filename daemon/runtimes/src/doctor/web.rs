//! The doctor's requests: a seam with two implementations, [`Ureq`] and the tests' scripted one.
//!
//! Invariant: every request ends within [`LIMIT`] and is at most [`MAX_BODY_BYTES`] long.

use std::time::Duration;

/// Longer than the mirror takes for a head at most.
const LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Largest blob fetched for proof, bytes.
pub(super) const MAX_BODY_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first line of the body, shortened: why it was refused.
    pub(super) fn reason(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().next().unwrap_or_default();
        format!("{} {}", self.status, line.chars().take(200).collect::<String>())
    }
}

pub(super) trait Web {
    /// `Err`: no answer, and why.
    fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Answer, String>;
}

pub(super) struct Ureq {
    /// For the mirror and the status: never through a proxy.
    direct: ureq::Agent,
    /// For a registry's token: as the environment says.
    outside: ureq::Agent,
}

impl Ureq {
    pub(super) fn new() -> Self {
        let config = || {
            ureq::Agent::config_builder()
                .timeout_global(Some(LIMIT))
                .timeout_connect(Some(CONNECT_LIMIT))
                .http_status_as_error(false)
        };
        let direct = config().proxy(None).max_redirects(0).build();
        Self { direct: direct.into(), outside: config().build().into() }
    }
}

impl Web for Ureq {
    fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        let agent = if url.starts_with("https://") { &self.outside } else { &self.direct };
        let mut request = agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().map_err(|error| error.to_string())?;
        let body = response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        Ok(Answer {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: body.map_err(|error| format!("the body broke off: {error}"))?,
        })
    }
}
