//! Lists of generations: what they are filtered by, and cursors of any list.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::equal_purchases::{BY_DOUBLED, DOUBLED, STILL_DOUBLED};
use super::sql::Sql;
use super::walk::{Key, NEIGHBOURS_MAX, SCATTERED_MAX, Walk};
use crate::domain::credits::CreditState;
use crate::domain::family::Family;
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

/// A row's place in a list: the time that orders it (0 where there is none), and its number.
pub(crate) type Place = (i64, i64);

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Which way.
    pub order: Order,
    /// Rows on the page.
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<Place>,
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
    /// Only those of which an equal purchase was made within ten minutes.
    pub doubled: bool,
    /// First known after this.
    pub created_after: Option<Time>,
    /// First known before this.
    pub created_before: Option<Time>,
    /// Their labels.
    pub metadata: BTreeMap<String, String>,
}

/// Newest first by the time a generation was first known.
pub(super) const BY_CREATION: Key = Key { time: Some("g.created_at"), number: "g.id" };
const BY_LABEL: Key = Key { time: Some("l.created_at"), number: "l.generation" };

const ALL: &str = "generations g INDEXED BY generations_created_at";

impl Filter {
    /// The indexes to walk: one that leaves few rows, once for each of its values.
    pub(super) fn walks(&self, now: Time, refund_window: Duration) -> Vec<Walk> {
        let along = |from: &'static str, join: &'static str, key: Key, by: Sql| Walk {
            from,
            join,
            key,
            by: self.created(by, key),
            rest: self.rest(now, refund_window),
            rows_max: if from == ALL { NEIGHBOURS_MAX } else { SCATTERED_MAX },
        };
        let each = |index: &'static str, values: Vec<Sql>| {
            values.into_iter().map(|by| along(index, "", BY_CREATION, by)).collect::<Vec<_>>()
        };
        if self.doubled {
            return vec![along(DOUBLED, "CROSS JOIN generations g ON g.id = d.generation", BY_DOUBLED, Sql::default())];
        }
        if let Some((key, value)) = self.metadata.iter().next() {
            let by = Sql::new("l.key = ").bind(key.clone()).and("l.value = ").bind(value.clone());
            return vec![along("labels l", "CROSS JOIN generations g ON g.id = l.generation", BY_LABEL, by)];
        }
        if !self.error_codes.is_empty() {
            let codes = self.error_codes.iter().map(|code| Sql::new("g.error_code = ").bind(code.clone()));
            return each("generations g INDEXED BY generations_error_code", codes.collect());
        }
        if self.any_attention || !self.attentions.is_empty() {
            let all = if self.attentions.is_empty() { Attention::ALL } else { &self.attentions };
            let attentions = all.iter().map(|attention| Sql::new("g.attention = ").bind(attention.code()));
            return each("generations g INDEXED BY generations_attention", attentions.collect());
        }
        match self.possible_statuses() {
            Some(statuses) if !statuses.contains(&Status::Completed) => {
                let statuses = statuses.iter();
                let statuses = statuses.map(|status| Sql::new("g.status <> 7 AND g.status = ").bind(status.code()));
                each("generations g INDEXED BY generations_status", statuses.collect())
            }
            // Most are completed: they are found soon among all.
            Some(_) | None => {
                vec![along(ALL, "", BY_CREATION, Sql::default())]
            }
        }
    }

    /// The statuses that all conditions leave; `None` when none of them says anything about it.
    fn possible_statuses(&self) -> Option<Vec<Status>> {
        let sources = (!self.sources.is_empty()).then_some([Status::Completed, Status::Failed]);
        let refused = self.refused_at_submission.then_some(Status::Rejected);
        let by_source: Vec<_> = sources.into_iter().flatten().chain(refused).collect();
        let by_credits: Vec<_> = self.credits.iter().flat_map(|state| statuses_of(*state)).copied().collect();
        let conditions = [&self.statuses, &by_source, &by_credits];
        let mut said = conditions.into_iter().filter(|statuses| !statuses.is_empty()).peekable();
        said.peek()?;
        let said: Vec<_> = said.collect();
        let possible = Status::ALL.iter().filter(|status| said.iter().all(|statuses| statuses.contains(status)));
        Some(possible.copied().collect())
    }

    fn created(&self, mut by: Sql, key: Key) -> Sql {
        let time = key.time.unwrap_or_default();
        if let Some(after) = self.created_after {
            by = by.and(time).push(" > ").bind(after.as_ms());
        }
        if let Some(before) = self.created_before {
            by = by.and(time).push(" < ").bind(before.as_ms());
        }
        by
    }

    /// Every condition but those on the creation time.
    fn rest(&self, now: Time, refund_window: Duration) -> Sql {
        let mut rest = Sql::default();
        if self.doubled {
            rest = rest.and(STILL_DOUBLED);
        }
        rest = rest.any_of("g.status", self.statuses.iter().map(|status| status.code()));
        if self.any_attention {
            rest = rest.and("g.attention IS NOT NULL");
        }
        rest = rest.any_of("g.attention", self.attentions.iter().map(|attention| attention.code()));
        rest = rest.any_of("g.error_code", self.error_codes.iter().cloned());
        // A family nobody knows has no number, and no generations.
        rest = rest.any_of("g.family", self.families.iter().map(|path| Family::of(path).map_or(0, Family::code)));
        rest = rest.any_of("g.model", self.models.iter().cloned());
        if !self.sources.is_empty() || self.refused_at_submission {
            rest = rest.and("(FALSE");
            for source in &self.sources {
                rest = rest.push(" OR g.source = ").bind(source.code());
            }
            rest = rest.push(if self.refused_at_submission { " OR g.status = 4)" } else { ")" });
        }
        rest = self.in_credit_state(rest, now, refund_window);
        for (key, value) in &self.metadata {
            rest = rest.and("EXISTS (SELECT 1 FROM json_each(g.metadata) WHERE key = ").bind(key.clone());
            rest = rest.push(" AND value = ").bind(value.clone()).push(")");
        }
        rest
    }

    /// The same states as [`CreditState::of`]; a test holds the two together. The numbers are those of [`Status`].
    fn in_credit_state(&self, mut sql: Sql, now: Time, refund_window: Duration) -> Sql {
        if self.credits.is_empty() {
            return sql;
        }
        let window_passed = (now - refund_window).as_ms();
        sql = sql.and("(FALSE");
        for state in &self.credits {
            sql = sql.push(" OR ");
            sql = match state {
                CreditState::NotCharged => sql.push("g.status IN (1, 4)"),
                CreditState::Delivered => sql.push("g.status = 7"),
                CreditState::Charged => sql.push("(g.status IN (2, 5, 6) AND g.attention IS NULL)"),
                CreditState::AtRisk => sql.push(
                    "((g.status IN (2, 5, 6) AND g.attention IS NOT NULL) OR (g.status IN (3, 9) AND g.refunded_at IS NULL))",
                ),
                CreditState::RefundExpected => {
                    let failed = sql.push("(g.status = 8 AND g.refunded_at IS NULL AND g.settled_at > ");
                    failed.bind(window_passed).push(")")
                }
                CreditState::Refunded => {
                    let confirmed = sql.push("((g.status IN (8, 3, 9) AND g.refunded_at IS NOT NULL)");
                    confirmed.push(" OR (g.status = 8 AND g.settled_at <= ").bind(window_passed).push("))")
                }
            };
        }
        sql.push(")")
    }
}

