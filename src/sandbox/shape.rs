//! The documented bodies of every family (provider.md sections 2 to 5 and 10). All values are invented.

use serde_json::{Map, Value, json};

use super::plan::PingBody;
use super::world::{Purchase, Standing};
use crate::domain::family::Family;
use crate::domain::time::Time;

impl Purchase {
    /// The documented answer to the purchase.
    pub fn accepted_body(&self) -> Value {
        accepted(self)
    }

    /// The documented answer to a status read at `now`.
    pub fn status_body(&self, now: Time) -> Value {
        status(self, &self.standing(now))
    }

    /// A webhook as it is sent at `now`.
    pub fn webhook_body(&self, body: &PingBody, now: Time) -> Vec<u8> {
        webhook(self, body, now)
    }
}

/// The answer to a purchase.
pub(super) fn accepted(purchase: &Purchase) -> Value {
    let family = purchase.family;
    let mut body = Map::new();
    body.insert(family.id_field.to_owned(), json!(purchase.id));
    body.insert("status".to_owned(), json!("pending"));
    if family.price_in_answer {
        // Of Motion Control it comes later (provider.md section 2).
        let is_motion = family.path == "kling" && purchase.model.contains("_motion");
        let price = if is_motion { json!("calculating") } else { json!(purchase.price) };
        body.insert("price".to_owned(), price);
    }
    if let Some(seed) = purchase.asked.seed {
        body.insert("seed".to_owned(), json!(seed));
    }
    if let Some(description) = &purchase.plan.description {
        body.insert("description".to_owned(), json!(description));
    }
    if family.path == "seedance" {
        body.insert("model".to_owned(), json!(purchase.model));
        body.insert("output".to_owned(), Value::Null);
        body.insert("error".to_owned(), Value::Null);
    }
    Value::Object(body)
}

/// The answer to a status read.
pub(super) fn status(purchase: &Purchase, standing: &Standing) -> Value {
    let family = purchase.family;
    let mut body = outcome(purchase, standing);
    body.insert("prompt".to_owned(), json!(purchase.prompt));
    if !purchase.plan.reason_in_status.unwrap_or(family.reason_in_status) {
        body.remove(family.reason_field);
    }
    let is_final = matches!(standing, Standing::Completed { .. } | Standing::Failed { .. });
    let completed_at = is_final.then_some(purchase.ends_at);
    match family.path {
        "kling" => {
            // Missing, not null, while processing (provider.md 10.1).
            body.retain(|key, value| key != family.result_field || !value.is_null());
            body.insert("created_at".to_owned(), json!(purchase.bought_at));
            body.insert("completed_at".to_owned(), json!(completed_at));
            body.insert("model".to_owned(), json!(purchase.model));
            body.insert("duration".to_owned(), json!(purchase.seconds));
        }
        "veo" | "sora" => {
            body.insert("created_at".to_owned(), json!(zoneless(purchase.bought_at)));
            body.insert("completed_at".to_owned(), json!(completed_at.map(zoneless)));
        }
        _ => {}
    }
    if family.path == "sora" {
        body.insert("progress_pct".to_owned(), json!(if is_final { 100 } else { 0 }));
        body.insert("progress_pos_in_queue".to_owned(), Value::Null);
    }
    if let Some(seed) = purchase.asked.seed {
        body.insert("seed".to_owned(), json!(seed));
    }
    if let Some(description) = &purchase.plan.description {
        body.insert("description".to_owned(), json!(description));
    }
    if is_kling_o(family) {
        body.insert("model".to_owned(), json!(composed_model(purchase)));
    }
    Value::Object(body)
}

/// Veo and Sora write times without a zone (provider.md 9.22).
fn zoneless(time: Time) -> String {
    json!(time).as_str().unwrap_or_default().trim_end_matches('Z').to_owned()
}

