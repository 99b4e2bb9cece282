//! `ExportSpec`.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use jiff::tz::TimeZone;
use prost::Message;

use super::{
    check::Check,
    format::{format_from_proto, format_to_proto},
    value::{duration_to_proto, int64, json_to_value, param},
};
use crate::{
    export::{Column, ExportSpec, Failure, ReadFrom, TableRead},
    rpc::pb::{self, export_spec::From},
};

/// A spec is stored with its job and read at every claim.
const SPEC_BYTES_MAX: usize = 1024 * 1024;
const NAME_BYTES_MAX: usize = 256;
const SQL_BYTES_MAX: usize = 256 * 1024;
/// The expression compiler has tighter bounds, on size and depth; this one keeps the text away from it.
const EXPRESSION_BYTES_MAX: usize = 64 * 1024;
const COLUMNS_MAX: usize = 2000;
const ORDER_BY_MAX: usize = 64;
const PARAMS_MAX: usize = 200;
const LABELS_MAX: usize = 64;
const LABEL_KEY_BYTES_MAX: usize = 63;
const LABEL_VALUE_BYTES_MAX: usize = 255;
/// What file systems and browsers take.
const FILE_NAME_BYTES_MAX: usize = 200;
const HEADER_BYTES_MAX: usize = 1024;
/// Excel's bounds.
const NUMBER_FORMAT_BYTES_MAX: usize = 255;
const COLUMN_WIDTH_MAX: f64 = 255.0;
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const PRIORITY_MAX: i32 = 9;

/// # Errors
/// INVALID_ARGUMENT with every violation; field paths begin with `spec.`.
pub fn spec_from_proto(spec: pb::ExportSpec) -> Result<ExportSpec, Failure> {
    let mut check = Check::default();
    let spec = checked_spec(&mut check, spec);
    check.finish(spec)
}

/// A placeholder where something was refused: the caller finishes the check before it uses the spec.
pub fn checked_spec(check: &mut Check, spec: pb::ExportSpec) -> ExportSpec {
    let bytes = spec.encoded_len();
    if bytes > SPEC_BYTES_MAX {
        check.refuse(
            "spec",
            format!("takes {bytes} bytes; at most {SPEC_BYTES_MAX} are accepted"),
        );
    }
    let right = "name a source of this server; ListSources lists them";
    ExportSpec {
        source: check.required("spec.source", spec.source, NAME_BYTES_MAX, right),
        from: read_from(check, spec.from),
        params: params(check, spec.params),
        columns: columns(check, spec.columns),
        filter: check.optional("spec.filter", spec.filter, EXPRESSION_BYTES_MAX),
        format: spec
            .format
            .and_then(|format| format_from_proto(check, "spec.format", format)),
        file_name: file_name(check, spec.file_name),
        time_zone: time_zone(check, spec.time_zone),
        ttl: check.duration("spec.ttl", spec.ttl, Duration::from_secs(1)..=TTL_MAX),
        labels: labels(check, "spec.labels", spec.labels),
        priority: priority(check, spec.priority),
    }
}

fn read_from(check: &mut Check, from: Option<From>) -> ReadFrom {
    match from {
        Some(From::Definition(name)) => {
            let right = "name a definition of the source; ListSources lists them";
            ReadFrom::Definition(check.required("spec.definition", name, NAME_BYTES_MAX, right))
        }
        Some(From::Sql(sql)) => {
            let right = "send one SELECT statement";
            ReadFrom::Sql(check.required("spec.sql", sql, SQL_BYTES_MAX, right))
        }
        Some(From::Table(table)) => ReadFrom::Table(table_read(check, table)),
        None => {
            check.refuse(
                "spec.from",
                "is missing; set one of definition, table and sql",
            );
            ReadFrom::Sql(String::new())
        }
    }
}

fn table_read(check: &mut Check, table: pb::TableRead) -> TableRead {
    check.count("spec.table.order_by", table.order_by.len(), ORDER_BY_MAX);
    let order_by = table.order_by.into_iter().enumerate().map(|(i, entry)| {
        let right = "send `column`, `column asc` or `column desc`";
        let field = format!("spec.table.order_by[{i}]");
        check.required(&field, entry, NAME_BYTES_MAX, right)
    });
    let order_by = order_by.collect();
    let right = "send `table` or `schema.table`";
    TableRead {
        name: check.required("spec.table.name", table.name, NAME_BYTES_MAX, right),
        order_by,
        limit: check.not_negative(
            "spec.table.limit",
            table.limit,
            "send 0 for no limit, or a positive number of rows",
        ),
    }
}

fn params(
    check: &mut Check,
    params: BTreeMap<String, prost_types::Value>,
) -> BTreeMap<String, serde_json::Value> {
    check.count("spec.params", params.len(), PARAMS_MAX);
    let params = params.into_iter().map(|(name, value)| {
        let field = format!("spec.params.{name}");
        let right = "a parameter needs a name";
        let name = check.required(&field, name, NAME_BYTES_MAX, right);
        (name, param(check, &field, value))
    });
    params.collect()
}

