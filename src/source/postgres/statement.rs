//! From a [`Query`] to a prepared statement with its parameters, and what the planner says about it.

use sqlx::{
    Arguments as _, AssertSqlSafe, Either, Executor as _, Row as _, SqlSafeStr as _,
    Statement as _,
    postgres::{PgArguments, PgStatement, PgTypeInfo, types::Oid},
};

use super::{
    bind::{self, Bound},
    columns::{self, Column, Mapping, NotNull},
    failures::{self, Blame, Phase},
    session::{Session, cell},
};
use crate::{
    export::Failure,
    source::{
        Error, Param, Query, QueryText,
        placeholders::{self, Dialect, Rewritten},
        table,
    },
};

/// In every server's list: read_only_sql_transaction.
const WRITES: &str = "25006";
const EXPLAIN: &str = "explain (format json) ";
/// What a statement that reads begins with. A live stream is never explained, which would refuse the others.
const READING: [&str; 4] = ["select", "with", "values", "table"];

/// A statement that the server accepted.
pub struct Prepared<'q> {
    query: &'q Query,
    rewritten: Rewritten,
    /// What runs: `rewritten`, or that in a sub-select.
    sql: String,
    prefix_chars: u32,
    statement: PgStatement,
    oids: Vec<u32>,
    /// Whether the parameter at this place goes as text with a cast.
    casts: Vec<Option<String>>,
    pub columns: Vec<Column>,
}

impl<'q> Prepared<'q> {
    /// # Errors
    /// [`Error::Rejected`] with the position in the client's text, [`Error::Invalid`] for a table read of what isn't
    /// there.
    pub async fn new(
        session: &mut Session,
        query: &'q Query,
        rows_max: Option<u64>,
    ) -> Result<Self, Error> {
        let mut prepared = Self::as_written(session, query).await?;
        let word = placeholders::first_word(&prepared.sql, Dialect::Postgres);
        if prepared.statement.columns().is_empty() || !READING.contains(&word.as_str()) {
            return Err(not_a_read());
        }
        let columns = columns::look_up(&mut session.connection, prepared.statement.columns());
        prepared.columns = columns.await.map_err(failures::of_connection)?;
        let has_text = |c: &Column| c.mapping == Mapping::AsText;
        if rows_max.is_some() || prepared.columns.iter().any(has_text) {
            prepared.wrap(session, rows_max).await?;
        }
        Ok(prepared)
    }

    /// The text as it stands, with the parameter types that were declared if the server takes them, else with those
    /// that it infers.
    async fn as_written(session: &mut Session, query: &'q Query) -> Result<Self, Error> {
        let text = match &query.text {
            QueryText::Table(table) => table::select(table, "*", Dialect::Postgres),
            QueryText::Sql { sql, .. } => sql.clone(),
        };
        let rewritten = placeholders::rewrite(&text, Dialect::Postgres)?;
        let values = params(query, &rewritten)?;
        let declared: Vec<u32> = values
            .iter()
            .map(|p| bind::declared_oid(&p.value))
            .collect();
        let inferred = vec![bind::UNSPECIFIED; values.len()];
        let by_shape: Vec<u32> = values
            .iter()
            .map(|p| bind::oid_by_shape(&p.value))
            .collect();
        let mut attempts = vec![declared];
        for attempt in [inferred, by_shape] {
            if !attempts.contains(&attempt) {
                attempts.push(attempt);
            }
        }
        let mut attempts = attempts.into_iter().peekable();
        let statement = loop {
            let oids = attempts.next().unwrap_or_default();
            match prepare(session, &rewritten.sql, &oids).await {
                Ok(statement) => break statement,
                Err(error) if attempts.peek().is_some() && is_about_types(&error) => {
                    session.restart().await?;
                }
                Err(error) => return Err(refused(error, query, &rewritten, 0)),
            }
        };
        let mut prepared = Self {
            query,
            sql: rewritten.sql.clone(),
            rewritten,
            prefix_chars: 0,
            oids: told_oids(&statement),
            statement,
            casts: vec![None; values.len()],
            columns: Vec::new(),
        };
        if !prepared.oids.iter().all(|oid| bind::is_known(*oid)) {
            prepared.cast_parameters(session, &text).await?;
        }
        Ok(prepared)
    }

