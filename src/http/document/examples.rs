//! Real answers for the API document: those of the contract. A test holds each to its schema.

use serde_json::{Value, json};

use crate::domain::event::EventKind;

/// A generation that failed.
pub(super) fn generation() -> Value {
    json!({
        "id": "gen_0199d4c2b7a07f3e9b1c2a3d4e5f6071",
        "generation_id": "7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa",
        "family": "kling/o3-video",
        "status": "failed",
        "attention": null,
        "model": "kling_o3_pro",
        "duration_seconds": 10,
        "prompt": "a paper boat on a puddle",
        "result_url": null,
        "error": {
            "code": "CONTENT_POLICY_VIOLATION", "category": "content", "text": null,
            "description": "The prompt or an image breaks the content policy.",
            "solution": "Change the prompt or the image.", "retryable": false, "known": true,
        },
        "price": "0.4500",
        "credits": "refund_expected",
        "refund_expected_by": "2026-11-23T10:07:31Z",
        "source": "webhook",
        "verification": "token",
        "recovered": false,
        "submitted_via": "gateway",
        "created_at": "2026-11-23T09:59:02.097Z",
        "submitted_at": "2026-11-23T09:59:02.114Z",
        "expected_by": "2026-11-23T10:06:32Z",
        "settled_at": "2026-11-23T10:02:31.482Z",
        "next_check_at": null,
        "checks": 0,
        "deliveries": 1,
        "metadata": {"user": "42"},
    })
}

/// The money report.
pub(super) fn credits() -> Value {
    json!({
        "since": null, "until": null, "currency": "USD",
        "total": {"count": 120, "charged": "31.2000", "price_unknown": 1},
        "by_state": {
            "delivered": {"count": 101, "amount": "26.1000"},
            "charged": {"count": 8, "amount": "2.4000"},
            "refund_expected": {"count": 1, "amount": "0.1500"},
            "refunded": {"count": 7, "amount": "2.1000"},
            "at_risk": {"count": 2, "amount": "0.4500"},
            "not_charged": {"count": 1, "amount": "0.0000"},
        },
        "recovered": {"count": 9, "amount": "2.2500"},
        "by_attention": {"stuck": {"count": 1, "amount": "0.3000"}, "unconfirmed": {"count": 1, "amount": "0.1500"}},
        "by_error_code": {"CONTENT_POLICY_VIOLATION": {"count": 5, "amount": "1.5000"}},
        "by_model": {"kling_o3": {"count": 90, "amount": "13.5000"}},
    })
}

/// The body of an event of this kind.
pub(super) fn event(kind: EventKind) -> Value {
    json!({"type": kind.as_str(), "timestamp": "2026-11-23T10:02:31.482Z", "sequence": 1, "data": generation()})
}

/// What the provider sends.
pub(super) fn webhook() -> Value {
    json!({
        "generation_id": "7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa", "status": "failed", "video_url": null,
        "model": "kling-o3-video-10s-pro", "message": "CONTENT_POLICY_VIOLATION",
    })
}