/// A webhook.
pub(super) fn webhook(purchase: &Purchase, body: &PingBody, now: Time) -> Vec<u8> {
    let documented = |standing: &Standing| documented(purchase, standing, now);
    let standing = purchase.standing(now.max(purchase.ends_at));
    match body {
        PingBody::Documented => documented(&standing),
        PingBody::Contradicting => documented(&opposite(purchase, &standing)),
        PingBody::Truncated => {
            let mut whole = documented(&standing);
            whole.truncate(whole.len() / 2);
            whole
        }
        PingBody::NotJson => b"<html><body>502 Bad Gateway</body></html>".to_vec(),
        PingBody::UnknownStatus(word) => changed(&documented(&standing), "status", json!(word)),
        PingBody::WrongId => changed(&documented(&standing), purchase.family.id_field, json!("somebody-elses-id")),
        PingBody::WithoutUrl => documented(&Standing::Completed { url: None }),
        PingBody::WithoutReason => documented(&Standing::Failed { reason: Value::Null }),
        PingBody::Raw(text) => text.clone().into_bytes(),
    }
}

fn opposite(purchase: &Purchase, standing: &Standing) -> Standing {
    match standing {
        Standing::Completed { .. } => Standing::Failed { reason: json!("TASK_FAILED") },
        Standing::Pending | Standing::Processing | Standing::Failed { .. } => {
            Standing::Completed { url: Some(purchase.result_url()) }
        }
    }
}

fn changed(body: &[u8], key: &str, value: Value) -> Vec<u8> {
    let mut fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    fields.insert(key.to_owned(), value);
    Value::Object(fields).to_string().into_bytes()
}

fn documented(purchase: &Purchase, standing: &Standing, now: Time) -> Vec<u8> {
    let family = purchase.family;
    let mut body = outcome(purchase, standing);
    if is_kling_o(family) {
        // Exactly five fields: no prompt, price, time or attempt (provider.md section 4).
        body.insert("model".to_owned(), json!(composed_model(purchase)));
    }
    if family.path == "kling" {
        body.insert("completed_at".to_owned(), json!(now));
    }
    if matches!(family.path, "sora" | "veo") {
        body.insert("prompt".to_owned(), json!(purchase.prompt));
        body.insert("created_at".to_owned(), json!(zoneless(purchase.bought_at)));
        body.insert("completed_at".to_owned(), json!(zoneless(now)));
    }
    if let Some(seed) = purchase.asked.seed {
        body.insert("seed".to_owned(), json!(seed));
    }
    Value::Object(body).to_string().into_bytes()
}

/// Id, status, result and reason, each in the family's own field.
fn outcome(purchase: &Purchase, standing: &Standing) -> Map<String, Value> {
    let family = purchase.family;
    let (url, reason) = match standing {
        Standing::Pending | Standing::Processing => (None, Value::Null),
        Standing::Completed { url } => (url.clone(), Value::Null),
        Standing::Failed { reason } => (None, reason.clone()),
    };
    let reason = match (family.path, reason) {
        (_, Value::Null) => Value::Null,
        // The reason is inside an object (provider.md 10.4 and 10.7).
        ("veo", Value::String(text)) => json!({"message": text}),
        ("seedance", Value::String(code)) => json!({"code": code, "message": "The task failed."}),
        (_, reason) => reason,
    };
    let mut body = Map::new();
    body.insert(family.id_field.to_owned(), json!(purchase.id));
    body.insert("status".to_owned(), json!(standing.word()));
    match family.result_field.split_once('.') {
        Some((outer, _)) => body.insert(outer.to_owned(), url.as_deref().map_or(Value::Null, seedance_output)),
        None => body.insert(family.result_field.to_owned(), json!(url)),
    };
    body.insert(family.reason_field.to_owned(), reason);
    body
}

/// provider.md 10.7.
fn seedance_output(url: &str) -> Value {
    let last_frame = url.replace(".mp4", ".png");
    json!({"video_urls": [url], "last_frame_url": last_frame})
}

fn is_kling_o(family: &Family) -> bool {
    matches!(family.path, "kling/o3-video" | "kling/o3-photo" | "kling/o1-video" | "kling/o1-photo")
}

/// An identifier of family, seconds and tier: not the value that was sent (provider.md 9.1).
fn composed_model(purchase: &Purchase) -> String {
    if purchase.family.path != "kling/o3-video" {
        return purchase.model.clone();
    }
    let tier = if purchase.model.ends_with("_pro") { "-pro" } else { "" };
    format!("kling-o3-video-{}s{tier}", purchase.seconds.unwrap_or(5))
}
