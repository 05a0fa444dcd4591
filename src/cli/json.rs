//! What scripts are given.

use serde::Serialize;

use super::CliError;

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value);
    let json = json.map_err(|error| CliError::Check(error.to_string()))?;
    println!("{json}");
    Ok(())
}
