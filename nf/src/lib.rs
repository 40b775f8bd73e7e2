//! Network functions, one folder each.
#![forbid(unsafe_code)]
