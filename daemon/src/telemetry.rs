//! Logs of the program: one subscriber, text for people or JSON for collectors.
//!
//! Not metrics (that is [`crate::metrics`]).
//!
//! Invariant: levels come from `RUST_LOG` alone; what is logged never holds credentials.

use crate::config::{LogFormat, TelemetryConfig};
use tracing_subscriber::EnvFilter;

/// Level without `RUST_LOG`.
const DEFAULT_FILTER: &str = "info";

/// Starts logging to standard error. A second call changes nothing.
pub fn start(config: &TelemetryConfig) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_ok() && !config.otlp_endpoint.is_empty() {
        tracing::warn!(
            endpoint = config.otlp_endpoint,
            "telemetry.otlpEndpoint is set, but this build exports no traces"
        );
    }
}
