//! `recoup openapi`: prints the API document, for client generators and for the committed copy. Called by `cli/mod.rs`.

use std::io::Write;
use std::process::ExitCode;

/// Prints it.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(crate::http::document_text().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
