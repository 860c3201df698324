//! Generations: prepared, registered, amended by the user; read one by one and in lists.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rusqlite::params;

use super::idempotency::{Idempotency, Repeated};
use super::pages::{Filter, Page, Paging};
use super::rows::{self, COLUMNS, JOINED};
use super::sql::Sql;
use super::tx::Tx;
use super::walk;
use super::{Store, StoreError};
use crate::domain::decision::Fact;
use crate::domain::family::Family;
use crate::domain::generation::{Details, Generation, Via};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::schedule::Rules;
use crate::domain::time::Time;

/// A generation that somebody tells of: bought elsewhere, or about to be.
pub struct Creation {
    /// Our id, should it be new.
    pub id: GenerationId,
    /// What it is bought from.
    pub family: &'static Family,
    /// What is told; with the provider's id it was bought already.
    pub details: Details,
    /// The caller's key, and how what was made becomes the answer that is kept with it.
    pub idempotency: Option<(Idempotency, Render)>,
}

/// Makes the answer (HTTP status and body) out of what was made.
pub type Render = Box<dyn Fn(&Created) -> (u16, Vec<u8>) + Send>;

/// What came of telling of a generation.
#[derive(Clone, Debug)]
pub enum Created {
    /// It was not known.
    New(Generation),
    /// It was known; gaps are filled.
    Known(Generation),
    /// The key was used before: nothing was done.
    Repeated(Repeated<(u16, Vec<u8>)>),
}

/// What came of an amendment.
#[derive(Clone, Debug)]
pub enum Amended {
    /// There is no such generation.
    Unknown,
    /// It would have overwritten these fields; nothing was changed.
    Refused(Vec<&'static str>),
    /// The provider's id belongs to another generation; nothing was changed.
    Taken(GenerationId),
    /// Done.
    Done(Generation),
}

/// What came of a person's word that credits came back.
#[derive(Clone, Debug)]
pub enum Refund {
    /// There is no such generation.
    Unknown,
    /// Nothing was charged, or there is a result, or it is not over yet.
    NotDue(Generation),
    /// Written down.
    Confirmed(Generation),
}

impl Store {
    /// Takes on a generation that is about to be bought or was bought elsewhere, or fills the gaps of one that is known;
    /// once for each idempotency key.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn create(&self, rules: &Arc<Rules>, creation: Creation, now: Time) -> Result<Created, StoreError> {
        let rules = Arc::clone(rules);
        self.writer.run(move |tx| tx.create(&rules, &creation, now)).await
    }

    /// Adds facts to a known generation. All or nothing: what would overwrite is refused.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn amend(
        &self,
        rules: &Arc<Rules>,
        id: GenerationId,
        details: Details,
        author: String,
        now: Time,
    ) -> Result<Amended, StoreError> {
        let rules = Arc::clone(rules);
        self.writer.run(move |tx| tx.amend(&rules, id, &details, &author, now)).await
    }

    /// Writes down that a person saw the credits come back.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn confirm_refund(
        &self,
        rules: &Arc<Rules>,
        id: GenerationId,
        author: String,
        now: Time,
    ) -> Result<Refund, StoreError> {
        let rules = Arc::clone(rules);
        self.writer
            .run(move |tx| {
                let Some(stored) = tx.by_id(id)? else { return Ok(Refund::Unknown) };
                let decision = tx.decide(&rules, &stored, &Fact::RefundConfirmed, now)?;
                if !decision.refused.is_empty() {
                    return Ok(Refund::NotDue(decision.generation));
                }
                if stored.generation.refunded_at.is_none() {
                    tx.note(stored.row, now, &author, "confirmed that the credits came back")?;
                }
                Ok(Refund::Confirmed(decision.generation))
            })
            .await
    }

    /// Adds a note to the timeline of a generation; `false` when there is no such generation.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn add_note(
        &self,
        id: GenerationId,
        author: String,
        text: String,
        now: Time,
    ) -> Result<bool, StoreError> {
        self.writer
            .run(move |tx| {
                let Some(stored) = tx.by_id(id)? else { return Ok(false) };
                tx.note(stored.row, now, &author, &text)?;
                Ok(true)
            })
            .await
    }

    /// Tells every generation whose time has come that time has passed; at most `limit` of them. Tells how many.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn turn(&self, rules: &Arc<Rules>, limit: u32, now: Time) -> Result<usize, StoreError> {
        // Mostly there is none, and nothing is written.
        let any: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM generations WHERE turn_at <= ?1)")
            .bind(now.as_ms())
            .fetch_one(&self.readers)
            .await?;
        if !any {
            return Ok(0);
        }
        let rules = Arc::clone(rules);
        self.writer.run(move |tx| tx.turn(&rules, limit, now)).await
    }

    /// Brings near what a jump of the clock has put far ahead, so that nothing sleeps until then.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn bring_near(&self, rules: &Arc<Rules>, now: Time) -> Result<(), StoreError> {
        let rules = Arc::clone(rules);
        self.writer.run(move |tx| tx.bring_near(&rules, now)).await
    }

    /// The generation of our id.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn generation(&self, id: GenerationId) -> Result<Option<Generation>, StoreError> {
        let sql = format!("SELECT id, {COLUMNS} FROM generations WHERE uid = ?1");
        let row =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_bytes().as_slice()).fetch_optional(&self.readers).await?;
        Ok(row.as_ref().map(rows::read).transpose()?.map(|stored| stored.generation))
    }

    /// The newest generation of the provider's id, whatever its family.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn generation_of(&self, provider_id: &ProviderId) -> Result<Option<Generation>, StoreError> {
        let by = Sql::new("provider_id = ").bind(rows::compact(provider_id));
        self.one(by.push(" ORDER BY id DESC LIMIT 1")).await
    }

    /// The generation of the provider's id in that family.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn generation_in(
        &self,
        family: &Family,
        provider_id: &ProviderId,
    ) -> Result<Option<Generation>, StoreError> {
        let by = Sql::new("provider_id = ").bind(rows::compact(provider_id));
        self.one(by.and("family = ").bind(family.code())).await
    }

    /// Generations of a family that the provider knows by an id, newest first; the first `offset` are left out.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn generations_of_family(
        &self,
        family: &Family,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<Generation>, StoreError> {
        let sql = format!(
            "SELECT id, {COLUMNS} FROM generations INDEXED BY generations_family
             WHERE provider_id IS NOT NULL AND family = ?1 ORDER BY created_at DESC, id DESC LIMIT ?2 OFFSET ?3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(family.code()).bind(limit).bind(offset);
        let rows = rows.fetch_all(&self.readers).await?;
        rows.iter().map(|row| rows::read(row).map(|stored| stored.generation)).collect()
    }

    async fn one(&self, by: Sql) -> Result<Option<Generation>, StoreError> {
        let (sql, values) = Sql::new(&format!("SELECT id, {COLUMNS} FROM generations WHERE ")).tail(&by).query()?;
        let row = sqlx::query_with(sqlx::AssertSqlSafe(sql), values).fetch_optional(&self.readers).await?;
        Ok(row.as_ref().map(rows::read).transpose()?.map(|stored| stored.generation))
    }

    /// A page of generations, newest first unless asked otherwise.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn generations(
        &self,
        filter: &Filter,
        paging: &Paging,
        now: Time,
        refund_window: Duration,
    ) -> Result<Page<Generation>, StoreError> {
        let walks = filter.walks(now, refund_window);
        walk::page(&self.readers, &walks, JOINED, paging, |row| Ok(rows::read(row)?.generation)).await
    }
}

