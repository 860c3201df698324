//! Whether an API document breaks those who were written to an earlier one. Strict with what is asked of them, tolerant with what
//! is added to what they read: that may grow (the document says so), but nothing of it may go or change.
//!
//! No maintained tool fits: see docs/adr/0012.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// What of `new` breaks whoever relies on `old`, a line each.
fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut look = Look { old, new, seen: BTreeSet::new(), found: Vec::new() };
    for (place, direction) in [("paths", Direction::In), ("webhooks", Direction::Out)] {
        for (path, item) in fields(&old[place]) {
            for (method, operation) in fields(item).filter(|(method, _)| *method != "parameters") {
                let now = &new[place][path][method];
                let name = format!("{} {path}", method.to_uppercase());
                if now.is_null() {
                    look.found.push(format!("{name} is gone"));
                } else {
                    look.operation(&name, operation, now, direction);
                }
            }
        }
    }
    look.found
}

/// Who writes what is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    /// The others.
    In,
    /// We.
    Out,
}

impl Direction {
    fn back(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

struct Look<'d> {
    old: &'d Value,
    new: &'d Value,
    /// Schemas that were compared already: they may hold themselves.
    seen: BTreeSet<(String, String, Direction)>,
    found: Vec<String>,
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn texts(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn follow<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(to) => document.pointer(&to[1..]).unwrap(),
        None => value,
    }
}

impl Look<'_> {
    fn operation(&mut self, name: &str, old: &Value, new: &Value, direction: Direction) {
        for part in ["operationId", "security"] {
            if old[part] != new[part] {
                self.found.push(format!("{name}: {part} was {}, is {}", old[part], new[part]));
            }
        }
        self.parameters(name, old, new, direction);
        self.body(name, old, new, direction);
        for (status, response) in fields(&old["responses"]) {
            let (was, now) = (follow(self.old, response), follow(self.new, &new["responses"][status]));
            let place = format!("{name} {status}");
            if now.is_null() {
                self.found.push(format!("{place} is gone"));
                continue;
            }
            for (header, _) in fields(&was["headers"]).filter(|(header, _)| now["headers"][header.as_str()].is_null()) {
                self.found.push(format!("{place}: the header {header} is gone"));
            }
            self.contents(&place, was, now, direction.back());
        }
    }

