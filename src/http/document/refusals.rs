//! What routes refuse with: the sets of problems that the API document names beside each operation.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AllOfBuilder, Object, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, example::ExampleBuilder};

use crate::http::problem::{Code, Reader};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = [$($code:ident),*] $(+ $more:ident)*;)+) => {
        $($(#[$doc])*
        pub(in crate::http) struct $name;

        impl $name {
            /// The problems.
            pub(in crate::http) fn codes() -> Vec<Code> {
                let own: &[Code] = &[$(Code::$code),*];
                [own.to_vec(), $($more::codes(),)*].concat()
            }
        }

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                by_status(&Self::codes())
            }
        })+
    };
}

refusals! {
    /// Where there is nothing to go wrong but the name.
    Missing = [NotFound];
    /// What can go wrong anywhere.
    OurFault = [Internal, Unavailable];
    /// Where a key is needed.
    Guarded = [Unauthorized, TooManyWrongKeys, Forbidden] + OurFault;
    /// Where a query is read.
    Listing = [InvalidQuery] + Guarded;
    /// Where one thing is looked up.
    Reading = [NotFound] + Listing;
    /// Where a body comes in.
    WithBody = [InvalidJson, BodyTimeout, BodyTooLarge];
    /// Where the body is JSON of ours.
    WithJson = [InvalidBody] + WithBody;
    /// Where an `Idempotency-Key` is taken.
    Once = [InvalidHeader, KeyInUse, KeyReused];
    /// Telling of a generation.
    Creating = [] + Once + WithJson + Guarded;
    /// Adding to one.
    Amending = [NotFound, Conflict] + WithJson + Guarded;
    /// Doing something with one thing.
    Operating = [NotFound, Conflict] + Guarded;
    /// Asking the provider.
    Checking = [BudgetSpent] + Operating;
    /// Running a body again.
    Replaying = [NotFound, Gone] + Guarded;
    /// Sending many events again.
    Redelivering = [NotFound] + WithJson + Guarded;
    /// Following the stream.
    Streaming = [InvalidHeader, Gone] + Listing;
    /// Taking a webhook.
    Receiving = [NotFound, UnreadableWebhook] + WithBody + OurFault;
    /// Buying.
    Buying = [NotFound, ProviderUnreachable, SubmitUnconfirmed] + Once + WithJson + Guarded;
    /// Looking something up as the provider would.
    Looking = [NotFound, GenerationNotFound, BudgetSpent, ProviderSilent] + Guarded;
    /// Listing as the provider would.
    ListingAsProvider = [NotFound, InvalidParameters] + Guarded;
    /// Asking for the balance.
    ReadingBalance = [BudgetSpent, ProviderSilent] + Guarded;
}

fn by_status(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut grouped: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.iter().filter(|code| codes.contains(code)) {
        grouped.entry(code.status().as_u16()).or_default().push(*code);
    }
    grouped.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(refusal(status, &codes)))).collect()
}

/// One status, and the problems that are answered with it.
fn refusal(status: u16, codes: &[Code]) -> Response {
    let lines: Vec<_> = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.meaning().trim())).collect();
    let one_of =
        |kind, values: Vec<Value>| Object::builder().schema_type(SchemaType::new(kind)).enum_values(Some(values));
    let narrowed = Object::builder()
        .schema_type(SchemaType::new(Type::Object))
        .property("code", one_of(Type::String, codes.iter().map(|code| code.as_str().into()).collect()))
        .property("status", one_of(Type::Integer, vec![status.into()]));
    let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(narrowed);
    let example = |code: &Code| {
        let body =
            serde_json::to_value(code.body(Reader::Ours, code.example(), "0199d4c2b7a07f3e9b1c2a3d4e5f6071", &[]));
        (code.as_str(), ExampleBuilder::new().value(body.ok()).build())
    };
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(codes.iter().map(example)).build();
    let mut response =
        ResponseBuilder::new().description(lines.join("\n\n")).content("application/problem+json", content);
    for code in codes {
        for (name, about) in code.headers() {
            let text = Object::builder().schema_type(SchemaType::new(Type::String));
            response =
                response.header(*name, HeaderBuilder::new().schema(Some(text)).description(Some(*about)).build());
        }
    }
    response.build()
}

