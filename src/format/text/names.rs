//! Arrow types as pyarrow spells them, and schemas as clients see them.

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};

use crate::export::{self, field::metadata};

/// `int64`, `decimal128(12, 2)`, `timestamp[us, tz=UTC]`, `list<item: int32>`.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Int8 => "int8".to_owned(),
        DataType::Int16 => "int16".to_owned(),
        DataType::Int32 => "int32".to_owned(),
        DataType::Int64 => "int64".to_owned(),
        DataType::UInt8 => "uint8".to_owned(),
        DataType::UInt16 => "uint16".to_owned(),
        DataType::UInt32 => "uint32".to_owned(),
        DataType::UInt64 => "uint64".to_owned(),
        DataType::Float16 => "halffloat".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Utf8 => "string".to_owned(),
        DataType::LargeUtf8 => "large_string".to_owned(),
        DataType::Utf8View => "string_view".to_owned(),
        DataType::Binary => "binary".to_owned(),
        DataType::LargeBinary => "large_binary".to_owned(),
        DataType::BinaryView => "binary_view".to_owned(),
        DataType::FixedSizeBinary(width) => format!("fixed_size_binary[{width}]"),
        DataType::Date32 => "date32[day]".to_owned(),
        DataType::Date64 => "date64[ms]".to_owned(),
        DataType::Time32(unit) => format!("time32[{}]", unit_name(*unit)),
        DataType::Time64(unit) => format!("time64[{}]", unit_name(*unit)),
        DataType::Timestamp(unit, None) => format!("timestamp[{}]", unit_name(*unit)),
        DataType::Timestamp(unit, Some(zone)) => {
            format!("timestamp[{}, tz={zone}]", unit_name(*unit))
        }
        DataType::Duration(unit) => format!("duration[{}]", unit_name(*unit)),
        DataType::Interval(IntervalUnit::YearMonth) => "month_interval".to_owned(),
        DataType::Interval(IntervalUnit::DayTime) => "day_time_interval".to_owned(),
        DataType::Interval(IntervalUnit::MonthDayNano) => "month_day_nano_interval".to_owned(),
        DataType::Decimal32(precision, scale) => format!("decimal32({precision}, {scale})"),
        DataType::Decimal64(precision, scale) => format!("decimal64({precision}, {scale})"),
        DataType::Decimal128(precision, scale) => format!("decimal128({precision}, {scale})"),
        DataType::Decimal256(precision, scale) => format!("decimal256({precision}, {scale})"),
        DataType::List(item) => format!("list<{}>", child(item)),
        DataType::LargeList(item) => format!("large_list<{}>", child(item)),
        DataType::FixedSizeList(item, size) => {
            format!("fixed_size_list<{}>[{size}]", child(item))
        }
        DataType::Struct(fields) => {
            let children: Vec<_> = fields.iter().map(|field| child(field)).collect();
            format!("struct<{}>", children.join(", "))
        }
        DataType::Dictionary(indices, values) => format!(
            "dictionary<values={}, indices={}, ordered=0>",
            type_name(values),
            type_name(indices)
        ),
        other => other.to_string(),
    }
}

/// The schema that clients are shown; views are a way to hold text in memory, not a type of a column.
pub fn fields(schema: &Schema) -> Vec<export::Field> {
    schema
        .fields()
        .iter()
        .map(|field| export::Field {
            name: field.name().clone(),
            r#type: match field.data_type() {
                DataType::Utf8View => "string".to_owned(),
                DataType::BinaryView => "binary".to_owned(),
                other => type_name(other),
            },
            nullable: field.is_nullable(),
            source_type: field
                .metadata()
                .get(metadata::SOURCE_TYPE)
                .cloned()
                .unwrap_or_default(),
        })
        .collect()
}

fn child(field: &Field) -> String {
    let null = if field.is_nullable() { "" } else { " not null" };
    format!("{}: {}{null}", field.name(), type_name(field.data_type()))
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}
