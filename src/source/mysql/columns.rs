//! Which Arrow type a column gets.
//!
//! | MySQL, MariaDB | exported as | |
//! |---|---|---|
//! | `tinyint(1)`, `boolean`, `bit(1)` | bool | a value other than 0 and 1 is an error that names its row: `CAST(c AS SIGNED)` exports it |
//! | `tinyint` ... `bigint`, each `unsigned` | int8 ... int64, uint8 ... uint64 | `mediumint` as 32 bits |
//! | `bit(n)` | uint64 | |
//! | `year` | uint16 | |
//! | `float`, `double` | float, double | |
//! | `decimal(p,s)` | decimal128(p, s), decimal256(p, s) above 38 digits | string of kind numeric where the scale can't be learned |
//! | `char`, `varchar`, `text`, `enum`, `set`, MariaDB's `inet4`, `inet6` | string | in utf8mb4, whatever the column's character set |
//! | `binary`, `varbinary`, `blob` | binary | |
//! | `date` | date32[day] | zero dates (`0000-00-00`, `2024-00-10`) are an error that names its row: `NULLIF` or `CAST(c AS CHAR)` exports them |
//! | `datetime` | timestamp[us] | the same |
//! | `timestamp` | timestamp[us, tz=UTC] | the same |
//! | `time` | string | it may be negative or longer than a day; `-838:59:59.000001` |
//! | `json`, MariaDB's `json` columns | string, kind json | |
//! | MariaDB's `uuid` | string, kind uuid | |
//! | `geometry` and its kin | string | well-known text, as `ST_AsText` writes it, without the SRID |
//!
//! The wire tells most of it. The driver keeps back a decimal's scale, and MariaDB's `json` is a `longtext` there:
//! both are looked up in `information_schema` for columns of tables; for expressions, `plan` asks the server.

use arrow::datatypes::{DataType, Field, TimeUnit};
use sqlx::{
    Column as _, MySql, Type, TypeInfo,
    mysql::{MySqlColumn, MySqlTypeInfo},
};

use crate::export::field::{kind, metadata};

/// How a value lies in a row, which decides how its bytes are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    Tiny {
        unsigned: bool,
    },
    /// `tinyint(1)`.
    TinyBool,
    Short {
        unsigned: bool,
    },
    /// Also `mediumint`.
    Long {
        unsigned: bool,
    },
    LongLong {
        unsigned: bool,
    },
    Year,
    Float,
    Double,
    Decimal,
    Date,
    Datetime,
    Timestamp,
    Time,
    Bit {
        bits: u32,
    },
    Text,
    Binary,
    Json,
    Geometry,
}

/// What a column becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The Arrow type that goes with the wire's.
    Plain,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Json,
    Uuid,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    pub name: String,
    /// As the database calls it; `column_type` of `information_schema` for columns of tables.
    pub source_type: String,
    pub wire: Wire,
    pub kind: Kind,
}

