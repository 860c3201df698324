//! The provider's lists: what one read of them settles, and the purchases whose answer was lost that it tells of.
//!
//! One transaction takes a list in. What it tells about a generation is kept as an answer about that one, with its words.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use rusqlite::params;
use sqlx::Row as _;

use super::rows::{self, JOINED, Stored};
use super::submissions::options;
use super::tx::Tx;
use super::{Store, StoreError};
use crate::domain::candidates::Candidate;
use crate::domain::decision::{Answer, Fact, Submission, Told};
use crate::domain::family::Family;
use crate::domain::id::{CheckId, GenerationId, ProviderId};
use crate::domain::listing::{self, Entry, LostPurchase, Match, Seen};
use crate::domain::schedule::Rules;
use crate::domain::time::Time;

/// Lost purchases looked for at the same time.
const LOST_MAX: u32 = 200;
/// Ids of a list that are kept because they are on record under no generation.
const IDS_KEPT_FOR: std::time::Duration = std::time::Duration::from_hours(48);
/// Longest entry that is shown to a person, in bytes.
const ENTRY_BYTES_MAX: usize = 4 * 1_024;

/// What taking in a list brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListTold {
    /// Generations that were asked about and stand in it.
    pub told: Vec<GenerationId>,
    /// Lost purchases that were found in it.
    pub found: Vec<GenerationId>,
}

/// What a list is read for.
#[derive(Clone, Debug)]
pub struct ListRead {
    /// The read, written down before it was made.
    pub check: CheckId,
    /// Whose list it is.
    pub list: &'static Family,
    /// What is due to be asked about.
    pub due: Vec<GenerationId>,
}

static LOST: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {JOINED}, s.sent_at, s.answered_at, s.options FROM generations g INDEXED BY generations_status
         JOIN submissions s ON s.generation = g.id
         WHERE g.status <> 7 AND g.status = ?1 AND g.provider_id IS NULL AND g.refunded_at IS NULL
         ORDER BY g.created_at DESC LIMIT ?2"
    )
});

impl Store {
    /// Purchases whose answer was lost, or is waited for since before `late`: the newest of them.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn lost_purchases(&self, late: Time) -> Result<Vec<LostPurchase>, StoreError> {
        let mut found = Vec::new();
        for status in [3_u8, 2] {
            let rows = sqlx::query(sqlx::AssertSqlSafe(LOST.as_str()))
                .bind(status)
                .bind(LOST_MAX)
                .fetch_all(&self.readers)
                .await?;
            for row in &rows {
                let lost = LostPurchase {
                    generation: rows::read(row)?.generation,
                    options: options(row.try_get("options")?)?,
                    sent_at: Time::from_ms(row.try_get("sent_at")?),
                    answered_at: row.try_get::<Option<i64>, _>("answered_at")?.map(Time::from_ms),
                };
                if lost.answered_at.is_some() || lost.sent_at <= late {
                    found.push(lost);
                }
            }
        }
        Ok(found)
    }

    /// The generations in the provider's lists that may be a purchase whose answer was lost, those seen first at the front.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn candidates(&self, id: GenerationId) -> Result<Vec<Candidate>, StoreError> {
        let sql = "SELECT c.provider_id, c.entry, c.seen_at FROM generations g JOIN candidates c ON c.generation = g.id
                   WHERE g.uid = ?1 AND g.provider_id IS NULL";
        let rows = sqlx::query(sql).bind(id.as_bytes().as_slice()).fetch_all(&self.readers).await?;
        let mut found = Vec::new();
        for row in rows {
            let (provider_id, entry): (String, String) = (row.try_get("provider_id")?, row.try_get("entry")?);
            found.extend(Candidate::read(&provider_id, &entry, Time::from_ms(row.try_get("seen_at")?)));
        }
        found.sort_by_key(|candidate| candidate.seen_at);
        Ok(found)
    }

    /// Takes a list in: what it tells about what is due, and the lost purchases that stand in it, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn record_list(
        &self,
        rules: &Arc<Rules>,
        read: ListRead,
        entries: Vec<Entry>,
        http_status: Option<u16>,
        purchases: Vec<LostPurchase>,
        now: Time,
    ) -> Result<ListTold, StoreError> {
        let rules = Arc::clone(rules);
        self.writer
            .run(move |tx| {
                let said = format!("the list of {} with {} generations", read.list.title, entries.len());
                tx.answer_check(read.check, &told(Answer::NotFound, http_status, &said, Vec::new()), now)?;
                let mut list = List { rules: &rules, read: &read, entries: &entries, http_status, now };
                list.take_in(tx, &purchases)
            })
            .await
    }

    /// Ends the read of a list that brought none.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn record_no_list(&self, check: CheckId, told: Told, now: Time) -> Result<(), StoreError> {
        self.writer.run(move |tx| tx.answer_check(check, &told, now)).await
    }
}

fn told(answer: Answer, http_status: Option<u16>, said: &str, body: Vec<u8>) -> Told {
    Told { answer, http_status, said: said.to_owned(), body }
}

