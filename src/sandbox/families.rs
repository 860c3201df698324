//! The fields of every family's purchases, as a table. How a value is held to its rule is `requests.rs`.

use serde_json::Value;

use super::requests::{Fields, Wrong};

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    /// So many characters.
    Text { min: usize, max: usize },
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A model of the family's table.
    Model,
    /// A whole number.
    Integer { from: i64, to: i64 },
    /// A number.
    Number { from: f64, to: f64 },
    /// True or false.
    Flag,
    /// A list of pictures.
    Images { max: usize },
    /// Where webhooks go.
    Callback,
}

/// Whether a field may be left out, and whether it may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// It must be there.
    Required,
    /// It has a default, and is never null.
    Defaulted,
    /// It may be missing or null.
    Optional,
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    pub(super) bounds: Bounds,
    /// It is refused with 400 instead of 422.
    pub(super) is_bad_request: bool,
}

/// What a refusal's `detail` is (provider.md 9.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DetailForm {
    /// A sentence.
    Text,
    /// `FastAPI`'s list.
    List,
    /// Code and message.
    Object,
}

/// The fields of a family.
#[derive(Debug)]
pub(super) struct Form {
    path: &'static str,
    pub(super) fields: &'static [Field],
    pub(super) detail: DetailForm,
    pub(super) image_bytes_max: usize,
    /// What no field can say alone.
    pub(super) together: fn(&Fields) -> Result<(), Wrong>,
}

/// The form of a family's purchases.
pub(super) fn form(path: &str) -> Option<&'static Form> {
    FORMS.iter().find(|form| form.path == path)
}

const fn required(name: &'static str, rule: Rule) -> Field {
    Field { name, rule, bounds: Bounds::Required, is_bad_request: false }
}

const fn defaulted(name: &'static str, rule: Rule) -> Field {
    Field { name, rule, bounds: Bounds::Defaulted, is_bad_request: false }
}

const fn optional(name: &'static str, rule: Rule) -> Field {
    Field { name, rule, bounds: Bounds::Optional, is_bad_request: false }
}

const fn bad_request(field: Field) -> Field {
    Field { is_bad_request: true, ..field }
}

const CALLBACK: Field = optional("callback_url", Rule::Callback);
/// An address, base64 or any other text of at least one character.
const ANY: Rule = Rule::Text { min: 1, max: usize::MAX };
const PROMPT: Field = required("prompt", Rule::Text { min: 1, max: 2_500 });
const FILM_RATIO: Rule = Rule::OneOf(&["16:9", "9:16", "1:1"]);
const PHOTO_RATIOS: Rule = Rule::OneOf(&["9:16", "2:3", "3:4", "1:1", "4:3", "3:2", "16:9", "21:9"]);
const PHOTO_RATIOS_AUTO: Rule = Rule::OneOf(&["auto", "9:16", "2:3", "3:4", "1:1", "4:3", "3:2", "16:9", "21:9"]);
const GEMINI_RATIOS: Rule =
    Rule::OneOf(&["auto", "21:9", "16:9", "4:3", "3:2", "1:1", "9:16", "3:4", "2:3", "5:4", "4:5"]);
const TEN_MB: usize = 10_000_000;
const TWENTY_MB: usize = 20_000_000;

