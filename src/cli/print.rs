//! What commands write: lines, colour where a terminal shows it, tables. Nothing else in the program prints.
//!
//! Text from outside has to be made safe before it comes here (`domain/spelling.rs`); what is not written to a terminal loses its
//! colour here.

use std::io::{ErrorKind, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, Table, Width};

pub(super) const STRONG: Style = Style::new().bold();
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();

/// When to write in colour.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum Colour {
    /// On a terminal, unless `$NO_COLOR` is set
    #[default]
    Auto,
    /// Wherever it goes
    Always,
    /// Nowhere
    Never,
}

impl Colour {
    /// Holds for everything written from now on.
    pub(super) fn choose(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::AlwaysAnsi,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// Nobody reads any more: the reason to end a command quietly.
#[derive(Debug, thiserror::Error)]
#[error("the reader has closed the pipe")]
pub(super) struct Unread;

/// Prints a line; a closed pipe is passed over.
pub(super) fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    match tell(line) {
        Err(error) if error.is::<Unread>() => Ok(()),
        result => result,
    }
}

/// Prints a line of many; a closed pipe ends the command with [`Unread`].
pub(super) fn tell(line: impl std::fmt::Display) -> anyhow::Result<()> {
    match writeln!(anstream::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Unread.into()),
        result => Ok(result?),
    }
}

/// Begins at the top of the terminal again, where there is one. With or without colour.
pub(super) fn redraw() -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    if stdout.is_terminal() {
        // Home, and clear what is below.
        write!(stdout, "\u{1b}[H\u{1b}[J")?;
    }
    Ok(())
}

/// Prints a line beside the result.
pub(super) fn remark(line: impl std::fmt::Display) {
    drop(writeln!(anstream::stderr(), "{line}"));
}

/// The text in a style.
pub(super) fn in_style(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Name and value of one fact, aligned with the others.
pub(super) fn fact(name: &str, value: impl std::fmt::Display) -> anyhow::Result<()> {
    tell(format!("{}{value}", in_style(FAINT, format_args!("{name:<15}"))))
}

/// A table that is printed page by page: later pages are as wide as those before, the head stands once.
#[derive(Debug)]
pub(super) struct Pages<const COLUMNS: usize> {
    head: Option<[&'static str; COLUMNS]>,
    widths: [u16; COLUMNS],
}

impl<const COLUMNS: usize> Pages<COLUMNS> {
    pub(super) fn new(head: [&'static str; COLUMNS]) -> Self {
        Self { head: Some(head), widths: [0; COLUMNS] }
    }

    /// Prints rows, each whole in its style.
    pub(super) fn print(&mut self, rows: Vec<([String; COLUMNS], Style)>) -> anyhow::Result<()> {
        let (mut table, mut styles) = (Table::new(), Vec::new());
        table.load_preset(NOTHING);
        if let Some(head) = self.head.take() {
            table.add_row(head);
            styles.push(STRONG);
        }
        for (row, style) in rows {
            table.add_row(row);
            styles.push(style);
        }
        for (width, most) in self.widths.iter_mut().zip(table.column_max_content_widths()) {
            *width = most.max(*width);
        }
        // The space on both sides of a cell is part of the width.
        let width = |width: &u16| ColumnConstraint::LowerBoundary(Width::Fixed(width.saturating_add(2)));
        table.set_constraints(self.widths.iter().map(width));
        for (line, style) in table.lines().zip(styles) {
            tell(in_style(style, line.trim()))?;
        }
        Ok(())
    }
}
