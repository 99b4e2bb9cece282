//! Resolves the names of a request against `[sources]`.
pub struct Catalog;
pub struct Resolved;
