//! The requests that recoup sends, and the one that the provider sends to it, for the `webhooks` of the API document.

use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{Object, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, Paths, PathsBuilder, Ref, Required};

use super::examples;
use crate::domain::event::EventKind;

/// All of them, by name.
pub(super) fn all() -> Paths {
    let mut paths = PathsBuilder::new();
    for kind in EventKind::ALL {
        paths = paths.path(kind.as_str(), PathItem::new(HttpMethod::Post, event(*kind)));
    }
    paths
        .path("callback_url", PathItem::new(HttpMethod::Post, passed_on()))
        .path("provider", PathItem::new(HttpMethod::Post, received()))
        .build()
}

fn operation(id: &str, summary: &str, about: &str, schema: &str, example: serde_json::Value) -> OperationBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).example(Some(example)).build();
    let body = RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True)).build();
    OperationBuilder::new()
        .operation_id(Some(id))
        .tag("webhooks")
        .summary(Some(summary))
        .description(Some(about))
        .request_body(Some(body))
        .response("2XX", ResponseBuilder::new().description("It arrived."))
}

/// What an endpoint of the configuration is told.
fn event(kind: EventKind) -> Operation {
    let about = "Sent to the endpoints of `[[events.endpoints]]` that want it, at least once and under the same `webhook-id` each \
                 time; tried again on the schedule `events.retry_schedule`. Redirects are not followed, `Retry-After` is honoured.";
    let mut event = operation(kind.as_str(), kind.meaning(), about, "EventBody", examples::event(kind))
        .response("410", ResponseBuilder::new().description("Nothing more is sent to this endpoint."))
        .response("default", ResponseBuilder::new().description("It is tried again; after the schedule it is dead."));
    for (name, about) in [
        ("webhook-id", "The id of the event: the same on every attempt."),
        ("webhook-timestamp", "When it was sent, in seconds since 1970."),
        (
            "webhook-signature",
            "Standard Webhooks: `v1,` and a base64 HMAC-SHA256 of id, timestamp and body; one for each secret.",
        ),
    ] {
        let text = Object::builder().schema_type(SchemaType::new(Type::String));
        let header = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::True);
        event = event.parameter(header.description(Some(about)).schema(Some(text)));
    }
    event.build()
}

/// What the caller's own `callback_url` is told.
fn passed_on() -> Operation {
    let about = "Sent to the `callback_url` of a purchase through the gateway: the bytes of the provider's webhook, its content type and its \
                 `X-RunBlob-Signature` where it has one. Where a read found the outcome it is written by recoup in the provider's shape, \
                 unsigned. Tried again like an event.";
    operation("callback_url", "The outcome of a purchase, passed on.", about, "ProviderWebhook", examples::webhook())
        .response("default", ResponseBuilder::new().description("It is tried again."))
        .build()
}

/// What the provider sends to us.
fn received() -> Operation {
    let about = "Sent by the provider to a callback URL of ours, which is `POST /webhooks/{family}/{token}`; the answers stand there.";
    operation("provider", "The provider tells an outcome.", about, "ProviderWebhook", examples::webhook()).build()
}
