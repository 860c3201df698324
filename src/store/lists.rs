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
use crate::domain::decision::{Answer, Fact, Submission, Told};
use crate::domain::family::Family;
use crate::domain::id::{CheckId, GenerationId};
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
        lost: Vec<LostPurchase>,
        now: Time,
    ) -> Result<ListTold, StoreError> {
        let rules = Arc::clone(rules);
        self.writer
            .run(move |tx| {
                let said = format!("the list of {} with {} generations", read.list.title, entries.len());
                tx.answer_check(read.check, &told(Answer::NotFound, http_status, &said, Vec::new()), now)?;
                let mut list = List { rules: &rules, read: &read, entries: &entries, http_status, now };
                list.take_in(tx, &lost)
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
    fn take_in(&mut self, tx: &mut Tx<'_>, lost: &[LostPurchase]) -> Result<ListTold, StoreError> {
        let mut outcome = ListTold::default();
        let due: HashSet<_> = self.read.due.iter().collect();
        let since = self.list_since(tx)?;
        let mut unknown = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            match self.on_record(tx, entry)? {
                Some(stored) if due.contains(&stored.generation.id) => {
                    if self.answer(tx, &stored, entry)? {
                        outcome.told.push(stored.generation.id);
                    }
                }
                Some(_) => {}
                // Retention has removed it: it is an old one.
                None if tx.is_removed_of(self.read.list, &entry.notice.provider_id)? => {}
                None => {
                    let entry_since = tx.entry_since(self.read.list, entry, self.now)?;
                    unknown.push((place, entry, Seen { list_since: since, entry_since }));
                }
            }
        }
        for purchase in lost {
            if self.look_for(tx, purchase, lost, &unknown)? {
                outcome.found.push(purchase.generation.id);
            }
        }
        Ok(outcome)
    }

    /// Since when the list was read before; remembers this read.
    fn list_since(&self, tx: &Tx<'_>) -> Result<Option<Time>, StoreError> {
        let code = self.read.list.code();
        let since = tx.first("SELECT first_read_at FROM lists WHERE family = ?1", params![code], |row| {
            Ok(Time::from_ms(row.get(0)?))
        })?;
        if since.is_none() {
            tx.execute("INSERT INTO lists (family, first_read_at) VALUES (?1, ?2)", params![code, self.now.as_ms()])?;
        }
        tx.execute("DELETE FROM listed_ids WHERE first_seen_at < ?1", params![(self.now - IDS_KEPT_FOR).as_ms()])?;
        Ok(since)
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

    /// Looks for a lost purchase among the entries that are on record under no generation. Tells whether it was found.
    fn look_for(
        &self,
        tx: &mut Tx<'_>,
        purchase: &LostPurchase,
        lost: &[LostPurchase],
        unknown: &[(usize, &Entry, Seen)],
    ) -> Result<bool, StoreError> {
        // What became of it meanwhile stands.
        let Some(stored) = tx.by_id(purchase.generation.id)? else { return Ok(false) };
        if stored.generation.provider_id.is_some() {
            return Ok(false);
        }
        let rivals =
            lost.iter().filter(|other| purchase.is_rival(&other.generation)).count() + self.under_way(tx, purchase)?;
        match purchase.find(self.read.list, unknown, rivals, self.rules, self.now) {
            Match::Absent => Ok(false),
            Match::One(place) => {
                let Some(entry) = self.entries.get(place) else { return Ok(false) };
                self.bind(tx, &stored, entry)?;
                Ok(true)
            }
            Match::Unsure(places) => {
                for entry in places.iter().filter_map(|place| self.entries.get(*place)) {
                    self.keep_candidate(tx, stored.row, entry)?;
                }
                Ok(false)
            }
        }
    }

    /// Purchases of the same that are under way: their own answer may still name what is found.
    fn under_way(&self, tx: &Tx<'_>, purchase: &LostPurchase) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM generations INDEXED BY generations_status
                   WHERE status <> 7 AND status = 2 AND family = ?1 AND prompt IS ?2 AND uid <> ?3";
        let own = &purchase.generation;
        let values = params![own.family.code(), own.request.prompt, own.id.as_bytes().as_slice()];
        let count = tx.first(sql, values, |row| Ok(row.get::<_, u32>(0)?))?.unwrap_or(0);
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
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
    /// Since when an entry of a list is known that is on record under no generation; `None` when it is seen now for the first time.
    fn entry_since(&self, list: &Family, entry: &Entry, now: Time) -> Result<Option<Time>, StoreError> {
        let values = params![list.code(), entry.notice.provider_id.as_str()];
        let sql = "SELECT first_seen_at FROM listed_ids WHERE family = ?1 AND provider_id = ?2";
        let since = self.first(sql, values, |row| Ok(Time::from_ms(row.get(0)?)))?;
        if since.is_none() {
            self.execute(
                "INSERT INTO listed_ids (family, provider_id, first_seen_at) VALUES (?1, ?2, ?3)",
                params![list.code(), entry.notice.provider_id.as_str(), now.as_ms()],
            )?;
        }
        Ok(since)
    }
}
