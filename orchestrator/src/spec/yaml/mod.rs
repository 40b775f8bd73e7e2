//! YAML text to Rust values, with the place of everything that is wrong.
//!
//! The only module that knows YAML. It reads the parser's events into a [`Tree`] and deserializes
//! from that, for two reasons: *all* errors are shown rather than the first, and a check made long
//! after reading can still point at the text through a path of keys and indices.

mod build;
mod de;
mod error;
mod scalar;
mod tree;

pub use de::read;
pub use tree::{Kind, MAX_BYTES, NodeId, Tree};

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// The established reader is the oracle. (It takes `yes` for true and merges maps by `<<`, which YAML 1.2 does not
    /// and this reader refuses; no file here does either.)
    #[test]
    fn values_agree_with_serde_yaml() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut compared = 0;
        for entry in fs::read_dir(root.join("../configs")).unwrap() {
            let path = entry.unwrap().path();
            let is_yaml = path
                .extension()
                .is_some_and(|extension| extension == "yaml");
            let Some(text) = fs::read_to_string(&path).ok().filter(|_| is_yaml) else {
                continue;
            };
            let theirs: Result<serde_json::Value, _> = serde_yaml::from_str(&text);
            let ours = Tree::parse(&text)
                .and_then(|tree| read::<serde_json::Value>(&tree, None, tree.root()));
            assert_eq!(ours.unwrap(), theirs.unwrap(), "{}", path.display());
            compared += 1;
        }
        assert!(compared >= 6, "only {compared} files were compared");
    }
}