    fn parameters(&mut self, name: &str, old: &Value, new: &Value, direction: Direction) {
        let named = |operation: &Value, wanted: &Value| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            parameters.clone().find(|one| one["name"] == wanted["name"] && one["in"] == wanted["in"]).cloned()
        };
        for was in old["parameters"].as_array().into_iter().flatten() {
            let place = format!("{name} {}", was["name"]);
            match named(new, was) {
                None => self.found.push(format!("{place} is gone")),
                Some(now) => {
                    if now["required"] == true && was["required"] != true && direction == Direction::In {
                        self.found.push(format!("{place} is required now"));
                    }
                    if now["style"] != was["style"] {
                        self.found.push(format!("{place} is written differently"));
                    }
                    self.schema(&place, &was["schema"], &now["schema"], direction);
                }
            }
        }
        for now in new["parameters"].as_array().into_iter().flatten().filter(|now| now["required"] == true) {
            if named(old, now).is_none() && direction == Direction::In {
                self.found.push(format!("{name} {} is new and required", now["name"]));
            }
        }
    }

    fn body(&mut self, name: &str, old: &Value, new: &Value, direction: Direction) {
        let (was, now) = (&old["requestBody"], &new["requestBody"]);
        if now["required"] == true && was["required"] != true {
            self.found.push(format!("{name} needs a body now"));
        }
        if !was.is_null() {
            self.contents(&format!("{name} body"), was, now, direction);
        }
    }

    fn contents(&mut self, place: &str, old: &Value, new: &Value, direction: Direction) {
        for (kind, content) in fields(&old["content"]) {
            let now = &new["content"][kind];
            if now.is_null() {
                self.found.push(format!("{place}: {kind} is gone"));
            } else {
                self.schema(place, &content["schema"], &now["schema"], direction);
            }
        }
    }

    fn schema(&mut self, place: &str, old: &Value, new: &Value, direction: Direction) {
        if let (Some(was), Some(now)) = (old["$ref"].as_str(), new["$ref"].as_str())
            && !self.seen.insert((was.to_owned(), now.to_owned(), direction))
        {
            return;
        }
        let (was, now) = (Choice::of(self.old, old), Choice::of(self.new, new));
        match direction {
            Direction::In if was.null && !now.null => self.found.push(format!("{place} may not be null any more")),
            Direction::Out if now.null && !was.null => self.found.push(format!("{place} may be null now")),
            Direction::In | Direction::Out => {}
        }
        for (nth, one) in was.of.iter().enumerate() {
            let same = now
                .of
                .iter()
                .find(|other| one.key == other.key)
                .or_else(|| now.of.get(nth).filter(|_| was.of.len() == 1));
            match (same, direction) {
                (Some(same), _) => self.plain(place, &one.schema, &same.schema, direction),
                (None, Direction::In) => self.found.push(format!("{place} may not be {} any more", one.key)),
                // One answer less to be ready for.
                (None, Direction::Out) => {}
            }
        }
    }

    /// Two schemas without alternatives and references.
    fn plain(&mut self, place: &str, old: &Value, new: &Value, direction: Direction) {
        let kinds = |schema: &Value| {
            let one = schema["type"].as_str().into_iter();
            let several = texts(&schema["type"]).into_iter().filter(|kind| *kind != "null");
            one.chain(several).map(str::to_owned).collect::<Vec<_>>()
        };
        if kinds(old) != kinds(new) {
            self.found.push(format!("{place} was {:?}, is {:?}", kinds(old), kinds(new)));
            return;
        }
        match direction {
            Direction::In => self.narrowed(place, old, new),
            Direction::Out => {
                for part in ["format", "pattern", "contentEncoding"].into_iter().filter(|part| old[part] != new[part]) {
                    self.found.push(format!("{place}: {part} was {}, is {}", old[part], new[part]));
                }
            }
        }
        self.properties(place, old, new, direction);
        for part in ["items", "additionalProperties", "contentSchema"] {
            if old[part].is_object() && new[part].is_object() {
                self.schema(&format!("{place}/*"), &old[part], &new[part], direction);
            } else if old[part].is_object() || direction == Direction::In && new[part] == false && old[part] != false {
                self.found.push(format!("{place}: {part} changed"));
            }
        }
    }

    fn properties(&mut self, place: &str, old: &Value, new: &Value, direction: Direction) {
        let (was_needed, is_needed) = (texts(&old["required"]), texts(&new["required"]));
        match direction {
            Direction::In => {
                for name in is_needed.difference(&was_needed) {
                    self.found.push(format!("{place}/{name} is required now"));
                }
            }
            Direction::Out => {
                for name in was_needed.difference(&is_needed) {
                    self.found.push(format!("{place}/{name} may be missing now"));
                }
            }
        }
        for (name, property) in fields(&old["properties"]) {
            let place = format!("{place}/{name}");
            match new["properties"].get(name) {
                None => self.found.push(format!("{place} is gone")),
                Some(now) => self.schema(&place, property, now, direction),
            }
        }
    }

    /// Whether others may send less than they could.
    fn narrowed(&mut self, place: &str, old: &Value, new: &Value) {
        if !new["enum"].is_null() {
            if old["enum"].is_null() {
                self.found.push(format!("{place} takes only some words now"));
            }
            let is = texts(&new["enum"]);
            for word in texts(&old["enum"]).difference(&is) {
                self.found.push(format!("{place} does not take {word} any more"));
            }
        }
        for part in ["pattern", "format"].into_iter().filter(|part| !new[part].is_null() && old[part] != new[part]) {
            self.found.push(format!("{place}: {part} was {}, is {}", old[part], new[part]));
        }
        for (part, sign) in [
            ("minimum", 1.0),
            ("minLength", 1.0),
            ("minItems", 1.0),
            ("minProperties", 1.0),
            ("maximum", -1.0),
            ("maxLength", -1.0),
            ("maxItems", -1.0),
            ("maxProperties", -1.0),
        ] {
            let tighter = match (old[part].as_f64(), new[part].as_f64()) {
                (Some(was), Some(is)) => (is - was) * sign > 0.0,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if tighter {
                self.found.push(format!("{place}: {part} was {}, is {}", old[part], new[part]));
            }
        }
        if old["default"] != new["default"] {
            self.found.push(format!("{place}: the default was {}, is {}", old["default"], new["default"]));
        }
    }
}

