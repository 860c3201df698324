//! What a scrape looks at: queues and their oldest, money, the budget, the database. Only what the store answers without counting.

use super::{Api, Parts, stats};
use crate::domain::money::Usd;
use crate::domain::money_report::MoneyReport;
use crate::store::{DispatchCounts, StoreError};
use crate::telemetry::gauges::Gauges;
use crate::telemetry::inventory as all;

/// All of it, as it is now.
///
/// # Errors
/// [`StoreError`] when the database cannot be read.
pub(super) async fn look(api: &Api, parts: &Parts) -> Result<Gauges, StoreError> {
    let gauges = Gauges::new();
    let now = api.clock.now();
    reads(api, parts, &gauges).await?;
    money(&api.store.money_report(None, None, now, api.rules.refund_window).await?, &gauges);
    let DispatchCounts { pending, dead } = api.store.dispatch_counts().await?;
    gauges.count(&all::EVENTS_UNSENT, &["pending"], pending.rows());
    gauges.count(&all::EVENTS_UNSENT, &["dead"], dead.rows());
    let unsent = api.store.unsent(&parts.outlets).await?;
    gauges.set(&all::EVENTS_OLDEST, &[], unsent.oldest.map_or(0.0, |at| now.since(at).as_secs_f64()));
    gauges.count(&all::ENDPOINTS_DISABLED, &[], unsent.disabled);
    database(api, &gauges).await?;
    Ok(gauges)
}

async fn reads(api: &Api, parts: &Parts, gauges: &Gauges) -> Result<(), StoreError> {
    let (budget, now) = (&parts.budget, api.clock.now());
    let backlog = api.store.backlog(stats::AHEAD, now).await?;
    gauges.count(&all::CHECKS_DUE, &[], backlog.due);
    let behind = stats::behind_at(&backlog, &api.rules, now).unwrap_or_default();
    gauges.set(&all::OUTCOMES_BEHIND, &[], behind.as_secs_f64());
    // Infinite when more falls due than can be asked about.
    let forecast = stats::forecast(&backlog, parts).map_or(f64::INFINITY, |span| span.as_secs_f64());
    gauges.set(&all::CHECKS_FORECAST, &[], forecast);
    let next = api.store.next_look_at().await?;
    gauges.set(&all::OLDEST_DUE, &[], next.map_or(0.0, |next| now.since(next).as_secs_f64()));
    gauges.count(&all::STATUS_READS, &[], u64::try_from(budget.used()).unwrap_or(u64::MAX));
    gauges.count(&all::STATUS_READS_LIMIT, &[], u64::from(budget.rate()));
    gauges.set(&all::STATUS_READS_PAUSE, &[], budget.rest().as_secs_f64());
    gauges.count(&all::PROVIDER_KEY_REFUSED, &[], u64::from(budget.key_refused()));
    gauges.count(&all::PROVIDER_DOWN, &[], u64::from(budget.is_broken()));
    Ok(())
}

fn money(report: &MoneyReport, gauges: &Gauges) {
    use crate::domain::generation::{Attention, Status};
    for status in Status::ALL {
        let count = report.by_status.get(status).copied().unwrap_or_default();
        gauges.count(&all::GENERATIONS, &[status.as_str()], count);
    }
    for attention in Attention::ALL {
        let sum = report.by_attention.get(attention).copied().unwrap_or_default();
        gauges.count(&all::NEEDING_ATTENTION, &[attention.as_str()], sum.count);
        let at_risk = report.at_risk.get(attention).copied().unwrap_or_default();
        gauges.set(&all::CREDITS_AT_RISK, &[attention.as_str()], usd(at_risk.amount));
    }
    for (state, sum) in &report.by_state {
        gauges.set(&all::CREDITS_BY_STATE, &[state.as_str()], usd(sum.amount));
    }
    gauges.set(&all::CREDITS_RECOVERED, &[], usd(report.recovered.amount));
    gauges.count(&all::PRICES_UNKNOWN, &[], report.total.price_unknown);
}

async fn database(api: &Api, gauges: &Gauges) -> Result<(), StoreError> {
    let size = api.store.size().await?;
    gauges.count(&all::DATABASE_BYTES, &[], size.bytes);
    gauges.set(&all::BUILD, &[env!("CARGO_PKG_VERSION"), &size.sqlite], 1.0);
    let vitals = api.store.vitals();
    gauges.count(&all::WRITES_WAITING, &[], u64::try_from(vitals.writes_waiting).unwrap_or(u64::MAX));
    gauges.set(&all::WRITES_OLDEST, &[], vitals.oldest_write.as_secs_f64());
    gauges.count(&all::DATABASE_LOG_BYTES, &[], vitals.log_bytes);
    if let Some(free) = vitals.disk_free_bytes {
        gauges.count(&all::DISK_FREE_BYTES, &[], free);
    }
    if let Some(last) = vitals.last_backup {
        gauges.set(&all::LAST_BACKUP, &[], last.as_secs_f64());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "Prometheus knows only floats")]
fn usd(amount: Usd) -> f64 {
    amount.as_micros() as f64 / 1e6
}
