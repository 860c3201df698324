//! The API document: what the routes say about themselves, joined with what holds for all of them.
//!
//! Describes, and serves nothing: `docs.rs` does. The routes' own descriptions stand at their handlers.

mod examples;
pub(super) mod refusals;
pub(super) mod requests;
mod webhooks;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, License, Tag};

use super::problem;
use crate::domain::event::EventBody;

const ABOUT: &str = "\
Sees to it that nobody pays for an AI video and is left with nothing.

All of `/v1` and `/gateway` needs `Authorization: Bearer <api key>`; beside each operation stands the scope that the key needs. \
Errors are `application/problem+json` (RFC 9457) with a `code` out of a closed list. Times are RFC 3339 in UTC, money is a decimal \
string in US dollars, durations end in `_seconds`. Unknown fields and parameters are errors. A method that a route does not have is \
405 with `Allow`, a path that does not exist 404, and 500 `INTERNAL` is our fault, wherever it happens. Answers may get more fields, \
and lists of words in them more words; what is there stays.";

const TAGS: [(&str, &str); 8] = [
    ("generations", "Everything that was bought, or meant to be."),
    ("gateway", "A drop-in for the provider: change the base URL and the key, and nothing else."),
    ("webhooks", "What the provider tells, and what your systems are told."),
    ("deliveries", "The webhooks that came, as they came."),
    ("events", "What your systems are told, and whether it arrived."),
    ("money", "Where the credits are."),
    ("catalogue", "What the provider's words mean, and what it offers."),
    ("operations", "Whether the service works."),
];

#[derive(OpenApi)]
#[openapi(components(schemas(problem::Body, EventBody, requests::ProviderWebhook, requests::ProviderAnswer)))]
struct Shared;

/// Joins what the routes say with what holds for all of them.
pub(super) fn document(of_routes: utoipa::openapi::OpenApi) -> Value {
    let mut document = Shared::openapi().merge_from(of_routes);
    let license = License::builder().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    document.info = InfoBuilder::new()
        .title("recoup")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license))
        .build();
    document.tags = Some(TAGS.into_iter().map(|(name, about)| tag(name, about)).collect());
    document.webhooks = Some(webhooks::all());
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "An API key of the configuration. Scopes: `read` looks, `submit` registers and buys, `operate` checks, replays and confirms.",
    ));
    if let Some(components) = &mut document.components {
        components.add_security_scheme("key", SecurityScheme::Http(key.build()));
    }
    let mut document = serde_json::to_value(&document).unwrap_or_default();
    refer_to_named(&mut document);
    complete(&mut document);
    show(&mut document);
    name_requests(&mut document);
    share_refusals(&mut document);
    document
}

fn tag(name: &str, about: &str) -> Tag {
    let mut tag = Tag::new(name);
    tag.description = Some(about.to_owned());
    tag
}

/// utoipa writes the parameter of a generic type out in full, though it has a name.
fn refer_to_named(document: &mut Value) {
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else { return };
    let named = schemas.clone();
    for part in schemas.values_mut().filter_map(Value::as_object_mut).flat_map(|schema| schema.values_mut()) {
        refer_within(part, &named);
    }
}

fn refer_within(part: &mut Value, named: &serde_json::Map<String, Value>) {
    let described = part.get("description").is_some();
    if let Some((name, _)) = named.iter().find(|(_, schema)| described && part == *schema) {
        *part = json!({"$ref": format!("#/components/schemas/{name}")});
    }
    match part {
        Value::Object(fields) => fields.values_mut().for_each(|field| refer_within(field, named)),
        Value::Array(items) => items.iter_mut().for_each(|item| refer_within(item, named)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// In what we write, a field that may be null is always there; utoipa takes every `Option` for one that may be missing.
/// What really may be missing is never null (`nullable = false`).
fn complete(document: &mut Value) {
    let read = read_by_us(document);
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    for (name, schema) in schemas {
        if !read.contains(name) {
            require_nullable(schema);
        }
    }
}

fn require_nullable(schema: &mut Value) {
    for several in ["allOf", "oneOf"] {
        for part in schema.get_mut(several).and_then(Value::as_array_mut).into_iter().flatten() {
            require_nullable(part);
        }
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let nullable = properties.iter().filter(|(_, property)| may_be_null(property)).map(|(name, _)| name.clone());
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let required: BTreeSet<_> = required.filter_map(|name| name.as_str().map(str::to_owned)).chain(nullable).collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
}

fn may_be_null(schema: &Value) -> bool {
    let is_null = |kind: &Value| kind == "null";
    let several = |name: &str| schema[name].as_array().into_iter().flatten();
    is_null(&schema["type"]) || several("type").any(is_null) || several("oneOf").any(may_be_null)
}

/// The schemas of what others send to us, and all that these refer to.
fn read_by_us(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let items = document["paths"].as_object().into_iter().flat_map(|paths| paths.values());
    for operation in items.filter_map(Value::as_object).flat_map(|item| item.values()) {
        refer(&operation["requestBody"], document, &mut found);
    }
    found
}

fn refer(value: &Value, document: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let name =
                fields.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/components/schemas/"));
            if let Some(name) = name.filter(|name| found.insert((*name).to_owned())) {
                refer(&document["components"]["schemas"][name], document, found);
            }
            fields.values().for_each(|field| refer(field, document, found));
        }
        Value::Array(items) => items.iter().for_each(|item| refer(item, document, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adds the examples that are whole answers.
fn show(document: &mut Value) {
    for (name, example) in [("Generation", examples::generation()), ("Credits", examples::credits())] {
        if let Some(schema) =
            document.pointer_mut(&format!("/components/schemas/{name}")).and_then(Value::as_object_mut)
        {
            schema.insert("examples".to_owned(), json!([example]));
        }
    }
}

/// `X-Request-Id` goes in and out everywhere.
fn name_requests(document: &mut Value) {
    let about =
        "Names the request in the log: the caller's own where it has 1 to 128 printable characters, else a fresh one.";
    let schema = json!({"type": "string", "examples": ["0199d4c2b7a07f3e9b1c2a3d4e5f6071"]});
    document["components"]["headers"]["RequestId"] = json!({"description": about, "schema": schema});
    document["components"]["parameters"]["RequestId"] =
        json!({"name": "X-Request-Id", "in": "header", "required": false, "description": about, "schema": schema});
    for (_, response) in responses(document) {
        response["headers"]["X-Request-Id"] = json!({"$ref": "#/components/headers/RequestId"});
    }
    for (_, item) in document["paths"].as_object_mut().into_iter().flatten() {
        item["parameters"] = json!([{"$ref": "#/components/parameters/RequestId"}]);
    }
}

/// The same refusals stand at many operations: each is written once, under the names of its problems.
fn share_refusals(document: &mut Value) {
    let mut shared = serde_json::Map::new();
    for (_, response) in responses(document) {
        let content = response["content"].as_object().filter(|content| content.len() == 1);
        let problems = content.and_then(|content| content.get("application/problem+json")?["examples"].as_object());
        if let Some(problems) = problems {
            let name = problems.keys().map(String::as_str).collect::<Vec<_>>().join("-");
            let reference = json!({"$ref": format!("#/components/responses/{name}")});
            shared.insert(name, std::mem::replace(response, reference));
        }
    }
    document["components"]["responses"] = shared.into();
}

/// Every answer of every operation, by its status.
fn responses(document: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    let items = document["paths"].as_object_mut().into_iter().flatten();
    let operations = items.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten());
    operations.filter_map(|(_, operation)| operation.get_mut("responses")?.as_object_mut()).flatten()
}
