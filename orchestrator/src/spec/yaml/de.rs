//! serde over a [`Tree`]: any `Deserialize` type, with the place of what does not fit.
//!
//! serde stops at the first error. [`read`] does not: it notes the error, hides the value that
//! caused it, and reads again, until what is left fits. Unknown keys are noted on the way.

use std::cell::RefCell;
use std::collections::HashSet;

use serde::de::{self, DeserializeSeed, Deserializer, Visitor};

use super::error::Error;
use super::scalar::{self, Plain};
use super::tree::{Kind, NodeId, Tree};
use crate::diagnostic::{Diagnostic, Place, near_miss, suggestion};

/// Errors after which [`read`] gives up on one value.
const MAX_ERRORS: usize = 32;

/// Reads the node `id` as a `T`. `key` is the key it stands under, for errors about what it lacks.
///
/// # Errors
/// All that could be found.
pub fn read<T: de::DeserializeOwned>(
    tree: &Tree,
    key: Option<NodeId>,
    id: NodeId,
) -> Result<T, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let mut hidden = HashSet::new();
    loop {
        let context = Context {
            tree,
            hidden: &hidden,
            unknown: RefCell::default(),
        };
        let result = T::deserialize(NodeDe {
            context: &context,
            id,
        });
        let unknown = context.unknown.into_inner();
        for key in &unknown {
            if !errors.contains(&key.diagnostic) {
                errors.push(key.diagnostic.clone());
            }
        }
        match result {
            Ok(value) if errors.is_empty() => return Ok(value),
            Ok(_) => return Err(errors),
            Err(error) => {
                let mut at = error.node.unwrap_or(id);
                // No further errors of the file: what hiding did not stop, and what is missing
                // because it was hidden or has its name misspelt.
                let echo = hidden.contains(&at)
                    || error.missing.is_some_and(|field| {
                        let misspelt = |key: &Unknown| key.meant == Some(field);
                        tree.holds_any(at, &hidden) || unknown.iter().any(misspelt)
                    });
                if !echo {
                    errors.push(error.into_diagnostic(tree, key.unwrap_or(id)));
                }
                while at != id && !hidden.insert(at) {
                    let Some(parent) = tree.parent(at) else {
                        return Err(errors);
                    };
                    at = parent;
                }
                if at == id || errors.len() >= MAX_ERRORS {
                    return Err(errors);
                }
            }
        }
    }
}

struct Context<'t> {
    tree: &'t Tree,
    hidden: &'t HashSet<NodeId>,
    unknown: RefCell<Vec<Unknown>>,
}

/// A key that a mapping should not have.
struct Unknown {
    /// The key that it is a slip of.
    meant: Option<&'static str>,
    diagnostic: Diagnostic,
}

impl Context<'_> {
    fn hides(&self, entry: (NodeId, NodeId)) -> bool {
        self.hidden.contains(&entry.0) || self.hidden.contains(&entry.1)
    }
}

#[derive(Clone, Copy)]
struct NodeDe<'c, 't> {
    context: &'c Context<'t>,
    id: NodeId,
}

impl<'c, 't> NodeDe<'c, 't> {
    fn kind(&self) -> &'t Kind {
        &self.context.tree.resolve(self.id).1.kind
    }

    fn child(&self, id: NodeId) -> Self {
        Self { id, ..*self }
    }

    fn items(&self, items: &'t [NodeId]) -> Items<'c, 't> {
        Items {
            parent: *self,
            items: items.iter(),
        }
    }

    fn map(
        &self,
        entries: &'t [(NodeId, NodeId)],
        fields: Option<&'static [&'static str]>,
    ) -> Entries<'c, 't> {
        let mut kept = Vec::with_capacity(entries.len());
        for &(key, value) in entries {
            let name = self.context.tree.text(key);
            if self.context.hides((key, value)) {
                continue;
            }
            match fields {
                Some(fields) if !fields.contains(&name) => self.unknown(name, key, fields),
                _ => kept.push((key, value)),
            }
        }
        Entries {
            parent: *self,
            rest: kept.into_iter(),
            value: None,
        }
    }

    fn unknown(&self, name: &str, key: NodeId, fields: &'static [&'static str]) {
        let span = self.context.tree.node(key).span.clone();
        let diagnostic = Diagnostic::at(Place::Span(span), format!("unknown key `{name}`"))
            .help(suggestion(name, fields.iter().copied()));
        let mut unknown = self.context.unknown.borrow_mut();
        if unknown.len() >= MAX_ERRORS {
            return;
        }
        unknown.push(Unknown {
            meant: near_miss(name, fields.iter().copied()),
            diagnostic,
        });
    }

    fn locate<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|e| e.of(self.context.tree.text(self.id)).at(self.id))
    }

    /// A value of whatever type it looks like.
    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = match self.kind() {
            Kind::Scalar { text, plain: true } => match scalar::resolve(text) {
                Plain::Null => visitor.visit_unit(),
                Plain::Bool(v) => visitor.visit_bool(v),
                Plain::Unsigned(v) => visitor.visit_u64(v),
                Plain::Signed(v) => visitor.visit_i64(v),
                Plain::Float(v) => visitor.visit_f64(v),
                Plain::Text => visitor.visit_str(text),
            },
            Kind::Scalar { text, .. } => visitor.visit_str(text),
            Kind::Seq(items) => visitor.visit_seq(self.items(items)),
            Kind::Map(entries) => visitor.visit_map(self.map(entries, None)),
            Kind::Alias(_) => Err(de::Error::custom("an alias to nothing")),
        };
        self.locate(result)
    }

    /// Text, also where it looks like a number: `mode: 0660` is the text `0660`.
    fn string<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::Scalar { text, plain }
                if !*plain || !matches!(scalar::resolve(text), Plain::Null) =>
            {
                self.locate(visitor.visit_str(text))
            }
            _ => self.any(visitor),
        }
    }
}