/// A schema as alternatives, null apart.
struct Choice {
    null: bool,
    of: Vec<Alternative>,
}

struct Alternative {
    /// What tells it from the others: its name, its `kind`, its type.
    key: String,
    schema: Value,
}

impl Choice {
    fn of(document: &Value, schema: &Value) -> Self {
        let whole = follow(document, schema);
        let Some(parts) = whole["oneOf"].as_array() else {
            let null = texts(&whole["type"]).contains("null") || whole["type"] == "null";
            return Self { null, of: vec![Alternative::of(document, schema)] };
        };
        let mut choice = Self { null: false, of: Vec::new() };
        for part in parts {
            let part = Self::of(document, part);
            choice.null |= part.null;
            choice.of.extend(part.of.into_iter().filter(|one| one.schema["type"] != "null"));
        }
        choice
    }
}

impl Alternative {
    fn of(document: &Value, schema: &Value) -> Self {
        let whole = merged(document, schema);
        let key = match (&whole["properties"]["kind"]["enum"][0], &schema["$ref"]) {
            (Value::String(kind), _) => kind.clone(),
            (_, Value::String(name)) => name.clone(),
            _ => whole["type"].to_string(),
        };
        Self { key, schema: whole }
    }
}

/// Joins the parts of an `allOf`.
fn merged(document: &Value, schema: &Value) -> Value {
    let whole = follow(document, schema);
    let Some(parts) = whole["allOf"].as_array() else { return whole.clone() };
    let (mut properties, mut required) = (Map::new(), BTreeSet::new());
    for part in parts.iter().map(|part| merged(document, part)) {
        required.extend(texts(&part["required"]).into_iter().map(str::to_owned));
        properties.extend(fields(&part["properties"]).map(|(name, property)| (name.clone(), property.clone())));
    }
    json!({"type": "object", "properties": properties, "required": required})
}

fn released() -> Value {
    serde_json::from_str(include_str!("../../../docs/openapi.released.json")).unwrap()
}

#[test]
fn nothing_that_was_released_breaks() {
    let found = breaks(&released(), &super::document());
    assert!(
        found.is_empty(),
        "this breaks clients (CONTRIBUTING.md says how that is done on purpose):\n{}",
        found.join("\n")
    );
}

/// Changes a document at a pointer: `Null` takes away what is there.
fn changed(pointer: &str, value: &Value) -> Value {
    let mut document = released();
    let (place, name) = pointer.rsplit_once('/').unwrap();
    let name = name.replace("~1", "/");
    let place = document.pointer_mut(place).unwrap_or_else(|| panic!("{pointer}"));
    match (place, value) {
        (Value::Object(fields), Value::Null) => assert!(fields.remove(&name).is_some(), "{pointer}"),
        (Value::Object(fields), value) => drop(fields.insert(name, value.clone())),
        (Value::Array(items), Value::Null) => drop(items.remove(name.parse().unwrap())),
        (Value::Array(items), value) if name == "-" => items.push(value.clone()),
        (place, _) => panic!("{pointer}: {place}"),
    }
    document
}

