//! The parser's events to a [`Tree`], within limits.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle};

use super::tree::{Kind, Node, NodeId, Size, Tree};
use crate::diagnostic::{Diagnostic, Place, near_miss};

/// Most nodes a document may have with all aliases unfolded.
const MAX_NODES: u64 = 100_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 48;

/// Parses `text`: see [`Tree::parse`].
pub fn tree(text: &str) -> Result<Tree, Vec<Diagnostic>> {
    Builder::new(text).parse()
}

/// A list or mapping whose end has not been seen.
struct Open {
    start: usize,
    anchor: usize,
    map: bool,
    items: Vec<NodeId>,
}

struct Builder<'t> {
    text: &'t str,
    nodes: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    anchor_names: Vec<String>,
    root: Option<NodeId>,
    errors: Vec<Diagnostic>,
    /// Whether an error leaves no tree worth reading.
    unreadable: bool,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            nodes: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            anchor_names: Vec::new(),
            root: None,
            errors: Vec::new(),
            unreadable: false,
        }
    }

    fn parse(mut self) -> Result<Tree, Vec<Diagnostic>> {
        let options = granit_parser::options! {
            emit_unresolved_aliases: true,
            emit_anchor_events: true,
            emit_comments: false,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        for next in Parser::new_from_str_with_options(self.text, options) {
            match next {
                Ok((event, span)) => {
                    let range = span.byte_range().unwrap_or(0..0);
                    if let Some(tag) = event.tag() {
                        let place = span.tag_span().and_then(|tag| tag.byte_range());
                        let message = format!("the tag `{}` is not used here", tag.original());
                        let help = "put text into quotes, and leave tags out";
                        self.error(place.unwrap_or_else(|| range.clone()), message, help);
                    }
                    if !self.event(event, range) {
                        self.unreadable = true;
                        break;
                    }
                }
                Err(error) => {
                    let at = error.marker().byte_offset().unwrap_or(0);
                    let info = error.kind().to_string();
                    self.errors.push(
                        Diagnostic::at(Place::Span(at..at + 1), format!("not valid YAML: {info}"))
                            .label("reading ended here"),
                    );
                    self.unreadable = true;
                    break;
                }
            }
        }
        self.finish()
    }

    fn finish(self) -> Result<Tree, Vec<Diagnostic>> {
        match self.root {
            Some(root) if !self.unreadable => Ok(Tree {
                nodes: self.nodes,
                root,
                errors: self.errors,
            }),
            None if self.errors.is_empty() => Err(vec![Diagnostic::new("the file is empty")]),
            _ => Err(self.errors),
        }
    }

    /// Takes one event; `false` ends the reading.
    fn event(&mut self, event: Event<'_>, span: Range<usize>) -> bool {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.error(span, "a file holds one document".into(), "");
                return false;
            }
            Event::Anchor(_, name) => self.anchor_names.push(name.into_owned()),
            Event::Scalar(text, style, anchor, _) => {
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                return self.add(kind, span, anchor, Size::LEAF);
            }
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::UnresolvedAlias(name) => {
                let names = self.anchor_names.iter().map(String::as_str);
                let help = near_miss(&name, names)
                    .map(|near| format!("did you mean `*{near}`?"))
                    .unwrap_or_default();
                self.unreadable = true;
                self.error(span.clone(), format!("unknown anchor `{name}`"), &help);
                return self.add(null(), span, 0, Size::LEAF);
            }
            Event::SequenceStart(_, anchor, _) => return self.start(span.start, anchor, false),
            Event::MappingStart(_, anchor, _) => return self.start(span.start, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => return self.end(span.end),
            _ => {}
        }
        true
    }

    fn error(&mut self, span: Range<usize>, message: String, help: &str) {
        self.errors
            .push(Diagnostic::at(Place::Span(span), message).help(help));
    }

    fn start(&mut self, start: usize, anchor: usize, map: bool) -> bool {
        if self.open.len() >= MAX_DEPTH {
            self.error(
                start..start + 1,
                format!("nested deeper than {MAX_DEPTH} levels"),
                "",
            );
            return false;
        }
        self.open.push(Open {
            start,
            anchor,
            map,
            items: Vec::new(),
        });
        true
    }

    fn end(&mut self, end: usize) -> bool {
        let Some(open) = self.open.pop() else {
            return false;
        };
        let mut size = Size::LEAF;
        for id in &open.items {
            let item = self.nodes[id.0].size;
            size.nodes = size.nodes.saturating_add(item.nodes);
            size.depth = size.depth.max(item.depth + 1);
        }
        let span = open.start..self.text_end(open.start, end);
        let kind = if open.map {
            let entries = open.items.chunks_exact(2).map(|e| (e[0], e[1]));
            Kind::Map(self.unique_keys(entries.collect()))
        } else {
            Kind::Seq(open.items)
        };
        self.add(kind, span, open.anchor, size)
    }

    /// A block's end without the blank lines that follow it.
    fn text_end(&self, start: usize, end: usize) -> usize {
        let text = self.text.get(start..end).unwrap_or("");
        start + text.trim_end().len()
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> bool {
        if let Some(&target) = self.anchors.get(&anchor) {
            let size = self.nodes[target.0].size;
            return self.add(Kind::Alias(target), span, 0, size);
        }
        self.unreadable = true;
        self.error(span.clone(), "an alias inside its own anchor".into(), "");
        self.add(null(), span, 0, Size::LEAF)
    }

    /// Adds a finished node to the arena and to what is open; `false` where that is too much.
    fn add(&mut self, kind: Kind, span: Range<usize>, anchor: usize, size: Size) -> bool {
        if size.depth > MAX_DEPTH {
            self.error(span, format!("nested deeper than {MAX_DEPTH} levels"), "");
            return false;
        }
        if size.nodes > MAX_NODES || self.nodes.len() as u64 > MAX_NODES {
            let message = format!("more than {MAX_NODES} values, aliases counted as often as used");
            self.error(span, message, "");
            return false;
        }
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node { span, kind, size });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(id),
            None if self.root.is_none() => self.root = Some(id),
            None => {}
        }
        true
    }

    /// `entries` without those whose key is no plain text or stood before, which are errors.
    fn unique_keys(&mut self, mut entries: Vec<(NodeId, NodeId)>) -> Vec<(NodeId, NodeId)> {
        let mut seen: HashMap<String, Range<usize>> = HashMap::new();
        entries.retain(|&(key, _)| {
            let Node { span, kind, .. } = &self.nodes[key.0];
            let place = Place::Span(span.clone());
            let error = match kind {
                Kind::Scalar { text, plain: true } if text == "<<" => {
                    Diagnostic::at(place, "merge keys are not supported")
                        .help("an alias takes a value whole: `name: *anchor`")
                }
                Kind::Scalar { text, .. } => match seen.get(text) {
                    None => {
                        seen.insert(text.clone(), span.clone());
                        return true;
                    }
                    Some(first) => Diagnostic::at(place, format!("`{text}` stands here twice"))
                        .label("the second")
                        .related(Place::Span(first.clone()), "the first"),
                },
                _ => Diagnostic::at(place, "a key must be plain text"),
            };
            self.errors.push(error);
            false
        });
        entries
    }
}

fn null() -> Kind {
    Kind::Scalar {
        text: String::new(),
        plain: true,
    }
}
