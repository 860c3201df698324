//! Traces: the real binary sends them to a collector, takes over the caller's and passes them on, and tells nothing it must not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use axum::body::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::outbox::{Recorder, SECRET as ENDPOINT_SECRET};
use crate::process::{KEY, SECRET, Service, call, free_port, http};
use crate::raw::{RawProvider, Then, sold};
use crate::receivers::endpoints;
use crate::support::{O3, PROVIDER_KEY, World, completed, text};

/// The caller's trace and span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Takes traces in.
struct Collector {
    url: String,
    bodies: watch::Receiver<Vec<Bytes>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, bodies) = watch::channel(Vec::new());
        let take = axum::routing::post(move |body: Bytes| {
            sender.send_modify(|bodies: &mut Vec<Bytes>| bodies.push(body));
            async { "" }
        });
        let router = axum::Router::new().route("/v1/traces", take);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, bodies }
    }

    fn got(&self) -> Traces {
        let bodies = self.bodies.borrow().clone();
        let requests = bodies.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap());
        let resources: Vec<_> = requests.flat_map(|request| request.resource_spans).collect();
        let spans = resources.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone());
        let services = resources.iter().flat_map(|resource| &resource.resource.as_ref().unwrap().attributes);
        let services = services.filter(|attribute| attribute.key == "service.name");
        let word =
            |value: &Attribute| if let Attribute::StringValue(word) = value { word.clone() } else { String::new() };
        let services = services.map(|service| word(service.value.as_ref().unwrap().value.as_ref().unwrap()));
        Traces { spans: spans.collect(), services: services.collect(), bodies }
    }
}

/// What a collector got.
struct Traces {
    spans: Vec<Span>,
    services: Vec<String>,
    bodies: Vec<Bytes>,
}

impl Traces {
    /// The one span of that name, of one trace where that is said.
    #[track_caller]
    fn one(&self, name: &str, trace: Option<&str>) -> &Span {
        let of = |span: &&Span| span.name == name && trace.is_none_or(|trace| hex::encode(&span.trace_id) == trace);
        let found: Vec<_> = self.spans.iter().filter(of).collect();
        let names: Vec<_> = self.spans.iter().map(|span| &span.name).collect();
        assert_eq!(found.len(), 1, "{name} in {trace:?}: {names:?}");
        found[0]
    }

    #[track_caller]
    fn child(&self, parent: &Span, name: &str) -> &Span {
        let of = |span: &&Span| span.name == name && span.parent_span_id == parent.span_id;
        let child = self.spans.iter().find(of).unwrap_or_else(|| panic!("{} has no child {name}", parent.name));
        assert_eq!(child.trace_id, parent.trace_id);
        child
    }
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let said = |value: &Attribute| match value {
        Attribute::StringValue(word) => word.clone(),
        Attribute::IntValue(number) => number.to_string(),
        Attribute::BoolValue(_)
        | Attribute::DoubleValue(_)
        | Attribute::ArrayValue(_)
        | Attribute::KvlistValue(_)
        | Attribute::BytesValue(_)
        | Attribute::StringValueStrindex(_) => panic!("{value:?} is neither a text nor a whole number"),
    };
    let value = |value: Option<&Attribute>| value.map(said).unwrap_or_default();
    let each = span.attributes.iter();
    each.map(|one| (one.key.as_str(), value(one.value.as_ref().and_then(|any| any.value.as_ref())))).collect()
}

/// Whether a header names that span.
fn names(header: &str, span: &Span) -> bool {
    header == format!("00-{}-{}-01", hex::encode(&span.trace_id), hex::encode(&span.span_id))
}

