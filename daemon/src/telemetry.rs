//! Logs of the program, text for people or JSON for collectors; and where its traces go.
//!
//! Not metrics (that is [`crate::metrics`]).
//!
//! Invariant: levels of the log come from `RUST_LOG` alone; what is logged never holds credentials.

use crate::config::{LogFormat, TelemetryConfig};
use hawker_api::trace::{self, Traces};
use tracing::Subscriber;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Level without `RUST_LOG`.
const DEFAULT_FILTER: &str = "info";
const PROGRAM: &str = "hawkerd";

/// Starts logging to standard error, and traces where they are wanted. A second call changes nothing.
pub fn start(config: &TelemetryConfig, hostname: &str) -> Traces {
    // A list, not an `Option` of a layer: an absent one counts as one that wants every span.
    let (mut layers, mut traces, mut failed) = (vec![lines(config)], Traces::default(), None);
    match config.traces.as_ref().map(|traces| trace::layer(PROGRAM, hostname, traces)) {
        None => {}
        Some(Ok((spans, exported))) => {
            layers.push(spans.boxed());
            traces = exported;
        }
        Some(Err(error)) => failed = Some(error.to_string()),
    }
    // Taken already: by a test beside this one.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    if let Some(error) = failed {
        tracing::warn!(error, "no traces (telemetry.otlpEndpoint)");
    }
    traces
}

/// The log: everything but spans for the collector.
fn lines<S>(config: &TelemetryConfig) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let levels = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let filter = levels.and(filter_fn(|metadata| metadata.target() != trace::TARGET));
    let lines = fmt::layer().with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).with_filter(filter).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawker_api::trace::TARGET;
    use tracing::info_span;

    #[test]
    fn without_a_collector_a_span_is_nothing() {
        let config = TelemetryConfig { traces: None, log_format: LogFormat::Text };
        let subscriber = tracing_subscriber::registry().with(vec![lines(&config)]);
        tracing::subscriber::with_default(subscriber, || {
            assert!(!info_span!("of the log").is_disabled());
            assert!(info_span!(target: TARGET, "of a trace").is_disabled());
        });
    }
}
