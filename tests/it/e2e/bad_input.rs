//! Everything that a caller can get wrong, and everything that can go wrong with an export: each with the code, the reason
//! and the field that API.md promises.

mod definitions;
mod fields;
mod lifecycle;
mod queries;
mod refusal;
pub mod shop;
mod sources;
mod values;
