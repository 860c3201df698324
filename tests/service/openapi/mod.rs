//! The API document against the running service: whatever it says is true, and whatever there is it says.

mod breaks;
mod fit;
mod guide;

use std::collections::BTreeSet;

use recoup::config::{ApiKey, Scope};
use recoup::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use self::fit::fits;
use crate::support::{ANY_PORT, Answer, KEY, World, text};

pub(crate) fn document() -> Value {
    serde_json::from_str(&recoup::http::document_text()).unwrap()
}

/// An operation of the document.
struct Operation {
    path: String,
    method: Method,
    about: Value,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Its path with something in the place of each parameter.
    fn filled(&self) -> String {
        let filled = self.path.replace("{family}", "kling%2Fo3-video").replace("{token}", "any.wrong");
        let filled = filled.replace("{generation_id}", "nobody-knows-it").replace("{id}", "nobody-knows-it");
        filled.replace("{code}", "TASK_FAILED").replace("{file}", "swagger-ui.css")
    }

    fn parameters(&self) -> impl Iterator<Item = &Value> {
        self.about["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["in"] == "query")
    }

    async fn send(&self, world: &World, key: Option<&str>, query: &[(&str, &str)]) -> Answer {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        world.send(self.method.clone(), &format!("{}?{query}", self.filled()), key, None).await
    }
}

fn operations() -> Vec<Operation> {
    let document = document();
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters");
        let of = |(method, about): (&String, &Value)| Operation {
            path: path.clone(),
            method: method.to_uppercase().parse().unwrap(),
            about: about.clone(),
        };
        methods.map(of).collect::<Vec<_>>()
    };
    // The stream is read in `events`: it does not end.
    let all = document["paths"].as_object().unwrap().iter().flat_map(of);
    all.filter(|operation| operation.path != "/v1/events/stream").collect()
}

#[test]
fn the_committed_document_is_the_generated_one() {
    let committed = include_str!("../../../docs/openapi.json");
    let same = committed == recoup::http::document_text();
    assert!(
        same,
        "the API changed: look at the difference after `cargo run -- openapi > docs/openapi.json`, and commit it"
    );
}

#[tokio::test]
async fn the_document_is_served_where_everything_but_webhooks_is() {
    let world = World::new().await;
    let served = world.send(Method::GET, "/openapi.json", None, None).await;
    assert_eq!(served.headers["content-type"], "application/json");
    assert_eq!(served.expect(200), document());

    let world = World::with(|config| config.server.admin_listen = Some(ANY_PORT)).await;
    let admin = world.config.server.admin_listen.unwrap();
    for path in ["/openapi.json", "/docs", "/docs/", "/docs/index.css"] {
        world.send(Method::GET, path, None, None).await.problem(404, "NOT_FOUND");
        let answer = world.http.get(format!("http://{admin}{path}")).send().await.unwrap();
        assert!(answer.status().is_success() || answer.status().is_redirection(), "{path}: {}", answer.status());
    }
}

#[tokio::test]
async fn every_operation_is_there_and_no_other_method_is() {
    let world = World::new().await;
    let operations = operations();
    for operation in &operations {
        let answer = operation.send(&world, Some(KEY), &[]).await;
        let name = operation.name();
        assert!(answer.status != 405, "{name}: {}", answer.body);
        let missing = answer.status == 404 && answer.body["detail"] == "There is nothing here.";
        assert!(!missing || operation.path.starts_with("/webhooks"), "{name}: {}", answer.body);
        let documented = operation.about["responses"].as_object().unwrap();
        assert!(documented.contains_key(&answer.status.to_string()), "{name} answers {}", answer.status);

        let allowed: BTreeSet<_> =
            operations.iter().filter(|other| other.filled() == operation.filled()).collect_methods();
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            if allowed.contains(method.as_str()) || operation.path.starts_with("/gateway") {
                continue;
            }
            let answer = world.send(method, &operation.filled(), Some(KEY), None).await;
            let named = answer.headers["allow"].to_str().unwrap().to_owned();
            let named: BTreeSet<_> = named.split(',').map(str::to_owned).filter(|method| method != "HEAD").collect();
            answer.problem(405, "METHOD_NOT_ALLOWED");
            assert_eq!(named, allowed, "{name}");
        }
    }
}

