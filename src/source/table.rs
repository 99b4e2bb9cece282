//! Table reads: names as clients write them, the allow-list, and the SELECT that comes of them.
//!
//! Names are exact and quoted here; nothing of a client's text reaches the SQL unquoted.

use super::{Direction, OrderBy, TableQuery, placeholders::Dialect};
use crate::export::{Failure, TableRead, Violation};

/// A bound on what one ORDER BY may list; PostgreSQL's own is 1,664.
const ORDER_BY_MAX: usize = 64;
/// Longer than any of the databases allows.
const NAME_BYTES_MAX: usize = 512;

/// # Errors
/// INVALID_ARGUMENT naming every field that is wrong: an empty or overlong name, more than one dot, an order without a
/// column.
pub fn parse(read: &TableRead) -> Result<TableQuery, Failure> {
    let mut wrong = Vec::new();
    let (schema, table) = match read.name.split_once('.') {
        Some((schema, table)) => (Some(schema), table),
        None => (None, read.name.as_str()),
    };
    let parts = schema.into_iter().chain([table]);
    let problem = match table.contains('.') {
        true => Some("must be `table` or `schema.table`"),
        false => parts.into_iter().find_map(name_problem),
    };
    if let Some(problem) = problem {
        wrong.push(violation("spec.table.name".to_owned(), problem));
    }
    if read.order_by.len() > ORDER_BY_MAX {
        let problem = format!("must list at most {ORDER_BY_MAX} columns");
        wrong.push(violation("spec.table.order_by".to_owned(), problem));
    }
    let order_by: Vec<_> = read
        .order_by
        .iter()
        .map(|entry| parse_order(entry))
        .collect();
    for (index, order) in order_by.iter().enumerate().take(ORDER_BY_MAX) {
        if let Some(problem) = name_problem(&order.column) {
            wrong.push(violation(format!("spec.table.order_by[{index}]"), problem));
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::invalid_fields(wrong));
    }
    Ok(TableQuery {
        schema: schema.map(str::to_owned),
        table: table.to_owned(),
        order_by,
        limit: read.limit,
    })
}

fn violation(field: String, description: impl Into<String>) -> Violation {
    Violation {
        field,
        description: description.into(),
    }
}

/// `column`, `column asc` or `column desc`. A column whose own name ends in one of these words is followed by another.
fn parse_order(entry: &str) -> OrderBy {
    let (column, direction) = match entry.rsplit_once(' ') {
        Some((column, word)) if word.eq_ignore_ascii_case("asc") => (column, Direction::Ascending),
        Some((column, word)) if word.eq_ignore_ascii_case("desc") => {
            (column, Direction::Descending)
        }
        _ => (entry, Direction::Ascending),
    };
    OrderBy {
        column: column.trim().to_owned(),
        direction,
    }
}

/// The database's word that there is no such table, as the client's field.
pub fn no_such_table() -> Failure {
    Failure::invalid_field("spec.table.name", "there is no such table")
}

/// The database's word that there is no such column: in a table read, only `order_by` names any. `message` is the
/// database's, which repeats the name.
pub fn no_such_column(query: &TableQuery, message: &str) -> Failure {
    let named = query.order_by.iter().enumerate();
    let named = named
        .filter(|(_, order)| message.contains(&order.column))
        .max_by_key(|(_, order)| order.column.len());
    match named {
        Some((index, order)) => Failure::invalid_field(
            format!("spec.table.order_by[{index}]"),
            format!("the table has no column {:?}", order.column),
        ),
        None => Failure::invalid_field("spec.table.order_by", "the table has no such column"),
    }
}

fn name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("must not be empty")
    } else if name.len() > NAME_BYTES_MAX {
        Some("is too long for a name")
    } else if name.contains('\0') {
        Some("must not hold a NUL character")
    } else {
        None
    }
}

/// Whether the allow-list names the table. `*` stands for any text within one name and, alone, for every table. Where
/// the database has schemas, a pattern without one means the default schema.
pub fn is_allowed(patterns: &[String], default_schema: Option<&str>, query: &TableQuery) -> bool {
    let schema = query.schema.as_deref().or(default_schema);
    patterns.iter().any(|pattern| {
        if pattern == "*" {
            return true;
        }
        let (of_schema, of_table) = match pattern.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, pattern.as_str()),
        };
        let schema_matches = match (of_schema, schema) {
            (Some(pattern), Some(schema)) => glob(pattern, schema),
            (None, schema) => schema == default_schema,
            (Some(_), None) => false,
        };
        schema_matches && glob(of_table, &query.table)
    })
}

/// `*` matches any text, also none. Everything else is itself.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().expect("splitting gives at least one part");
    // The first place is the best place for everything but the tail.
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

pub fn quote(name: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres | Dialect::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
        Dialect::Mysql => format!("`{}`", name.replace('`', "``")),
    }
}

/// The table's name with its schema, quoted.
pub fn quoted_name(query: &TableQuery, dialect: Dialect) -> String {
    match &query.schema {
        Some(schema) => format!(
            "{}.{}",
            quote(schema, dialect),
            quote(&query.table, dialect)
        ),
        None => quote(&query.table, dialect),
    }
}

/// `select ITEMS from TABLE order by ... limit ...`; `items` is `*` or a list that the source has written.
pub fn select(query: &TableQuery, items: &str, dialect: Dialect) -> String {
    let mut sql = format!("select {items} from {}", quoted_name(query, dialect));
    for (index, order) in query.order_by.iter().enumerate() {
        sql.push_str(if index == 0 { " order by " } else { ", " });
        sql.push_str(&quote(&order.column, dialect));
        if order.direction == Direction::Descending {
            sql.push_str(" desc");
        }
    }
    if let Some(limit) = query.limit {
        sql.push_str(&format!(" limit {limit}"));
    }
    sql
}

#[cfg(test)]
mod tests;