static FORMS: [Form; 10] = [
    Form {
        path: "kling/o3-video",
        fields: &[
            PROMPT,
            defaulted("model", Rule::Model),
            defaulted("duration", Rule::OneOf(&["5", "10", "15"])),
            defaulted("aspect_ratio", FILM_RATIO),
            defaulted("keep_original_sound", Rule::Flag),
            optional("images_url", Rule::Images { max: 5 }),
            optional("images_base64", Rule::Images { max: 5 }),
            optional("first_frame_url", ANY),
            optional("first_frame_base64", ANY),
            optional("end_frame_url", ANY),
            optional("end_frame_base64", ANY),
            defaulted("customize_multi_shots", Rule::Flag),
            defaulted("prefer_multi_shots", Rule::Flag),
            CALLBACK,
        ],
        detail: DetailForm::Text,
        image_bytes_max: TEN_MB,
        together: |fields| {
            one_kind_of_images(fields, "images_url", "images_base64")?;
            both_frames(fields, ["first_frame_url", "first_frame_base64"], ["end_frame_url", "end_frame_base64"])
        },
    },
    Form {
        path: "kling",
        fields: &[
            PROMPT,
            optional("negative_prompt", Rule::Text { min: 0, max: 2_500 }),
            defaulted("model", Rule::Model),
            defaulted("aspect_ratio", FILM_RATIO),
            defaulted("cfg_scale", Rule::Number { from: 0.0, to: 1.0 }),
            optional("seed", Rule::Integer { from: 0, to: 2_147_483_647 }),
            optional("image_url", ANY),
            optional("image_base64", ANY),
            optional("reference_video_url", ANY),
            optional("reference_video_base64", ANY),
            optional("reference_image_url", ANY),
            optional("reference_image_base64", ANY),
            defaulted("motion_direction", Rule::OneOf(&["video", "image"])),
            CALLBACK,
        ],
        detail: DetailForm::Text,
        image_bytes_max: TEN_MB,
        together: kling,
    },
    Form {
        path: "kling/o1-video",
        fields: &[
            PROMPT,
            defaulted("duration", Rule::OneOf(&["3", "4", "5", "6", "7", "8", "9", "10"])),
            optional("aspect_ratio", FILM_RATIO),
            defaulted("keep_original_sound", Rule::Flag),
            optional("images_urls", Rule::Images { max: 5 }),
            optional("images_base64", Rule::Images { max: 5 }),
            optional("first_frame_image_url", ANY),
            optional("first_frame_image_base64", ANY),
            optional("end_frame_image_url", ANY),
            optional("end_frame_image_base64", ANY),
            CALLBACK,
        ],
        detail: DetailForm::Text,
        image_bytes_max: TEN_MB,
        together: o1_video,
    },
    Form {
        path: "kling/o1-photo",
        fields: &[
            PROMPT,
            defaulted("img_resolution", Rule::OneOf(&["1k", "2k"])),
            defaulted("aspect_ratio", PHOTO_RATIOS),
            optional("images_url", Rule::Images { max: 10 }),
            optional("images_base64", Rule::Images { max: 10 }),
            CALLBACK,
        ],
        detail: DetailForm::Text,
        image_bytes_max: TEN_MB,
        together: |fields| one_kind_of_images(fields, "images_url", "images_base64"),
    },
    Form {
        path: "kling/o3-photo",
        fields: &[
            PROMPT,
            defaulted("img_resolution", Rule::OneOf(&["1k", "2k", "4k"])),
            defaulted("aspect_ratio", PHOTO_RATIOS_AUTO),
            defaulted("prefer_multi_shots", Rule::Flag),
            optional("images_url", Rule::Images { max: 10 }),
            optional("images_base64", Rule::Images { max: 10 }),
            CALLBACK,
        ],
        detail: DetailForm::Text,
        image_bytes_max: TEN_MB,
        together: |fields| one_kind_of_images(fields, "images_url", "images_base64"),
    },
    Form {
        path: "veo",
        fields: &[
            required("prompt", Rule::Text { min: 10, max: 4_000 }),
            defaulted("model", Rule::Model),
            defaulted("aspect_ratio", Rule::OneOf(&["16:9", "9:16"])),
            optional("seed", Rule::Integer { from: 0, to: 1_000_000_000 }),
            optional("watermark_text", Rule::Text { min: 3, max: 14 }),
            optional("bytes_image", ANY),
            optional("start_frame", ANY),
            optional("end_frame", ANY),
            optional("reference_images", Rule::Images { max: 3 }),
            CALLBACK,
        ],
        detail: DetailForm::Text,
        image_bytes_max: TWENTY_MB,
        together: veo,
    },
    // Its field names were not seen; both kinds of images at once are 400 (provider.md 10.5).
    Form {
        path: "sora",
        fields: &[required("prompt", ANY), CALLBACK],
        detail: DetailForm::List,
        image_bytes_max: TWENTY_MB,
        together: |fields| {
            let pairs = [("images_url", "images_base64"), ("image_url", "image_base64")];
            pairs
                .iter()
                .try_for_each(|(urls, inline)| one_kind_of_images(fields, urls, inline))
                .map_err(Wrong::bad_request)
        },
    },
    Form {
        path: "gemini",
        fields: &[
            required("prompt", Rule::Text { min: 1, max: 4_000 }),
            defaulted("model", Rule::Model),
            defaulted("quality", Rule::OneOf(&["standard", "2k", "4k"])),
            defaulted("aspect_ratio", GEMINI_RATIOS),
            defaulted("temperature", Rule::Number { from: 0.0, to: 1.0 }),
            optional("images", Rule::Images { max: 8 }),
            CALLBACK,
        ],
        detail: DetailForm::Text,
        image_bytes_max: TWENTY_MB,
        together: gemini,
    },
    // Known from clients only (provider.md 10.7).
    Form {
        path: "seedance",
        fields: &[required("prompt", ANY), optional("duration", Rule::Integer { from: 1, to: 60 }), CALLBACK],
        detail: DetailForm::Object,
        image_bytes_max: TWENTY_MB,
        together: |_| Ok(()),
    },
    // 400 for a bad prompt or bad images (provider.md 10.8).
    Form {
        path: "chatgpt-images",
        fields: &[
            bad_request(required("prompt", Rule::Text { min: 1, max: 4_000 })),
            defaulted("model", Rule::Model),
            optional("aspect_ratio", Rule::OneOf(&["1:1", "4:3", "3:4", "3:2", "2:3"])),
            bad_request(optional("images", Rule::Images { max: 4 })),
            CALLBACK,
        ],
        detail: DetailForm::Text,
        image_bytes_max: TWENTY_MB,
        together: |_| Ok(()),
    },
];

