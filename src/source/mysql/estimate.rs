//! How many rows the server's planner expects.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{
    AssertSqlSafe, Column as _, Row,
    mysql::{MySqlConnectOptions, MySqlRow},
};

use super::{
    super::{
        Error, Estimate, Query, QueryText, TableQuery,
        placeholders::{self, Dialect},
        table,
    },
    bind::{self, bind},
    columns::{self, Wire},
    error::preparing,
    plan::{raw, text},
    session::Session,
};

/// The server itself ends what takes longer than `patience`: the caller may be gone by then.
pub async fn estimate(
    connect: &MySqlConnectOptions,
    query: &Query,
    patience: Duration,
) -> Result<Option<Estimate>, Error> {
    let mut session = Session::open(connect).await?;
    session.limit_statements(patience).await?;
    let (sql, limit) = match &query.text {
        QueryText::Table(of) => {
            let all = TableQuery {
                order_by: Vec::new(),
                limit: None,
                ..of.clone()
            };
            (table::select(&all, "*", Dialect::Mysql), of.limit)
        }
        QueryText::Sql { sql, .. } => (sql.clone(), None),
    };
    let rewritten =
        placeholders::rewrite(&sql, Dialect::Mysql)?.expand(&query.params, bind::written);
    let explain = if session.is_mariadb {
        "explain extended"
    } else {
        "explain format=traditional"
    };
    let rows = sqlx::query_with(
        AssertSqlSafe(format!("{explain} {}", rewritten.sql)),
        bind(&rewritten.names, &query.params)?,
    )
    .persistent(false)
    .fetch_all(&mut session.connection)
    .await;
    let rows = match rows {
        Ok(rows) => rows,
        // What is wrong with the query is told by describing it.
        Err(sqlx::Error::Database(_)) => return Ok(None),
        Err(error) => return Err(preparing(&error)),
    };
    session.close().await;
    let steps: Vec<_> = rows.iter().filter_map(Step::of).collect();
    Ok(expected(&steps).map(|rows| match limit {
        Some(limit) if limit < rows => Estimate {
            rows: limit,
            origin: "limit",
        },
        _ => Estimate {
            rows,
            origin: "planner",
        },
    }))
}

/// One line of EXPLAIN.
#[derive(Clone, PartialEq, Debug)]
struct Step {
    select: u64,
    /// Of the query itself, not of a sub-query or derived table.
    is_outer: bool,
    /// After the conditions on it; for joins, for each row of the step before.
    rows: f64,
}

impl Step {
    fn of(row: &MySqlRow) -> Option<Self> {
        let find = |name: &str| {
            row.columns()
                .iter()
                .position(|column| column.name().eq_ignore_ascii_case(name))
        };
        let number = |name: &str| number(row, find(name)?);
        let select_type = text(row, find("select_type")?)?;
        let filtered = number("filtered").unwrap_or(100.0);
        Some(Self {
            select: number("id").unwrap_or_default() as u64,
            is_outer: matches!(select_type.as_str(), "SIMPLE" | "PRIMARY" | "UNION"),
            // No table, or a condition that is never true: one row at most.
            rows: number("rows").map_or(1.0, |rows| rows * filtered / 100.0),
        })
    }
}

/// Steps of one select multiply, selects of a union add up.
fn expected(steps: &[Step]) -> Option<u64> {
    let mut selects: BTreeMap<u64, f64> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.is_outer) {
        *selects.entry(step.select).or_insert(1.0) *= step.rows;
    }
    let total: f64 = selects.values().sum();
    // As `as` does it: what is beyond u64 is its largest.
    (!selects.is_empty()).then(|| total.ceil() as u64)
}

/// EXPLAIN's numbers are integers, doubles or texts, by server and version.
fn number(row: &MySqlRow, index: usize) -> Option<f64> {
    let bytes = raw(row, index)?;
    match columns::wire(row.column(index).type_info()) {
        Wire::LongLong { .. } => Some(u64::from_le_bytes(bytes.try_into().ok()?) as f64),
        Wire::Long { .. } => Some(f64::from(u32::from_le_bytes(bytes.try_into().ok()?))),
        Wire::Double => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        Wire::Float => Some(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        _ => std::str::from_utf8(bytes).ok()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(select: u64, is_outer: bool, rows: f64) -> Step {
        Step {
            select,
            is_outer,
            rows,
        }
    }

    #[test]
    fn joins_multiply_and_unions_add() {
        assert_eq!(expected(&[]), None);
        let join = [step(1, true, 100.0), step(1, true, 2.5)];
        assert_eq!(expected(&join), Some(250));
        let union = [
            step(1, true, 100.0),
            step(2, true, 7.0),
            step(3, false, 1e9),
        ];
        assert_eq!(expected(&union), Some(107));
        assert_eq!(expected(&[step(1, true, f64::MAX)]), Some(u64::MAX));
    }
}
