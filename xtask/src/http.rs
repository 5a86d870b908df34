//! Small HTTP requests with a limit on time and size, for asking the things in the lab.
//!
//! Invariant: a status is an answer, not an error; only no answer is an error.

use anyhow::{Context, Result};
use serde_json::Value;
use std::time::Duration;

/// Time for one request.
const LIMIT: Duration = Duration::from_secs(15);
/// Largest answer kept, bytes.
const MAX_BODY_BYTES: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("read JSON of {}", self.text()))
    }
}

fn agent() -> ureq::Agent {
    agent_within(LIMIT)
}

fn agent_within(limit: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

fn answer(url: &str, result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer> {
    let mut response = result.with_context(|| format!("ask {url}"))?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec();
    Ok(Answer { status, body: body.with_context(|| format!("read the answer of {url}"))? })
}

pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    let request =
        headers.iter().fold(agent().get(url), |request, (name, value)| request.header(*name, *value));
    answer(url, request.call())
}

/// With another limit on time, for large bodies.
pub(crate) fn get_within(url: &str, limit: Duration) -> Result<Answer> {
    answer(url, agent_within(limit).get(url).call())
}

pub(crate) fn post(url: &str, token: &str, body: &Value) -> Result<Answer> {
    answer(url, agent().post(url).header("authorization", format!("Bearer {token}")).send_json(body))
}

pub(crate) fn patch(url: &str, token: &str, body: &Value) -> Result<Answer> {
    answer(url, agent().patch(url).header("authorization", format!("Bearer {token}")).send_json(body))
}
