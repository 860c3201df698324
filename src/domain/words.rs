//! Enums that are words outside and numbers in the database: one list gives the variants, their words and the way back.
//!
//! The number is the place in the list, so a new word goes to its end.

macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $word_doc:literal])* $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $word_doc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word used outside.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($word_doc,)*),)+ }
            }

            /// The number it is stored as, from 1 on.
            #[expect(clippy::as_conversions, reason = "a variant's place among the variants")]
            pub const fn code(self) -> u8 {
                self as u8 + 1
            }

            /// The value stored as that number.
            pub fn of_code(code: u8) -> Option<Self> {
                Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
            }

            /// The value of that word.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                crate::domain::schema::one_of(concat!($($doc,)*), &[$(($word, concat!($($word_doc,)*)),)+])
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}
pub(in crate::domain) use words;
