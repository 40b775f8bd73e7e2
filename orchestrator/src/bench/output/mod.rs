//! Results and the forms they take: JSON, CSV, HTML, a picture, lines on a terminal.

pub mod host;
pub mod latency;
pub mod record;
