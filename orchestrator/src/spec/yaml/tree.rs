//! A YAML document as a tree that remembers where everything stands.
//!
//! The tree is an arena whose size the file's size bounds. An alias is a node that points at its
//! anchor, so that a "billion laughs" file stays small here; what it would unfold to is counted and
//! limited before anyone walks it.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle};

use crate::diagnostic::{Diagnostic, Place, Step, near_miss};

/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// Most nodes a document may have with all aliases unfolded.
const MAX_NODES: u64 = 200_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 48;

/// A node's place in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Bytes of the source that it covers.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
    size: Size,
}

/// What a node unfolds to, its aliases followed.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Nodes, itself included.
    nodes: u64,
    /// Levels, itself included.
    depth: usize,
}

impl Size {
    const LEAF: Self = Self { nodes: 1, depth: 1 };
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    /// Text, with `plain` set where it stands without quotes and may mean a number or `null`.
    Scalar {
        /// The text after YAML's escapes.
        text: String,
        /// Whether it stands without quotes.
        plain: bool,
    },
    /// A list.
    Seq(Vec<NodeId>),
    /// A mapping: keys and values in the order of the file.
    Map(Vec<(NodeId, NodeId)>),
    /// `*name`: the anchored node.
    Alias(NodeId),
}

/// A parsed document.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Tree {
    /// Parses `text`.
    ///
    /// # Errors
    /// Everything that is wrong with its syntax: errors of YAML itself (where reading ends at the
    /// first), duplicate keys, unknown anchors, tags, several documents, too large, too deep.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        Builder::new(text).parse()
    }

    /// The node that `id` means: an alias is followed to its anchor.
    pub fn resolve(&self, id: NodeId) -> (NodeId, &Node) {
        let mut id = id;
        while let Kind::Alias(target) = self.nodes[id.0].kind {
            id = target;
        }
        (id, &self.nodes[id.0])
    }

    /// The node at `id` itself, an alias not followed.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The top of the document.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The list or mapping that holds `child` as an element, key or value. Walks the whole arena:
    /// for errors only.
    pub fn parent(&self, child: NodeId) -> Option<NodeId> {
        let holds = |node: &Node| match &node.kind {
            Kind::Map(entries) => entries.iter().any(|&(k, v)| k == child || v == child),
            Kind::Seq(items) => items.contains(&child),
            Kind::Scalar { .. } | Kind::Alias(_) => false,
        };
        self.nodes.iter().position(holds).map(NodeId)
    }

    /// The key that `value` stands under, if it stands in a mapping.
    pub fn key_of(&self, value: NodeId) -> Option<NodeId> {
        let (_, parent) = self.resolve(self.parent(value)?);
        match &parent.kind {
            Kind::Map(entries) => entries.iter().find(|e| e.1 == value).map(|e| e.0),
            _ => None,
        }
    }

    /// Entries of a mapping as (key text, key, value); nothing for other nodes.
    pub fn entries(&self, id: NodeId) -> impl Iterator<Item = (&str, NodeId, NodeId)> {
        let entries: &[_] = match &self.resolve(id).1.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        };
        entries
            .iter()
            .map(|&(key, value)| (self.text(key), key, value))
    }

    /// The text of a scalar; empty for other nodes.
    pub fn text(&self, id: NodeId) -> &str {
        match &self.resolve(id).1.kind {
            Kind::Scalar { text, .. } => text,
            _ => "",
        }
    }

    /// The key (where it ends in one) and value that `path` leads to, or as far as it leads.
    fn find(&self, path: &[Step]) -> (Option<NodeId>, NodeId, bool) {
        let (mut key, mut value) = (None, self.root);
        for step in path {
            let next = match step {
                Step::Key(name) => self
                    .entries(value)
                    .find(|(text, ..)| text == name)
                    .map(|(_, k, v)| (Some(k), v)),
                Step::Index(index) => match &self.resolve(value).1.kind {
                    Kind::Seq(items) => items.get(*index).map(|&v| (None, v)),
                    // A lone value where a list may stand too.
                    Kind::Scalar { .. } if *index == 0 => Some((key, value)),
                    _ => None,
                },
            };
            match next {
                Some(found) => (key, value) = found,
                None => return (key, value, false),
            }
        }
        (key, value, true)
    }

    /// The bytes that `place` means. Where a path leads nowhere (a key that is missing), the key
    /// of the deepest part that exists.
    pub fn locate(&self, place: &Place) -> Range<usize> {
        let (path, want_key) = match place {
            Place::Span(span) => return span.clone(),
            Place::Key(path) => (path, true),
            Place::Value(path) => (path, false),
        };
        let (key, value, whole) = self.find(path);
        match key {
            Some(key) if want_key || !whole => self.node(key).span.clone(),
            _ => self.node(value).span.clone(),
        }
    }
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
                    if !self.event(event, range) {
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
                    break;
                }
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Result<Tree, Vec<Diagnostic>> {
        let Some(root) = self.root else {
            if self.errors.is_empty() {
                self.errors.push(Diagnostic::new("the file is empty"));
            }
            return Err(self.errors);
        };
        if self.errors.is_empty() {
            Ok(Tree {
                nodes: self.nodes,
                root,
            })
        } else {
            Err(self.errors)
        }
    }

    /// Takes one event; `false` ends the reading.
    fn event(&mut self, event: Event<'_>, span: Range<usize>) -> bool {
        if let Some(tag) = event.tag() {
            let message = format!("the tag `{}` is not used here", tag.original());
            self.error(
                span.clone(),
                message,
                "put text into quotes, and leave tags out",
            );
        }
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
            let entries: Vec<_> = open.items.chunks_exact(2).map(|e| (e[0], e[1])).collect();
            self.check_keys(&entries);
            Kind::Map(entries)
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

    /// Keys are plain text, and each stands once.
    fn check_keys(&mut self, entries: &[(NodeId, NodeId)]) {
        let mut seen: HashMap<String, Range<usize>> = HashMap::new();
        for &(key, _) in entries {
            let node = &self.nodes[key.0];
            let span = node.span.clone();
            let Kind::Scalar { text, plain } = &node.kind else {
                self.error(span, "a key must be plain text".into(), "");
                continue;
            };
            let text = text.clone();
            if *plain && text == "<<" {
                let help = "an alias takes a value whole: `name: *anchor`";
                self.error(span, "merge keys are not supported".into(), help);
            } else if let Some(first) = seen.insert(text.clone(), span.clone()) {
                self.errors.push(
                    Diagnostic::at(Place::Span(span), format!("`{text}` stands here twice"))
                        .label("the second")
                        .related(Place::Span(first), "the first"),
                );
            }
        }
    }
}

fn null() -> Kind {
    Kind::Scalar {
        text: String::new(),
        plain: true,
    }
}