/// A list that is taken in.
struct List<'a> {
    rules: &'a Rules,
    read: &'a ListRead,
    entries: &'a [Entry],
    http_status: Option<u16>,
    now: Time,
}

impl List<'_> {
    fn take_in(&mut self, tx: &mut Tx<'_>, purchases: &[LostPurchase]) -> Result<ListTold, StoreError> {
        let mut outcome = ListTold::default();
        let due: HashSet<_> = self.read.due.iter().collect();
        let read_before = self.read_before(tx)?;
        let mut unknown = Vec::new();
        // One that is named twice is one.
        let mut named = HashSet::new();
        let entries = self.entries.iter().enumerate();
        for (place, entry) in entries.filter(|(_, entry)| named.insert(&entry.notice.provider_id)) {
            match self.on_record(tx, entry)? {
                Some(stored) if due.contains(&stored.generation.id) => {
                    if self.answer(tx, &stored, entry)? {
                        outcome.told.push(stored.generation.id);
                    }
                }
                Some(_) => {}
                // Retention has removed it: it is an old one.
                None if tx.is_removed_anywhere(&entry.notice.provider_id)? => {}
                None => unknown.push((place, entry, self.seen(tx, entry, read_before)?)),
            }
        }
        for purchase in purchases {
            if let Some(found) = self.look_for(tx, purchase, &unknown)? {
                unknown.retain(|(place, ..)| *place != found);
                outcome.found.push(purchase.generation.id);
            }
        }
        self.forget_absent(tx)?;
        Ok(outcome)
    }

    /// When the list was read last; remembers this read.
    fn read_before(&self, tx: &Tx<'_>) -> Result<Option<Time>, StoreError> {
        let (code, now) = (self.read.list.code(), self.now.as_ms());
        let read_at = tx.first("SELECT read_at FROM lists WHERE family = ?1", params![code], |row| {
            Ok(row.get::<_, Option<i64>>(0)?.map(Time::from_ms))
        })?;
        tx.execute(
            "INSERT INTO lists (family, first_read_at, read_at) VALUES (?1, ?2, ?2)
             ON CONFLICT (family) DO UPDATE SET read_at = excluded.read_at",
            params![code, now],
        )?;
        Ok(read_at.flatten())
    }

    /// Between which reads an entry that is on record under no generation came into the list; remembers that it stands there.
    fn seen(&self, tx: &Tx<'_>, entry: &Entry, read_before: Option<Time>) -> Result<Seen, StoreError> {
        let (code, id) = (self.read.list.code(), entry.notice.provider_id.as_str());
        let sql = "SELECT first_seen_at, absent_at FROM listed_ids WHERE family = ?1 AND provider_id = ?2";
        let known = tx.first(sql, params![code, id], |row| {
            let (since, absent_at): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(Seen { absent_at: absent_at.map(Time::from_ms), entry_since: Some(Time::from_ms(since)) })
        })?;
        if let Some(seen) = known {
            return Ok(seen);
        }
        tx.execute(
            "INSERT INTO listed_ids (family, provider_id, first_seen_at, absent_at) VALUES (?1, ?2, ?3, ?4)",
            params![code, id, self.now.as_ms(), read_before.map(Time::as_ms)],
        )?;
        Ok(Seen { absent_at: read_before, entry_since: None })
    }

    /// Forgets old ids that stand in the list no more: what still does is not new when it is seen again.
    fn forget_absent(&self, tx: &Tx<'_>) -> Result<(), StoreError> {
        let ids: Vec<_> = listing::ids(self.entries).map(ProviderId::as_str).collect();
        let ids = serde_json::to_string(&ids).map_err(|error| StoreError::Failed(error.to_string()))?;
        tx.execute(
            "DELETE FROM listed_ids WHERE family = ?1 AND first_seen_at < ?2 AND provider_id NOT IN (SELECT value FROM json_each(?3))",
            params![self.read.list.code(), (self.now - IDS_KEPT_FOR).as_ms(), ids],
        )?;
        Ok(())
    }

    /// The generation of an entry, whatever family it is of.
    fn on_record(&self, tx: &Tx<'_>, entry: &Entry) -> Result<Option<Stored>, StoreError> {
        let id = &entry.notice.provider_id;
        if let Some(stored) = tx.by_provider_id(self.read.list, id)? {
            return Ok(Some(stored));
        }
        tx.by_provider_id_anywhere(id)
    }

    /// Keeps what the list tells about a generation as an answer about it, and settles.
    fn answer(&self, tx: &mut Tx<'_>, stored: &Stored, entry: &Entry) -> Result<bool, StoreError> {
        let generation = &stored.generation;
        // What only the provider's own answer can settle is asked about one by one.
        let is_plain = generation.state.is_running() && generation.claim.is_none();
        if !is_plain || !listing::tells_of(self.read.list, generation.family, entry) {
            return Ok(false);
        }
        self.keep_entry(tx, stored.row, entry)?;
        tx.decide(self.rules, stored, &Fact::Answer(Answer::Known(entry.notice.clone())), self.now)?;
        Ok(true)
    }

    fn keep_entry(&self, tx: &Tx<'_>, row: i64, entry: &Entry) -> Result<(), StoreError> {
        let body = serde_json::to_vec(&entry.fields).map_err(|error| StoreError::Failed(error.to_string()))?;
        tx.execute(
            "INSERT INTO checks (uid, generation, sent_at, answered_at, answer, http_status, said, body, listed)
             VALUES (?1, ?2, ?3, ?3, 'known', ?4, ?5, ?6, 1)",
            params![
                CheckId::fresh(self.now).as_bytes().as_slice(),
                row,
                self.now.as_ms(),
                self.http_status,
                format!("in the list of {}", self.read.list.title),
                body.get(..body.len().min(super::checks::KNOWN_BODY_BYTES_MAX)),
            ],
        )?;
        Ok(())
    }

    /// Looks for a lost purchase among the entries that are on record under no generation. Tells the place of what was found to be it.
    fn look_for(
        &self,
        tx: &mut Tx<'_>,
        purchase: &LostPurchase,
        unknown: &[(usize, &Entry, Seen)],
    ) -> Result<Option<usize>, StoreError> {
        // What became of it meanwhile stands.
        let Some(stored) = tx.by_id(purchase.generation.id)? else { return Ok(None) };
        if stored.generation.provider_id.is_some() {
            return Ok(None);
        }
        let find = |rivals| purchase.find(self.read.list, unknown, rivals, self.rules, self.now);
        // Rivals matter only where something was found.
        let found = match find(0) {
            Match::One(_) => find(tx.rivals(purchase, self.rules)?),
            other @ (Match::Absent | Match::Unsure(_)) => other,
        };
        match found {
            Match::Absent => Ok(None),
            Match::One(place) => {
                let Some(entry) = self.entries.get(place) else { return Ok(None) };
                self.bind(tx, &stored, entry)?;
                Ok(Some(place))
            }
            Match::Unsure(places) => {
                for entry in places.iter().filter_map(|place| self.entries.get(*place)) {
                    self.keep_candidate(tx, stored.row, entry)?;
                }
                Ok(None)
            }
        }
    }

    fn bind(&self, tx: &mut Tx<'_>, stored: &Stored, entry: &Entry) -> Result<(), StoreError> {
        let provider_id = entry.notice.provider_id.clone();
        let text = format!(
            "found in the provider's list as {provider_id}: the only one that fits in prompt, model, length, options and time"
        );
        tx.note(stored.row, self.now, "recoup", &text)?;
        self.keep_entry(tx, stored.row, entry)?;
        let price = crate::domain::purchase::price(entry.fields.get("price"));
        tx.decide(self.rules, stored, &Fact::Submission(Submission::Accepted { provider_id, price }), self.now)?;
        if let Some(bound) = tx.by_id(stored.generation.id)? {
            tx.decide(self.rules, &bound, &Fact::Answer(Answer::Known(entry.notice.clone())), self.now)?;
        }
        tx.execute("DELETE FROM candidates WHERE generation = ?1", params![stored.row])?;
        Ok(())
    }

    fn keep_candidate(&self, tx: &Tx<'_>, row: i64, entry: &Entry) -> Result<(), StoreError> {
        let id = &entry.notice.provider_id;
        let json = serde_json::to_string(&entry.fields).unwrap_or_default();
        let json = if json.len() <= ENTRY_BYTES_MAX { json } else { "{}".to_owned() };
        let added = tx.execute(
            "INSERT INTO candidates (generation, provider_id, seen_at, entry) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![row, id.as_str(), self.now.as_ms(), json],
        )?;
        if added > 0 {
            let text = format!(
                "the provider's list has {id}, which may be this purchase or an equal one; who knows that it is names it as \
                 generation_id"
            );
            tx.note(row, self.now, "recoup", &text)?;
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Purchases of the same that are prepared, under way or lost by now, and whose id is not known: what is found may be one of them.
    /// Of a list that tells little, model and length may not tell them apart; nor do blanks around the prompt.
    fn rivals(&self, purchase: &LostPurchase, rules: &Rules) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM generations INDEXED BY generations_status
                   WHERE status <> 7 AND status IN (1, 2, 3) AND created_at >= ?1 AND provider_id IS NULL AND family = ?2
                     AND trim(prompt, char(9, 10, 11, 12, 13, 32)) IS ?3 AND uid <> ?4";
        let own = &purchase.generation;
        let prompt = own.request.prompt.as_deref().map(str::trim);
        let since = purchase.rivals_since(rules).as_ms();
        let count =
            self.first(sql, params![since, own.family.code(), prompt, own.id.as_bytes().as_slice()], |row| {
                Ok(row.get::<_, u32>(0)?)
            })?;
        Ok(usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX))
    }
}