static FAR_AND_TOLD: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT id, {COLUMNS} FROM generations WHERE (check_at > ?1 OR turn_at > ?1) AND events > 0")
});
static DUE_TURNS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT id, {COLUMNS} FROM generations WHERE turn_at <= ?1 ORDER BY turn_at LIMIT ?2"));

impl Tx<'_> {
    fn create(&mut self, rules: &Rules, creation: &Creation, now: Time) -> Result<Created, StoreError> {
        let Creation { id, family, details, idempotency } = creation;
        if let Some((used, _)) = idempotency
            && let Some(mut claim) = self.claimed(used, now)?
        {
            let answer = claim.answer.take();
            return Ok(Created::Repeated(claim.repeated(answer)));
        }
        let known = match &details.provider_id {
            Some(provider_id) => self.by_provider_id(family, provider_id)?,
            None => None,
        };
        let fact = Fact::Details(details.clone());
        let (row, created) = if let Some(stored) = known {
            (stored.row, Created::Known(self.decide(rules, &stored, &fact, now)?.generation))
        } else {
            let decision = rules.decide(&Generation::new(*id, family, Via::Api, now), &fact, self.experience, now);
            (self.insert(&decision, now)?, Created::New(decision.generation))
        };
        if let Some((used, render)) = idempotency {
            self.claim(used, row, Some(&render(&created)), now)?;
        }
        Ok(created)
    }

    fn amend(
        &mut self,
        rules: &Rules,
        id: GenerationId,
        details: &Details,
        author: &str,
        now: Time,
    ) -> Result<Amended, StoreError> {
        let Some(stored) = self.by_id(id)? else { return Ok(Amended::Unknown) };
        if let Some(provider_id) = &details.provider_id {
            let holder = self.by_provider_id(stored.generation.family, provider_id)?;
            if let Some(other) = holder.filter(|other| other.row != stored.row) {
                return Ok(Amended::Taken(other.generation.id));
            }
        }
        let fact = Fact::Details(details.clone());
        let refused = rules.decide(&stored.generation, &fact, self.experience, now).refused;
        if !refused.is_empty() {
            return Ok(Amended::Refused(refused));
        }
        let decision = self.decide(rules, &stored, &fact, now)?;
        if stored.generation.provider_id != decision.generation.provider_id {
            self.note(stored.row, now, author, "named the provider's generation")?;
        }
        Ok(Amended::Done(decision.generation))
    }

    fn bring_near(&mut self, rules: &Rules, now: Time) -> Result<(), StoreError> {
        // Few of those that are not settled have been told of.
        let near = params![(now + rules.longest_pause().min(rules.give_up_after)).as_ms()];
        for stored in self.all(&FAR_AND_TOLD, near, |row| rows::read(row))? {
            self.freeze(&stored, rules.refund_window)?;
        }
        self.execute(
            "UPDATE generations SET check_at = ?1
             WHERE check_at > ?1 AND check_at > ?2 + coalesce(expected_by - coalesce(submitted_at, created_at), 0)",
            params![(now + rules.longest_pause()).as_ms(), (now + rules.first_look_after()).as_ms()],
        )?;
        self.execute(
            "UPDATE generations SET turn_at = ?1 WHERE turn_at > ?1",
            params![(now + rules.give_up_after).as_ms()],
        )?;
        Ok(())
    }

    fn turn(&mut self, rules: &Rules, limit: u32, now: Time) -> Result<usize, StoreError> {
        let due = self.all(&DUE_TURNS, params![now.as_ms(), limit], |row| rows::read(row))?;
        for stored in &due {
            self.decide(rules, stored, &Fact::TimePassed, now)?;
        }
        Ok(due.len())
    }
}
