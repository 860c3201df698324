//! The rows of the provider's families.

use std::time::Duration;

use super::{DurationForm, Expected, Family, Medium, Model, Offer, UNDOCUMENTED, seconds};

/// Five attempts, 30 seconds apart (provider.md section 4).
const LINEAR: &[Duration] = &[Duration::from_secs(30); 4];

/// Five attempts, 30, 60, 120 and 240 seconds apart (provider.md 9.4).
const EXPONENTIAL: &[Duration] =
    &[Duration::from_secs(30), Duration::from_mins(1), Duration::from_mins(2), Duration::from_mins(4)];
/// Up to three retries; how far apart is not documented.
const THRICE: &[Duration] = &[Duration::from_secs(30); 3];

/// Kling main: 2 to 5 minutes, whatever the model (provider.md section 10).
const KLING: Expected = seconds(120, 300);
/// O1 video and Veo: 1 to 10 minutes (provider.md section 10).
const TEN_MINUTES: Expected = seconds(60, 600);
const FIVE_OR_TEN: &[Offer] = &[offer(5, KLING), offer(10, KLING)];
const THREE_TO_FIFTEEN: &[Offer] = &[
    offer(3, KLING),
    offer(4, KLING),
    offer(5, KLING),
    offer(6, KLING),
    offer(7, KLING),
    offer(8, KLING),
    offer(9, KLING),
    offer(10, KLING),
    offer(11, KLING),
    offer(12, KLING),
    offer(13, KLING),
    offer(14, KLING),
    offer(15, KLING),
];
const THREE_TO_TEN: &[Offer] = &[
    offer(3, TEN_MINUTES),
    offer(4, TEN_MINUTES),
    offer(5, TEN_MINUTES),
    offer(6, TEN_MINUTES),
    offer(7, TEN_MINUTES),
    offer(8, TEN_MINUTES),
    offer(9, TEN_MINUTES),
    offer(10, TEN_MINUTES),
];

const fn offer(seconds: u32, expected: Expected) -> Offer {
    Offer { seconds, expected }
}

/// A model of which neither durations, resolution nor cost are documented.
const fn model(name: &'static str, expected: Expected, use_for: &'static str) -> Model {
    Model { name, resolution: None, offers: &[], expected, relative_cost: None, use_for }
}

const fn kling(name: &'static str, use_for: &'static str) -> Model {
    Model { offers: FIVE_OR_TEN, ..model(name, KLING, use_for) }
}

/// Its length is that of the reference video, whatever `duration` says.
const fn motion_control(name: &'static str) -> Model {
    model(name, KLING, "Moves a reference image like a reference video of 3 to 30 seconds; the price comes later.")
}

