//! Logs to standard error. A line written inside a trace says which.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::traces::{self, Traces, TracesError};
use crate::config::{Log, LogFormat};

/// Begins to log to standard error, and to send traces where the environment names a collector. A second call changes nothing.
///
/// # Errors
/// [`TracesError`] when the traces cannot be sent as wanted.
pub fn start(settings: &Log) -> Result<Traces, TracesError> {
    let traces = Traces::of_environment()?;
    // Already set up by somebody who embeds us: that is theirs to say.
    drop(tracing_subscriber::registry().with(traces.layer()).with(lines(settings)).try_init());
    Ok(traces)
}

/// Begins to log to standard error. A second call changes nothing.
pub fn log(settings: &Log) {
    drop(tracing_subscriber::registry().with(lines(settings)).try_init());
}

fn lines<S: Subscriber + for<'s> LookupSpan<'s>>(settings: &Log) -> Box<dyn Layer<S> + Send + Sync> {
    let filter = EnvFilter::try_new(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // Spans are for traces only: without a collector they cost nothing.
    let filter = filter.and(filter_fn(is_event));
    let json = match settings.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let line = format::format().with_target(false);
    if json {
        let line = Traced { line: line.json().flatten_event(true), end: "}", before: ",\"trace_id\":\"", after: "\"}" };
        quiet_layer()
            .event_format(line)
            .fmt_fields(JsonFields::new())
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed()
    } else {
        let line = Traced { line, end: "", before: " trace_id=", after: "" };
        quiet_layer().event_format(line).with_writer(std::io::stderr).with_filter(filter).boxed()
    }
}

/// A log that cannot be written (the disk is full) has nowhere to be complained about: trying to would panic in the middle of a purchase.
fn quiet_layer<S>() -> tracing_subscriber::fmt::Layer<S> {
    layer().log_internal_errors(false)
}

fn is_event(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
}

/// A line with the trace's id at its end.
struct Traced<F> {
    line: F,
    /// What ends the line, to be written again behind the id.
    end: &'static str,
    before: &'static str,
    after: &'static str,
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(trace) = traces::trace_id() else { return self.line.format_event(context, writer, event) };
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        let line = line.strip_suffix(self.end).unwrap_or(line);
        writeln!(writer, "{line}{}{trace}{}", self.before, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_there_are_no_spans() {
        let log = tracing_subscriber::registry().with(lines(&Log::default()));
        tracing::subscriber::with_default(log, || {
            assert!(tracing::error_span!("a step").is_disabled());
        });
    }
}
