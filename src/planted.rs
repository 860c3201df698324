//! Wrong behaviours that the checks must catch: they prove the checks. They exist in test builds, where the simulator plants them for a
//! thread, and in builds with the feature `planted`, where `RECOUP_PLANTED` names one for the process: those are what `proof/` is shown
//! to fail on. Anywhere else [`is`] is always false and costs nothing.

#[cfg(test)]
use std::cell::Cell;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A wrong behaviour.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault {
            $($(#[$doc])* $name,)+
        }

        impl Fault {
            #[cfg(all(feature = "planted", not(test)))]
            const NAMED: &[(&str, Self)] = &[$((stringify!($name), Self::$name),)+];
        }
    };
}

faults! {
    /// The same webhook again is told again.
    EventForDuplicate,
    /// An outcome that a check finds is told to nobody.
    SilentCheck,
    /// The numbers of events have gaps.
    SequenceGap,
    /// A status answer "processing" reopens what is settled.
    Reopened,
    /// A contradicting webhook overwrites the outcome by itself.
    Overwritten,
    /// Past the hard limit time alone makes it failed.
    FailedByTime,
    /// It is given up though nobody ever asked.
    LostUnasked,
    /// An id that the provider does not know counts as failed.
    NotFoundIsFailed,
    /// A status word nobody knows counts as failed.
    UnknownIsFailed,
    /// After "still running" nobody looks for a month.
    SleepsForEver,
    /// A webhook is acknowledged and not kept.
    AcknowledgedUnkept,
    /// Every token is taken for authentic.
    ForgedAccepted,
    /// After a lost answer the purchase is sent again.
    BoughtTwice,
    /// The purchase is sent before the intent is kept.
    IntentAfterwards,
    /// The idempotency key is not looked at.
    KeyIgnored,
    /// After a restart the budget has forgotten what was read.
    BudgetForgotten,
    /// The budget counts whole minutes, not a sliding one.
    FixedWindow,
    /// A read is taken out of the budget in two steps, between which another may be.
    TakenInTwoSteps,
    /// A request that repeats a purchase is sent on.
    RepeatSent,
    /// A request that repeats a purchase is answered at once, whatever becomes of the first.
    RepeatNotHeld,
    /// What was refused without a sale keeps its key and its request: sent again, it is answered by the refusal.
    KeyKeptWhenUnsold,
    /// A purchase goes to the provider under another idempotency key than its own.
    OtherKeySent,
    /// Lost purchases are not looked for in the provider's lists.
    LostNotLookedFor,
    /// What stands in a list with the same prompt is the lost purchase, whatever else it is.
    ListMatchedByPrompt,
    /// The budget looks at the clock before it has the state to itself.
    ClockBeforeLock,
    /// A 429 is not heeded.
    RestIgnored,
    /// The same is asked twice at the same time.
    AskedTwice,
    /// Commits are not synced: what is lost with the power was acknowledged.
    SyncNormal,
    /// The answer to a webhook leaves before its commit.
    AnsweredBeforeCommit,
    /// Every key may do everything.
    ScopeIgnored,
    /// The public listener serves everything though there is one for the operator.
    AdminOnPublic,
    /// Wrong keys are not counted.
    GuessesUncounted,
    /// A session that was ended goes on.
    LogoutIgnored,
    /// Logging in takes over the session cookie that the browser came with.
    CookieTakenOver,
    /// What another site makes the browser send is done.
    OriginIgnored,
    /// The log names the path of a request, with the token in it.
    PathLogged,
    /// A refusal repeats the key that was sent.
    KeyEchoed,
    /// A handler panics with the caller's key in its message, and the message is written.
    PanicTellsAll,
    /// A crash writes the memory of the process to disk.
    CoreDumped,
    /// Secrets print themselves.
    SecretUnmasked,
    /// Some bytes make the reading of a webhook panic.
    ParserPanics,
    /// Nobody is sent away for not getting on with a request's head.
    HeadsUntimed,
    /// Who came first keeps the seat, whatever it does with it.
    FirstComeOnly,
    /// A head may be as long as it likes.
    HeadsUnbounded,
    /// A body may take as long as it likes.
    BodiesUntimed,
    /// A body may be as long as it likes.
    BodiesUnbounded,
    /// A connection that ends leaves its buffers behind.
    LeftBehind,
    /// Redirects of the provider are followed.
    RedirectsFollowed,
    /// Events are sent wherever their address leads.
    AnyAddress,
    /// The provider's certificate is not looked at.
    AnyCertificate,
    /// The key goes along wherever a redirect leads.
    KeyGoesAlong,
    /// The provider's answer may be as long as it likes.
    AnswersUnbounded,
    /// An answer about another generation is taken for this one's.
    AnyIdTaken,
    /// An unreadable answer to a purchase counts as refused.
    GarbageIsRefused,
    /// The budget counts by the calendar.
    BudgetByCalendar,
    /// Beyond what can be served at once everybody waits.
    NobodyTurnedAway,
    /// A webhook that could not be kept is acknowledged all the same.
    FailureAcknowledged,
    /// An outcome is committed apart from its event.
    HalfCommitted,
    /// A failed write or sync counts as one that may work the next time.
    FailedSyncIgnored,
    /// Nobody looks whether the files of the database are still there.
    FilesUnwatched,
    /// A file that is no database is removed, and another one begun.
    CorruptReplaced,
    /// A second process on the same database is let in.
    LockIgnored,
    /// An event gets another id with every attempt.
    EventIdAnew,
    /// A migration is not one transaction.
    MigratedInPieces,
    /// A backup is a copy of the file, while it is written to.
    CopiedAsFile,
    /// Everything past its retention is removed at once.
    RemovedAtOnce,
    /// With a raw body goes the hash by which a repeat is known.
    HashRemoved,
    /// The budget counts time that has not passed.
    TimeGained,
    /// As many connections are taken as are wanted, however few open files the process may have.
    PlacesUnbounded,
    /// What retention has removed is taken for new when its webhook comes again.
    RemovedForgotten,
    /// Generations are removed whose money is open.
    OpenMoneyRemoved,
}

