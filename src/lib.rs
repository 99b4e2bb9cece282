//! Rowgate exports large query results: as files, and as streams of rows.

pub mod app;
pub mod cli;
pub mod config;
pub mod export;
pub mod format;
pub mod lease;
pub mod pipeline;
pub mod queue;
pub mod rpc;
pub mod run;
pub mod service;
pub mod source;
pub mod storage;
pub mod task;
pub mod transform;
pub mod worker;