/// Every documented family, Kling O3 video first. Their places are stored: a new one goes to the end.
pub static FAMILIES: &[Family] = &[
    // provider.md sections 2 to 5
    Family {
        path: "kling/o3-video",
        title: "Kling O3 video",
        default_model: Some("kling_o3"),
        medium: Medium::Video,
        id_field: "generation_id",
        result_field: "video_url",
        reason_field: "message",
        reason_in_status: false,
        price_in_answer: true,
        duration_form: DurationForm::Text,
        default_duration: Some(5),
        models: &[
            Model {
                name: "kling_o3",
                resolution: Some("720p"),
                offers: &[
                    Offer { seconds: 5, expected: seconds(120, 180) },
                    Offer { seconds: 10, expected: seconds(180, 300) },
                    Offer { seconds: 15, expected: seconds(300, 420) },
                ],
                expected: seconds(120, 420),
                relative_cost: Some("1"),
                use_for: "Social media and previews: faster and cheaper.",
            },
            Model {
                name: "kling_o3_pro",
                resolution: Some("1080p"),
                offers: &[
                    // 30 to 50 % longer than standard (section 3)
                    Offer { seconds: 5, expected: seconds(156, 270) },
                    Offer { seconds: 10, expected: seconds(234, 450) },
                    Offer { seconds: 15, expected: seconds(390, 630) },
                ],
                expected: seconds(156, 630),
                relative_cost: Some("about 2"),
                use_for: "Professional use: higher quality, 30 to 50 % slower.",
            },
        ],
        hard_limit: Some(Duration::from_mins(15)),
        webhook_pauses: LINEAR,
    },
    // provider.md sections 10.1 and 13: default model and duration are those of the provider's own client (SDK); kling_3 and
    // kling_3_pro stand in the documentation only
    Family {
        path: "kling",
        title: "Kling",
        default_model: Some("kling_2.5_turbo"),
        medium: Medium::Video,
        id_field: "generation_id",
        result_field: "video_url",
        reason_field: "message",
        reason_in_status: false,
        price_in_answer: true,
        duration_form: DurationForm::Text,
        default_duration: Some(5),
        models: &[
            kling("kling_1.6", "The oldest model on offer."),
            kling("kling_1.6_pro", "The oldest model on offer, in higher quality."),
            kling("kling_2.1", "Video from an image only: text alone is refused."),
            kling("kling_2.1_pro", "Video from an image only, in higher quality: text alone is refused."),
            kling("kling_2.1_master", "The best quality of version 2.1."),
            kling("kling_2.5_turbo", "The usual choice: what the provider's own client takes."),
            kling("kling_2.5_turbo_pro", "The usual choice in higher quality."),
            kling("kling_2.6", "Version 2.6, from text or an image."),
            Model {
                offers: THREE_TO_FIFTEEN,
                ..kling("kling_3", "Any length from 3 to 15 seconds, priced per second.")
            },
            Model {
                offers: THREE_TO_FIFTEEN,
                ..kling("kling_3_pro", "Any length from 3 to 15 seconds in higher quality, priced per second.")
            },
            motion_control("kling_2.6_motion"),
            motion_control("kling_2.6_motion_pro"),
            motion_control("kling_3_motion"),
            motion_control("kling_3_motion_pro"),
        ],
        hard_limit: Some(Duration::from_mins(15)),
        webhook_pauses: EXPONENTIAL,
    },
    // provider.md sections 10.2 and 13; it has no model field: the name is the one its webhooks carry. The default duration is
    // that of the provider's own client (SDK)
    Family {
        path: "kling/o1-video",
        title: "Kling O1 video",
        default_model: Some("kling_o1_video"),
        medium: Medium::Video,
        id_field: "generation_id",
        result_field: "video_url",
        reason_field: "message",
        reason_in_status: false,
        price_in_answer: true,
        duration_form: DurationForm::Text,
        default_duration: Some(5),
        models: &[Model {
            offers: THREE_TO_TEN,
            ..model("kling_o1_video", TEN_MINUTES, "From text in 5 or 10 seconds, from up to five images in 3 to 10.")
        }],
        hard_limit: Some(Duration::from_mins(15)),
        webhook_pauses: LINEAR,
    },
    // provider.md section 10.3; it has no model field
    Family {
        path: "kling/o1-photo",
        title: "Kling O1 photo",
        default_model: Some("kling_o1_photo"),
        medium: Medium::Image,
        id_field: "generation_id",
        result_field: "image_url",
        reason_field: "message",
        reason_in_status: true,
        price_in_answer: true,
        duration_form: DurationForm::Absent,
        default_duration: None,
        models: &[Model {
            resolution: Some("up to 2k"),
            ..model("kling_o1_photo", seconds(60, 120), "Pictures from text or images in 1k or 2k.")
        }],
        hard_limit: Some(Duration::from_mins(15)),
        webhook_pauses: LINEAR,
    },
    // provider.md section 10.3; five minutes is when to stop asking, not when the provider fails it; the webhook page was not seen
    Family {
        path: "kling/o3-photo",
        title: "Kling O3 photo",
        default_model: Some("kling_o3_photo"),
        medium: Medium::Image,
        id_field: "generation_id",
        result_field: "image_url",
        reason_field: "message",
        reason_in_status: false,
        price_in_answer: true,
        duration_form: DurationForm::Absent,
        default_duration: None,
        models: &[Model {
            resolution: Some("up to 4k"),
            ..model("kling_o3_photo", seconds(60, 180), "Pictures from text or up to ten images in 1k, 2k or 4k.")
        }],
        hard_limit: None,
        webhook_pauses: LINEAR,
    },
    // provider.md sections 10.4 and 13; models and default are those of the provider's own client (SDK)
    Family {
        path: "veo",
        title: "Veo",
        default_model: Some("veo_3_fast"),
        medium: Medium::Video,
        id_field: "generation_id",
        result_field: "video_url",
        reason_field: "error",
        reason_in_status: true,
        price_in_answer: true,
        duration_form: DurationForm::Absent,
        default_duration: None,
        models: &[
            model("veo_3_fast", TEN_MINUTES, "The usual choice; the only tier that takes reference images."),
            Model { resolution: Some("HD"), ..model("veo_3_fast_hd", TEN_MINUTES, "The fast tier in HD.") },
            Model { resolution: Some("4k"), ..model("veo_3_fast_4k", TEN_MINUTES, "The fast tier in 4k.") },
            model("veo_3_quality", TEN_MINUTES, "Higher quality."),
            Model { resolution: Some("HD"), ..model("veo_3_quality_hd", TEN_MINUTES, "Higher quality in HD.") },
            Model { resolution: Some("4k"), ..model("veo_3_quality_4k", TEN_MINUTES, "Higher quality in 4k.") },
        ],
        hard_limit: Some(Duration::from_mins(10)),
        webhook_pauses: LINEAR,
    },
    // provider.md section 10.5; its model names were not seen
    Family {
        path: "sora",
        title: "Sora",
        default_model: None,
        medium: Medium::Video,
        id_field: "generation_id",
        result_field: "video_url",
        reason_field: "error_message",
        reason_in_status: true,
        price_in_answer: true,
        duration_form: DurationForm::Absent,
        default_duration: None,
        models: &[model("sora", seconds(300, 900), "Video from text or an image; the slowest of all.")],
        hard_limit: None,
        webhook_pauses: EXPONENTIAL,
    },
    // provider.md sections 10.6 and 13; models and default are those of the provider's own client (SDK). Up to three retries are
    // not said to be how far apart; quality is no matter of another time that anybody documents
    Family {
        path: "gemini",
        title: "Nano Banana",
        default_model: Some("standard"),
        medium: Medium::Image,
        id_field: "task_uuid",
        result_field: "result_image_url",
        reason_field: "message",
        reason_in_status: true,
        price_in_answer: true,
        duration_form: DurationForm::Absent,
        default_duration: None,
        models: &[
            model("standard", seconds(7, 30), "Pictures in seconds."),
            Model { resolution: Some("up to 4k"), ..model("pro", seconds(7, 30), "High quality, up to 4k.") },
            Model { resolution: Some("up to 4k"), ..model("v2", seconds(7, 30), "The next generation, up to 4k.") },
        ],
        hard_limit: None,
        webhook_pauses: THRICE,
    },
    // provider.md section 10.7, known from clients only: no time is documented
    Family {
        path: "seedance",
        title: "Seedance",
        default_model: None,
        medium: Medium::Video,
        id_field: "task_uuid",
        result_field: "output.video_urls[0]",
        reason_field: "error",
        reason_in_status: true,
        price_in_answer: false,
        duration_form: DurationForm::Integer,
        default_duration: None,
        models: &[model("seedance", UNDOCUMENTED, "Video priced per second; the price is settled after the result.")],
        hard_limit: None,
        webhook_pauses: LINEAR,
    },
    // provider.md sections 10.8, 9.16 and 13; gpt-5-2 and the default are the provider's own client's (SDK), chatgpt-2.5 is
    // another client's (CLIENT); the webhook page was not seen
    Family {
        path: "chatgpt-images",
        title: "ChatGPT Images",
        default_model: Some("gpt-5-2"),
        medium: Medium::Image,
        id_field: "task_uuid",
        result_field: "result_image_url",
        reason_field: "message",
        reason_in_status: true,
        price_in_answer: true,
        duration_form: DurationForm::Absent,
        default_duration: None,
        models: &[
            model("gpt-5-2", seconds(60, 180), "Pictures from text or images."),
            model("chatgpt-2.5", seconds(60, 180), "A newer name that clients were seen to use."),
        ],
        hard_limit: None,
        webhook_pauses: LINEAR,
    },
];