    /// Parameters of types without a binary form here go as text, cast in the SQL.
    async fn cast_parameters(&mut self, session: &mut Session, text: &str) -> Result<(), Error> {
        for (index, oid) in self.oids.iter_mut().enumerate() {
            if bind::is_known(*oid) {
                continue;
            }
            let sql = format!("select pg_catalog.format_type({oid}::oid, null)");
            let rows = sqlx::raw_sql(AssertSqlSafe(sql))
                .fetch_all(&mut session.connection)
                .await
                .map_err(failures::of_connection)?;
            let name = rows.first().and_then(|row| cell(row, 0)).unwrap_or("text");
            self.casts[index] = Some(name.to_owned());
            *oid = bind::TEXT;
        }
        self.rewritten = placeholders::rewrite_with_casts(text, Dialect::Postgres, &self.casts)?;
        self.sql = self.rewritten.sql.clone();
        self.statement = prepare(session, &self.sql, &self.oids)
            .await
            .map_err(|error| refused(error, self.query, &self.rewritten, self.prefix_chars))?;
        Ok(())
    }

    /// Puts the text into a sub-select, for casts to text and for a sample's limit. Columns are renamed by place, so
    /// that two of one name stay two. The order of rows holds: a sub-select with an ORDER BY is never merged into
    /// its outer query, which does nothing but compute its items.
    async fn wrap(&mut self, session: &mut Session, rows_max: Option<u64>) -> Result<(), Error> {
        let items = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| match column.mapping {
                Mapping::AsText => format!("c{index}::text"),
                _ => format!("c{index}"),
            });
        let items = items.collect::<Vec<_>>().join(", ");
        let names: Vec<_> = (0..self.columns.len()).map(|i| format!("c{i}")).collect();
        let prefix = format!("select {items} from (\n");
        let limit = rows_max.map_or(String::new(), |rows| format!(" limit {rows}"));
        // The line break ends a comment that the text may end with.
        let sql = format!(
            "{prefix}{}\n) as q({}){limit}",
            self.rewritten.sql,
            names.join(", ")
        );
        self.prefix_chars = prefix.len() as u32;
        let statement = prepare(session, &sql, &self.oids).await;
        self.statement = statement.map_err(|error| {
            let is_grammar =
                failures::sqlstate(&error).is_some_and(|s| s == "42601" || s == "0A000");
            if is_grammar {
                not_a_read()
            } else {
                refused(error, self.query, &self.rewritten, self.prefix_chars)
            }
        })?;
        self.sql = sql;
        Ok(())
    }

    pub fn statement(&self) -> &PgStatement {
        &self.statement
    }

    /// # Errors
    /// INVALID_ARGUMENT naming the parameter whose value doesn't fit.
    pub fn arguments(&self) -> Result<PgArguments, Error> {
        let mut arguments = PgArguments::default();
        let values = params(self.query, &self.rewritten)?;
        for (index, param) in values.into_iter().enumerate() {
            let bound: Bound = match &self.casts[index] {
                Some(_) => bind::bind_text(param),
                None => bind::bind(param, self.oids[index])?,
            };
            arguments.add(bound).map_err(|error| {
                Error::Invalid(Failure::internal(format!("binding a parameter: {error}")))
            })?;
        }
        Ok(arguments)
    }

    /// NOT NULL holds only where nothing stands between the table and the result.
    pub fn not_null(&self) -> NotNull {
        match self.query.text {
            QueryText::Table(_) => NotNull::Holds,
            QueryText::Sql { .. } => NotNull::Unknown,
        }
    }

    /// An error of the statement while it runs.
    pub fn failed(&self, error: sqlx::Error) -> Error {
        failures::of_query(error, Phase::Run, self.blame(self.prefix_chars))
    }

    fn blame(&self, prefix_chars: u32) -> Blame<'_> {
        blame(self.query, &self.rewritten, prefix_chars)
    }

    /// Plans the statement: that checks rights, which preparing does not, and tells how many rows to expect.
    ///
    /// # Errors
    /// [`Error::Rejected`] also for what would write or lock.
    pub async fn explain(&self, session: &mut Session) -> Result<u64, Error> {
        let sql = format!("{EXPLAIN}{}", self.sql);
        let query = sqlx::query_with(AssertSqlSafe(sql), self.arguments()?).persistent(false);
        let row = session.connection.fetch_one(query).await.map_err(|error| {
            let blame = self.blame(self.prefix_chars + EXPLAIN.len() as u32);
            match failures::sqlstate(&error).as_deref() {
                Some("42601") => not_a_read(),
                _ => failures::of_query(error, Phase::Prepare, blame),
            }
        })?;
        let text = row.try_get_raw(0).ok();
        let plan = text.and_then(|text| serde_json::from_slice(text.as_bytes().ok()?).ok());
        let plan: serde_json::Value = plan.unwrap_or_default();
        let top = &plan[0]["Plan"];
        if would_write(top) {
            return Err(not_a_read());
        }
        Ok(top["Plan Rows"].as_f64().unwrap_or(0.0) as u64)
    }
}

