//! Resolves the names of a request against `[sources]`: which database, which query, with which typed parameters.
//!
//! Owns the policy of what may be read: definitions, the allow-list of tables, SQL where it is allowed. Refuses to
//! know how a query runs. Everything that can be wrong with the configuration is found by [`Catalog::new`], before a
//! client meets it.

use std::{collections::BTreeMap, sync::Arc};

use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::{
    DefinitionOptions, Error, Param, Query, QueryText, Source, SourceOptions, SqlOrigin,
    mysql::MysqlSource,
    params::{self, ParamValue},
    placeholders::{self, Dialect},
    postgres::PostgresSource,
    sqlite::SqliteSource,
    table,
    turn::{Turn, Turns},
};
use crate::export::{Code, Column, ExportSpec, Failure, ReadFrom, Violation};

/// Every source of the configuration, by name. No connection is made before a source is used.
pub struct Catalog {
    sources: BTreeMap<String, Entry>,
}

struct Entry {
    options: Arc<SourceOptions>,
    source: Arc<dyn Source>,
    dialect: Dialect,
    /// Asked once, by one caller at a time; a failure is not kept.
    default_schema: OnceCell<Option<String>>,
    turns: Turns,
}

/// What is wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Invalid {
    /// As `sources.shop.url`.
    pub key: String,
    pub message: String,
}

/// A source as `ListSources` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    pub name: &'a str,
    /// `postgres`, `mysql` or `sqlite`.
    pub kind: &'static str,
    pub options: &'a SourceOptions,
}

/// What a request means here and now.
#[derive(Clone)]
pub struct Resolved {
    pub name: String,
    pub source: Arc<dyn Source>,
    pub query: Query,
    /// With a definition: what it fixes.
    pub fixed: Option<Fixed>,
    pub options: Arc<SourceOptions>,
    turns: Turns,
}

/// Columns and filter of a definition; they run before the caller's.
#[derive(Clone, PartialEq, Debug)]
pub struct Fixed {
    pub definition: String,
    pub columns: Vec<Column>,
    pub filter: Option<String>,
}

impl Catalog {
    /// # Errors
    /// All that is wrong: bad URLs and schemes, SQL texts of definitions that can't be taken apart, parameters that are
    /// used but not declared or declared but not used, defaults of the wrong type.
    pub fn new(options: BTreeMap<String, SourceOptions>) -> Result<Self, Vec<Invalid>> {
        let (mut sources, mut wrong) = (BTreeMap::new(), Vec::new());
        for (name, options) in options {
            let (source, dialect) = match open(&options) {
                Ok(opened) => opened,
                Err(message) => {
                    let key = format!("sources.{name}.url");
                    wrong.push(Invalid { key, message });
                    continue;
                }
            };
            for (definition, of) in &options.definitions {
                let key = format!("sources.{name}.definitions.{definition}");
                wrong.extend(check_definition(&key, of, dialect));
            }
            let entry = Entry {
                turns: Turns::new(options.slots),
                options: Arc::new(options),
                source,
                dialect,
                default_schema: OnceCell::new(),
            };
            sources.insert(name, entry);
        }
        match wrong.is_empty() {
            true => Ok(Self { sources }),
            false => Err(wrong),
        }
    }

    /// In the order of names.
    pub fn list(&self) -> impl Iterator<Item = Listed<'_>> {
        self.sources.iter().map(|(name, entry)| Listed {
            name,
            kind: entry.source.kind(),
            options: &entry.options,
        })
    }

    /// Touches the database only to learn a default schema, once, where an unqualified table name needs it.
    ///
    /// # Errors
    /// NOT_FOUND, PERMISSION_DENIED / TABLE_NOT_ALLOWED or SQL_NOT_ALLOWED, INVALID_ARGUMENT naming the field,
    /// SQL_REJECTED, UNAVAILABLE.
    pub async fn resolve(&self, spec: &ExportSpec) -> Result<Resolved, Failure> {
        let entry = self.sources.get(&spec.source).ok_or_else(|| {
            let message = format!("there is no source {:?}", spec.source);
            Failure::new(Code::NotFound, "SOURCE_NOT_FOUND", message)
        })?;
        let (query, fixed) = match &spec.from {
            ReadFrom::Definition(name) => entry.definition(name, spec)?,
            ReadFrom::Table(_) => (entry.table(spec).await?, None),
            ReadFrom::Sql(sql) => (entry.sql(sql, spec)?, None),
        };
        Ok(Resolved {
            name: spec.source.clone(),
            source: Arc::clone(&entry.source),
            query,
            fixed,
            options: Arc::clone(&entry.options),
            turns: entry.turns.clone(),
        })
    }
}

