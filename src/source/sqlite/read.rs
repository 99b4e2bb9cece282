//! Runs a query: prepare, bind, look at the first rows, then fill batches.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{Schema, SchemaRef},
};
use rusqlite::{Rows, Statement, types::ValueRef};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        BATCH_AGE_MAX, BatchOut, Description, Error, Estimate, Query, QueryText, ReadOptions,
        ReadSummary, TableQuery,
        placeholders::{self, Dialect},
        table,
    },
    bind::bind,
    column::Column,
    error::{is_interrupt, preparing, running},
    session::Session,
    typing::{self, Declared, Kind},
    watch::{Ticks, Watch},
};

/// The first rows, which give columns their types. Not the batch's size: that may change between describing and reading.
const TYPING_ROWS: usize = 4096;
const TYPING_BYTES: usize = 4 << 20;
/// No count goes further: beyond it the exact number changes no decision.
const COUNT_MAX: u64 = 100_000_000;

pub fn read(
    path: &Path,
    query: &Query,
    options: &ReadOptions,
    out: &mut dyn BatchOut,
) -> Result<ReadSummary, Error> {
    rows(path, query, options, out).map_err(|error| error.blamed_on(&query.text))
}

fn rows(
    path: &Path,
    query: &Query,
    options: &ReadOptions,
    out: &mut dyn BatchOut,
) -> Result<ReadSummary, Error> {
    let session = Session::open(path, options.cancel.clone(), options.statement_timeout)?;
    let watch = &session.watch;
    watch.resume();
    let mut statement = prepare(&session, query)?;
    let declared = declared(&statement)?;
    let mut rows = statement.raw_query();
    let first = First::take(&mut rows, declared.len(), watch)?;
    let types = first.types(&declared)?;

    watch.pause();
    out.schema(Arc::clone(&types.schema))
        .map_err(|closed| watch.verdict().unwrap_or_else(|| closed.into()))?;
    watch.resume();
    let rows_max = options.rows_max.unwrap_or(u64::MAX);
    let mut batches = Batches {
        columns: types.kinds.iter().map(|kind| Column::new(*kind)).collect(),
        declared: &declared,
        schema: types.schema,
        rows_before: 0,
        rows: 0,
        bytes: 0,
        due: Ticks::default(),
        options,
        watch,
        out,
    };
    for row in first.rows() {
        if batches.total() >= rows_max {
            break;
        }
        batches.push(|column| Ok(row[column].value()))?;
    }
    if !first.complete {
        while batches.total() < rows_max {
            let Some(row) = step(&mut rows, watch)? else {
                break;
            };
            batches.push(|column| row.get_ref(column).map_err(|error| running(&error)))?;
        }
    }
    batches.flush()?;
    Ok(ReadSummary::default())
}

pub fn describe(
    path: &Path,
    query: &Query,
    cancel: CancellationToken,
    limit: Duration,
) -> Result<Description, Error> {
    described(path, query, cancel, limit).map_err(|error| error.blamed_on(&query.text))
}

fn described(
    path: &Path,
    query: &Query,
    cancel: CancellationToken,
    limit: Duration,
) -> Result<Description, Error> {
    let session = Session::open(path, cancel, limit)?;
    session.watch.resume();
    let mut statement = prepare(&session, query)?;
    let declared = declared(&statement)?;
    let mut rows = statement.raw_query();
    let first = First::take(&mut rows, declared.len(), &session.watch)?;
    let types = first.types(&declared)?;
    Ok(Description {
        schema: types.schema,
        warnings: types.warnings,
    })
}

