//! Small values of the file: file modes, words of a chain, one-or-many lists.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

/// Permission bits of a socket, written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        let octal = digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
        match u32::from_str_radix(digits, 8) {
            Ok(bits) if octal && bits <= 0o777 && (3..=4).contains(&digits.len()) => Ok(Self(bits)),
            _ => Err(format!("expected an octal mode as \"0660\", found `{text}`")),
        }
    }
}

/// One word of a chain: `name` or `name.interface`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "String")]
#[schemars(with = "String")]
pub struct Word {
    /// The port or function.
    pub name: String,
    /// The interface of a junction.
    pub interface: Option<String>,
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        match text.split_once('.') {
            Some((name, interface)) => Self {
                name: name.into(),
                interface: Some(interface.into()),
            },
            None => Self {
                name: text,
                interface: None,
            },
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.interface {
            Some(interface) => write!(f, ".{interface}"),
            None => Ok(()),
        }
    }
}

/// Reads `value` or `[value, …]` into a list.
///
/// # Errors
/// Those of the values.
pub fn listed<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Visitor<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value or a list of values")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(de::value::StrDeserializer::new(text)).map(|v| vec![v])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(value) = seq.next_element()? {
                all.push(value);
            }
            Ok(all)
        }
    }

    from.deserialize_any(Visitor(std::marker::PhantomData))
}
