//! Logging of the process: to standard error, as text or JSON lines, filtered by `RUST_LOG`; and where its traces go.

use hawker_api::trace::{self, TraceConfig, Traces};
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

const PROGRAM: &str = "hawker-control";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What the process says of itself.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    pub log_format: LogFormat,
    /// `None`: no traces.
    pub traces: Option<TraceConfig>,
}

/// Starts logging, and traces where they are wanted; `filter` is the text of `RUST_LOG`, empty for `info`.
/// To be called in a tokio runtime.
///
/// # Errors
/// The filter cannot be parsed, the collector's client cannot be built, or logging was started before.
pub fn start(
    config: &TelemetryConfig,
    hostname: &str,
    filter: &str,
) -> Result<Traces, Box<dyn std::error::Error + Send + Sync>> {
    let levels = EnvFilter::try_new(if filter.is_empty() { "info" } else { filter })?;
    let filter = levels.and(filter_fn(|metadata| metadata.target() != trace::TARGET));
    // Colours are for people; a log file or journal is none.
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match config.log_format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    };
    // A list, not an `Option` of a layer: an absent one counts as one that wants every span.
    let (mut layers, mut traces) = (vec![lines], Traces::default());
    if let Some(config) = &config.traces {
        let (spans, exported) = trace::layer(PROGRAM, hostname, config)?;
        layers.push(spans.boxed());
        traces = exported;
    }
    tracing_subscriber::registry().with(layers).try_init()?;
    Ok(traces)
}
