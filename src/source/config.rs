//! `[sources.NAME]` of the configuration.

use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::ParamType;
use crate::export::Column;

/// One source. `url` may hold a password: it is never printed.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// `postgres://`, `mysql://` or `sqlite://path`.
    pub url: SecretString,
    /// Exports that may read it at once, in the whole cluster.
    pub slots: u32,
    /// Until the speed has been measured.
    pub expected_rows_per_second: u64,
    pub statement_timeout: Duration,
    /// `schema.table` patterns with `*`; empty: no table reads.
    pub allow_tables: Vec<String>,
    pub allow_sql: bool,
    pub definitions: BTreeMap<String, DefinitionOptions>,
}

/// One named export of a source. What it fixes, no caller can lift.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionOptions {
    #[serde(default)]
    pub title: String,
    pub sql: String,
    #[serde(default)]
    pub params: BTreeMap<String, ParamOptions>,
    /// As in a request; empty: every column as it is.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// As in a request, over the query's columns before `columns`.
    #[serde(default)]
    pub filter: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamOptions {
    pub r#type: ParamType,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub description: String,
    /// Used when the caller sends none; a JSON-like value of the type.
    #[serde(default)]
    pub default: Option<serde_json::Value>,
}
