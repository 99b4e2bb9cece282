//! Names of columns and types as messages show them, and what somebody may have meant by one that doesn't exist.

use arrow::datatypes::{DataType, Schema, TimeUnit};

/// Columns that a message lists.
const LISTED_MAX: usize = 10;
/// Names this similar (Jaro-Winkler, 0 to 1) are offered.
const SIMILAR_MIN: f64 = 0.75;
const OFFERED_MAX: usize = 3;

/// The index of the column with exactly this name, or a message that says why there is none.
pub(super) fn find(schema: &Schema, name: &str) -> Result<usize, String> {
    let mut found = (0..schema.fields().len()).filter(|&index| schema.field(index).name() == name);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => Err(format!(
            "the query has several columns named {}; give them different names there",
            quoted(name)
        )),
        (None, _) => Err(unknown_column(schema, name)),
    }
}

pub(super) fn unknown_column(schema: &Schema, name: &str) -> String {
    let all: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let offer = offer(name, &all);
    let mut listed = all
        .iter()
        .take(LISTED_MAX)
        .map(|name| quoted(name))
        .collect::<Vec<_>>()
        .join(", ");
    if all.len() > LISTED_MAX {
        listed += &format!(" and {} more", all.len() - LISTED_MAX);
    }
    format!(
        "there is no column {}{offer}; names are matched exactly, the columns are {listed}",
        quoted(name)
    )
}

/// `, did you mean "a" or "b"?`, or nothing.
pub(super) fn offer(name: &str, known: &[&str]) -> String {
    let lower = name.to_lowercase();
    let mut near: Vec<(f64, &str)> = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&lower, &known.to_lowercase()), *known))
        .filter(|(similarity, _)| *similarity >= SIMILAR_MIN)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.truncate(OFFERED_MAX);
    if near.is_empty() {
        return String::new();
    }
    let near: Vec<String> = near.into_iter().map(|(_, name)| quoted(name)).collect();
    format!(", did you mean {}?", near.join(" or "))
}

/// In double quotes, cut when it is very long: names come from clients.
pub(super) fn quoted(name: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    if name.chars().count() <= SHOWN_CHARS_MAX {
        return format!("\"{name}\"");
    }
    let shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
    format!("\"{shown}...\"")
}

/// In the words of SQL, as `cast` takes them.
pub(super) fn data_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 => "tinyint".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::UInt8 => "tinyint unsigned".to_owned(),
        DataType::UInt16 => "smallint unsigned".to_owned(),
        DataType::UInt32 => "int unsigned".to_owned(),
        DataType::UInt64 => "bigint unsigned".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision}, {scale})")
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            "timestamp with time zone".to_owned()
        }
        DataType::Null => "null".to_owned(),
        other => other.to_string(),
    }
}
