//! Bodies and headers in the API document whose form is not ours to type: the provider's, and those read by hand.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{self, ParameterIn};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, Schema};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use super::refusals::Buying;
use crate::domain::family::FAMILIES;
use crate::http::gateway::{LIMIT, LIMIT_MAX, OFFSET_MAX};
use crate::http::registration::{LABEL_KEY_CHARS_MAX, LABEL_VALUE_CHARS_MAX, LABELS_MAX};

fn of_type(kind: Type) -> ObjectBuilder {
    Object::builder().schema_type(SchemaType::new(kind))
}

fn nullable_text(about: &str) -> ObjectBuilder {
    Object::builder().schema_type(SchemaType::from_iter([Type::String, Type::Null])).description(Some(about))
}

fn header(name: &str, about: &str, schema: ObjectBuilder) -> path::Parameter {
    let described = path::ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
    described.required(Required::False).description(Some(about)).schema(Some(schema)).build()
}

/// The header that makes a request one that is done once.
pub(in crate::http) struct IdempotencyKey;

impl IntoParams for IdempotencyKey {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<path::Parameter> {
        let about = "The same key and body within a day give the recorded answer; another body is 422; while the first is \
                     under way 409. For each API key and route.";
        let key = || of_type(Type::String).pattern(Some("^[ -~]{1,255}$")).examples(["order-42"]);
        let alias = "Another name of `Idempotency-Key`: both may stand with the same value.";
        vec![header("Idempotency-Key", about, key()), header("X-Idempotency-Key", alias, key())]
    }
}

/// The headers by which a purchase that is sent again is recognised, and that say how long it may wait.
pub(in crate::http) struct RepeatHeaders;

impl IntoParams for RepeatHeaders {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<path::Parameter> {
        let call = "The caller's own id of the call, the same on all of its attempts: with the same body within a day they are one purchase.";
        let wait = "`wait=SECONDS` (RFC 7240): how long a request that repeats a purchase waits at most for what becomes of the first. At \
                    most, and if nothing is said, `gateway.repeat_wait`.";
        vec![
            header("X-Request-ID", call, of_type(Type::String).examples(["7f00a1b2c3d4e5f6"])),
            header("Prefer", wait, of_type(Type::String).examples(["wait=20"])),
        ]
    }
}

/// The header in which the provider signs a webhook.
pub(in crate::http) struct SignatureHeader;

impl IntoParams for SignatureHeader {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<path::Parameter> {
        let about = "HMAC-SHA256 of the raw body in hexadecimal, with or without `sha256=` before it. Verified where \
                     `webhook.provider_secrets` are set: a wrong one is 404, a missing one is not refused.";
        vec![header("X-RunBlob-Signature", about, of_type(Type::String))]
    }
}

/// The header that labels a purchase.
pub(in crate::http) struct MetadataHeader;