impl Planned {
    pub fn data_type(&self) -> DataType {
        match (self.wire, self.kind) {
            (Wire::Decimal, Kind::Decimal { precision, scale }) if precision <= 38 => {
                DataType::Decimal128(precision, scale as i8)
            }
            (Wire::Decimal, Kind::Decimal { precision, scale }) => {
                DataType::Decimal256(precision, scale as i8)
            }
            (Wire::TinyBool | Wire::Bit { bits: 1 }, _) => DataType::Boolean,
            (Wire::Tiny { unsigned: false }, _) => DataType::Int8,
            (Wire::Tiny { unsigned: true }, _) => DataType::UInt8,
            (Wire::Short { unsigned: false }, _) => DataType::Int16,
            (Wire::Short { unsigned: true } | Wire::Year, _) => DataType::UInt16,
            (Wire::Long { unsigned: false }, _) => DataType::Int32,
            (Wire::Long { unsigned: true }, _) => DataType::UInt32,
            (Wire::LongLong { unsigned: false }, _) => DataType::Int64,
            (Wire::LongLong { unsigned: true } | Wire::Bit { .. }, _) => DataType::UInt64,
            (Wire::Float, _) => DataType::Float32,
            (Wire::Double, _) => DataType::Float64,
            (Wire::Date, _) => DataType::Date32,
            (Wire::Datetime, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
            (Wire::Timestamp, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            (Wire::Binary, _) => DataType::Binary,
            (Wire::Decimal | Wire::Time | Wire::Text | Wire::Json | Wire::Geometry, _) => {
                DataType::Utf8
            }
        }
    }

    pub fn field(&self) -> Field {
        let kind = match (self.wire, self.kind) {
            (Wire::Decimal, Kind::Plain) => Some(kind::NUMERIC),
            (Wire::Json, _) | (_, Kind::Json) => Some(kind::JSON),
            (_, Kind::Uuid) => Some(kind::UUID),
            _ => None,
        };
        let mut pairs = vec![(metadata::SOURCE_TYPE.to_owned(), self.source_type.clone())];
        pairs.extend(kind.map(|kind| (metadata::KIND.to_owned(), kind.to_owned())));
        Field::new(&self.name, self.data_type(), true).with_metadata(pairs.into_iter().collect())
    }
}

/// What the wire alone tells.
pub fn of_column(column: &MySqlColumn) -> Planned {
    let r#type = column.type_info();
    Planned {
        name: column.name().to_owned(),
        source_type: r#type.name().to_ascii_lowercase(),
        wire: wire(r#type),
        kind: Kind::Plain,
    }
}

pub fn wire(r#type: &MySqlTypeInfo) -> Wire {
    let name = r#type.name();
    let unsigned = name.ends_with(" UNSIGNED");
    match name.trim_end_matches(" UNSIGNED") {
        "BOOLEAN" => Wire::TinyBool,
        "TINYINT" => Wire::Tiny { unsigned },
        "SMALLINT" => Wire::Short { unsigned },
        "INT" | "MEDIUMINT" => Wire::Long { unsigned },
        "BIGINT" => Wire::LongLong { unsigned },
        "YEAR" => Wire::Year,
        "FLOAT" => Wire::Float,
        "DOUBLE" => Wire::Double,
        "DECIMAL" => Wire::Decimal,
        "DATE" => Wire::Date,
        "DATETIME" => Wire::Datetime,
        "TIMESTAMP" => Wire::Timestamp,
        "TIME" => Wire::Time,
        "BIT" => Wire::Bit {
            bits: max_size(r#type).unwrap_or(64),
        },
        "JSON" => Wire::Json,
        "GEOMETRY" => Wire::Geometry,
        "ENUM" | "SET" | "NULL" => Wire::Text,
        // `utf8mb4_bin` is text, though the driver's name says binary: only the collation `binary` means bytes.
        _ if <str as Type<MySql>>::compatible(r#type) => Wire::Text,
        _ => Wire::Binary,
    }
}

/// Digits of a decimal whose scale is known; the wire tells how many characters its longest text has.
pub fn decimal_precision(r#type: &MySqlTypeInfo, scale: u8) -> Option<u8> {
    let point = u32::from(scale > 0);
    let sign = u32::from(!is_unsigned(r#type));
    let digits = max_size(r#type)?.checked_sub(point + sign)?;
    let precision = u8::try_from(digits).ok()?;
    (precision >= scale.max(1) && precision <= 65).then_some(precision)
}

/// The column's length on the wire, which the driver shows only in its debug text. Tested against a real server.
fn max_size(r#type: &MySqlTypeInfo) -> Option<u32> {
    let text = format!("{type:?}");
    let (_, rest) = text.split_once("max_size: Some(")?;
    rest.split_once(')')?.0.parse().ok()
}

fn is_unsigned(r#type: &MySqlTypeInfo) -> bool {
    format!("{type:?}").contains("UNSIGNED")
}
