//! Rowgate exports large query results: as files, and as streams of rows.

pub mod cli;
pub mod config;
pub mod export;
pub mod format;
pub mod queue;
pub mod rpc;
pub mod service;
pub mod source;
pub mod transform;
