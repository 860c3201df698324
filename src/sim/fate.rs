//! Fates of purchases in the simulator's world: drawn by chance out of everything the provider must be feared to do.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::sandbox::{Fate, Ping, PingBody, Plan};

/// A random fate: most are well, some are everything the provider must be feared to do. `loss`: lost webhooks in percent.
pub(super) fn fate(chance: &mut Rng, loss: u8, faults: bool) -> Plan {
    let fate = match chance.u8(0..100) {
        0..12 => Fate::Failed {
            reason: [json!("CONTENT_POLICY_VIOLATION"), json!("TIMEOUT"), json!(null)][chance.usize(0..3)].clone(),
        },
        12..15 if faults => Fate::NeverEnds,
        15..17 if faults => Fate::Forgotten,
        17..20 if faults => {
            let reads = chance.u32(0..3);
            Fate::CompletedWithoutUrl { reads, instead: (reads > 0).then(|| "None".to_owned()) }
        }
        _ => Fate::Completed,
    };
    let failed = matches!(fate, Fate::Failed { .. });
    let plan = Plan { fate, ..Plan::default() };
    if chance.u8(0..100) < loss {
        return plan.lost();
    }
    let seconds = Duration::from_secs;
    let late = seconds(chance.u64(0..200));
    match chance.u8(0..100) {
        _ if !faults => plan,
        0..10 => plan.with_webhooks([Ping::default(), Ping::new(PingBody::Documented, late)]),
        10..18 => plan.with_webhooks([Ping::new(PingBody::Documented, late)]),
        18..24 => plan.with_webhooks([Ping::default(), Ping::new(PingBody::Contradicting, late)]),
        24..28 => {
            plan.with_webhooks([Ping::new(PingBody::Contradicting, seconds(0)), Ping::new(PingBody::Documented, late)])
        }
        28..33 => plan.with_webhooks([Ping::new(PingBody::Truncated, seconds(0))]),
        33..36 => plan.with_webhooks([
            Ping::new(PingBody::UnknownStatus("resting".to_owned()), seconds(0)),
            Ping::new(PingBody::Documented, late),
        ]),
        36..39 => plan.with_webhooks([Ping::new(PingBody::WrongId, seconds(0)), Ping::new(PingBody::Documented, late)]),
        39..43 if failed => plan.with_webhooks([Ping::new(PingBody::WithoutReason, seconds(0))]),
        43..46 => plan.with_webhooks([Ping::new(PingBody::WithoutUrl, seconds(0))]),
        _ => plan,
    }
}
