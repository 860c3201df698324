//! The money report: where the credits of many generations are, in exact sums (contract section 7).
//!
//! Adds up groups of generations that are alike in everything that matters; which credit state a group is in is said by
//! [`CreditState`]. A missing price is never zero: it is counted apart.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::credits::CreditState;
use super::generation::{Attention, Status};
use super::money::Usd;

/// How many, and what was charged for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sum {
    /// Generations.
    pub count: u64,
    /// What was charged, as far as prices are known.
    pub amount: Usd,
}

/// Everything together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Total {
    /// Generations.
    pub count: u64,
    /// What was charged, refunds not taken off.
    pub charged: Usd,
    /// Charged, or maybe charged, with a price nobody told.
    pub price_unknown: u64,
}

/// Generations alike in everything the report asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Their status.
    pub status: Status,
    /// Why a person should look.
    pub attention: Option<Attention>,
    /// Why they failed or were refused.
    pub error_code: Option<String>,
    /// Their model.
    pub model: Option<String>,
    /// Found by a check while no webhook had come.
    pub recovered: bool,
    /// A person saw the credits come back.
    pub refunded: bool,
    /// How many.
    pub count: u64,
    /// How many of them have a price.
    pub priced: u64,
    /// The sum of those prices.
    pub amount: Usd,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MoneyReport {
    /// Everything together.
    pub total: Total,
    /// By status. Not part of the answer of the API.
    #[serde(skip)]
    pub by_status: BTreeMap<Status, u64>,
    /// By where the credits are.
    pub by_state: BTreeMap<CreditState, Sum>,
    /// What would have been lost without reconciliation.
    pub recovered: Sum,
    /// What of the sum at risk is so for which reason. Not part of the answer of the API.
    #[serde(skip)]
    pub at_risk: BTreeMap<Attention, Sum>,
    /// How many have neither an outcome nor been given up, those prepared left out. Not part of the answer of the API.
    #[serde(skip)]
    pub open: u64,
    /// By why a person should look.
    pub by_attention: BTreeMap<Attention, Sum>,
    /// By why they failed or were refused.
    pub by_error_code: BTreeMap<String, Sum>,
    /// Those that failed or were refused without a code. Not part of the answer of the API.
    #[serde(skip)]
    pub without_error_code: Sum,
    /// By model, where it is known.
    pub by_model: BTreeMap<String, Sum>,
}

impl MoneyReport {
    /// Adds up. `awaiting_refund`: how many failed ones are still inside their refund window, and what they cost.
    pub fn of(groups: &[Group], awaiting_refund: Sum) -> Self {
        let mut report = Self {
            total: Total::default(),
            by_status: BTreeMap::new(),
            by_state: CreditState::ALL.iter().map(|state| (*state, Sum::default())).collect(),
            recovered: Sum::default(),
            at_risk: BTreeMap::new(),
            open: 0,
            by_attention: BTreeMap::new(),
            by_error_code: BTreeMap::new(),
            without_error_code: Sum::default(),
            by_model: BTreeMap::new(),
        };
        for group in groups {
            report.add(group);
        }
        let refunded = report.by_state.entry(CreditState::Refunded).or_default();
        refunded.count = refunded.count.saturating_sub(awaiting_refund.count);
        refunded.amount -= awaiting_refund.amount;
        report.by_state.insert(CreditState::RefundExpected, awaiting_refund);
        report
    }

