//! Lists: filters, keyset pages that stay stable while rows arrive, cursors.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row};

use super::StoreError;
use crate::domain::credits::CreditState;
use crate::domain::generation::{Attention, Status};
use crate::domain::outcome::Source;
use crate::domain::time::Time;

/// Which way a list runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    #[default]
    Descending,
    /// Oldest first.
    Ascending,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Which way.
    pub order: Order,
    /// Rows on the page.
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<i64>,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next_cursor: Option<String>,
}

/// Which generations to list. Values of one field are alternatives, fields are conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Their status.
    pub statuses: Vec<Status>,
    /// Any that call for a person.
    pub any_attention: bool,
    /// Their attention.
    pub attentions: Vec<Attention>,
    /// Where their credits are.
    pub credits: Vec<CreditState>,
    /// Their error code.
    pub error_codes: Vec<String>,
    /// Their family's path.
    pub families: Vec<String>,
    /// Their model.
    pub models: Vec<String>,
    /// How their outcome was learned; the refused ones were learned by the gateway.
    pub sources: Vec<Source>,
    /// Those the provider refused at submission.
    pub refused_at_submission: bool,
    /// First known after this.
    pub created_after: Option<Time>,
    /// First known before this.
    pub created_before: Option<Time>,
    /// Their labels.
    pub metadata: BTreeMap<String, String>,
}

impl Filter {
    pub(super) fn push(&self, query: &mut QueryBuilder<Sqlite>, now: Time, refund_window: Duration) {
        any_of(query, "status", self.statuses.iter().map(|word| word.as_str()));
        if self.any_attention {
            query.push(" AND attention IS NOT NULL");
        }
        any_of(query, "attention", self.attentions.iter().map(|word| word.as_str()));
        any_of(query, "error_code", self.error_codes.iter().map(String::as_str));
        any_of(query, "family", self.families.iter().map(String::as_str));
        any_of(query, "model", self.models.iter().map(String::as_str));
        self.push_sources(query);
        self.push_credits(query, now, refund_window);
        if let Some(after) = self.created_after {
            query.push(" AND created_at > ").push_bind(after.as_ms());
        }
        if let Some(before) = self.created_before {
            query.push(" AND created_at < ").push_bind(before.as_ms());
        }
        for (key, value) in &self.metadata {
            query.push(" AND EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ").push_bind(key.clone());
            query.push(" AND value = ").push_bind(value.clone()).push(")");
        }
    }

    fn push_sources(&self, query: &mut QueryBuilder<Sqlite>) {
        if self.sources.is_empty() && !self.refused_at_submission {
            return;
        }
        query.push(" AND (FALSE");
        for source in &self.sources {
            query.push(" OR source = ").push_bind(source.as_str());
        }
        if self.refused_at_submission {
            query.push(" OR status = 'rejected'");
        }
        query.push(")");
    }

    /// The same states as [`CreditState::of`]; a test holds the two together.
    fn push_credits(&self, query: &mut QueryBuilder<Sqlite>, now: Time, refund_window: Duration) {
        if self.credits.is_empty() {
            return;
        }
        let window_passed = (now - refund_window).as_ms();
        query.push(" AND (FALSE");
        for state in &self.credits {
            query.push(" OR ");
            match state {
                CreditState::NotCharged => query.push("status IN ('prepared', 'rejected')"),
                CreditState::Delivered => query.push("status = 'completed'"),
                CreditState::Charged => {
                    query.push("(status IN ('submitting', 'pending', 'processing') AND attention IS NULL)")
                }
                CreditState::AtRisk => query.push(
                    "((status IN ('submitting', 'pending', 'processing') AND attention IS NOT NULL)
                      OR (status IN ('unconfirmed', 'lost') AND refunded_at IS NULL))",
                ),
                CreditState::RefundExpected => query
                    .push("(status = 'failed' AND refunded_at IS NULL AND settled_at > ")
                    .push_bind(window_passed)
                    .push(")"),
                CreditState::Refunded => query
                    .push("((status IN ('failed', 'unconfirmed', 'lost') AND refunded_at IS NOT NULL)")
                    .push(" OR (status = 'failed' AND settled_at <= ")
                    .push_bind(window_passed)
                    .push("))"),
            };
        }
        query.push(")");
    }
}

/// One of the given values; no values are no condition.
pub(super) fn any_of<'v>(query: &mut QueryBuilder<Sqlite>, column: &str, values: impl Iterator<Item = &'v str>) {
    let values: Vec<&str> = values.collect();
    if values.is_empty() {
        return;
    }
    query.push(" AND ").push(column).push(" IN (");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value.to_owned());
    }
    query.push(")");
}

/// The page's place, order and length; one row more than asked for tells whether there is a next page.
pub(super) fn finish(query: &mut QueryBuilder<Sqlite>, id: &str, paging: &Paging) {
    let (beyond, order) = match paging.order {
        Order::Descending => (" < ", " DESC"),
        Order::Ascending => (" > ", ""),
    };
    if let Some(after) = paging.after {
        query.push(" AND ").push(id).push(beyond).push_bind(after);
    }
    query.push(" ORDER BY ").push(id).push(order).push(" LIMIT ").push_bind(i64::from(paging.limit) + 1);
}

/// Cuts the extra row off and makes a cursor of the last one.
pub(super) fn page<T>(
    rows: &[SqliteRow],
    paging: &Paging,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    let shown = &rows[..rows.len().min(limit)];
    let last = shown.last().filter(|_| more).map(|row| row.try_get::<i64, _>("id")).transpose()?;
    let rows = shown.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Page { rows, next_cursor: last.map(|last| cursor(last, paging.order)) })
}

/// An opaque cursor: version, order, last row. It belongs to its order.
fn cursor(last: i64, order: Order) -> String {
    let order = match order {
        Order::Descending => b'd',
        Order::Ascending => b'a',
    };
    let mut bytes = vec![1, order];
    bytes.extend_from_slice(&last.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Paging {
    /// Reads a cursor of a list in this order; `None` for anything else.
    pub fn read_cursor(text: &str, order: Order) -> Option<i64> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let last = i64::from_be_bytes(bytes.get(2..)?.try_into().ok()?);
        (cursor(last, order) == text).then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_its_order_and_cannot_be_changed() {
        let text = cursor(77, Order::Descending);
        assert_eq!(Paging::read_cursor(&text, Order::Descending), Some(77));
        assert_eq!(Paging::read_cursor(&text, Order::Ascending), None);
        for bad in ["", "x", "77", &text[1..], &format!("{text}A")] {
            assert_eq!(Paging::read_cursor(bad, Order::Descending), None, "{bad}");
        }
    }
}
