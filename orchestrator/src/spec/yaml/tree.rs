//! A YAML document as a tree that remembers where everything stands.
//!
//! The tree is an arena whose size the file's size bounds. An alias is a node that points at its
//! anchor, so that a "billion laughs" file stays small here; what it would unfold to is counted and
//! limited before anyone walks it.

use std::collections::HashSet;
use std::ops::Range;

use crate::diagnostic::{Diagnostic, Place, Step};

/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// A node's place in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) usize);

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Bytes of the source that it covers.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
    pub(super) size: Size,
}

/// What a node unfolds to, its aliases followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Nodes, itself included.
    pub(super) nodes: u64,
    /// Levels, itself included.
    pub(super) depth: usize,
}

impl Size {
    pub(super) const LEAF: Self = Self { nodes: 1, depth: 1 };
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
    pub(super) nodes: Vec<Node>,
    pub(super) root: NodeId,
    /// What is wrong with its syntax, without making it unreadable: keys that stand twice, tags.
    pub errors: Vec<Diagnostic>,
}

impl Tree {
    /// Parses `text`.
    ///
    /// # Errors
    /// What makes it unreadable: errors of YAML itself (where reading ends at the first), unknown
    /// anchors, several documents, too large, too deep.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        super::build::tree(text)
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

    /// Whether a member of `parent` is in `set`.
    pub fn holds_any(&self, parent: NodeId, set: &HashSet<NodeId>) -> bool {
        match &self.resolve(parent).1.kind {
            Kind::Map(entries) => entries
                .iter()
                .any(|(k, v)| set.contains(k) || set.contains(v)),
            Kind::Seq(items) => items.iter().any(|item| set.contains(item)),
            Kind::Scalar { .. } | Kind::Alias(_) => false,
        }
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

    /// The last alias on the way to `place`.
    pub fn alias_to(&self, place: &Place) -> Option<Range<usize>> {
        let (Place::Key(path) | Place::Value(path)) = place else {
            return None;
        };
        (1..=path.len()).rev().find_map(|end| {
            let node = self.node(self.find(&path[..end]).1);
            matches!(node.kind, Kind::Alias(_)).then(|| node.span.clone())
        })
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