impl Resolved {
    /// What looks at the source without being an export holds a turn.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED / SOURCE_BUSY.
    pub async fn turn(&self) -> Result<Turn, Failure> {
        self.turns.take(&self.name).await
    }
}

impl Entry {
    fn definition(&self, name: &str, spec: &ExportSpec) -> Result<(Query, Option<Fixed>), Failure> {
        let definition = self.options.definitions.get(name).ok_or_else(|| {
            let message = format!("the source {:?} has no definition {name:?}", spec.source);
            Failure::new(Code::NotFound, "DEFINITION_NOT_FOUND", message)
        })?;
        let query = Query {
            text: QueryText::Sql {
                sql: definition.sql.clone(),
                origin: SqlOrigin::Definition(name.to_owned()),
            },
            params: definition_params(definition, &spec.params)?,
        };
        let fixed = Fixed {
            definition: name.to_owned(),
            columns: definition.columns.clone(),
            filter: definition.filter.clone(),
        };
        Ok((query, Some(fixed)))
    }

    async fn table(&self, spec: &ExportSpec) -> Result<Query, Failure> {
        let ReadFrom::Table(read) = &spec.from else {
            unreachable!("called for table reads");
        };
        let unknown = unknown_params(&spec.params, |_| false, "a table read takes no parameters");
        let mut query = all_right(table::parse(read), unknown)?;
        let refused = || {
            let message = format!("the table {:?} may not be read here", read.name);
            Failure::new(Code::PermissionDenied, "TABLE_NOT_ALLOWED", message)
        };
        if self.options.allow_tables.is_empty() {
            return Err(refused());
        }
        let default_schema = self
            .default_schema
            .get_or_try_init(|| self.source.default_schema())
            .await
            .map_err(Error::into_failure)?
            .as_deref();
        if !table::is_allowed(&self.options.allow_tables, default_schema, &query) {
            return Err(refused());
        }
        // What was checked is what runs, whatever search path the session has.
        query.schema = query.schema.or(default_schema.map(str::to_owned));
        Ok(Query {
            text: QueryText::Table(query),
            params: Vec::new(),
        })
    }

    fn sql(&self, sql: &str, spec: &ExportSpec) -> Result<Query, Failure> {
        if !self.options.allow_sql {
            let message = format!("the source {:?} takes no SQL", spec.source);
            return Err(Failure::new(
                Code::PermissionDenied,
                "SQL_NOT_ALLOWED",
                message,
            ));
        }
        let rewritten = placeholders::rewrite(sql, self.dialect).map_err(Error::into_failure)?;
        let used = rewritten.distinct_names();
        let unknown = unknown_params(
            &spec.params,
            |name| used.contains(&name),
            "the SQL text has no such parameter",
        );
        let params = used.iter().map(|name| {
            let value = spec.params.get(*name).ok_or_else(|| missing(name))?;
            Ok(Param {
                name: (*name).to_owned(),
                value: params::untyped(name, value)?,
            })
        });
        Ok(Query {
            params: all_params(params, unknown)?,
            text: QueryText::Sql {
                sql: sql.to_owned(),
                origin: SqlOrigin::AdHoc,
            },
        })
    }
}

impl Query {
    /// SHA-256 of what is read, for the manifest: the SQL text with its placeholders, or the table read as SQL.
    pub fn hash(&self) -> String {
        let text = match &self.text {
            QueryText::Sql { sql, .. } => sql.clone(),
            QueryText::Table(query) => table::select(query, "*", Dialect::Postgres),
        };
        hex::encode(Sha256::digest(text))
    }
}

