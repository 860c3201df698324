//! How values of the domain are described in the API document: texts of a form, and closed lists of words.
//!
//! Says nothing about routes; `http/document/` does. Used by the macros and types of `domain/`, and for the codes of problems.

use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

/// A text of this form.
pub(in crate::domain) fn text(about: &str, pattern: &str, example: &str) -> RefOr<Schema> {
    plain(about).pattern(Some(pattern)).examples([example]).into()
}

/// A point in time.
pub(in crate::domain) fn time(about: &str, example: &str) -> RefOr<Schema> {
    let format = utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::DateTime);
    plain(about).format(Some(format)).examples([example]).into()
}

/// One of these words, each with what it means.
pub(crate) fn one_of(about: &str, words: &[(&str, &str)]) -> RefOr<Schema> {
    let meanings: Vec<_> = words.iter().map(|(word, meaning)| format!("- `{word}`: {}", meaning.trim())).collect();
    plain(&format!("{}\n\n{}", about.trim(), meanings.join("\n")))
        .enum_values(Some(words.iter().map(|(word, _)| *word)))
        .into()
}

fn plain(about: &str) -> ObjectBuilder {
    Object::builder().schema_type(SchemaType::new(Type::String)).description(Some(about.trim()))
}
