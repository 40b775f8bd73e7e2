//! Durations, rates and ratios as people write and read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Longest time that can be written: 30 days.
const LONGEST: f64 = 30.0 * 86_400.0;

/// A time span as it is written: `500ms`, `2s`, `1.5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a time as `500ms`, `2s`, `1m` or `1h`, found `{text}`");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number = digits.trim().parse::<f64>().map_err(|_| wrong())?;
        let seconds = number * unit;
        if !(1e-3..=LONGEST).contains(&seconds) {
            return Err(format!("`{text}` is not from 1ms to 30 days"));
        }
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&span(self.0))
    }
}

/// A time in the unit that suits it.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..1.0 => format!("{} ms", trimmed(seconds * 1e3, 1)),
        ..120.0 => format!("{} s", trimmed(seconds, 1)),
        ..7200.0 => format!("{} min", trimmed(seconds / 60.0, 1)),
        _ => format!("{} h", trimmed(seconds / 3600.0, 1)),
    }
}

/// Packets a second that a user writes: `250000`, `250k`, `1.5M`.
///
/// # Errors
/// What is no number above 0.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong =
        || format!("expected packets a second as `250000`, `250k` or `1.5M`, found `{text}`");
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    let rate = number.trim().parse::<f64>().map_err(|_| wrong())? * unit;
    if (1.0..=1e10).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("`{text}` is not from 1 to 10G packets a second"))
    }
}

/// A load as it is written: packets a second in each direction, as `1.5M`, or a share of the rate that is found, as `70%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offered {
    /// Packets a second in each direction.
    Rate(f64),
    /// A share of the rate that was found, 0.001 to 2.
    Share(f64),
}

impl Offered {
    /// The rate, if it is one.
    pub fn rate(self) -> Option<f64> {
        match self {
            Self::Rate(rate) => Some(rate),
            Self::Share(_) => None,
        }
    }

    /// The share, if it is one.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::Rate(_) => None,
            Self::Share(share) => Some(share),
        }
    }
}

impl FromStr for Offered {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(number) = text.strip_suffix('%') else {
            return parse_rate(text).map(Self::Rate).map_err(|error| {
                format!("{error}; or a share of the rate that is found, as `70%`")
            });
        };
        match number.trim().parse::<f64>() {
            Ok(percent) if (0.1..=200.0).contains(&percent) => Ok(Self::Share(percent / 100.0)),
            _ => Err(format!("`{text}` is not from 0.1% to 200%")),
        }
    }
}

impl<'de> Deserialize<'de> for Offered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Offered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("packets a second, or a share as `70%`")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Offered, E> {
                Ok(Offered::Rate(number as f64))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Offered, E> {
                Ok(Offered::Rate(number as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Offered, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Offered {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Offered".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 10_000_000_000_u64 },
            { "type": "string", "examples": ["70%", "1.5M"] },
        ] })
    }
}

/// Packets a second, four digits: `12.34 Mpps`.
pub fn pps(rate: f64) -> String {
    scaled(rate, "pps")
}

/// Two rates in one unit: `10.40 to 10.62 Mpps`.
pub fn pps_range(low: f64, high: f64) -> String {
    let (low, high) = (pps(low), pps(high));
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number} to {high}"),
        _ => format!("{low} to {high}"),
    }
}

/// A round number of things: `100 k`, `1.5 M`, `4096`.
pub fn count(number: f64) -> String {
    match number {
        1e6.. => format!("{} M", trimmed(number / 1e6, 3)),
        1e4.. => format!("{} k", trimmed(number / 1e3, 3)),
        _ => trimmed(number, 3),
    }
}

/// Something a second, or a number of things, in four digits: `12.34 M`, `1234 `, with `unit` behind it.
pub fn scaled(value: f64, unit: &str) -> String {
    let (value, prefix) = match value.abs() {
        9.9995e8.. => (value / 1e9, "G"),
        9.9995e5.. => (value / 1e6, "M"),
        9_999.5.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        _ if prefix.is_empty() && value.fract() == 0.0 => 0,
        ..9.9995 => 3,
        ..99.995 => 2,
        ..999.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {prefix}{unit}")
        .trim_end()
        .to_owned()
}

/// Nanoseconds in the unit that suits them, three digits: `4.21 µs`.
pub fn nanoseconds(ns: u64) -> String {
    let ns = ns as f64;
    let (value, unit) = match ns {
        ..999.5 => return format!("{ns:.0} ns"),
        ..999_500.0 => (ns / 1e3, "µs"),
        ..999_500_000.0 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// A ratio as a percentage: `0.5 %`.
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        ..0.001 => format!("{percent:.1e} %"),
        ..0.1 => format!("{} %", trimmed(percent, 4)),
        ..10.0 => format!("{} %", trimmed(percent, 2)),
        _ => format!("{} %", trimmed(percent, 1)),
    }
}

/// A number with at most so many decimals and no zeros at its end.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Durations as seconds in results.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes seconds.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    /// Reads seconds.
    ///
    /// # Errors
    /// What is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let read = |text: &str| text.parse::<Span>().map(|span| span.0.as_secs_f64());
        assert_eq!(read("500ms"), Ok(0.5));
        assert_eq!(read("2s"), Ok(2.0));
        assert_eq!(read("1.5m"), Ok(90.0));
        for wrong in [
            "",
            "5",
            "s",
            "-1s",
            "1d",
            "nans",
            "infs",
            "0s",
            "9999h",
            "1 fortnight",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(span(Duration::from_millis(50)), "50 ms");
        assert_eq!(span(Duration::from_secs(90)), "90 s");
        assert_eq!(span(Duration::from_mins(15)), "15 min");
    }

    #[test]
    fn rates_are_read_and_written() {
        assert_eq!(parse_rate("1.5M"), Ok(1.5e6));
        assert_eq!(parse_rate("250k"), Ok(250e3));
        for wrong in ["", "M", "0", "-3", "nan", "inf", "1e300", "1.5 Mpps"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        let read = |text: &str| text.parse::<Offered>();
        assert_eq!(read("250k"), Ok(Offered::Rate(250e3)));
        assert_eq!(read("70%"), Ok(Offered::Share(0.7)));
        assert_eq!(read("0.1 %"), Ok(Offered::Share(0.001)));
        for wrong in ["%", "0%", "-3%", "nan%", "inf%", "201%", "7 percent"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let written = [
            (0.0, "0 pps"),
            (999.0, "999 pps"),
            (12_340.0, "12.34 kpps"),
            (999_960.0, "1.000 Mpps"),
            (12_345_678.0, "12.35 Mpps"),
            (1.5e9, "1.500 Gpps"),
        ];
        for (rate, text) in written {
            assert_eq!(pps(rate), text);
        }
    }

    #[test]
    fn small_values_keep_their_digits() {
        assert_eq!(nanoseconds(950), "950 ns");
        assert_eq!(nanoseconds(4_213), "4.21 µs");
        assert_eq!(nanoseconds(12_345_678), "12.3 ms");
        assert_eq!(percent(0.005), "0.5 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(2e-7), "2.0e-5 %");
    }
}
