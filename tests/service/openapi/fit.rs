//! Whether a value fits a schema: the words of JSON Schema that our document uses, and no others. `tests/schemathesis` holds real
//! answers to the document with a whole validator; a crate of one costs more to build than all else that only tests need.

use serde_json::Value;

/// Words that say nothing about a value, or that are looked at elsewhere.
const SILENT: [&str; 13] = [
    "minItems",
    "maxItems",
    "description",
    "examples",
    "example",
    "default",
    "format",
    "pattern",
    "title",
    "propertyNames",
    "contentMediaType",
    "contentSchema",
    "components",
];

/// Holds a value to a schema of the document.
#[track_caller]
pub(crate) fn fits(document: &Value, schema: &Value, value: &Value, case: &str) {
    let mut wrong = Vec::new();
    check(document, schema, value, "", &mut wrong);
    assert!(wrong.is_empty(), "{case}: {}\n{value:#}", wrong.join("\n"));
}

fn check(document: &Value, schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
    let Value::Object(words) = schema else { return };
    let number = |limit: &Value, by: fn(f64, f64) -> bool, of: Option<f64>| {
        of.is_none_or(|number| by(number, limit.as_f64().unwrap()))
    };
    let (chars, entries) =
        (value.as_str().map(|text| text.chars().count()), value.as_object().map(serde_json::Map::len));
    let count = |count: Option<usize>| count.map(|count| f64::from(u32::try_from(count).unwrap()));
    for (word, said) in words {
        let right = match word.as_str() {
            "$ref" => {
                check(document, document.pointer(&said.as_str().unwrap()[1..]).unwrap(), value, place, wrong);
                true
            }
            "type" => is_a(said, value),
            "enum" => said.as_array().unwrap().contains(value),
            "required" => said
                .as_array()
                .unwrap()
                .iter()
                .all(|name| !value.is_object() || value.get(name.as_str().unwrap()).is_some()),
            "minimum" => number(said, |a, b| a >= b, value.as_f64()),
            "maximum" => number(said, |a, b| a <= b, value.as_f64()),
            "minLength" => number(said, |a, b| a >= b, count(chars)),
            "maxLength" => number(said, |a, b| a <= b, count(chars)),
            "maxProperties" => number(said, |a, b| a <= b, count(entries)),
            "properties" => {
                for (name, property) in said.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(document, property, value, &format!("{place}/{name}"), wrong);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = |name: &str| words.get("properties").is_some_and(|known| known.get(name).is_some());
                let others = value.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
                let others: Vec<_> = others.collect();
                for (name, value) in &others {
                    check(document, said, value, &format!("{place}/{name}"), wrong);
                }
                *said != false || others.is_empty()
            }
            "items" => {
                value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .for_each(|item| check(document, said, item, &format!("{place}/*"), wrong));
                true
            }
            "allOf" => {
                said.as_array().unwrap().iter().for_each(|part| check(document, part, value, place, wrong));
                true
            }
            "oneOf" => one_of(document, said.as_array().unwrap(), value) == 1,
            word => {
                assert!(SILENT.contains(&word), "{word} is not looked at");
                true
            }
        };
        if !right {
            wrong.push(format!("{place}: {value} is against {word} {said}"));
        }
    }
}

fn one_of(document: &Value, parts: &[Value], value: &Value) -> usize {
    let fitting = parts.iter().filter(|part| {
        let mut wrong = Vec::new();
        check(document, part, value, "", &mut wrong);
        wrong.is_empty()
    });
    fitting.count()
}

fn is_a(kind: &Value, value: &Value) -> bool {
    if let Some(kinds) = kind.as_array() {
        return kinds.iter().any(|kind| is_a(kind, value));
    }
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    }
}

#[test]
fn what_does_not_fit_is_seen() {
    let document = serde_json::json!({"components": {"schemas": {"Word": {"type": "string", "enum": ["a", "b"]}}}});
    let schema = serde_json::json!({
        "type": "object", "required": ["word"], "additionalProperties": false,
        "properties": {
            "word": {"$ref": "#/components/schemas/Word"},
            "number": {"type": ["integer", "null"], "minimum": 1},
            "either": {"oneOf": [{"$ref": "#/components/schemas/Word"}, {"type": "null"}]},
            "list": {"type": "array", "items": {"type": "string", "maxLength": 2}},
        },
    });
    let mistakes = |value: Value| {
        let mut wrong = Vec::new();
        check(&document, &schema, &value, "", &mut wrong);
        wrong.len()
    };
    assert_eq!(mistakes(serde_json::json!({"word": "a", "number": null, "either": null, "list": ["ab"]})), 0);
    for wrong in [
        serde_json::json!({}),
        serde_json::json!([]),
        serde_json::json!({"word": "c"}),
        serde_json::json!({"word": "a", "stranger": 1}),
        serde_json::json!({"word": "a", "number": 0}),
        serde_json::json!({"word": "a", "number": "1"}),
        serde_json::json!({"word": "a", "either": "c"}),
        serde_json::json!({"word": "a", "list": ["abc"]}),
    ] {
        assert!(mistakes(wrong.clone()) > 0, "{wrong}");
    }
}