/// Every name of the definition's SQL gets a value: the caller's, the default, or NULL.
fn definition_params(
    definition: &DefinitionOptions,
    given: &BTreeMap<String, Value>,
) -> Result<Vec<Param>, Failure> {
    let unknown = unknown_params(
        given,
        |name| definition.params.contains_key(name),
        "the definition has no such parameter",
    );
    let params = definition.params.iter().map(|(name, options)| {
        let sent = given.get(name).filter(|value| !value.is_null());
        let value = match (sent, &options.default) {
            (Some(value), _) => options.r#type.convert(name, value)?,
            (None, _) if options.required => return Err(missing(name)),
            (None, Some(value)) => options.r#type.convert(name, value)?,
            (None, None) => ParamValue::Null(Some(options.r#type)),
        };
        Ok(Param {
            name: name.clone(),
            value,
        })
    });
    all_params(params, unknown)
}

/// All of them, or all that is wrong with them and with others.
fn all_params(
    params: impl Iterator<Item = Result<Param, Failure>>,
    mut wrong: Vec<Violation>,
) -> Result<Vec<Param>, Failure> {
    let mut right = Vec::new();
    for param in params {
        match param {
            Ok(param) => right.push(param),
            Err(failure) => wrong.extend(failure.violations),
        }
    }
    all_right(Ok(right), wrong)
}

/// What was made of some fields, unless they or others are wrong; then all violations.
fn all_right<T>(made: Result<T, Failure>, mut wrong: Vec<Violation>) -> Result<T, Failure> {
    match made {
        made if wrong.is_empty() => made,
        made => {
            wrong.extend(
                made.err()
                    .into_iter()
                    .flat_map(|failure| failure.violations),
            );
            Err(Failure::invalid_fields(wrong))
        }
    }
}

fn missing(name: &str) -> Failure {
    Failure::invalid_field(format!("spec.params.{name}"), "is required")
}

fn unknown_params(
    given: &BTreeMap<String, Value>,
    is_known: impl Fn(&str) -> bool,
    description: &str,
) -> Vec<Violation> {
    let unknown = given.keys().filter(|name| !is_known(name));
    unknown
        .map(|name| Violation {
            field: format!("spec.params.{name}"),
            description: description.to_owned(),
        })
        .collect()
}

fn check_definition(key: &str, definition: &DefinitionOptions, dialect: Dialect) -> Vec<Invalid> {
    let invalid = |key: String, message: String| Invalid { key, message };
    let rewritten = match placeholders::rewrite(&definition.sql, dialect) {
        Ok(rewritten) => rewritten,
        Err(error) => return vec![invalid(format!("{key}.sql"), error.to_string())],
    };
    let used = rewritten.distinct_names();
    let undeclared = used
        .iter()
        .filter(|name| !definition.params.contains_key(**name));
    let mut wrong: Vec<_> = undeclared
        .map(|name| {
            let message = format!("the SQL uses :{name}, which is not declared");
            invalid(format!("{key}.params"), message)
        })
        .collect();
    for (name, options) in &definition.params {
        let key = format!("{key}.params.{name}");
        if let Some(default) = &options.default
            && let Err(message) = options.r#type.value(default)
        {
            wrong.push(invalid(format!("{key}.default"), message));
        }
        if !used.contains(&name.as_str()) {
            wrong.push(invalid(key, "the SQL does not use it".to_owned()));
        }
    }
    wrong
}

/// The scheme decides the database. Messages never repeat the URL: it may hold a password.
fn open(options: &SourceOptions) -> Result<(Arc<dyn Source>, Dialect), String> {
    let url = options.url.expose_secret();
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    Ok(match scheme {
        "postgres" | "postgresql" => (Arc::new(PostgresSource::new(url)?), Dialect::Postgres),
        "sqlite" => (Arc::new(SqliteSource::new(url)?), Dialect::Sqlite),
        "mysql" => (Arc::new(MysqlSource::new(url)?), Dialect::Mysql),
        _ => return Err("must begin with postgres://, mysql:// or sqlite://".to_owned()),
    })
}