/// A count where it comes in time, which for a whole table it mostly does; else, of a table, its largest rowid.
pub fn estimate(
    path: &Path,
    query: &Query,
    cancel: CancellationToken,
    patience: Duration,
) -> Result<Option<Estimate>, Error> {
    let session = Session::open(path, cancel.clone(), patience)?;
    session.watch.resume();
    // The query itself must be good, whatever becomes of the count.
    drop(prepare(&session, query).map_err(|error| error.blamed_on(&query.text))?);
    let (inner, rewritten, limit) = match &query.text {
        QueryText::Table(of) => {
            let all = TableQuery {
                order_by: Vec::new(),
                limit: None,
                ..of.clone()
            };
            let name = table::quoted_name(&all, Dialect::Sqlite);
            (name, None, of.limit)
        }
        QueryText::Sql { sql, .. } => {
            let rewritten =
                placeholders::rewrite(sql, Dialect::Sqlite)?.expand_lists(&query.params);
            let inner = format!("(select 1 from (\n{}\n) limit {COUNT_MAX})", rewritten.sql);
            (inner, Some(rewritten), None)
        }
    };
    let names = rewritten.map_or_else(Vec::new, |rewritten| rewritten.names);
    let counted = one_number(
        &session,
        &format!("select count(*) from {inner}"),
        &names,
        query,
    );
    let (rows, origin) = match (counted, &query.text) {
        (Some(rows), _) => (rows, "count"),
        (None, QueryText::Table(_)) => {
            // The watch has had its say. This is one step down a table's tree, but a view may be read for it.
            drop(session);
            let session = Session::open(path, cancel, patience)?;
            session.watch.resume();
            match one_number(
                &session,
                &format!("select max(rowid) from {inner}"),
                &[],
                query,
            ) {
                Some(rows) => (rows, "planner"),
                None => return Ok(None),
            }
        }
        (None, _) => return Ok(None),
    };
    Ok(Some(match limit {
        Some(limit) if limit < rows => Estimate {
            rows: limit,
            origin: "limit",
        },
        _ => Estimate { rows, origin },
    }))
}

/// `None` where the statement can't be prepared, is interrupted, or gives no number.
fn one_number(session: &Session, sql: &str, names: &[String], query: &Query) -> Option<u64> {
    let mut statement = session.connection.prepare(sql).ok()?;
    bind(&mut statement, names, &query.params).ok()?;
    let mut rows = statement.raw_query();
    let row = rows.next().ok()??;
    let number: i64 = row.get(0).ok()?;
    u64::try_from(number).ok()
}

fn prepare<'a>(session: &'a Session, query: &Query) -> Result<Statement<'a>, Error> {
    let rewritten = match &query.text {
        QueryText::Table(of) => {
            placeholders::rewrite(&table::select(of, "*", Dialect::Sqlite), Dialect::Sqlite)?
        }
        QueryText::Sql { sql, .. } => {
            placeholders::rewrite(sql, Dialect::Sqlite)?.expand_lists(&query.params)
        }
    };
    let mut statement = session
        .connection
        .prepare(&rewritten.sql)
        .map_err(|error| {
            stopped(&error, &session.watch)
                .unwrap_or_else(|| preparing(error, &query.text, &rewritten))
        })?;
    check(&statement)?;
    bind(&mut statement, &rewritten.names, &query.params)?;
    Ok(statement)
}

fn check(statement: &Statement<'_>) -> Result<(), Error> {
    if statement.column_count() == 0 || !statement.readonly() {
        return Err(Error::Rejected {
            sqlstate: None,
            message: "the statement returns no rows".to_owned(),
            position: None,
        });
    }
    Ok(())
}

/// Names and declared types of the result's columns.
fn declared(statement: &Statement<'_>) -> Result<Vec<Declared>, Error> {
    // rusqlite panics on names that are no UTF-8, and a file may hold any bytes.
    catch_unwind(AssertUnwindSafe(|| {
        let columns = statement.columns();
        let declared = columns.iter().map(|column| Declared {
            name: column.name().to_owned(),
            r#type: column.decl_type().unwrap_or_default().to_owned(),
        });
        declared.collect()
    }))
    .map_err(|_| Error::Query {
        sqlstate: None,
        message: "a column's name is not valid UTF-8".to_owned(),
        retryable: false,
    })
}

fn step<'a, 'b>(
    rows: &'a mut Rows<'b>,
    watch: &Watch,
) -> Result<Option<&'a rusqlite::Row<'b>>, Error> {
    rows.next()
        .map_err(|error| stopped(&error, watch).unwrap_or_else(|| running(&error)))
}

/// What the watch says, where it was the watch that stopped the query.
fn stopped(error: &rusqlite::Error, watch: &Watch) -> Option<Error> {
    is_interrupt(error).then(|| watch.verdict()).flatten()
}

/// The rows that give columns their types, kept to be exported after that.
struct First {
    /// Row by row.
    values: Vec<Owned>,
    columns: usize,
    /// There are no more rows.
    complete: bool,
}

struct Types {
    kinds: Vec<Kind>,
    schema: SchemaRef,
    warnings: Vec<String>,
}

