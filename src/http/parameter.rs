//! Query and path parameters: one list says what a route takes, to the extractor and to the API document alike.
//!
//! A parameter that is not in the list is refused before the handler sees it; one that is in the list and not read by the
//! handler is refused by [`Query::end`]. So neither the list nor the handler can fall behind.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use utoipa::IntoParams;
use utoipa::openapi::path::{self, ParameterIn, ParameterStyle};
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Required, Schema};

use super::extract::{Query, invalid_parameter};
use super::problem::Problem;
use crate::domain::time::Time;

/// A query parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: &'static str,
    /// What it asks for.
    pub(super) about: &'static str,
    /// What it may be.
    pub(super) form: Form,
}

/// What the value of a parameter may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// Any text, once.
    Text,
    /// Any text, as often as wanted.
    Texts,
    /// One of these words, once; the first is meant where none is given.
    Word(&'static [&'static str]),
    /// Any of these words.
    Words(fn() -> Vec<&'static str>),
    /// An RFC 3339 time.
    Time,
    /// A whole number.
    Whole {
        /// The least.
        from: u32,
        /// The most.
        to: u32,
        /// Where none is given.
        usual: u32,
    },
    /// `name[key]=value`, as often as wanted with different keys.
    Labels,
}

/// What a route takes in its query.
pub(super) trait Parameters {
    /// The list, in groups.
    const LIST: &'static [&'static [Parameter]];
}

/// The query of a route that takes the parameters `P`.
#[derive(Clone, Debug)]
pub(super) struct Asked<P> {
    /// Holds parameters of the list only.
    pub(super) query: Query,
    parameters: PhantomData<P>,
}

impl<P: Parameters, S: Send + Sync> FromRequestParts<S> for Asked<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await?;
        let listed = |name: &str| P::LIST.iter().copied().flatten().any(|parameter| parameter.is(name));
        if let Some(name) = query.names().find(|name| !listed(name)) {
            return Err(invalid_parameter(name, "is not a parameter of this route"));
        }
        Ok(Self { query, parameters: PhantomData })
    }
}

impl<P: Parameters> IntoParams for Asked<P> {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<path::Parameter> {
        P::LIST.iter().copied().flatten().map(Parameter::described).collect()
    }
}

impl Parameter {
    fn is(&self, name: &str) -> bool {
        match self.form {
            Form::Labels => name.strip_prefix(self.name).is_some_and(|key| key.starts_with('[') && key.ends_with(']')),
            Form::Text | Form::Texts | Form::Word(_) | Form::Words(_) | Form::Time | Form::Whole { .. } => {
                name == self.name
            }
        }
    }

    fn described(&self) -> path::Parameter {
        let described = path::ParameterBuilder::new()
            .name(self.name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(self.about));
        match self.form {
            // Without an example the viewer makes labels up, and finds nothing.
            Form::Labels => described
                .style(Some(ParameterStyle::DeepObject))
                .explode(Some(true))
                .example(Some(serde_json::json!({}))),
            Form::Texts | Form::Words(_) => described.style(Some(ParameterStyle::Form)).explode(Some(true)),
            Form::Text | Form::Word(_) | Form::Time | Form::Whole { .. } => described,
        }
        .schema(Some(self.form.schema()))
        .build()
    }
}

impl Form {
    fn schema(self) -> RefOr<Schema> {
        let text = || of_type(Type::String);
        let several = |item: ObjectBuilder| ArrayBuilder::new().items(item.build()).build();
        match self {
            Self::Text => text().into(),
            Self::Texts => RefOr::T(Schema::Array(several(text()))),
            Self::Word(words) => text().enum_values(Some(words.iter().copied())).default(Some(words[0].into())).into(),
            Self::Words(words) => RefOr::T(Schema::Array(several(text().enum_values(Some(words()))))),
            Self::Time => <Time as utoipa::PartialSchema>::schema(),
            Self::Whole { from, to, usual } => {
                of_type(Type::Integer).minimum(Some(from)).maximum(Some(to)).default(Some(usual.into())).into()
            }
            Self::Labels => of_type(Type::Object).additional_properties(Some(text())).into(),
        }
    }
}

fn of_type(kind: Type) -> ObjectBuilder {
    Object::builder().schema_type(SchemaType::new(kind))
}

macro_rules! in_path {
    ($($(#[$doc:meta])* $name:ident = $parameter:literal, $about:literal, $pattern:expr, $example:literal;)+) => {
        $($(#[$doc])*
        pub(super) struct $name;

        impl IntoParams for $name {
            fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<path::Parameter> {
                let schema = of_type(Type::String).pattern($pattern).examples([$example]);
                let described = path::ParameterBuilder::new().name($parameter).parameter_in(ParameterIn::Path);
                vec![described.required(Required::True).description(Some($about)).schema(Some(schema)).build()]
            }
        })+
    };
}

in_path! {
    /// Names a generation.
    OfGeneration = "id", "Our id or the provider's.", Some("^[A-Za-z0-9_-]{1,128}$"), "gen_0199d4c2b7a07f3e9b1c2a3d4e5f6071";
    /// Names a delivery.
    OfDelivery = "id", "The id of a delivery.", Some("^dlv_[0-9a-f]{32}$"), "dlv_0199d4c2b7a07f3e9b1c2a3d4e5f6071";
    /// Names an event.
    OfEvent = "id", "The id of an event.", Some("^evt_[0-9a-f]{32}$"), "evt_0199d4c2b7a07f3e9b1c2a3d4e5f6071";
    /// Names an error code.
    OfCode = "code", "The provider's word.", None::<String>, "CONTENT_POLICY_VIOLATION";
    /// Names a family.
    OfFamily = "family", "The provider's path segment. It may hold a slash, sent as it is or as `%2F`.", None::<String>, "kling/o3-video";
    /// Proves where a webhook comes from.
    OfToken = "token", "The reference and its MAC: `{id}.{mac}` or `any.{mac}`.", None::<String>, "any.kq3mJt0v6yq1";
    /// Names a generation to the provider.
    OfProvider = "generation_id", "The provider's id.", Some("^[A-Za-z0-9_-]{1,128}$"), "7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa";
    /// Names a file of the viewer.
    OfFile = "file", "A file of the viewer.", None::<String>, "swagger-ui.css";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_their_key_in_brackets() {
        let labels = Parameter { name: "metadata", about: "", form: Form::Labels };
        assert!(labels.is("metadata[user]") && labels.is("metadata[]") && labels.is("metadata[a[b]]"));
        assert!(!labels.is("metadata") && !labels.is("metadata[") && !labels.is("other[user]"));
    }
}