/// The statuses in which credits can be so.
fn statuses_of(state: CreditState) -> &'static [Status] {
    match state {
        CreditState::NotCharged => &[Status::Prepared, Status::Rejected],
        CreditState::Delivered => &[Status::Completed],
        CreditState::Charged => &[Status::Submitting, Status::Pending, Status::Processing],
        CreditState::AtRisk => {
            &[Status::Submitting, Status::Pending, Status::Processing, Status::Unconfirmed, Status::Lost]
        }
        CreditState::RefundExpected => &[Status::Failed],
        CreditState::Refunded => &[Status::Failed, Status::Unconfirmed, Status::Lost],
    }
}

/// An opaque cursor: version, order, the last row's place. It belongs to its order.
pub(crate) fn cursor((time, number): Place, order: Order) -> String {
    let order = match order {
        Order::Descending => b'd',
        Order::Ascending => b'a',
    };
    let mut bytes = vec![2, order];
    bytes.extend_from_slice(&time.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Paging {
    /// Reads a cursor of a list in this order; `None` for anything else.
    pub fn read_cursor(text: &str, order: Order) -> Option<Place> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (time, number) = bytes.get(2..)?.split_at_checked(8)?;
        let place = (i64::from_be_bytes(time.try_into().ok()?), i64::from_be_bytes(number.try_into().ok()?));
        (cursor(place, order) == text).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_its_order_and_cannot_be_changed() {
        let text = cursor((5, 77), Order::Descending);
        assert_eq!(Paging::read_cursor(&text, Order::Descending), Some((5, 77)));
        assert_eq!(Paging::read_cursor(&text, Order::Ascending), None);
        for bad in ["", "x", "77", &text[1..], &format!("{text}A")] {
            assert_eq!(Paging::read_cursor(bad, Order::Descending), None, "{bad}");
        }
    }
}