impl First {
    fn take(rows: &mut Rows<'_>, columns: usize, watch: &Watch) -> Result<Self, Error> {
        let mut first = Self {
            values: Vec::new(),
            columns,
            complete: false,
        };
        let mut bytes = 0;
        while first.values.len() < TYPING_ROWS * columns && bytes < TYPING_BYTES {
            let Some(row) = step(rows, watch)? else {
                first.complete = true;
                break;
            };
            for column in 0..columns {
                let value = row.get_ref(column).map_err(|error| running(&error))?;
                bytes += bytes_of(value);
                first.values.push(Owned::of(value));
            }
        }
        Ok(first)
    }

    fn rows(&self) -> impl Iterator<Item = &[Owned]> + Clone {
        self.values.chunks_exact(self.columns)
    }

    fn types(&self, declared: &[Declared]) -> Result<Types, Error> {
        let (mut kinds, mut fields, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for (index, declared) in declared.iter().enumerate() {
            let values = self.rows().map(|row| row[index].value());
            let decided = typing::decide(declared, values.clone()).map_err(|misfit| {
                let found = values.clone().nth(misfit.index).unwrap_or(ValueRef::Null);
                type_changed(misfit.index as u64, declared, misfit.expected, found)
            })?;
            fields.push(declared.field(decided.kind));
            kinds.push(decided.kind);
            warnings.extend(decided.warning);
        }
        Ok(Types {
            kinds,
            schema: Arc::new(Schema::new(fields)),
            warnings,
        })
    }
}

fn bytes_of(value: ValueRef<'_>) -> usize {
    size_of::<Owned>()
        + match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
            _ => 0,
        }
}

/// A value that outlives its row. (rusqlite's own keeps text only where it is UTF-8.)
enum Owned {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Owned {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    fn value(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }
}

fn type_changed(row: u64, declared: &Declared, expected: String, found: ValueRef<'_>) -> Error {
    let found = match found {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "an integer",
        ValueRef::Real(_) => "a real",
        ValueRef::Text(bytes) if std::str::from_utf8(bytes).is_err() => "text that is no UTF-8",
        ValueRef::Text(_) => "text",
        ValueRef::Blob(_) => "a blob",
    };
    Error::TypeChanged {
        row,
        column: declared.name.clone(),
        expected: format!("{expected} (a CAST in the query gives the column one type)"),
        found: format!("{found} that doesn't fit"),
    }
}

/// Fills batches and hands them over.
struct Batches<'a> {
    columns: Vec<Column>,
    declared: &'a [Declared],
    schema: SchemaRef,
    /// In batches that were handed over.
    rows_before: u64,
    rows: usize,
    bytes: usize,
    /// When the batch is closed, however small. SQLite gives no turn between two rows: what is due goes with the next row.
    due: Ticks,
    options: &'a ReadOptions,
    watch: &'a Watch,
    out: &'a mut dyn BatchOut,
}

impl Batches<'_> {
    fn total(&self) -> u64 {
        self.rows_before + self.rows as u64
    }

    fn push<'v>(
        &mut self,
        value: impl Fn(usize) -> Result<ValueRef<'v>, Error>,
    ) -> Result<(), Error> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            let value = value(index)?;
            self.bytes += column.append(value).ok_or_else(|| {
                let row = self.rows_before + self.rows as u64;
                type_changed(row, &self.declared[index], column.kind.describe(), value)
            })?;
        }
        let now = self.watch.ticks();
        if self.rows == 0 {
            self.due = now.after(BATCH_AGE_MAX);
        }
        self.rows += 1;
        if self.rows >= self.options.batch_rows_now()
            || self.bytes >= self.options.batch_bytes_max
            || now >= self.due
        {
            self.flush()?;
        }
        Ok(())
    }

    /// The receiver's time is not SQLite's.
    fn flush(&mut self) -> Result<(), Error> {
        if self.rows == 0 {
            return Ok(());
        }
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .expect("arrays have the types of the schema they were made from");
        self.rows_before += self.rows as u64;
        (self.rows, self.bytes) = (0, 0);
        self.watch.pause();
        let taken = self.out.batch(batch);
        if let Some(stop) = self.watch.verdict() {
            return Err(stop);
        }
        self.watch.resume();
        Ok(taken?)
    }
}