#[test]
fn planted_breaks_are_seen() {
    let text = json!({"type": "string"});
    for (pointer, value, said) in [
        ("/paths/~1v1~1stats", Value::Null, "GET /v1/stats is gone"),
        ("/paths/~1v1~1generations~1{id}/patch", Value::Null, "PATCH /v1/generations/{id} is gone"),
        ("/webhooks/generation.updated", Value::Null, "POST generation.updated is gone"),
        ("/paths/~1v1~1credits/get/parameters/0", Value::Null, "\"since\" is gone"),
        (
            "/paths/~1v1~1credits/get/parameters/-",
            json!({"name": "of", "in": "query", "required": true, "schema": text}),
            "\"of\" is new and required",
        ),
        ("/paths/~1v1~1credits/get/parameters/0/required", json!(true), "\"since\" is required now"),
        ("/paths/~1v1~1generations~1{id}/get/parameters/1/schema/maximum", json!(30), "maximum was 60, is 30"),
        (
            "/paths/~1v1~1generations/get/parameters/0/schema/items/enum/0",
            Value::Null,
            "does not take prepared any more",
        ),
        ("/paths/~1v1~1generations/get/security/0/key/0", json!(null), "security was"),
        ("/paths/~1v1~1generations~1{id}~1checks/post/responses/429", Value::Null, "429 is gone"),
        (
            "/paths/~1v1~1generations~1{id}~1evidence/get/responses/200/content/text~1markdown",
            Value::Null,
            "text/markdown is gone",
        ),
        ("/paths/~1v1~1generations/post/responses/201/headers/Location", Value::Null, "the header Location is gone"),
        ("/components/schemas/Generation/properties/price", Value::Null, "/price is gone"),
        (
            "/components/schemas/Generation/properties/created_at",
            json!({"oneOf": [{"$ref": "#/components/schemas/Time"}, {"type": "null"}]}),
            "/created_at may be null now",
        ),
        (
            "/components/schemas/Generation/properties/checks/type",
            json!("string"),
            "/checks was [\"integer\"], is [\"string\"]",
        ),
        ("/components/schemas/Generation/required/0", Value::Null, "may be missing now"),
        ("/components/schemas/MoneyReport/properties/total", Value::Null, "/total is gone"),
        ("/components/schemas/Usd/pattern", json!("^[0-9]+$"), "pattern was"),
        ("/components/schemas/Registration/properties/prompt", Value::Null, "/prompt is gone"),
        ("/components/schemas/Registration/required", json!(["price"]), "/price is required now"),
        ("/components/schemas/Registration/properties/prompt/maxLength", json!(10), "maxLength was 10000, is 10"),
        (
            "/components/schemas/Registration/properties/prompt/type",
            text["type"].clone(),
            "/prompt may not be null any more",
        ),
        ("/components/schemas/KnownFamily/enum/0", Value::Null, "any more"),
        ("/components/schemas/ProviderWebhook/required/-", json!("video_url"), "/video_url is required now"),
    ] {
        let found = breaks(&released(), &changed(pointer, &value));
        assert!(found.iter().any(|line| line.contains(said)), "{pointer}: {said:?} is not in {found:#?}");
    }
}

#[test]
fn what_is_harmless_is_let_through() {
    let text = json!({"type": "string"});
    for (pointer, value) in [
        ("/paths/~1v1~1new", json!({"get": {"operationId": "new", "responses": {}}})),
        (
            "/paths/~1v1~1credits/get/parameters/-",
            json!({"name": "of", "in": "query", "required": false, "schema": text}),
        ),
        ("/paths/~1v1~1credits/get/responses/418", json!({"description": "A teapot."})),
        ("/paths/~1v1~1credits/get/description", json!("Other words.")),
        ("/components/schemas/Generation/properties/new", text.clone()),
        ("/components/schemas/Generation/required/-", json!("new")),
        ("/components/schemas/Status/enum/-", json!("paused")),
        ("/components/schemas/Registration/properties/new", text.clone()),
        ("/components/schemas/Registration/properties/prompt/maxLength", json!(20_000)),
        ("/components/schemas/KnownFamily/enum/-", json!("kling/o9")),
        ("/components/schemas/Generation/examples", json!([])),
    ] {
        assert_eq!(breaks(&released(), &changed(pointer, &value)), Vec::<String>::new(), "{pointer}");
    }
}