    fn add(&mut self, group: &Group) {
        // Those whose window is open are taken out in the end.
        let state = CreditState::by(group.status, group.attention.is_some(), group.refunded, true);
        let charged = state != CreditState::NotCharged;
        let amount = if charged { group.amount } else { Usd::default() };
        let count = group.count;
        let add = |sum: &mut Sum| {
            sum.count += count;
            sum.amount += amount;
        };
        self.total.count += count;
        *self.by_status.entry(group.status).or_default() += count;
        self.total.charged += amount;
        if matches!(group.status, Status::Submitting | Status::Unconfirmed | Status::Pending | Status::Processing) {
            self.open += count;
        }
        if charged {
            self.total.price_unknown += count.saturating_sub(group.priced);
        }
        add(self.by_state.entry(state).or_default());
        if group.recovered {
            add(&mut self.recovered);
        }
        if let Some(attention) = group.attention {
            if state == CreditState::AtRisk {
                add(self.at_risk.entry(attention).or_default());
            }
            add(self.by_attention.entry(attention).or_default());
        }
        if let Some(code) = &group.error_code {
            add(self.by_error_code.entry(code.clone()).or_default());
        } else if matches!(group.status, Status::Failed | Status::Rejected) {
            add(&mut self.without_error_code);
        }
        if let Some(model) = &group.model {
            add(self.by_model.entry(model.clone()).or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(status: Status, attention: Option<Attention>, count: u64, priced: u64) -> Group {
        Group {
            status,
            attention,
            error_code: None,
            model: Some("kling_o3".to_owned()),
            recovered: status == Status::Completed,
            refunded: false,
            count,
            priced,
            amount: Usd::from_micros(150_000 * i64::try_from(priced).unwrap()),
        }
    }

    #[test]
    fn groups_are_added_up_by_all_that_is_asked_about() {
        let sum = |count, micros| Sum { count, amount: Usd::from_micros(micros) };
        let groups = [
            group(Status::Completed, None, 3, 2),
            group(Status::Completed, None, 1, 1),
            group(Status::Lost, Some(Attention::Lost), 2, 2),
            Group { error_code: Some("TIMEOUT".to_owned()), ..group(Status::Failed, None, 4, 4) },
            group(Status::Failed, None, 1, 1),
            group(Status::Rejected, None, 5, 5),
        ];
        let report = MoneyReport::of(&groups, sum(2, 300_000));
        let total = Total { count: 16, charged: Usd::from_micros(1_500_000), price_unknown: 1 };
        assert_eq!((report.total, report.recovered), (total, sum(4, 450_000)));
        for (state, expected) in [
            (CreditState::Delivered, sum(4, 450_000)),
            (CreditState::Charged, sum(0, 0)),
            (CreditState::RefundExpected, sum(2, 300_000)),
            (CreditState::Refunded, sum(3, 450_000)),
            (CreditState::AtRisk, sum(2, 300_000)),
            (CreditState::NotCharged, sum(5, 0)),
        ] {
            assert_eq!(report.by_state[&state], expected, "{state:?}");
        }
        assert_eq!(report.at_risk, BTreeMap::from([(Attention::Lost, sum(2, 300_000))]));
        assert_eq!(report.at_risk, report.by_attention);
        assert_eq!(report.by_error_code, BTreeMap::from([("TIMEOUT".to_owned(), sum(4, 600_000))]));
        assert_eq!(report.without_error_code, sum(6, 150_000));
        assert_eq!(report.by_model["kling_o3"], sum(16, 1_500_000));
        let by_status = [(Status::Rejected, 5), (Status::Completed, 4), (Status::Failed, 5), (Status::Lost, 2)];
        assert_eq!((report.by_status, report.open), (BTreeMap::from(by_status), 0));
    }

    #[test]
    fn what_is_open_is_counted_and_at_risk_only_where_somebody_should_look() {
        let overdue = Some(Attention::Overdue);
        let groups = [
            group(Status::Prepared, None, 64, 0),
            group(Status::Submitting, None, 1, 0),
            group(Status::Unconfirmed, None, 2, 1),
            group(Status::Pending, overdue, 4, 4),
            group(Status::Processing, overdue, 8, 8),
            group(Status::Processing, None, 16, 16),
            group(Status::Completed, Some(Attention::Conflict), 32, 32),
        ];
        let report = MoneyReport::of(&groups, Sum::default());
        let sum = |count, micros| Sum { count, amount: Usd::from_micros(micros) };
        assert_eq!((report.open, report.total.price_unknown), (31, 2));
        assert_eq!(report.at_risk, BTreeMap::from([(Attention::Overdue, sum(12, 1_800_000))]));
        assert_eq!(report.by_attention[&Attention::Conflict], sum(32, 4_800_000));
        assert_eq!(report.by_state[&CreditState::Charged], sum(17, 2_400_000));
        assert_eq!(report.by_state[&CreditState::AtRisk], sum(14, 1_950_000));
        assert_eq!(report.without_error_code, Sum::default());
    }
}