trait CollectMethods<'o>: Iterator<Item = &'o Operation> + Sized {
    fn collect_methods(self) -> BTreeSet<String> {
        self.map(|operation| operation.method.to_string()).collect()
    }
}

impl<'o, I: Iterator<Item = &'o Operation>> CollectMethods<'o> for I {}

#[tokio::test]
async fn each_operation_needs_the_scope_that_it_names() {
    let world = World::with(|config| {
        let only = |scope: Scope| ApiKey {
            name: scope.as_str().to_owned(),
            secret: Secret::new(scope.as_str()),
            scopes: vec![scope],
        };
        config.api.keys = Scope::ALL.map(only).to_vec();
    })
    .await;
    for operation in operations() {
        let needed = operation.about["security"][0]["key"][0].as_str().map(str::to_owned);
        let name = operation.name();
        let without = operation.send(&world, None, &[]).await;
        assert_eq!(without.status == 401, needed.is_some(), "{name} without a key: {}", without.body);
        for scope in Scope::ALL {
            let answer = operation.send(&world, Some(scope.as_str()), &[]).await;
            let refused = needed.as_deref().is_some_and(|needed| needed != scope.as_str());
            assert_eq!(answer.status == 403, refused, "{name} with {}: {}", scope.as_str(), answer.body);
        }
    }
}

#[tokio::test]
async fn each_parameter_is_read_as_it_is_described_and_no_other_is() {
    let world = World::new().await;
    for operation in
        operations().iter().filter(|operation| operation.method == Method::GET && operation.path.starts_with("/v1/"))
    {
        let stranger = operation.send(&world, Some(KEY), &[("stranger", "1")]).await.problem(400, "INVALID_QUERY");
        assert_eq!(stranger["errors"][0]["parameter"], "stranger", "{}", operation.name());
        for parameter in operation.parameters() {
            let (name, schema) = (text(&parameter["name"]), &parameter["schema"]);
            let refused = async |values: &[&str]| {
                let query: Vec<_> = values.iter().map(|value| (name.as_str(), *value)).collect();
                let answer = operation.send(&world, Some(KEY), &query).await;
                (answer.status == 400).then(|| text(&answer.body["errors"][0]["detail"]))
            };
            let case = format!("{} {name}", operation.name());
            if parameter["style"] == "deepObject" {
                let labels =
                    operation.send(&world, Some(KEY), &[("metadata[user]", "42"), ("metadata[shop]", "1")]).await;
                assert_eq!(labels.status, 200, "{case}: {}", labels.body);
                continue;
            }
            let item = if schema["type"] == "array" { &schema["items"] } else { schema };
            let right = right_values(item);
            for value in &right {
                let refused = refused(&[value]).await;
                // A cursor is read, and this one was made up.
                assert!(
                    refused.is_none() || name == "cursor" && refused.unwrap().contains("not a cursor"),
                    "{case} {value}"
                );
            }
            for wrong in wrong_values(item) {
                assert!(refused(&[&wrong]).await.is_some(), "{case} takes {wrong:?}");
            }
            let twice = refused(&[&right[0], &right[0]]).await;
            assert_eq!(twice.is_none(), schema["type"] == "array", "{case} twice: {twice:?}");
        }
    }
}

fn right_values(schema: &Value) -> Vec<String> {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(text).collect();
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("integer"), _) => [&schema["minimum"], &schema["default"]].map(ToString::to_string).to_vec(),
        (_, Some("date-time")) => vec!["2026-11-23T10:02:31.482Z".to_owned()],
        _ => vec!["anything".to_owned()],
    }
}

fn wrong_values(schema: &Value) -> Vec<String> {
    let beyond = |bound: &str, by: i64| (schema[bound].as_i64().unwrap() + by).to_string();
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("integer"), _) => vec![beyond("minimum", -1), beyond("maximum", 1), "1.5".to_owned(), String::new()],
        (_, Some("date-time")) => vec!["yesterday".to_owned(), "2026-11-23".to_owned()],
        _ if schema["enum"].is_array() => vec!["nonsense".to_owned(), String::new()],
        _ => Vec::new(),
    }
}

