//! Reading a list of generations: one request, bounded, and what it means.

use std::time::Duration;

use reqwest::header::HeaderMap;

use super::{KEY_REFUSED_PAUSE, ProviderClient, describe, read_bounded, retry_after};
use crate::domain::family::Family;
use crate::domain::listing::{self, Entry};

/// Longest list that is read, in bytes: a hundred entries with the longest prompts and signed links.
const LIST_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// What reading a list brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// What it means.
    pub answer: ListAnswer,
    /// The HTTP status, where there was one.
    pub http_status: Option<u16>,
    /// In a few words, for people.
    pub said: String,
}

/// What a list says.
#[derive(Clone, Debug, PartialEq)]
pub enum ListAnswer {
    /// These generations.
    Entries(Vec<Entry>),
    /// There is no such list.
    Absent,
    /// Not now: too many reads, or our key is not accepted.
    Paused {
        /// How long to wait.
        pause: Duration,
    },
    /// Nothing could be learned.
    Nothing,
}

impl ProviderClient {
    /// `GET /v1/{family}/generations?limit=100&offset=0` (provider.md section 13)
    pub(super) async fn read_list(&self, family: &Family) -> Listing {
        let url = format!("{}/v1/{}/generations?limit={}&offset=0", self.base_url, family.path, listing::ENTRIES_MAX);
        let response = match self.http.get(url).bearer_auth(self.api_key.expose()).send().await {
            Ok(response) => response,
            Err(error) => return Listing { answer: ListAnswer::Nothing, http_status: None, said: describe(&error) },
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = match read_bounded(response, LIST_BYTES_MAX).await {
            Ok(body) => self.without_key(body),
            Err(said) => return Listing { answer: ListAnswer::Nothing, http_status: Some(status), said },
        };
        understand(status, &headers, &body)
    }
}

/// What a complete answer means. A path that does not exist may be refused in several ways; a 403 is about this path alone, and doubts
/// neither the key nor the reads of anything else.
pub(crate) fn understand(status: u16, headers: &HeaderMap, body: &[u8]) -> Listing {
    let (answer, said) = match status {
        200..=299 => match listing::read_list(body) {
            Some(entries) => {
                let said = format!("a list of {}", entries.len());
                (ListAnswer::Entries(entries), said)
            }
            None => (ListAnswer::Nothing, "the answer is no list".to_owned()),
        },
        400 | 403 | 404 | 405 | 410 | 422 | 501 => (ListAnswer::Absent, "there is no such list".to_owned()),
        401 => (ListAnswer::Paused { pause: KEY_REFUSED_PAUSE }, "the API key is refused".to_owned()),
        429 => (ListAnswer::Paused { pause: retry_after(headers) }, "too many reads".to_owned()),
        _ => (ListAnswer::Nothing, "no answer to the question".to_owned()),
    };
    Listing { answer, http_status: Some(status), said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_there_or_not_or_says_nothing_now() {
        let read = |status, body: &str| understand(status, &HeaderMap::new(), body.as_bytes()).answer;
        let one = r#"[{"generation_id":"a","status":"pending","prompt":"x"}]"#;
        assert!(matches!(read(200, one), ListAnswer::Entries(entries) if entries.len() == 1));
        assert_eq!(read(200, "[]"), ListAnswer::Entries(Vec::new()));
        assert_eq!(read(200, "<html>"), ListAnswer::Nothing);
        assert_eq!(read(404, ""), ListAnswer::Absent);
        assert_eq!(read(405, ""), ListAnswer::Absent);
        assert_eq!(read(503, one), ListAnswer::Nothing);
        assert_eq!(read(403, ""), ListAnswer::Absent);
        assert_eq!(read(401, ""), ListAnswer::Paused { pause: KEY_REFUSED_PAUSE });
        assert!(matches!(read(429, ""), ListAnswer::Paused { .. }));
    }
}