impl IntoParams for MetadataHeader {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<path::Parameter> {
        let about = "Labels of the generation: a JSON object of strings.";
        let labels =
            of_type(Type::String).content_media_type("application/json").content_schema(Some(Labels::schema()));
        vec![header("Recoup-Metadata", about, labels.examples([r#"{"user":"42"}"#]))]
    }
}

/// Which part of a list of the provider's.
pub(in crate::http) struct ProviderPaging;

impl IntoParams for ProviderPaging {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<path::Parameter> {
        let number = |name: &str, about: &str, least: u32, most: u32, usual: u32| {
            let schema = of_type(Type::Integer).minimum(Some(least)).maximum(Some(most)).default(Some(usual.into()));
            let described = path::ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query);
            described.required(Required::False).description(Some(about)).schema(Some(schema)).build()
        };
        let most = "How many at most.";
        let left_out = "How many of the newest are left out.";
        vec![number("limit", most, 1, LIMIT_MAX, LIMIT), number("offset", left_out, 0, OFFSET_MAX, 0)]
    }
}

macro_rules! described {
    ($($(#[$doc:meta])* $name:ident = $schema:expr;)+) => {
        $($(#[$doc])*
        pub(in crate::http) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {})+
    };
}

described! {
    /// A family of the provider.
    KnownFamily = of_type(Type::String)
        .description(Some("The provider's path segment."))
        .enum_values(Some(FAMILIES.iter().map(|family| family.path)));
    /// A price as it is told.
    Price = of_type(Type::String)
        .description(Some("US dollars, less than a million, with at most six decimals. Kept exactly."))
        .pattern(Some("^0?[0-9]{1,6}(\\.[0-9]{1,6})?$"))
        .examples(["0.4500"]);
    /// Labels as they are told.
    Labels = of_type(Type::Object)
        .description(Some("The user's own labels."))
        .max_properties(Some(LABELS_MAX))
        .property_names(Some(Schema::from(
            of_type(Type::String).min_length(Some(1)).max_length(Some(LABEL_KEY_CHARS_MAX)).build(),
        )))
        .additional_properties(Some(of_type(Type::String).max_length(Some(LABEL_VALUE_CHARS_MAX))))
        .examples([json!({"user": "42"})]);
    /// What the provider sends.
    ProviderWebhook = of_type(Type::Object)
        .description(Some(
            "Read tolerantly: the id in `generation_id`, `task_uuid`, `task_id` or `id`; the result in `video_url`, `image_url`, \
             `result_image_url` or `output.video_urls[0]`; the reason in `message`, `error_message` or `error`, each null, a text or \
             an object of `code` and `message`. Anything else is kept with the raw body.",
        ))
        .property("generation_id", Ref::from_schema_name("ProviderId"))
        .property(
            "status",
            of_type(Type::String).min_length(Some(1)).description(Some(
                "`pending`, `processing`, `completed` or `failed`; another word is kept as still running.",
            )),
        )
        .property("video_url", nullable_text("The result, once it is completed."))
        .property("message", Object::builder().schema_type(SchemaType::from_iter([Type::String, Type::Object, Type::Null])))
        .required("status")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
        .examples([json!({
            "generation_id": "7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa", "status": "failed", "video_url": null,
            "model": "kling-o3-video-10s-pro", "message": "CONTENT_POLICY_VIOLATION",
        })]);
    /// A purchase, as the provider takes it.
    Purchase = of_type(Type::Object)
        .description(Some("As the provider documents it for this family. `callback_url` is told once the outcome is known."))
        .property("callback_url", nullable_text("Where you want the outcome as the provider tells it, with retries."))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
        .examples([json!({
            "prompt": "a paper boat on a puddle", "model": "kling_o3_pro", "duration": "10",
            "callback_url": "https://app.example.com/outcomes",
        })]);
    /// A status, as the provider answers it.
    ProviderStatus = of_type(Type::Object)
        .description(Some("Which fields there are, the family says; these are those of Kling O3 video."))
        .property("status", of_type(Type::String).enum_values(Some(["pending", "processing", "completed", "failed"])))
        .required("status")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
        .examples([json!({
            "generation_id": "7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa", "status": "completed", "prompt": "a paper boat on a puddle",
            "video_url": "https://cdn.example.net/7b0e1f52.mp4", "model": "kling-o3-video-10s-pro",
        })]);
    /// A list, as the provider answers it.
    ProviderList = ArrayBuilder::new()
        .description(Some("A bare array of statuses, newest first."))
        .items(Ref::from_schema_name("ProviderStatus"));
    /// What the provider answers to a purchase.
    ProviderAnswer = of_type(Type::Object)
        .description(Some("As the provider answered, byte for byte."))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)));
}

/// The webhook is kept.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct WebhookReceived {
    /// `received`.
    pub(in crate::http) status: &'static str,
}

/// The answers to a purchase: the provider's, unchanged, or problems of ours.
pub(in crate::http) struct Sold;

impl IntoResponses for Sold {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = Buying::responses();
        // Most statuses can be the provider's as well as ours; the type of the content tells them apart.
        for response in responses.values_mut() {
            if let RefOr::T(response) = response {
                response
                    .content
                    .insert("application/json".to_owned(), ContentBuilder::new().schema(Some(answer())).build().into());
                response.description.push_str("\n\nAs `application/json`: the provider's own answer.");
                mark(response);
            }
        }
        let mut sold = ResponseBuilder::new()
            .description("Sold: the provider's answer.")
            .content("application/json", ContentBuilder::new().schema(Some(answer())).example(Some(bought())).build())
            .build();
        mark(&mut sold);
        let mut refused = ResponseBuilder::new().description("The provider's answer, unchanged.").build();
        refused.content.insert("*/*".to_owned(), ContentBuilder::new().build().into());
        mark(&mut refused);
        let pause =
            HeaderBuilder::new().schema(Some(of_type(Type::String))).description(Some("The provider's.")).build();
        refused.headers.insert("Retry-After".to_owned(), pause.into());
        responses.insert("201".to_owned(), sold.into());
        responses.insert("4XX".to_owned(), refused.clone().into());
        responses.insert("5XX".to_owned(), refused.into());
        responses
    }
}

fn answer() -> Ref {
    Ref::from_schema_name("ProviderAnswer")
}

fn bought() -> serde_json::Value {
    json!({"generation_id": "7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa", "status": "pending", "price": "0.4500"})
}

/// The headers that we add.
fn mark(response: &mut Response) {
    for (name, about) in [
        ("Recoup-Generation", "Our id of the generation: on every answer once the intent is kept."),
        ("Recoup-Error-Code", "Why the provider refused, as one of the codes of `/v1/error-codes`."),
        ("Recoup-Repeat-Of", "Our id of the purchase that this request repeats: it was not sent on."),
        ("Idempotency-Replayed", "`true` for a recorded answer."),
        ("Recoup-Unrecorded", "`true` when what came of the purchase could not be kept yet."),
    ] {
        let header = HeaderBuilder::new().schema(Some(of_type(Type::String))).description(Some(about)).build();
        response.headers.insert(name.to_owned(), header.into());
    }
}

/// The answers to a question for the balance: the provider's, unchanged, or problems of ours.
pub(in crate::http) struct Balance;

impl IntoResponses for Balance {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let text = of_type(Type::String).description(Some("US dollars, as the provider writes them."));
        let schema = of_type(Type::Object)
            .property("balance", text)
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)));
        let example = json!({"balance": "41.7300"});
        let content = ContentBuilder::new().schema(Some(schema)).example(Some(example)).build();
        let known = ResponseBuilder::new().description("The provider's answer.").content("application/json", content);
        let mut other = ResponseBuilder::new().description("The provider's answer, unchanged.").build();
        other.content.insert("*/*".to_owned(), ContentBuilder::new().build().into());
        let statuses = ["3XX", "4XX", "5XX"].map(|status| (status.to_owned(), other.clone().into()));
        statuses.into_iter().chain([("200".to_owned(), known.build().into())]).collect()
    }
}
