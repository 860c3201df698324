//! Traces, sent by OTLP where the environment names a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`); without one nothing of this runs.
//!
//! Spans hold ids, families and results, never a path, a key, a token or a body. W3C context is taken from whoever calls and passed
//! on (ADR 13).

use std::time::Duration;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue, TraceId};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::RequestBuilder;
use tracing::{Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};
use tracing_subscriber::{Layer, Registry};

use crate::outgoing::{ClientError, blocking_client};

/// Who the spans are from, unless the environment says otherwise.
const SERVICE: &str = "recoup";
/// Time one delivery to the collector may take; the specification's own.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time for sending what is left when the service stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Traces cannot be sent as the environment wants it.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A protocol that we do not speak.
    #[error(
        "{name}: {value:?} is not spoken here; set it to \"http/protobuf\" or leave it out, and name the collector's HTTP port"
    )]
    Protocol {
        /// The variable.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// The collector's address or another of its variables makes no sense.
    #[error("the OTEL_EXPORTER_OTLP_* variables cannot be used: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system has no thread for it.
    #[error("cannot make the HTTP client that sends traces")]
    NoThread,
}

/// The traces of this process. What is left is sent when it is dropped.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Drop for Traces {
    fn drop(&mut self) {
        let Some(provider) = &self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

impl Traces {
    /// As the environment wants it: without a collector there are none.
    ///
    /// # Errors
    /// [`TracesError`] names the variable that cannot be used.
    pub(super) fn of_environment() -> Result<Self, TracesError> {
        let says = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        if !is_wanted(&says) {
            return Ok(Self(None));
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(value) = says(name).filter(|value| value != "http/protobuf") {
                return Err(TracesError::Protocol { name, value });
            }
        }
        // A blocking client may not be made inside the runtime.
        let client = std::thread::spawn(|| blocking_client(TIMEOUT)).join().map_err(|_| TracesError::NoThread)??;
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build()?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_attribute(version);
        let resource = if is_named(&says) { resource } else { resource.with_service_name(SERVICE) };
        let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter);
        Ok(Self(Some(provider.build())))
    }

    /// What takes spans in. It has a filter of its own: the log's level is no matter of the traces.
    pub(super) fn layer(&self) -> Option<impl Layer<Registry> + use<>> {
        let tracer = self.0.as_ref()?.tracer(SERVICE);
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false);
        Some(layer.with_filter(own_spans()))
    }
}

fn is_wanted(says: &impl Fn(&str) -> Option<String>) -> bool {
    let is = |name: &str, word: &str| says(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    let collector = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    collector.iter().any(|name| says(name).is_some())
        && !is("OTEL_SDK_DISABLED", "true")
        && !is("OTEL_TRACES_EXPORTER", "none")
}

fn is_named(says: &impl Fn(&str) -> Option<String>) -> bool {
    let listed = says("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|list| list.contains("service.name="));
    listed || says("OTEL_SERVICE_NAME").is_some()
}

/// Our spans; those of libraries say nothing about a purchase, and events are in the log.
fn own_spans() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata: &Metadata<'_>| metadata.is_span() && metadata.target().starts_with("recoup"))
        .with_max_level_hint(LevelFilter::INFO)
}

/// The two headers of W3C Trace Context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Headers {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => self.traceparent.as_deref(),
            TRACESTATE => self.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Injector for Headers {
    fn set(&mut self, key: &str, value: String) {
        match key {
            TRACEPARENT => self.traceparent = Some(value),
            TRACESTATE => self.tracestate = Some(value).filter(|state| !state.is_empty()),
            _ => {}
        }
    }
}

/// Makes a span that was not entered yet part of the caller's trace, where the headers name one.
pub fn adopt<'h>(span: &Span, header: impl Fn(&str) -> Option<&'h str>) {
    if span.is_disabled() {
        return;
    }
    let headers = Headers {
        traceparent: header(TRACEPARENT).map(str::to_owned),
        tracestate: header(TRACESTATE).map(str::to_owned),
    };
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    if context.has_active_span() {
        // Without traces there is nothing to be made part of.
        drop(span.set_parent(context));
    }
}

/// A request that tells its receiver of the present span, where there is one.
pub fn pass_on(request: RequestBuilder) -> RequestBuilder {
    let context = Context::current();
    if !context.has_active_span() {
        return request;
    }
    let mut headers = Headers::default();
    TraceContextPropagator::new().inject_context(&context, &mut headers);
    let Headers { traceparent, tracestate } = headers;
    let present = [(TRACEPARENT, traceparent), (TRACESTATE, tracestate)];
    let present = present.into_iter().filter_map(|(name, value)| Some((name, value?)));
    present.fold(request, |request, (name, value)| request.header(name, value))
}

/// The trace that this thread is at, where there is one.
pub(super) fn trace_id() -> Option<TraceId> {
    Context::map_current(|context| {
        let id = context.span().span_context().trace_id();
        (id != TraceId::INVALID).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn wanted(variables: &[(&str, &str)]) -> bool {
        let known: BTreeMap<_, _> = variables.iter().copied().collect();
        is_wanted(&|name: &str| known.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn traces_are_sent_only_where_a_collector_is_named() {
        let there = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        assert!(!wanted(&[]));
        assert!(wanted(&[there]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")]));
        assert!(!wanted(&[there, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!wanted(&[there, ("OTEL_TRACES_EXPORTER", "none")]));
    }
}
