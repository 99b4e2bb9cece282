//! Prepares a query and learns the types of its columns, without running it.

use std::{collections::BTreeSet, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, ColumnOrigin, Decode, Executor, MySql, Row,
    SqlSafeStr, Statement,
    mysql::{MySqlColumn, MySqlRow},
};

use super::{
    super::{
        Error, Param, Query, QueryText,
        placeholders::{self, Dialect},
        table,
    },
    bind::{self, bind},
    columns::{self, Kind, Planned, Wire},
    error::{preparing, refused},
    session::Session,
};

/// Tables whose definitions are looked up; a query over more gets its decimals from the probe.
const TABLES_MAX: usize = 32;
/// A derived table takes no others, and these don't return a table's rows.
const NOT_DERIVABLE: [&str; 4] = ["show", "explain", "describe", "desc"];
const READING: [&str; 8] = [
    "select", "with", "values", "table", "show", "explain", "describe", "desc",
];

/// A query that the server has accepted.
pub struct Plan {
    /// With `?` for parameters.
    pub sql: String,
    /// One for each `?`, and for each list.
    pub names: Vec<String>,
    pub columns: Vec<Planned>,
}

impl Plan {
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<_> = self.columns.iter().map(Planned::field).collect();
        Arc::new(Schema::new(fields))
    }
}

pub async fn plan(session: &mut Session, query: &Query) -> Result<Plan, Error> {
    prepare(session, query)
        .await
        .map_err(|error| error.blamed_on(&query.text))
}

async fn prepare(session: &mut Session, query: &Query) -> Result<Plan, Error> {
    let rewritten = match &query.text {
        QueryText::Table(of) => {
            placeholders::rewrite(&table::select(of, "*", Dialect::Mysql), Dialect::Mysql)?
        }
        QueryText::Sql { sql, .. } => {
            placeholders::rewrite(sql, Dialect::Mysql)?.expand(&query.params, bind::written)
        }
    };
    let word = placeholders::first_word(&rewritten.sql, Dialect::Mysql);
    if !READING.contains(&word.as_str()) {
        return Err(rejected("only statements that read are allowed"));
    }
    let statement = session
        .connection
        .prepare(AssertSqlSafe(rewritten.sql.clone()).into_sql_str())
        .await
        .map_err(|error| refused(&error, &query.text))?;
    let bound = bind(&rewritten.names, &query.params)?.len();
    if let Some(sqlx::Either::Right(count)) = statement.parameters()
        && count != bound
    {
        return Err(rejected("parameters are written as `:name`"));
    }
    let prepared = statement.columns().to_vec();
    if prepared.is_empty() {
        return Err(rejected("the statement returns no rows"));
    }
    let mut plan = Plan {
        sql: rewritten.sql,
        names: rewritten.names,
        columns: prepared.iter().map(columns::of_column).collect(),
    };
    look_up(session, &prepared, &mut plan.columns).await?;
    let has_open_decimal = plan
        .columns
        .iter()
        .any(|column| column.wire == Wire::Decimal && column.kind == Kind::Plain);
    if (has_open_decimal || !plan.names.is_empty()) && !NOT_DERIVABLE.contains(&word.as_str()) {
        probe(session, &prepared, &mut plan, &query.params).await?;
    }
    Ok(plan)
}

/// Fills in what the definitions of the tables tell: exact type names, decimals' scales, json and uuid.
async fn look_up(
    session: &mut Session,
    prepared: &[MySqlColumn],
    planned: &mut [Planned],
) -> Result<(), Error> {
    let origins: Vec<_> = prepared.iter().map(origin).collect();
    let tables: BTreeSet<_> = origins
        .iter()
        .flatten()
        .map(|origin| (origin.schema.clone(), origin.table.clone()))
        .take(TABLES_MAX)
        .collect();
    for (schema, table) in tables {
        let definitions = definitions(session, &schema, &table).await?;
        let mut json_columns = None;
        for (index, origin) in origins.iter().enumerate() {
            let Some(origin) = origin else { continue };
            if (&origin.schema, &origin.table) != (&schema, &table) {
                continue;
            }
            let Some(definition) = definitions.iter().find(|d| d.column == origin.column) else {
                continue;
            };
            let column = &mut planned[index];
            column.source_type.clone_from(&definition.column_type);
            column.kind = match (column.wire, definition.data_type.as_str()) {
                (Wire::Decimal, "decimal") => definition.decimal(&prepared[index]),
                (Wire::Text, "uuid") => Kind::Uuid,
                (Wire::Text, "longtext") if session.is_mariadb => {
                    if json_columns.is_none() {
                        json_columns = Some(create_table(session, &schema, &table).await?);
                    }
                    let check = format!(
                        "CHECK (json_valid({}))",
                        table::quote(&origin.column, Dialect::Mysql)
                    );
                    match &json_columns {
                        Some(text) if text.contains(&check) => Kind::Json,
                        _ => Kind::Plain,
                    }
                }
                _ => Kind::Plain,
            };
            if column.kind == Kind::Json {
                column.source_type = "json".to_owned();
            }
        }
    }
    Ok(())
}

struct Origin {
    schema: String,
    table: String,
    column: String,
}

/// Where a column comes from, if it is one of a table.
fn origin(column: &MySqlColumn) -> Option<Origin> {
    let ColumnOrigin::Table(of) = column.origin() else {
        return None;
    };
    let (schema, table) = of.table.split_once('.')?;
    Some(Origin {
        schema: schema.to_owned(),
        table: table.to_owned(),
        column: of.name.to_string(),
    })
}