#[cfg(test)]
impl Fault {
    /// All of them, each with a seed whose history shows it.
    pub(crate) const ALL: [(Self, u64); 20] = [
        (Self::EventForDuplicate, 0),
        (Self::SilentCheck, 0),
        (Self::SequenceGap, 0),
        (Self::Reopened, 6),
        (Self::Overwritten, 0),
        (Self::FailedByTime, 6),
        (Self::LostUnasked, 7),
        (Self::NotFoundIsFailed, 5),
        (Self::UnknownIsFailed, 0),
        (Self::SleepsForEver, 1),
        (Self::AcknowledgedUnkept, 0),
        (Self::ForgedAccepted, 0),
        (Self::BoughtTwice, 0),
        (Self::IntentAfterwards, 0),
        (Self::KeyIgnored, 0),
        (Self::BudgetForgotten, 43),
        (Self::FixedWindow, 43),
        (Self::RestIgnored, 18),
        (Self::AskedTwice, 0),
        (Self::RepeatSent, 0),
    ];
}

#[cfg(test)]
thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// From now on this thread behaves wrongly in this way; `None` for well.
#[cfg(test)]
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether this wrong behaviour is planted.
#[cfg(test)]
pub(crate) fn is(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Whether this wrong behaviour is planted.
///
/// # Panics
/// When `RECOUP_PLANTED` names none of them: a proof that plants nothing would prove nothing.
#[cfg(all(feature = "planted", not(test)))]
#[expect(clippy::panic, reason = "never in a binary that anybody uses")]
pub(crate) fn is(fault: Fault) -> bool {
    static PLANTED: std::sync::LazyLock<Option<Fault>> = std::sync::LazyLock::new(|| {
        let name = std::env::var("RECOUP_PLANTED").ok()?;
        let named = Fault::NAMED.iter().find(|(known, _)| *known == name);
        Some(named.unwrap_or_else(|| panic!("RECOUP_PLANTED: there is no fault {name}")).1)
    });
    *PLANTED == Some(fault)
}

/// Whether this wrong behaviour is planted: never.
#[cfg(not(any(test, feature = "planted")))]
pub(crate) const fn is(_: Fault) -> bool {
    false
}
