//! The catalogue of error codes as data: what each means and what a person can do about it.
//!
//! Holds what provider.md section 7 knows and nothing else; a code that is not here is kept and shown as it came. No rule
//! lives here.

use super::family::Family;
use super::words::words;

words! {
    /// Whose fault it is.
    Category {
        /// The request's or the account's.
        User = "user",
        /// What was asked for is not allowed.
        Content = "content",
        /// The provider's.
        System = "system",
    }
}

words! {
    /// Where a code turns up.
    Appears {
        /// In the answer to a purchase.
        Submit = "submit",
        /// In a status answer.
        Status = "status",
        /// In a webhook.
        Webhook = "webhook",
    }
}

/// What is known of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// The code.
    pub code: &'static str,
    /// Whose fault it is.
    pub category: Category,
    /// What happened.
    pub description: &'static str,
    /// What to do.
    pub solution: &'static str,
    /// The HTTP status it comes with, where it comes with one.
    pub http_status: Option<u16>,
    /// Where it turns up.
    pub appears_in: &'static [Appears],
    /// Whether the same request may work later.
    pub retryable: bool,
    /// Whether the credits come back; `None` where nothing was bought.
    pub refunded: Option<bool>,
    /// The families it was seen in.
    pub families: &'static [&'static str],
}

/// Our own word for a purchase that was never sent.
pub const PROVIDER_UNREACHABLE: &str = "PROVIDER_UNREACHABLE";

/// Shown for a code that is not in the catalogue.
pub const UNKNOWN_DESCRIPTION: &str =
    "The provider sent a code or text that is not in the catalogue; it is shown as it came.";
/// Shown for a code that is not in the catalogue.
pub const UNKNOWN_SOLUTION: &str =
    "Read the provider's own words. If they do not help, ask its support with the id of the generation.";
/// Shown for a failure without any reason.
pub const SILENT_DESCRIPTION: &str =
    "The provider failed it and gave no reason. Often only the webhook carries the reason.";
/// Shown for a failure without any reason.
pub const SILENT_SOLUTION: &str =
    "Check the prompt and the images against the provider's rules, then try again; a late webhook may still tell why.";

impl ErrorCode {
    /// What is known of that code.
    pub fn of(code: &str) -> Option<&'static Self> {
        ERROR_CODES.iter().find(|known| known.code == code)
    }

    /// Whether a family can answer with it.
    pub fn concerns(&self, family: &Family) -> bool {
        self.families.contains(&family.path)
    }
}

use Appears::{Status, Submit, Webhook};
use Category::{Content, System, User};

const JOB: &[Appears] = &[Webhook, Status];
const ANYWHERE: &[Appears] = &[Submit, Status, Webhook];
const BOUGHT_NOTHING: Option<bool> = None;
/// Every failed generation is refunded (provider.md section 5).
const PAID_BACK: Option<bool> = Some(true);

const O3: &[&str] = &["kling/o3-video", "kling/o3-photo"];
const O3_VIDEO: &[&str] = &["kling/o3-video"];
const O3_AND_KLING: &[&str] = &["kling/o3-video", "kling/o3-photo", "kling"];
const VEO: &[&str] = &["veo"];
const VEO_AND_GEMINI: &[&str] = &["veo", "gemini"];
const CHATGPT: &[&str] = &["chatgpt-images"];
const ALL: &[&str] = &[
    "kling/o3-video",
    "kling/o3-photo",
    "kling/o1-video",
    "kling/o1-photo",
    "kling",
    "veo",
    "sora",
    "gemini",
    "seedance",
    "chatgpt-images",
];