fn logged(folder: &Path) -> Vec<Value> {
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_one_trace_from_the_caller_to_the_provider() {
    let (collector, provider) = (Collector::start().await, RawProvider::start(Then::Answer(sold("p-1"))).await);
    let (recorder, folder, http) = (Recorder::start().await, tempfile::tempdir().unwrap(), http());
    std::fs::write(folder.path().join("config.toml"), endpoints(std::slice::from_ref(&recorder.url))).unwrap();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        // The log's level is no matter of the traces.
        ("RECOUP_LOG__LEVEL", "warn,recoup::cli=info,recoup::http=info"),
    ];
    let service = Service::start_with(free_port(), folder.path(), &provider.url, &variables);
    let generate = format!("{}/gateway/v1/{O3}/generate", service.url);
    let order = json!({"prompt": "a paper boat", "model": "kling_o3", "duration": "5"});
    let buy = http.post(&generate).json(&order).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(call(buy.header("tracestate", "vendor=mark")).await.unwrap().0, 201);
    let seen = provider.first().await;
    let callback = seen.callback_url();
    let told = http.post(&callback).body(completed("p-1", "https://x/v?signature=s3cr3t")).send().await.unwrap();
    assert_eq!(told.status(), 200);
    let event = recorder.after(1).await.remove(0);
    // The provider is not told of a trace that the caller has not named.
    call(http.post(&generate).json(&order)).await.unwrap();
    assert_eq!(provider.seen()[1].header("traceparent"), None);
    assert_eq!(service.terminate(), 0, "and what is left is sent");

    let traces = collector.got();
    assert!(traces.services.iter().all(|service| service == "recoup") && !traces.services.is_empty());
    let request = traces.one("POST /gateway/{*path}", Some(TRACE));
    assert_eq!((hex::encode(&request.parent_span_id).as_str(), request.kind()), (PARENT, SpanKind::Server));
    let said = attributes(request);
    assert_eq!((said["http.route"].as_str(), said["http.response.status_code"].as_str()), ("/gateway/{*path}", "201"));
    let intent = traces.child(request, "purchase.intent");
    traces.child(intent, "commit");
    let submit = traces.child(request, "purchase.submit");
    assert_eq!(submit.kind(), SpanKind::Client);
    assert!(names(seen.header("traceparent").unwrap(), submit));
    assert_eq!(seen.header("tracestate"), Some("vendor=mark"));
    let settle = traces.child(request, "purchase.settle");
    assert_eq!(attributes(settle)["result"], "accepted");

    let webhook = traces.one("POST /webhooks/{*path}", None);
    assert!(webhook.parent_span_id.is_empty(), "the provider named no trace");
    for step in ["webhook.verify", "webhook.parse", "webhook.settle"] {
        traces.child(webhook, step);
    }
    let settled = attributes(traces.child(webhook, "webhook.settle"));
    assert_eq!(
        (settled["disposition"].as_str(), &settled["generation"]),
        ("accepted", &attributes(intent)["generation"])
    );
    let named = event.header("traceparent");
    let send = traces.spans.iter().find(|span| span.name == "dispatch.send" && names(&named, span)).unwrap();
    let dispatch = traces.one("dispatch", Some(&hex::encode(&send.trace_id)));
    assert_eq!((&dispatch.span_id, dispatch.parent_span_id.len()), (&send.parent_span_id, 0), "an event has its own");
    assert_eq!(attributes(dispatch)["generation"], settled["generation"]);

    let token = callback.rsplit('/').next().unwrap();
    let secrets = [KEY, SECRET, PROVIDER_KEY, ENDPOINT_SECRET, token, "a paper boat", "s3cr3t", &recorder.url];
    for secret in secrets {
        let told = |body: &Bytes| body.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!traces.bodies.iter().any(told), "{secret} was sent to the collector");
    }
    let logged = logged(folder.path());
    let line = logged.iter().find(|line| line["message"] == "request" && line["status"] == 201).unwrap();
    assert_eq!(line["trace_id"], TRACE);
    assert!(logged.iter().any(|line| line["trace_id"].is_null()), "what is part of no trace says so by silence");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_somebody_asked_for_is_part_of_the_request() {
    let (collector, folder, http) = (Collector::start().await, tempfile::tempdir().unwrap(), http());
    let provider = RawProvider::start(Then::Answer(crate::raw::http("404 Not Found", "", "{}"))).await;
    let address = format!("{}/v1/traces", collector.url);
    let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", address.as_str()), ("OTEL_SERVICE_NAME", "videos")];
    let service = Service::start_with(free_port(), folder.path(), &provider.url, &variables);
    let known = json!({"generation_id": "p-1", "family": O3, "model": "kling_o3", "duration_seconds": 5});
    let (_, known) = call(http.post(format!("{}/v1/generations", service.url)).json(&known)).await.unwrap();
    let path = format!("{}/v1/generations/{}/checks", service.url, text(&known["id"]));
    assert_eq!(call(http.post(path).json(&json!({}))).await.unwrap().0, 200);
    assert_eq!(service.terminate(), 0);
    let traces = collector.got();
    assert!(traces.services.iter().all(|service| service == "videos") && !traces.services.is_empty());
    let request = traces.one("POST /v1/generations/{id}/checks", None);
    let check = traces.child(request, "check");
    traces.child(check, "check.ask");
    assert_eq!(attributes(traces.child(check, "check.settle"))["answer"], "not_found");
    assert_eq!(provider.first().await.header("traceparent"), None, "a read is our own");
}

#[tokio::test]
async fn without_a_collector_nobody_is_told_of_a_trace() {
    let recorder = Recorder::start().await;
    let url = url::Url::parse(&recorder.url).unwrap();
    let world = World::with(move |config| {
        config.events.allow_private_addresses = true;
        let secret = recoup::secret::Secret::new(ENDPOINT_SECRET);
        let types = vec!["generation.*".to_owned()];
        config.events.endpoints = vec![recoup::config::Endpoint { url, secret, secrets: Vec::new(), types }];
    })
    .await;
    let (_, url) = world.prepare().await;
    let told = world.http.post(&url).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(told.body(completed("p-1", "https://x/v")).send().await.unwrap().status(), 200);
    assert!(!recorder.after(1).await[0].has("traceparent"));
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let output = Service::command(folder.path(), free_port(), "http://127.0.0.1:9")
        .envs([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && said.contains("http/protobuf"),
        "{said}"
    );
}