macro_rules! any {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.any(visitor)
        }
    )*};
}

macro_rules! string {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.string(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDe<'_, '_> {
    type Error = Error;

    any! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64 deserialize_bytes deserialize_byte_buf deserialize_unit
        deserialize_seq deserialize_map
    }
    string! { deserialize_char deserialize_str deserialize_string deserialize_identifier }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let null = matches!(self.kind(), Kind::Scalar { text, plain: true }
            if matches!(scalar::resolve(text), Plain::Null));
        if null {
            self.locate(visitor.visit_none())
        } else {
            self.locate(visitor.visit_some(self))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.locate(visitor.visit_newtype_struct(self))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::Map(entries) => self.locate(visitor.visit_map(self.map(entries, Some(fields)))),
            _ => Err(Error::expected_mapping(self.context.tree, self.id, fields)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let result = match self.kind() {
            Kind::Scalar { .. } => visitor.visit_enum(Variant {
                of: self,
                name: self.id,
                body: None,
            }),
            Kind::Map(entries) => match entries.as_slice() {
                &[(key, value)] => visitor.visit_enum(Variant {
                    of: self,
                    name: key,
                    body: Some(value),
                }),
                [] => Err(Error::expected_one_of(variants)),
                [_, (second, _), ..] => Err(Error::one_variant_only(variants).at(*second)),
            },
            _ => Err(Error::expected_one_of(variants)),
        };
        self.locate(result)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Items<'c, 't> {
    parent: NodeDe<'c, 't>,
    items: std::slice::Iter<'t, NodeId>,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let hidden = self.parent.context.hidden;
        let Some(&id) = self.items.find(|id| !hidden.contains(id)) else {
            return Ok(None);
        };
        let node = self.parent.child(id);
        node.locate(seed.deserialize(node)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len().min(4096))
    }
}

struct Entries<'c, 't> {
    parent: NodeDe<'c, 't>,
    rest: std::vec::IntoIter<(NodeId, NodeId)>,
    value: Option<(NodeId, NodeId)>,
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(entry);
        let key = self.parent.child(entry.0);
        key.locate(seed.deserialize(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (_, id) = self
            .value
            .take()
            .ok_or_else(|| <Error as de::Error>::custom("a value without a key"))?;
        let value = self.parent.child(id);
        value.locate(seed.deserialize(value))
    }
}

/// `name` or `name: body`, as one variant of an enum.
struct Variant<'c, 't> {
    of: NodeDe<'c, 't>,
    name: NodeId,
    body: Option<NodeId>,
}

impl<'c, 't> Variant<'c, 't> {
    fn body(&self) -> Result<NodeDe<'c, 't>, Error> {
        let name = self.of.context.tree.text(self.name);
        match self.body {
            Some(body) => Ok(self.of.child(body)),
            None => Err(Error::needs_body(name).at(self.name)),
        }
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = self.of.child(self.name);
        let variant = name.locate(seed.deserialize(name));
        let kind = self.body.is_some();
        let variant = variant.map_err(|e| if kind { e.about_kind() } else { e })?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.body {
            None => Ok(()),
            Some(body) => {
                let name = self.of.context.tree.text(self.name);
                Err(Error::needs_no_body(name).at(body))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let body = self.body()?;
        body.locate(seed.deserialize(body))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.body()?.any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.body()?.deserialize_struct("", fields, visitor)
    }
}