/// Every documented code, those of Kling O3 video first.
pub static ERROR_CODES: &[ErrorCode] = &[
    ErrorCode {
        code: "INSUFFICIENT_CREDITS",
        category: User,
        description: "The account at the provider has too few credits for this purchase. Nothing was charged.",
        solution: "Whoever runs the account tops it up; then send the purchase again.",
        http_status: Some(402),
        appears_in: &[Submit],
        retryable: true,
        refunded: BOUGHT_NOTHING,
        families: ALL,
    },
    ErrorCode {
        code: "GENERATION_NOT_FOUND",
        category: User,
        description: "The provider does not know this id: it belongs to another account or family, or was forgotten.",
        solution: "Compare id and family with the answer to the purchase, and use the key of the account that bought it.",
        http_status: Some(404),
        appears_in: &[Status],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: &["kling/o3-video", "kling/o3-photo", "kling", "sora"],
    },
    ErrorCode {
        code: "INVALID_PARAMETERS",
        category: User,
        description: "A field of the request is missing or has a value the provider does not take. Nothing was charged.",
        solution: "The provider's text names the field. Prompts of O3 video have 1 to 2500 characters.",
        http_status: Some(422),
        appears_in: &[Submit],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: O3_AND_KLING,
    },
    ErrorCode {
        code: "INVALID_IMAGE",
        category: User,
        description: "An image is damaged or of a format the provider does not read.",
        solution: "Send a proper JPEG, PNG, GIF or WEBP of at most 10 MB, with the content its name promises.",
        http_status: None,
        appears_in: JOB,
        retryable: false,
        refunded: PAID_BACK,
        families: &["kling/o3-video", "kling/o3-photo", "veo", "gemini"],
    },
    ErrorCode {
        code: "IMAGE_INACCESSIBLE",
        category: User,
        description: "The provider could not fetch an image: its address answered 403 or 404, or is not public.",
        solution: "Make every address in images_url open without login over HTTPS, or send the images in images_base64.",
        http_status: None,
        appears_in: JOB,
        retryable: false,
        refunded: PAID_BACK,
        families: O3,
    },
    ErrorCode {
        code: "TOO_MANY_IMAGES",
        category: User,
        description: "More images were sent than the family takes: O3 video 5, O3 photo 10. Nothing was charged.",
        solution: "Send fewer images.",
        http_status: Some(422),
        appears_in: &[Submit],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: O3,
    },
    ErrorCode {
        code: "MIXED_IMAGE_INPUTS",
        category: User,
        description: "Both images_url and images_base64 were sent; only one of them is allowed. Nothing was charged.",
        solution: "Keep either images_url or images_base64 and leave the other field out altogether.",
        http_status: Some(422),
        appears_in: &[Submit],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: O3,
    },
    ErrorCode {
        code: "INVALID_DURATION",
        category: User,
        description: "The duration is not one of those on offer. Nothing was charged.",
        solution: "Send duration as a string: \"5\", \"10\" or \"15\".",
        http_status: Some(422),
        appears_in: &[Submit],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: O3_VIDEO,
    },
    ErrorCode {
        code: "INVALID_MODEL",
        category: User,
        description: "The provider has no model of this name in the family. Nothing was charged.",
        solution: "For O3 video send model as kling_o3 (720p) or kling_o3_pro (1080p).",
        http_status: Some(422),
        appears_in: &[Submit],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: O3_VIDEO,
    },
    ErrorCode {
        code: "CONTENT_POLICY_VIOLATION",
        category: Content,
        description: "The prompt or an image breaks the provider's rules on content.",
        solution: "Reword the prompt or change the image. The same request will fail again.",
        http_status: None,
        appears_in: JOB,
        retryable: false,
        refunded: PAID_BACK,
        families: &["kling/o3-video", "kling/o1-photo", "kling"],
    },
    ErrorCode {
        code: "TIMEOUT",
        category: System,
        description: "The provider did not finish within its own time limit and gave up.",
        solution: "Try again later; nothing is wrong with the request.",
        http_status: None,
        appears_in: JOB,
        retryable: true,
        refunded: PAID_BACK,
        families: &["kling/o3-video", "kling/o1-video", "kling/o1-photo", "kling", "veo", "gemini"],
    },
    ErrorCode {
        code: "TASK_NOT_FOUND",
        category: User,
        description: "The provider does not know this id.",
        solution: "Compare id and family with the answer to the purchase.",
        http_status: Some(404),
        appears_in: &[Status],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: &["veo", "chatgpt-images"],
    },
    ErrorCode {
        code: "INVALID_TASK_ID",
        category: User,
        description: "The id is not of the form the provider gives out.",
        solution: "Use the id exactly as the answer to the purchase gave it.",
        http_status: None,
        appears_in: &[Status],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: VEO,
    },
    // The page names the case and no code; the name is ours.
    ErrorCode {
        code: "INVALID_RESOLUTION",
        category: User,
        description: "The resolution is not one of those on offer. Nothing was charged.",
        solution: "Send img_resolution as 1k, 2k or 4k.",
        http_status: Some(422),
        appears_in: &[Submit],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: &["kling/o3-photo"],
    },
    ErrorCode {
        code: "IMAGE_TOO_LARGE",
        category: User,
        description: "An image is larger than 20 MB.",
        solution: "Compress it or send a smaller one.",
        http_status: None,
        appears_in: ANYWHERE,
        retryable: false,
        refunded: PAID_BACK,
        families: VEO_AND_GEMINI,
    },
    ErrorCode {
        code: "UNSUPPORTED_IMAGE_FORMAT",
        category: User,
        description: "An image is of a format the provider does not read.",
        solution: "Send JPEG, PNG or WEBP.",
        http_status: None,
        appears_in: ANYWHERE,
        retryable: false,
        refunded: PAID_BACK,
        families: VEO_AND_GEMINI,
    },
    // The wire carries the texts "Invalid Request" and "Invalid Image Format"; the names are ours.
    ErrorCode {
        code: "INVALID_REQUEST",
        category: User,
        description: "The request breaks a limit: the prompt's length or the number of images. Nothing was charged.",
        solution: "Send a prompt of 1 to 4000 characters and no more images than the model takes.",
        http_status: Some(400),
        appears_in: &[Submit],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: CHATGPT,
    },
    ErrorCode {
        code: "INVALID_IMAGE_FORMAT",
        category: User,
        description: "An image is of a format the provider does not read. Nothing was charged.",
        solution: "Send JPEG, PNG or WEBP.",
        http_status: Some(400),
        appears_in: &[Submit],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: CHATGPT,
    },
    ErrorCode {
        code: "MODERATION_FAILED",
        category: Content,
        description: "The provider's moderation refused the prompt or the image.",
        solution: "Reword the prompt or change the image.",
        http_status: None,
        appears_in: JOB,
        retryable: false,
        refunded: PAID_BACK,
        families: VEO_AND_GEMINI,
    },
    ErrorCode {
        code: "UNSAFE_CONTENT",
        category: Content,
        description: "The provider judged the content unsafe.",
        solution: "Reword the prompt.",
        http_status: None,
        appears_in: JOB,
        retryable: false,
        refunded: PAID_BACK,
        families: VEO,
    },
    ErrorCode {
        code: "NON_ENGLISH_PROMPT",
        category: Content,
        description: "The model takes English prompts only.",
        solution: "Translate the prompt into English.",
        http_status: None,
        appears_in: ANYWHERE,
        retryable: false,
        refunded: PAID_BACK,
        families: VEO,
    },
    ErrorCode {
        code: "PROMINENT_PEOPLE_UPLOAD",
        category: Content,
        description: "An image shows a well-known person, which the provider refuses.",
        solution: "Use another image.",
        http_status: None,
        appears_in: JOB,
        retryable: false,
        refunded: PAID_BACK,
        families: VEO,
    },
    ErrorCode {
        code: "PHOTOREAL_UPLOAD",
        category: Content,
        description: "An image looks like a photograph of a real person. The refusal is partly a matter of chance.",
        solution: "Use another or a stylised image, or try the same one again.",
        http_status: None,
        appears_in: JOB,
        retryable: true,
        refunded: PAID_BACK,
        families: VEO,
    },
    ErrorCode {
        code: "TASK_FAILED",
        category: System,
        description: "The provider failed without a closer reason. For Veo it can mean that the content was stopped midway.",
        solution: "Try again; if it fails again, change the prompt.",
        http_status: None,
        appears_in: JOB,
        retryable: true,
        refunded: PAID_BACK,
        families: VEO_AND_GEMINI,
    },
    ErrorCode {
        code: "GENERATION_FAILED",
        category: System,
        description: "The provider failed without a closer reason.",
        solution: "Try again.",
        http_status: None,
        appears_in: JOB,
        retryable: true,
        refunded: PAID_BACK,
        families: &["seedance"],
    },
    ErrorCode {
        code: "API_ERROR",
        category: System,
        description: "The provider's own supplier answered with an error.",
        solution: "Try again.",
        http_status: None,
        appears_in: JOB,
        retryable: true,
        refunded: PAID_BACK,
        families: &["gemini"],
    },
    ErrorCode {
        code: "GOOGLE_DECLINED",
        category: System,
        description: "Google, who makes the video, declined it.",
        solution: "Try again; if it is declined again, change the prompt.",
        http_status: None,
        appears_in: ANYWHERE,
        retryable: true,
        refunded: PAID_BACK,
        families: VEO,
    },
    ErrorCode {
        code: "OPENAI_DECLINED",
        category: System,
        description: "OpenAI, who makes the picture, declined it.",
        solution: "Wait some minutes and try again.",
        http_status: Some(500),
        appears_in: ANYWHERE,
        retryable: true,
        refunded: PAID_BACK,
        families: CHATGPT,
    },
    ErrorCode {
        code: "MAINTENANCE",
        category: System,
        description: "The model is under maintenance.",
        solution: "Wait and try again.",
        http_status: Some(503),
        appears_in: ANYWHERE,
        retryable: true,
        refunded: PAID_BACK,
        families: &["veo", "chatgpt-images"],
    },
    // The rest have no code on the wire, only an HTTP status; the names are ours.
    ErrorCode {
        code: "UNAUTHORIZED",
        category: User,
        description: "The provider refuses the API key: it is missing, wrong, expired or revoked.",
        solution: "Whoever runs recoup replaces provider.api_key.",
        http_status: Some(401),
        appears_in: &[Submit, Status],
        retryable: false,
        refunded: BOUGHT_NOTHING,
        families: ALL,
    },
    ErrorCode {
        code: PROVIDER_UNREACHABLE,
        category: System,
        description: "There was no connection to the provider, so nothing was sent and nothing was charged.",
        solution: "Send the purchase again; it is safe. If it keeps failing, look at provider.base_url and the network.",
        http_status: Some(502),
        appears_in: &[Submit],
        retryable: true,
        refunded: BOUGHT_NOTHING,
        families: ALL,
    },
    ErrorCode {
        code: "RATE_LIMITED",
        category: System,
        description: "Too many requests in a short time.",
        solution: "Wait as long as Retry-After says, else half a minute.",
        http_status: Some(429),
        appears_in: &[Submit, Status],
        retryable: true,
        refunded: BOUGHT_NOTHING,
        families: ALL,
    },
    ErrorCode {
        code: "INTERNAL_ERROR",
        category: System,
        description: "The provider had an error of its own. After a purchase it is not certain whether it was charged.",
        solution: "Do not send the purchase again blindly: look first whether it was recorded and what becomes of it.",
        http_status: Some(500),
        appears_in: &[Submit, Status],
        retryable: false,
        refunded: PAID_BACK,
        families: ALL,
    },
    ErrorCode {
        code: "SERVICE_UNAVAILABLE",
        category: System,
        description: "The provider is overloaded or under maintenance.",
        solution: "Wait and try again.",
        http_status: Some(503),
        appears_in: &[Submit, Status],
        retryable: true,
        refunded: BOUGHT_NOTHING,
        families: ALL,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_stands_once_and_says_something() {
        let mut seen = HashSet::new();
        for known in ERROR_CODES {
            assert!(seen.insert(known.code), "{} stands twice", known.code);
            assert_eq!(ErrorCode::of(known.code), Some(known));
            assert!(known.description.ends_with('.') && known.solution.ends_with('.'), "{}", known.code);
            assert!(!known.appears_in.is_empty() && !known.families.is_empty(), "{}", known.code);
            for family in known.families {
                assert!(Family::of(family).is_some(), "{}: {family}", known.code);
            }
        }
    }

    #[test]
    fn categories_and_places_have_the_words_of_the_contract() {
        let words = [Category::User, Category::Content, Category::System].map(Category::as_str);
        assert_eq!(words, ["user", "content", "system"]);
        let words = [Appears::Submit, Appears::Status, Appears::Webhook].map(Appears::as_str);
        assert_eq!(words, ["submit", "status", "webhook"]);
    }

    #[test]
    fn the_nine_codes_of_the_o3_user_tab_are_there() {
        let o3 = Family::of("kling/o3-video").unwrap();
        for code in [
            "INSUFFICIENT_CREDITS",
            "GENERATION_NOT_FOUND",
            "INVALID_PARAMETERS",
            "INVALID_IMAGE",
            "IMAGE_INACCESSIBLE",
            "TOO_MANY_IMAGES",
            "MIXED_IMAGE_INPUTS",
            "INVALID_DURATION",
            "INVALID_MODEL",
        ] {
            let known = ErrorCode::of(code).unwrap_or_else(|| panic!("{code} is missing"));
            assert_eq!(known.category, Category::User, "{code}");
            assert!(known.concerns(o3), "{code}");
            assert!(!known.concerns(&Family { path: "kling/o4", ..*o3 }), "{code}");
        }
        assert_eq!(ErrorCode::of("NEVER_SEEN"), None);
    }
}