struct Definition {
    column: String,
    /// `decimal`.
    data_type: String,
    /// `decimal(12,2) unsigned`.
    column_type: String,
    precision: Option<u8>,
    scale: Option<u8>,
}

impl Definition {
    /// The column's own precision where it is this column as it stands; in a union it may have become a wider one.
    fn decimal(&self, prepared: &MySqlColumn) -> Kind {
        match (self.precision, self.scale) {
            (Some(precision), Some(scale))
                if columns::decimal_precision(prepared.type_info(), scale) == Some(precision) =>
            {
                Kind::Decimal { precision, scale }
            }
            _ => Kind::Plain,
        }
    }
}

async fn definitions(
    session: &mut Session,
    schema: &str,
    table: &str,
) -> Result<Vec<Definition>, Error> {
    let rows = sqlx::query(
        "select column_name, data_type, column_type, cast(numeric_precision as char), \
         cast(numeric_scale as char) from information_schema.columns \
         where table_schema = ? and table_name = ?",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(&mut session.connection)
    .await
    .map_err(|error| preparing(&error))?;
    let definitions = rows.iter().map(|row| Definition {
        column: text(row, 0).unwrap_or_default(),
        data_type: text(row, 1).unwrap_or_default(),
        column_type: text(row, 2).unwrap_or_default(),
        precision: text(row, 3).and_then(|text| text.parse().ok()),
        scale: text(row, 4).and_then(|text| text.parse().ok()),
    });
    Ok(definitions.collect())
}

/// MariaDB's `json` is a `longtext` with a check, which only this tells whoever may no more than read the table.
async fn create_table(session: &mut Session, schema: &str, table: &str) -> Result<String, Error> {
    let sql = format!(
        "show create table {}.{}",
        table::quote(schema, Dialect::Mysql),
        table::quote(table, Dialect::Mysql)
    );
    match sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_one(&mut session.connection)
        .await
    {
        Ok(row) => Ok(text(&row, 1).unwrap_or_default()),
        // A view's columns may come from tables that the reader can't look at.
        Err(sqlx::Error::Database(_)) => Ok(String::new()),
        Err(error) => Err(preparing(&error)),
    }
}

/// Asks for one row of the same types, without the query's rows: an empty result and one row of zeros and NULLs. Each
/// decimal comes with its scale written out, and what depends on a parameter has the type that it gets from its value.
/// (Tried: MariaDB answers without touching the query's tables, `limit 0` comes first.)
async fn probe(
    session: &mut Session,
    prepared: &[MySqlColumn],
    plan: &mut Plan,
    params: &[Param],
) -> Result<(), Error> {
    let names: Vec<_> = prepared
        .iter()
        .map(|column| table::quote(column.name(), Dialect::Mysql))
        .collect();
    let zeros: Vec<_> = plan
        .columns
        .iter()
        .map(|column| {
            if column.wire == Wire::Decimal {
                "0"
            } else {
                "null"
            }
        })
        .collect();
    let sql = format!(
        "(select {} from (\n{}\n) as rowgate_probe limit 0) union all (select {})",
        names.join(", "),
        plan.sql,
        zeros.join(", ")
    );
    let row = sqlx::query_with(AssertSqlSafe(sql), bind(&plan.names, params)?)
        .persistent(false)
        .fetch_one(&mut session.connection)
        .await;
    let row = match row {
        Ok(row) => row,
        // Two columns of one name, or a query that can't be a derived table: the types stay as prepared.
        Err(sqlx::Error::Database(_)) => return Ok(()),
        Err(error) => return Err(preparing(&error)),
    };
    for (index, planned) in plan.columns.iter_mut().enumerate() {
        let probed = row.column(index);
        if origin(&prepared[index]).is_none() && !plan.names.is_empty() {
            let of_value = columns::of_column(probed);
            planned.wire = of_value.wire;
            planned.source_type = of_value.source_type;
        }
        if planned.wire == Wire::Decimal && planned.kind == Kind::Plain {
            let scale = text(&row, index).and_then(|zero| scale(&zero));
            let precision = scale.and_then(|scale| {
                columns::decimal_precision(prepared[index].type_info(), scale)
                    .or_else(|| columns::decimal_precision(probed.type_info(), scale))
            });
            if let (Some(precision), Some(scale)) = (precision, scale) {
                planned.kind = Kind::Decimal { precision, scale };
            }
        }
    }
    Ok(())
}

/// Digits behind the point of `0.000`.
fn scale(zero: &str) -> Option<u8> {
    let digits = zero.split_once('.').map_or(0, |(_, digits)| digits.len());
    u8::try_from(digits).ok()
}

/// A value's bytes as the server sent them; `None` is NULL.
pub fn raw(row: &MySqlRow, index: usize) -> Option<&[u8]> {
    let value = row.try_get_raw(index).ok()?;
    // The driver's own `is_null` takes zero dates for NULL; this fails only where there are no bytes.
    <&[u8] as Decode<MySql>>::decode(value).ok()
}

pub fn text(row: &MySqlRow, index: usize) -> Option<String> {
    String::from_utf8(raw(row, index)?.to_vec()).ok()
}

fn rejected(message: &str) -> Error {
    Error::Rejected {
        sqlstate: None,
        message: message.to_owned(),
        position: None,
    }
}
