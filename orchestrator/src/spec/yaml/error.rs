//! serde's errors in the words of someone who writes YAML.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::tree::{Kind, NodeId, Tree};
use crate::diagnostic::{Diagnostic, Place, near_miss, suggestion};

/// How an error about a word that is none of the known ones begins.
const UNKNOWN_VALUE: &str = "unknown value ";

/// Why a node does not fit a type.
#[derive(Debug)]
pub struct Error {
    message: String,
    label: String,
    help: String,
    /// The key that is missing from the mapping at `node`, if that is the error.
    pub missing: Option<&'static str>,
    /// The innermost node that does not fit; `None` until a deserializer has seen the error.
    pub node: Option<NodeId>,
}

impl Error {
    fn new(message: String) -> Self {
        Self {
            message,
            label: String::new(),
            help: String::new(),
            missing: None,
            node: None,
        }
    }

    fn help(mut self, help: String) -> Self {
        self.help = help;
        self
    }

    /// Sets the place, unless one further in is known.
    pub fn at(mut self, node: NodeId) -> Self {
        self.node = self.node.or(Some(node));
        self
    }

    /// The error about a word that chooses a kind, rather than a plain value.
    pub fn about_kind(mut self) -> Self {
        if let Some(word) = self.message.strip_prefix(UNKNOWN_VALUE) {
            self.message = format!("unknown kind {word}");
        }
        self
    }

    /// The error about the text `text`, where the standard library's parsers don't name it.
    pub fn of(mut self, text: &str) -> Self {
        let wanted = match self.message.as_str() {
            "invalid IP address syntax" => "an IPv4 or IPv6 address",
            "invalid IPv4 address syntax" => "an IPv4 address",
            "invalid IPv6 address syntax" => "an IPv6 address",
            "invalid socket address syntax" => "an address and port, like 203.0.113.10:80",
            "invalid IPv4 socket address syntax" => "an IPv4 address and port, like 10.0.0.5:22",
            "invalid IPv6 socket address syntax" => "an IPv6 address and port, like [fd00::5]:22",
            _ => return self,
        };
        self.message = format!("expected {wanted}, found `{}`", shorten(text));
        self
    }

    /// A mapping with some of `fields` was expected at `id`.
    pub fn expected_mapping(tree: &Tree, id: NodeId, fields: &[&str]) -> Self {
        let found = match &tree.resolve(id).1.kind {
            Kind::Scalar { text, plain: true } if text.is_empty() => "nothing".to_owned(),
            Kind::Scalar { text, .. } => format!("`{}`", shorten(text)),
            Kind::Seq(_) => "a list".to_owned(),
            Kind::Map(_) | Kind::Alias(_) => "a mapping".to_owned(),
        };
        Self::new(format!("expected a mapping, found {found}"))
            .help(keys(fields))
            .at(id)
    }

    /// One of `variants` was expected as a key.
    pub fn expected_one_of(variants: &[&str]) -> Self {
        Self::new("expected a mapping with one key".into()).help(choice(variants))
    }

    /// One of `variants` was expected, and there are more.
    pub fn one_variant_only(variants: &[&str]) -> Self {
        let mut error = Self::new("only one kind can stand here".into()).help(choice(variants));
        error.label = "a second kind".into();
        error
    }

    /// `name` stands alone and needs a body.
    pub fn needs_body(name: &str) -> Self {
        Self::new(format!("`{name}` needs settings")).help(format!("write `{name}: {{ … }}`"))
    }

    /// `name` stands with a body and takes none.
    pub fn needs_no_body(name: &str) -> Self {
        Self::new(format!("`{name}` takes no settings"))
    }

    /// The error in its place; one about what is missing points at `key`, the key of the whole.
    pub fn into_diagnostic(self, tree: &Tree, key: NodeId) -> Diagnostic {
        let id = self.node.unwrap_or(key);
        let place = if self.missing.is_some() {
            tree.key_of(id).unwrap_or(key)
        } else {
            id
        };
        Diagnostic::at(Place::Span(tree.node(place).span.clone()), self.message)
            .label(self.label)
            .help(self.help)
    }
}

fn choice(names: &[&str]) -> String {
    suggestion("", names.iter().copied())
}

fn keys(fields: &[&str]) -> String {
    if fields.is_empty() {
        return String::new();
    }
    let quoted: Vec<_> = fields.iter().take(12).map(|f| format!("`{f}`")).collect();
    format!("its keys are {}", quoted.join(", "))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What was expected, in the reader's words.
fn expected(exp: &dyn Expected) -> String {
    let exp = exp.to_string();
    let range = |max: u64| format!("a whole number from 0 to {max}");
    match exp.as_str() {
        "u8" => range(u8::MAX as u64),
        "u16" => range(u16::MAX as u64),
        "u32" => range(u32::MAX as u64),
        "u64" | "usize" => "a whole number from 0".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "`true` or `false`".into(),
        "a string" | "string" => "text".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping".into(),
        other => match other.strip_prefix("struct ") {
            Some(_) => "a mapping".into(),
            None => other.to_owned(),
        },
    }
}

fn found(unexpected: &Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(v) => format!("`{v}`"),
        Unexpected::Unsigned(v) => format!("`{v}`"),
        Unexpected::Signed(v) => format!("`{v}`"),
        Unexpected::Float(v) => format!("`{v}`"),
        Unexpected::Str(v) => format!("`{}`", shorten(v)),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        other => other.to_string(),
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, exp: &dyn Expected) -> Self {
        let error = Self::new(format!(
            "expected {}, found {}",
            expected(exp),
            found(&unexpected)
        ));
        match unexpected {
            Unexpected::Str("yes" | "no" | "on" | "off") if exp.to_string() == "a boolean" => {
                error.help("write `true` or `false`".into())
            }
            // What is expected may name words: `tcp` may have been meant by `tpc`.
            Unexpected::Str(word) => {
                let words = exp.to_string();
                let near = near_miss(word, words.split('`').skip(1).step_by(2));
                error.help(near.map_or_else(String::new, |near| format!("did you mean `{near}`?")))
            }
            _ => error,
        }
    }

    fn invalid_value(unexpected: Unexpected<'_>, exp: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, exp)
    }

    fn invalid_length(len: usize, exp: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {len} values", expected(exp)))
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("{UNKNOWN_VALUE}`{}`", shorten(variant)))
            .help(suggestion(variant, known.iter().copied()))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{}`", shorten(field)))
            .help(suggestion(field, known.iter().copied()))
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::new(format!("`{field}` is missing"));
        error.missing = Some(field);
        error.label = format!("needs `{field}`");
        error
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` stands here twice"))
    }
}