impl Code {
    /// Headers that come with it.
    const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::BudgetSpent | Self::TooManyWrongKeys | Self::Unavailable => &[("Retry-After", "Seconds to wait.")],
            Self::Unauthorized => &[("WWW-Authenticate", "`Bearer`.")],
            Self::KeyReused | Self::KeyInUse => {
                &[("Recoup-Generation", "Our id of the generation that the first request with this key was about.")]
            }
            // A key under which nothing was sent is free again: this is never replayed.
            Self::ProviderUnreachable => &[("Recoup-Generation", "Our id of the generation.")],
            Self::SubmitUnconfirmed => &[
                ("Recoup-Generation", "Our id of the generation."),
                ("Recoup-Repeat-Of", "The same, where the request repeats the purchase: it was not sent on."),
                (
                    "Retry-After",
                    "Seconds until the same request is worth sending again: it is not sent on, but waits for what became of this one.",
                ),
                ("Idempotency-Replayed", "`true` for a recorded answer."),
            ],
            Self::NotFound
            | Self::MethodNotAllowed
            | Self::Forbidden
            | Self::InvalidQuery
            | Self::InvalidHeader
            | Self::GenerationNotFound
            | Self::ProviderSilent
            | Self::InvalidJson
            | Self::InvalidParameters
            | Self::InvalidBody
            | Self::UnreadableWebhook
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::Conflict
            | Self::Gone
            | Self::Internal => &[],
        }
    }

    /// What its `detail` may say.
    const fn example(self) -> &'static str {
        match self {
            Self::NotFound => "There is no generation of this id, neither ours nor the provider's.",
            Self::MethodNotAllowed => "This route does not know the method.",
            Self::Unauthorized => "Send one of the configured API keys as `Authorization: Bearer <key>`.",
            Self::TooManyWrongKeys => {
                "Too many wrong API keys came from this address. Until it has rested, no other key is looked at."
            }
            Self::Forbidden => "The key \"app\" lacks the scope `operate`.",
            Self::InvalidQuery => "limit: must be a whole number from 1 to 200",
            Self::InvalidHeader => "Idempotency-Key: must stand once and have 1 to 255 printable ASCII characters",
            Self::KeyReused => {
                "This Idempotency-Key was used within a day for a request with another body. Take another key."
            }
            Self::KeyInUse => "The first request with this Idempotency-Key has not been answered yet. Ask again later.",
            Self::ProviderUnreachable => {
                "There was no connection to the provider, so nothing was sent and nothing was charged. It is safe to send it again."
            }
            Self::SubmitUnconfirmed => {
                "The purchase was sent and no usable answer came back: it may have been charged. It is on record under the id in \
                 Recoup-Generation. The same request again is not sent: it waits for what became of this one."
            }
            Self::GenerationNotFound => "Generation not found",
            Self::ProviderSilent => {
                "This generation is not on record here, and the provider could not be asked about it just now."
            }
            Self::InvalidJson => "There is something after the JSON value.",
            Self::InvalidParameters => "limit: must be a whole number from 1 to 100",
            Self::InvalidBody => "/duration_seconds: must be from 1 to 3600 seconds",
            Self::UnreadableWebhook => {
                "The body must be a JSON object with the generation's id and its status. It was kept as it came."
            }
            Self::BodyTooLarge => "The body may have at most 65536 bytes.",
            Self::BodyTimeout => "The body has to arrive within 10 seconds, and at 65536 bytes a second after that.",
            Self::Conflict => "price would overwrite what is known already. Nothing was changed.",
            Self::Gone => "The body of this delivery was removed by retention.",
            Self::BudgetSpent => "The budget of status reads is spent, or the provider asked for rest.",
            Self::Unavailable => "The database cannot take this now. Nothing was kept; send it again.",
            Self::Internal => "Something went wrong on our side. The log has the cause under this request id.",
        }
    }
}
