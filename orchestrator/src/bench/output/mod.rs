//! Results and the forms they take: JSON, CSV, one HTML page, a picture, lines on a terminal.

mod axis;
pub mod ceiling;
mod charts;
pub mod csv;
mod figures;
pub mod host;
pub mod html;
pub mod latency;
pub mod markdown;
mod method_text;
pub mod picture;
mod plot;
pub mod record;
mod soak;
#[cfg(test)]
mod tests;
pub mod text;

use record::Results;

pub use figures::Figure;

/// The results as JSON text that ends in a line break.
pub fn json(results: &Results) -> String {
    let mut text = serde_json::to_string_pretty(results).unwrap_or_default();
    text.push('\n');
    text
}

/// The JSON Schema of results, as text that ends in a line break.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Results);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
