//! One item from the mirror: what it is, then its bytes, going on where a connection broke.
//!
//! Invariant: bytes of two versions are never put together (`If-Range`).

use super::part::Part;
use super::progress::Progress;
use crate::daemon::Mirror;
use crate::source::Item;
use anyhow::{Context, Result, bail};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use std::io::{Read, Write};
use std::time::Duration;

/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Tries in a row without a new byte.
const MAX_TRIES: u32 = 5;
/// Before the second try; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Most characters of an error that is shown.
const MAX_ERROR_CHARS: usize = 500;

/// What the mirror says of an item before it is fetched.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) version: String,
    pub(super) size: Option<u64>,
}

pub(super) struct Transfer<'a> {
    mirror: Mirror,
    client: Client,
    item: &'a Item,
    range: Option<String>,
    progress: &'a Progress,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        mirror: Mirror,
        item: &'a Item,
        range: Option<String>,
        progress: &'a Progress,
    ) -> Result<Self> {
        let client = mirror.client()?;
        Ok(Self { mirror, client, item, range, progress })
    }

    pub(super) fn is_whole(&self) -> bool {
        self.range.is_none()
    }

    pub(super) fn digest(&self) -> Option<&str> {
        self.item.digest.as_deref()
    }

    /// Asks what it is, without a byte of it.
    pub(super) fn head(&self) -> Result<Head> {
        let url = self.mirror.url(&self.item.path);
        let answer = self.send(self.client.head(&url))?;
        if !answer.status().is_success() {
            // The reason is in a body, which a HEAD has not.
            let refused = self.send(self.client.get(&url).header("range", "bytes=0-0"))?;
            let status = if refused.status().is_success() { answer.status() } else { refused.status() };
            return Err(refusal(status, refused));
        }
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let version = text("etag").unwrap_or_default().to_owned();
        let size = text("content-length").and_then(|length| length.parse().ok());
        self.progress.begin(size, version.trim_matches('"'));
        Ok(Head { version, size })
    }

    /// Waits until the daemon has all of it, and has checked it; its bytes stay there.
    pub(super) fn wait(&self, head: &Head) -> Result<()> {
        let last = "bytes=-1";
        self.with_tries(|| {
            let request = self.client.get(self.mirror.url(&self.item.path)).header("range", last);
            let mut answer = self.good(request)?;
            let mut byte = Vec::new();
            answer.read_to_end(&mut byte).context("wait for the daemon")?;
            Ok(())
        })?;
        self.progress.advance(head.size.unwrap_or(0));
        Ok(())
    }

    /// All of it, or the range that was asked for, into a part that may hold some already.
    pub(super) fn to_part(&self, head: &Head, part: &mut Part) -> Result<()> {
        if head.size.is_some_and(|size| part.length() > size) || self.range.is_some() {
            part.clear()?;
        }
        self.progress.advance(part.length());
        if head.size.is_some_and(|size| part.length() == size) && self.is_whole() {
            return Ok(());
        }
        self.with_tries(|| self.fill(head, part))
    }

    /// Straight to a writer, which cannot be gone back in: one try.
    pub(super) fn to_writer(&self, writer: &mut impl Write) -> Result<()> {
        self.head()?;
        let mut request = self.client.get(self.mirror.url(&self.item.path));
        if let Some(range) = &self.range {
            request = request.header("range", format!("bytes={range}"));
        }
        let answer = self.good(request)?;
        self.pour(answer, |bytes| writer.write_all(bytes).context("write to standard output"))?;
        writer.flush().context("write to standard output")
    }

    fn fill(&self, head: &Head, part: &mut Part) -> Result<()> {
        let mut request = self.client.get(self.mirror.url(&self.item.path));
        if let Some(range) = &self.range {
            part.clear()?;
            request = request.header("range", format!("bytes={range}"));
        } else if part.length() > 0 {
            request = request.header("range", format!("bytes={}-", part.length()));
            request = request.header("if-range", &head.version);
        }
        let answer = self.good(request)?;
        if answer.status() != StatusCode::PARTIAL_CONTENT && part.length() > 0 {
            self.progress.back(part.length());
            part.clear()?;
        }
        self.pour(answer, |bytes| part.append(bytes))
    }

    fn pour(&self, mut answer: Response, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            // A short body is an error of the client library: the length was announced.
            let count = answer.read(&mut buffer).context("the daemon cut the transfer short")?;
            if count == 0 {
                return Ok(());
            }
            sink(&buffer[..count])?;
            self.progress.advance(count as u64);
        }
    }

    /// Tries again while there is progress, or a few times without.
    fn with_tries(&self, mut one: impl FnMut() -> Result<()>) -> Result<()> {
        let (mut tries, mut pause, mut before) = (0, FIRST_PAUSE, self.progress.position());
        loop {
            let error = match one() {
                Ok(()) => return Ok(()),
                Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| !refused.again) => {
                    return Err(error);
                }
                Err(error) => error,
            };
            if self.progress.position() > before {
                (tries, pause, before) = (0, FIRST_PAUSE, self.progress.position());
            }
            tries += 1;
            if tries == MAX_TRIES {
                return Err(error.context(format!("gave up after {MAX_TRIES} tries")));
            }
            self.progress.note(&format!("{error:#}; trying again"));
            std::thread::sleep(pause);
            pause *= 2;
        }
    }

    fn good(&self, request: RequestBuilder) -> Result<Response> {
        let answer = self.send(request)?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer.status(), answer)) }
    }

    fn send(&self, mut request: RequestBuilder) -> Result<Response> {
        for (name, value) in &self.item.headers {
            request = request.header(name, value);
        }
        Ok(request.send().map_err(|error| self.mirror.failed(&error))?)
    }
}

/// The mirror's, or the origin's, own no.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {text}")]
struct Refused {
    status: StatusCode,
    text: String,
    /// The same may go well later.
    again: bool,
}

fn refusal(status: StatusCode, answer: Response) -> anyhow::Error {
    let body = answer.text().unwrap_or_default();
    let stated = serde_json::from_str::<serde_json::Value>(&body).ok();
    let message = stated.as_ref().and_then(|json| json.pointer("/errors/0/message")?.as_str());
    let text = message.unwrap_or(body.trim()).chars().take(MAX_ERROR_CHARS).collect();
    if status.is_redirection() {
        return anyhow::anyhow!("{status}: is this the mirror of a hawkerd?");
    }
    Refused { status, text, again: status.is_server_error() }.into()
}

impl Head {
    /// The digest that the version is, where it is one.
    pub(super) fn digest(&self) -> Option<&str> {
        let text = self.version.trim_matches('"');
        (text.starts_with("sha256:") || text.starts_with("sha512:")).then_some(text)
    }

    pub(super) fn known_size(&self) -> Result<u64> {
        match self.size {
            Some(size) => Ok(size),
            None => bail!("the size is not known"),
        }
    }
}