/// A schema that nothing refers to is written out in full somewhere, where what holds for named ones is not added.
#[test]
fn every_schema_is_referred_to() {
    let document = document();
    let all = document.to_string();
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(all.contains(&format!("\"#/components/schemas/{name}\"")), "{name}");
    }
}

#[test]
fn every_example_fits_its_schema() {
    fn walk(document: &Value, part: &Value, place: &str, seen: &mut usize) {
        let mut check = |schema: &Value, example: &Value| {
            fits(document, schema, example, place);
            *seen += 1;
        };
        let is_schema = part["type"].is_string() || part["type"].is_array() || part["properties"].is_object();
        for example in part["examples"].as_array().into_iter().flatten().filter(|_| is_schema) {
            check(part, example);
        }
        for example in part["examples"].as_object().into_iter().flat_map(|examples| examples.values()) {
            check(&part["schema"], &example["value"]);
        }
        if part["schema"].is_object() && !part["example"].is_null() {
            check(&part["schema"], &part["example"]);
        }
        match part {
            Value::Object(fields) => {
                for (name, field) in fields.iter().filter(|(name, _)| !name.starts_with("example")) {
                    walk(document, field, &format!("{place}/{name}"), seen);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(document, item, place, seen)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    let mut seen = 0;
    walk(&document, &document, "", &mut seen);
    assert!(seen > 80, "only {seen} examples were looked at");
}

/// What leaves with a gap in it is described with the gap: null is always there, what may be missing is never null.
#[tokio::test]
async fn answers_fit_their_schemas_in_every_state() {
    let world = World::new().await;
    let document = document();
    let (prepared, url) = world.prepare().await;
    let bought = world.buy(recoup::sandbox::Plan::failed("CONTENT_POLICY_VIOLATION")).await;
    world.webhook(&url, "no JSON").await.problem(422, "UNREADABLE_WEBHOOK");
    world.advance_s(400).await;
    for id in [&prepared, &bought.id] {
        for (path, schema) in [
            ("", "Generation"),
            ("/timeline", "List_TimelineEntry"),
            ("/diagnosis", "DiagnosisOfGeneration"),
            ("/evidence", "Evidence"),
        ] {
            let answer = world.get(&format!("/v1/generations/{id}{path}")).await.expect(200);
            fits(&document, &json!({"$ref": format!("#/components/schemas/{schema}")}), &answer, path);
        }
    }
}

#[tokio::test]
async fn the_viewer_is_whole_and_loads_nothing_from_elsewhere() {
    let world = World::new().await;
    let lead = world.http.get(format!("{}/docs", world.url)).send().await.unwrap();
    assert_eq!((lead.status().as_u16(), lead.headers()["location"].to_str().unwrap()), (308, "/docs/"));
    let page = world.http.get(format!("{}/docs/", world.url)).send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self';") && policy.contains("default-src 'none'"), "{policy}");
    assert!(!policy.contains("http") && !policy.contains("unsafe-eval"), "{policy}");
    let page = unzip(page).await;
    let mut loaded = 0;
    for link in page.split(['"', '\'']).filter(|word| word.starts_with("./") || word.contains("://")) {
        assert!(link.starts_with("./"), "{link} is elsewhere");
        let file = world.http.get(format!("{}/docs/{}", world.url, &link[2..])).send().await.unwrap();
        assert_eq!(file.status(), 200, "{link}");
        loaded += 1;
    }
    assert!(loaded >= 4, "{page}");
    let start = world.http.get(format!("{}/docs/swagger-initializer.js", world.url)).send().await.unwrap();
    assert!(unzip(start).await.contains("/openapi.json"));
    world.send(Method::GET, "/docs/nothing.js", None, None).await.problem(404, "NOT_FOUND");
}

/// The tests' client does not unzip.
async fn unzip(response: reqwest::Response) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let zipped = response.headers().get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    let bytes = response.bytes().await.unwrap();
    if !zipped {
        return String::from_utf8(bytes.to_vec()).unwrap();
    }
    let mut gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(&bytes).unwrap();
    String::from_utf8(gzip.wait_with_output().unwrap().stdout).unwrap()
}
