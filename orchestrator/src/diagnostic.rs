//! What is wrong with a file, and where: the one shape of every error about a configuration.
//!
//! Checks say *what* and name a place in the file; [`Report`] turns all of them into text with the
//! file, line, column, the source line and carets.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Longest message, label or help, in characters.
const LONGEST: usize = 400;
/// Errors shown before the rest is only counted.
const SHOWN: usize = 50;
/// Errors after which a check need not look for more: each costs a search for what was meant.
pub const ENOUGH: usize = 200;

/// One step of a [`YamlPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// The value under this key of a mapping.
    Key(String),
    /// The element of a list, counted from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<&String> for Step {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The way from the top of the file to a value, as `functions.edge.firewall.rules[3].ports`.
pub type YamlPath = Vec<Step>;

/// Builds a [`YamlPath`] from keys and indices.
#[macro_export]
macro_rules! yaml_path {
    ($($step:expr),* $(,)?) => { vec![$($crate::diagnostic::Step::from($step)),*] };
}

/// Where in the file a diagnostic points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Bytes of the source text.
    Span(Range<usize>),
    /// The key that the path ends in.
    Key(YamlPath),
    /// The value that the path ends in.
    Value(YamlPath),
}

/// An error in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, in one line.
    pub message: String,
    /// Where; `None` for the file as a whole.
    pub place: Option<Place>,
    /// A few words beside the caret; may be empty.
    pub label: String,
    /// A second place that matters (the first of two duplicates), with its words.
    pub related: Option<(Place, String)>,
    /// How to put it right; may be empty.
    pub help: String,
}

impl Diagnostic {
    /// An error at no particular place.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: None,
            label: String::new(),
            related: None,
            help: String::new(),
        }
    }

    /// An error at `place`.
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        Self {
            place: Some(place),
            ..Self::new(message)
        }
    }

    /// An error at the value that `path` leads to.
    pub fn at_value(path: YamlPath, message: impl Into<String>) -> Self {
        Self::at(Place::Value(path), message)
    }

    /// An error at the key that `path` ends in.
    pub fn at_key(path: YamlPath, message: impl Into<String>) -> Self {
        Self::at(Place::Key(path), message)
    }

    /// Sets the words beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the help line.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Names a second place.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related = Some((place, label.into()));
        self
    }

    /// First byte it points at, for sorting; unresolved places come first.
    fn start(&self) -> usize {
        match &self.place {
            Some(Place::Span(span)) => span.start,
            _ => 0,
        }
    }
}

/// All errors of one file, ready to be shown.
#[derive(Debug, Clone)]
pub struct Report {
    file: String,
    text: String,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Errors of `file` with content `text`; every place must be a [`Place::Span`] by now, others
    /// are shown without a source line. They are put in the order of the file.
    pub fn new(file: &str, text: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(Diagnostic::start);
        diagnostics.dedup();
        Self {
            file: printable(file),
            text: text.chars().map(shown).collect(),
            diagnostics,
        }
    }

    /// The errors, in the order of the file.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The report as text that ends in a line break. `colour` adds terminal escapes.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.term_width(WIDTH);
        let mut out = String::new();
        for diagnostic in self.diagnostics.iter().take(SHOWN) {
            let group = self.group(diagnostic);
            let _ = writeln!(out, "{}\n", renderer.render(&[group]).trim_end());
        }
        let count = self.diagnostics.len();
        if count > SHOWN {
            let _ = writeln!(out, "… and {} more\n", count - SHOWN);
        }
        let plural = if count == 1 { "" } else { "s" };
        let _ = writeln!(out, "{}: {count} error{plural}", self.file);
        out
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let title = Level::ERROR.primary_title(folded(&diagnostic.message, "error: "));
        let mut group = match &diagnostic.place {
            Some(Place::Span(span)) => {
                let mut primary = AnnotationKind::Primary.span(self.clip(span));
                if !diagnostic.label.is_empty() {
                    primary = primary.label(printable(&diagnostic.label));
                }
                let mut snippet = Snippet::source(&self.text)
                    .path(&self.file)
                    .annotation(primary);
                if let Some((Place::Span(span), label)) = &diagnostic.related {
                    snippet = snippet.annotation(
                        AnnotationKind::Context
                            .span(self.clip(span))
                            .label(printable(label)),
                    );
                }
                title.element(snippet)
            }
            _ => title.element(annotate_snippets::Origin::path(&self.file)),
        };
        if !diagnostic.help.is_empty() {
            group = group.element(Level::HELP.message(folded(&diagnostic.help, "      = help: ")));
        }
        group
    }

    /// A span on one line, within the text and on character boundaries: a caret under a whole
    /// block says less than one under its first line.
    fn clip(&self, span: &Range<usize>) -> Range<usize> {
        let start = floor(&self.text, span.start);
        let line_end = self.text[start..]
            .find(['\n', '\r'])
            .map_or(self.text.len(), |at| start + at);
        let end = floor(&self.text, span.end).clamp(start, line_end);
        start..end
    }
}

/// The last character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether `c` changes the direction of the text around it.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `c` as it is shown in a source line, of the same length in bytes. (Control characters of one
/// byte are the renderer's to replace.)
fn shown(c: char) -> char {
    match c {
        '\u{80}'..='\u{9f}' | '\u{61c}' => '·',
        c if turns_text(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// `text` without anything that could drive a terminal or fill it: names come from the file.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == LONGEST {
            out.push('…');
            break;
        }
        if c.is_control() || turns_text(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// `text`, printable and folded into lines that fit a terminal behind `lead`.
fn folded(text: &str, lead: &str) -> String {
    let mut out = String::new();
    let mut column = lead.len();
    for word in printable(text).split(' ') {
        let width = word.chars().count() + 1;
        if column + width > WIDTH && !out.is_empty() {
            out.push('\n');
            column = lead.len();
        } else if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// The one of `known` that `word` is probably a slip of, if any is near enough.
pub fn near_miss<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if !(2..=64).contains(&length) {
        return None;
    }
    let lower = word.to_lowercase();
    let allowed = (length / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|name| name.len() < 4 * (length + allowed) + 1)
        .map(|name| {
            (
                strsim::damerau_levenshtein(&lower, &name.to_lowercase()),
                name,
            )
        })
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// "did you mean `x`?" or, where nothing is near, "expected one of `a`, `b`" (or nothing at all).
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(name) = near_miss(word, known.clone()) {
        return format!("did you mean `{name}`?");
    }
    let names: Vec<_> = known
        .into_iter()
        .take(13)
        .map(|n| format!("`{n}`"))
        .collect();
    match names.len() {
        0 => String::new(),
        1 => format!("expected {}", names[0]),
        2..13 => format!("expected one of {}", names.join(", ")),
        _ => format!("expected one of {}, …", names[..12].join(", ")),
    }
}
