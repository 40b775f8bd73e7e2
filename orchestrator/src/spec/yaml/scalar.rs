//! What a plain scalar means: YAML 1.2's core schema (section 10.3.2), so `no` is text.

/// The meaning of a scalar that stands without quotes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Plain {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number from 0, decimal, `0x…` or `0o…`.
    Unsigned(u64),
    /// A number below 0.
    Signed(i64),
    /// A number with a point or exponent.
    Float(f64),
    /// Anything else.
    Text,
}

/// The meaning of `text`.
pub fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        _ => {}
    }
    let number = text.strip_prefix('+').unwrap_or(text);
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let Some(first) = number.bytes().find(|b| *b != b'-') else {
        return Plain::Text;
    };
    if !first.is_ascii_digit() && first != b'.' || number.starts_with('+') {
        return Plain::Text;
    }
    let unsigned = number.parse().map(Plain::Unsigned);
    let signed = || number.parse().map(Plain::Signed);
    let float = || number.parse().map(Plain::Float);
    unsigned
        .or_else(|_| signed())
        .or_else(|_| float())
        .unwrap_or(Plain::Text)
}

fn radix(digits: &str, radix: u32) -> Plain {
    if digits.starts_with('+') {
        return Plain::Text;
    }
    u64::from_str_radix(digits, radix).map_or(Plain::Text, Plain::Unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        for (text, meaning) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("true", Plain::Bool(true)),
            ("no", Plain::Text),
            ("80", Plain::Unsigned(80)),
            ("0660", Plain::Unsigned(660)),
            ("0x10", Plain::Unsigned(16)),
            ("0o17", Plain::Unsigned(15)),
            ("-3", Plain::Signed(-3)),
            ("1.5", Plain::Float(1.5)),
            ("10.0.1.1", Plain::Text),
            ("8000-8080", Plain::Text),
            ("02:00:00:00:00:01", Plain::Text),
            ("-", Plain::Text),
            ("++1", Plain::Text),
            ("inf", Plain::Text),
            ("0x+1", Plain::Text),
        ] {
            assert_eq!(resolve(text), meaning, "{text:?}");
        }
    }
}