fn columns(check: &mut Check, columns: Vec<pb::Column>) -> Vec<Column> {
    check.count("spec.columns", columns.len(), COLUMNS_MAX);
    let mut seen = HashSet::new();
    let columns = columns.into_iter().enumerate().map(|(i, column)| {
        let field = format!("spec.columns[{i}]");
        if !column.name.is_empty() && !seen.insert(column.name.clone()) {
            check.refuse(
                format!("{field}.name"),
                format!("{:?} is the name of an earlier column, too", column.name),
            );
        }
        checked_column(check, &field, column)
    });
    columns.collect()
}

fn checked_column(check: &mut Check, field: &str, column: pb::Column) -> Column {
    let width_field = format!("{field}.width");
    // Unset and 0 are the same on the wire. NaN is in no range.
    let width = (column.width != 0.0).then_some(column.width);
    if width.is_some_and(|width| !(width > 0.0 && width <= COLUMN_WIDTH_MAX)) {
        check.refuse(
            width_field,
            format!("must be a positive number of characters, {COLUMN_WIDTH_MAX} at most"),
        );
    }
    let right = "every column needs a name";
    Column {
        name: check.required(&format!("{field}.name"), column.name, NAME_BYTES_MAX, right),
        expression: check.optional(
            &format!("{field}.expression"),
            column.expression,
            EXPRESSION_BYTES_MAX,
        ),
        // A blank title is a title.
        header: (!column.header.is_empty())
            .then(|| check.text(&format!("{field}.header"), column.header, HEADER_BYTES_MAX)),
        number_format: check.optional(
            &format!("{field}.number_format"),
            column.number_format,
            NUMBER_FORMAT_BYTES_MAX,
        ),
        width,
    }
}

fn file_name(check: &mut Check, name: String) -> Option<String> {
    let field = "spec.file_name";
    let name = check.optional(field, name, FILE_NAME_BYTES_MAX)?;
    // Marks that turn the direction of text make `gpj.exe` of `exe.jpg`.
    // NUL has been named already.
    let control = |c: char| c.is_control() && c != '\0';
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if name.contains(['/', '\\']) || name == "." || name == ".." {
        check.refuse(field, "names a path; send a name without / and \\");
    } else if name.contains(|c| control(c) || turns(c)) {
        check.refuse(field, "contains a control character");
    }
    Some(name)
}

fn time_zone(check: &mut Check, name: String) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    match TimeZone::get(&name) {
        Ok(zone) => Some(zone.iana_name().map_or(name, str::to_owned)),
        Err(_) => {
            check.refuse(
                "spec.time_zone",
                format!("{name:?} is not known; send an IANA name, as Asia/Shanghai, or leave it unset for UTC"),
            );
            None
        }
    }
}

pub fn labels(
    check: &mut Check,
    field: &str,
    labels: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    check.count(field, labels.len(), LABELS_MAX);
    let labels = labels.into_iter().map(|(key, value)| {
        let field = format!("{field}.{key}");
        let key = check.required(&field, key, LABEL_KEY_BYTES_MAX, "a label needs a key");
        (key, check.text(&field, value, LABEL_VALUE_BYTES_MAX))
    });
    labels.collect()
}

fn priority(check: &mut Check, priority: i32) -> u8 {
    check.in_range("spec.priority", priority, 0..=PRIORITY_MAX);
    u8::try_from(priority).unwrap_or_default()
}

/// The spec as a client would send it: what was unset stays unset, defaults of a format are spelled out.
pub fn spec_to_proto(spec: &ExportSpec) -> pb::ExportSpec {
    let from = match &spec.from {
        ReadFrom::Definition(name) => From::Definition(name.clone()),
        ReadFrom::Sql(sql) => From::Sql(sql.clone()),
        ReadFrom::Table(table) => From::Table(pb::TableRead {
            name: table.name.clone(),
            order_by: table.order_by.clone(),
            limit: table.limit.map_or(0, int64),
        }),
    };
    let params = spec.params.iter();
    pb::ExportSpec {
        source: spec.source.clone(),
        from: Some(from),
        params: params
            .map(|(name, value)| (name.clone(), json_to_value(value)))
            .collect(),
        columns: spec.columns.iter().map(column_to_proto).collect(),
        filter: spec.filter.clone().unwrap_or_default(),
        format: spec.format.as_ref().map(format_to_proto),
        file_name: spec.file_name.clone().unwrap_or_default(),
        time_zone: spec.time_zone.clone().unwrap_or_default(),
        ttl: spec.ttl.map(duration_to_proto),
        labels: spec.labels.clone(),
        priority: spec.priority.into(),
    }
}

fn column_to_proto(column: &Column) -> pb::Column {
    pb::Column {
        name: column.name.clone(),
        expression: column.expression.clone().unwrap_or_default(),
        header: column.header.clone().unwrap_or_default(),
        number_format: column.number_format.clone().unwrap_or_default(),
        width: column.width.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
