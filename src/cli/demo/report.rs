//! What the demo prints: a line for each outcome, then tables, held against the simulated provider's own ledger.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::cast::Role;
use super::client::Shown;
use crate::cli::say;
use crate::domain::credits::CreditState;
use crate::domain::money::Usd;
use crate::sandbox::{Fate, Purchase};

/// Width of the tables: fits a terminal of the usual size.
const WIDTH: u16 = 100;
/// A client that polls as the provider documents reads every 5 to 15 seconds (provider.md section 3); the gentlest pace.
const POLLING_SECONDS: u128 = 15;

/// One line for one outcome.
pub(super) fn line(role: &Role, shown: &Shown) -> String {
    let how = if shown.recovered { "recovered, no webhook came" } else { "by webhook" };
    let mark = match (shown.recovered, shown.status.as_str()) {
        (true, _) => "<<",
        (false, "completed") => "ok",
        (false, _) => " x",
    };
    let reason = match (shown.status.as_str(), shown.error.as_ref().and_then(|error| error.code.as_deref())) {
        ("completed", _) => String::new(),
        (_, Some(code)) => format!(" {code}"),
        (_, None) => " (no reason given)".to_owned(),
    };
    format!("{mark} {:<39} {:<12} {:>2} s  {}{reason}, {how}", role.prompt, role.model, role.seconds, shown.status)
}

/// Prints the tables; tells whether every generation is accounted for.
pub(super) fn print(roles: &[Role], shown: &[Shown], ledger: &[Purchase]) -> anyhow::Result<bool> {
    let accounted = ledger.iter().filter(|bought| is_accounted_for(bought, shown)).count();
    say("")?;
    say(what_happened(roles, shown, ledger, accounted))?;
    if let Some(failures) = failures(shown) {
        say(failures)?;
    }
    say(money(shown))?;
    let all = accounted == ledger.len() && ledger.len() == roles.len();
    if all {
        say(format!("Every one of the {accounted} generations is accounted for."))?;
    } else {
        say(format!("NOT ACCOUNTED FOR: {} of {} generations.", roles.len() - accounted, roles.len()))?;
    }
    Ok(all)
}

/// The provider's own book says the same as we do: outcome, result, price.
fn is_accounted_for(bought: &Purchase, shown: &[Shown]) -> bool {
    let Some(shown) = shown.iter().find(|shown| shown.generation_id.as_deref() == Some(&bought.id)) else {
        return false;
    };
    let outcome = match &bought.plan.fate {
        Fate::Completed => shown.status == "completed" && shown.result_url.as_deref() == Some(&bought.result_url()),
        Fate::Failed { reason } => {
            let told = shown.error.as_ref().and_then(|error| error.code.as_deref());
            shown.status == "failed" && (told == reason.as_str() || bought.plan.webhooks.is_empty())
        }
        Fate::CompletedWithoutUrl { .. } | Fate::NeverEnds | Fate::Forgotten => false,
    };
    outcome && shown.price.as_deref() == Some(&bought.price.to_string())
}

fn what_happened(roles: &[Role], shown: &[Shown], ledger: &[Purchase], accounted: usize) -> Table {
    let count = |wanted: &dyn Fn(&Shown) -> bool| shown.iter().filter(|shown| wanted(shown)).count();
    let lost = roles.iter().filter(|role| role.is_lost()).count();
    let reads: u32 = shown.iter().map(|shown| shown.checks).sum();
    let deliveries: u32 = shown.iter().map(|shown| shown.deliveries).sum();
    let recovered = count(&|shown| shown.recovered);
    let worth = sum(shown.iter().filter(|shown| shown.recovered));
    let mut table = table(["What happened", "", ""]);
    let mut row = |what: &str, number: String, remark: String| {
        table.add_row([what.to_owned(), number, remark]);
    };
    row("bought", ledger.len().to_string(), format!("for {}", usd(sum(shown.iter()))));
    row("completed", count(&|shown| shown.status == "completed").to_string(), String::new());
    row("failed", count(&|shown| shown.status == "failed").to_string(), String::new());
    row("webhooks received", deliveries.to_string(), "repeats included; each outcome counted once".to_owned());
    row("webhooks lost", lost.to_string(), "never sent again by the provider".to_owned());
    row("recovered by checks", recovered.to_string(), format!("worth {} that would have been lost", usd(worth)));
    row("status reads used", reads.to_string(), format!("polling every 15 s would have taken {}", polling(ledger)));
    row("accounted for", format!("{accounted} of {}", ledger.len()), "against the provider's own ledger".to_owned());
    table
}

/// What the documented client would have read.
fn polling(ledger: &[Purchase]) -> u128 {
    let took = |bought: &Purchase| bought.ends_at.since(bought.bought_at).as_millis() * u128::from(super::SPEED);
    ledger.iter().map(|bought| took(bought).div_ceil(POLLING_SECONDS * 1_000)).sum()
}

fn failures(shown: &[Shown]) -> Option<Table> {
    let mut by_code: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for shown in shown.iter().filter(|shown| shown.status == "failed") {
        if let Some(error) = &shown.error {
            let code = error.code.as_deref().unwrap_or("(no reason given)");
            by_code.entry(code).or_insert((0, &error.solution)).0 += 1;
        }
    }
    let mut table = table(["Why it failed", "", "What to do"]);
    for (code, (count, advice)) in &by_code {
        table.add_row([(*code).to_owned(), count.to_string(), (*advice).to_owned()]);
    }
    (!by_code.is_empty()).then_some(table)
}

fn money(shown: &[Shown]) -> Table {
    let mut table = table(["Where the money is", "", ""]);
    for state in CreditState::ALL {
        let of_state: Vec<_> = shown.iter().filter(|shown| shown.credits == state.as_str()).collect();
        if !of_state.is_empty() {
            let amount = usd(sum(of_state.iter().copied()));
            table.add_row([state.as_str().replace('_', " "), of_state.len().to_string(), amount]);
        }
    }
    table
}

fn sum<'s>(shown: impl Iterator<Item = &'s Shown>) -> Usd {
    let prices = shown.filter_map(|shown| Usd::parse(shown.price.as_deref()?).ok());
    Usd::from_micros(prices.map(Usd::as_micros).sum())
}

fn usd(amount: Usd) -> String {
    format!("${amount}")
}

fn table(head: [&str; 3]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(head);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