fn refused(error: sqlx::Error, query: &Query, rewritten: &Rewritten, prefix_chars: u32) -> Error {
    let state = failures::sqlstate(&error);
    match (state.as_deref(), &query.text) {
        (Some("42P01" | "3F000"), QueryText::Table(_)) => Error::Invalid(table::no_such_table()),
        (Some("42703"), QueryText::Table(of)) => {
            Error::Invalid(table::no_such_column(of, &error.to_string()))
        }
        _ => failures::of_query(error, Phase::Prepare, blame(query, rewritten, prefix_chars)),
    }
}

fn blame<'a>(query: &'a Query, rewritten: &'a Rewritten, prefix_chars: u32) -> Blame<'a> {
    Blame {
        origin: match &query.text {
            QueryText::Sql { origin, .. } => Some(origin),
            QueryText::Table(_) => None,
        },
        rewritten: Some(rewritten),
        prefix_chars,
    }
}

/// In the order of `$1`, `$2`, ...
fn params<'q>(query: &'q Query, rewritten: &Rewritten) -> Result<Vec<&'q Param>, Error> {
    let find = |name: &String| {
        let param = query.params.iter().find(|param| param.name == *name);
        param.ok_or_else(|| {
            let field = format!("spec.params.{name}");
            Error::Invalid(Failure::invalid_field(field, "is required"))
        })
    };
    rewritten.names.iter().map(find).collect()
}

async fn prepare(
    session: &mut Session,
    sql: &str,
    oids: &[u32],
) -> Result<PgStatement, sqlx::Error> {
    let types: Vec<_> = oids
        .iter()
        .map(|oid| PgTypeInfo::with_oid(Oid(*oid)))
        .collect();
    session
        .connection
        .prepare_with(AssertSqlSafe(sql.to_owned()).into_sql_str(), &types)
        .await
}

fn told_oids(statement: &PgStatement) -> Vec<u32> {
    match statement.parameters() {
        Some(Either::Left(types)) => types
            .iter()
            .map(|t| t.oid().map_or(bind::UNSPECIFIED, |oid| oid.0))
            .collect(),
        _ => Vec::new(),
    }
}

/// No function or operator for the declared types, a mismatch, an ambiguity, or a type that can't be told.
fn is_about_types(error: &sqlx::Error) -> bool {
    let state = failures::sqlstate(error);
    matches!(
        state.as_deref(),
        Some("42883" | "42804" | "42725" | "42846" | "42P08" | "42P18")
    )
}

fn would_write(plan: &serde_json::Value) -> bool {
    let writes = matches!(plan["Node Type"].as_str(), Some("ModifyTable" | "LockRows"));
    let children = plan["Plans"].as_array();
    writes || children.is_some_and(|plans| plans.iter().any(would_write))
}

fn not_a_read() -> Error {
    Error::Rejected {
        sqlstate: Some(WRITES.to_owned()),
        message:
            "only a statement that reads can be exported: SELECT, VALUES, TABLE, or WITH ... SELECT"
                .to_owned(),
        position: None,
    }
}