/// Whether a field says anything.
fn has(fields: &Fields, name: &str) -> bool {
    match fields.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

fn word<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn one_kind_of_images(fields: &Fields, urls: &str, inline: &str) -> Result<(), Wrong> {
    if has(fields, urls) && has(fields, inline) {
        return Err(Wrong::together(format!("{urls} and {inline} cannot be used together")));
    }
    Ok(())
}

/// A first frame needs an end frame, and the other way round (provider.md section 13).
fn both_frames(fields: &Fields, first: [&str; 2], end: [&str; 2]) -> Result<(), Wrong> {
    let [has_first, has_end] = [first, end].map(|names| names.iter().any(|name| has(fields, name)));
    if has_first == has_end {
        return Ok(());
    }
    let (given, needed) = if has_first { ("first", "end") } else { ("end", "first") };
    Err(Wrong::together(format!("the {given} frame requires the {needed} frame")))
}

/// Lengths as numbers on version 3, as text on all others; what needs an image or a film; no image twice (provider.md 10.1).
fn kling(fields: &Fields) -> Result<(), Wrong> {
    let model = word(fields, "model");
    let fits = match (fields.get("duration"), model) {
        (None, _) => true,
        (Some(duration), "kling_3" | "kling_3_pro") => {
            duration.as_u64().is_some_and(|seconds| (3..=15).contains(&seconds))
        }
        (Some(duration), _) => duration.as_str().is_some_and(|text| matches!(text, "5" | "10")),
    };
    if !fits {
        let wanted = if model.starts_with("kling_3") && !model.contains("motion") {
            "duration must be an integer from 3 to 15"
        } else {
            "duration must be one of 5, 10"
        };
        return Err(Wrong::value("duration", "enum", wanted.to_owned()));
    }
    one_kind_of_images(fields, "image_url", "image_base64")?;
    one_kind_of_images(fields, "reference_image_url", "reference_image_base64")?;
    one_kind_of_images(fields, "reference_video_url", "reference_video_base64")?;
    let has_any = |names: [&str; 2]| names.iter().any(|name| has(fields, name));
    if matches!(model, "kling_2.1" | "kling_2.1_pro") && !has_any(["image_url", "image_base64"]) {
        return Err(Wrong::together(format!("{model} requires image_url or image_base64")).bad_request());
    }
    if model.contains("_motion") && !has_any(["reference_video_url", "reference_video_base64"]) {
        return Err(Wrong::together(format!("{model} requires a reference video")));
    }
    Ok(())
}

/// 5 or 10 seconds from text, 3 to 10 from images (provider.md 10.2).
fn o1_video(fields: &Fields) -> Result<(), Wrong> {
    one_kind_of_images(fields, "images_urls", "images_base64")?;
    let first = ["first_frame_image_url", "first_frame_image_base64"];
    let end = ["end_frame_image_url", "end_frame_image_base64"];
    both_frames(fields, first, end)?;
    let pictured = ["images_urls", "images_base64"].iter().chain(&first).any(|name| has(fields, name));
    if pictured || matches!(word(fields, "duration"), "" | "5" | "10") {
        return Ok(());
    }
    Err(Wrong::value("duration", "enum", "duration must be one of 5, 10 without images".to_owned()))
}

/// Reference images on the fast models only (provider.md 10.4).
fn veo(fields: &Fields) -> Result<(), Wrong> {
    if has(fields, "reference_images") && word(fields, "model").starts_with("veo_3_quality") {
        return Err(Wrong::together("reference_images are for the fast models only"));
    }
    Ok(())
}

/// The standard model takes four images and one quality (provider.md 9.15 and section 13).
fn gemini(fields: &Fields) -> Result<(), Wrong> {
    if !matches!(word(fields, "model"), "" | "standard") {
        return Ok(());
    }
    if !matches!(word(fields, "quality"), "" | "standard") {
        return Err(Wrong::together("quality 2k and 4k are for pro and v2 only"));
    }
    let images = fields.get("images").and_then(Value::as_array).map_or(0, Vec::len);
    if images > 4 {
        return Err(Wrong::value("images", "too_long", format!("at most 4 images are allowed, got {images}")));
    }
    Ok(())
}
