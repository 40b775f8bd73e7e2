//! Small values of the file: file modes and words of a chain.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

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
            _ => Err(format!(
                "expected an octal mode as \"0660\", found `{text}`"
            )),
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
