//! Which Arrow type a column gets. The table is in the documentation of [`super`].

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use sqlx::{
    Column as _, PgConnection, TypeInfo as _,
    postgres::{PgColumn, PgRow},
};

use super::session::cell;
use crate::export::field::{kind, metadata};

/// One column of a result, looked up in the server's catalog.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub mapping: Mapping,
    /// With length and scale, as `character varying(20)`.
    source_type: String,
    /// Of the table's column that it comes from.
    is_not_null: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping {
    Scalar(Scalar),
    List(Scalar),
    /// Selected again as `::text`.
    AsText,
}

/// A wire format and the Arrow type it is decoded to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Decimal { precision: u8, scale: u8 },
    Numeric,
    Text,
    Char,
    Json,
    Jsonb,
    Uuid,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
}

/// Up to here an Arrow decimal takes 128 bits; up to 76 it takes 256.
pub const DECIMAL128_DIGITS_MAX: u8 = 38;
const DECIMAL256_DIGITS_MAX: i32 = 76;

impl Scalar {
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 | Self::Oid => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Decimal { precision, scale } if precision <= DECIMAL128_DIGITS_MAX => {
                DataType::Decimal128(precision, scale as i8)
            }
            Self::Decimal { precision, scale } => DataType::Decimal256(precision, scale as i8),
            Self::Numeric | Self::Text | Self::Char | Self::Json | Self::Jsonb | Self::Uuid => {
                DataType::Utf8
            }
            Self::Bytea => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    fn kind(self) -> Option<&'static str> {
        match self {
            Self::Numeric => Some(kind::NUMERIC),
            Self::Json | Self::Jsonb => Some(kind::JSON),
            Self::Uuid => Some(kind::UUID),
            _ => None,
        }
    }

    /// `None`: no mapping. Domains are unwrapped before this.
    fn of(oid: u32, typtype: &str, name: &str, typmod: i32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            18 => Self::Char,
            // text, varchar, bpchar, name, unknown, cstring, and void, whose only value is empty
            25 | 1043 | 1042 | 19 | 705 | 2275 | 2278 => Self::Text,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            26 => Self::Oid,
            700 => Self::Float4,
            701 => Self::Float8,
            1700 => Self::numeric(typmod),
            114 => Self::Json,
            3802 => Self::Jsonb,
            2950 => Self::Uuid,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::Timestamptz,
            _ if typtype == "e" || (typtype == "b" && name == "citext") => Self::Text,
            _ => return None,
        })
    }

    /// The modifier packs precision and an 11 bit scale that may be negative, or larger than the precision.
    fn numeric(typmod: i32) -> Self {
        if typmod < 4 {
            return Self::Numeric;
        }
        let precision = ((typmod - 4) >> 16) & 0xffff;
        let scale = (((typmod - 4) & 0x7ff) ^ 1024) - 1024;
        let (precision, scale) = if scale < 0 {
            (precision - scale, 0)
        } else {
            (precision.max(scale), scale)
        };
        if precision > DECIMAL256_DIGITS_MAX {
            return Self::Numeric;
        }
        Self::Decimal {
            precision: precision as u8,
            scale: scale as u8,
        }
    }
}

impl Mapping {
    fn data_type(self, source_type: &str) -> DataType {
        match self {
            Self::Scalar(scalar) => scalar.data_type(),
            Self::List(scalar) => DataType::List(Arc::new(element_field(scalar, source_type))),
            Self::AsText => DataType::Utf8,
        }
    }
}

fn element_field(scalar: Scalar, source_type: &str) -> Field {
    let source_type = source_type.trim_end_matches("[]");
    Field::new("item", scalar.data_type(), true)
        .with_metadata(field_metadata(scalar.kind(), source_type))
}

fn field_metadata(kind: Option<&str>, source_type: &str) -> HashMap<String, String> {
    let mut map = HashMap::from([(metadata::SOURCE_TYPE.to_owned(), source_type.to_owned())]);
    if let Some(kind) = kind {
        map.insert(metadata::KIND.to_owned(), kind.to_owned());
    }
    map
}

/// Whether a column's NOT NULL holds for the result: an outer join may undo it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotNull {
    Holds,
    Unknown,
}

pub fn schema(columns: &[Column], not_null: NotNull) -> SchemaRef {
    let fields = columns.iter().map(|column| {
        let kind = match column.mapping {
            Mapping::Scalar(scalar) => scalar.kind(),
            Mapping::List(_) | Mapping::AsText => None,
        };
        let is_nullable = not_null == NotNull::Unknown || !column.is_not_null;
        let data_type = column.mapping.data_type(&column.source_type);
        Field::new(&column.name, data_type, is_nullable)
            .with_metadata(field_metadata(kind, &column.source_type))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Asks the catalog, in one round trip, for what the protocol's description of a result leaves out.
pub async fn look_up(
    connection: &mut PgConnection,
    columns: &[PgColumn],
) -> Result<Vec<Column>, sqlx::Error> {
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(look_up_sql(columns)))
        .fetch_all(connection)
        .await?;
    let found = columns.iter().zip(&rows);
    Ok(found.map(|(column, row)| of_row(column, row)).collect())
}

/// Every value in it is a number of the server's own. `base` unwraps domains, `element` those inside arrays.
fn look_up_sql(columns: &[PgColumn]) -> String {
    let mut values = String::new();
    for (index, column) in columns.iter().enumerate() {
        let oid = column.type_info().oid().map_or(0, |oid| oid.0);
        let relation = column.relation_id().map_or(0, |oid| oid.0);
        let attribute = column.relation_attribute_no().unwrap_or(0);
        let separator = if index == 0 { "" } else { ", " };
        values.push_str(&format!(
            "{separator}({index}, {oid}::oid, {relation}::oid, {attribute})"
        ));
    }
    format!(
        "with recursive
        col(i, typid, relid, attno) as (values {values}),
        source(i, typid, typmod, not_null) as (
            select c.i, coalesce(a.atttypid, c.typid), coalesce(a.atttypmod, -1),
                coalesce(a.attnotnull, false)
            from col c left join pg_catalog.pg_attribute a on a.attrelid = c.relid and a.attnum = c.attno),
        base(i, level, typid, typmod) as (
            select i, 0, typid, typmod from source
            union all
            select b.i, b.level + 1, t.typbasetype, t.typtypmod
            from base b join pg_catalog.pg_type t on t.oid = b.typid where t.typtype = 'd'),
        leaf(i, typid, typmod) as (
            select distinct on (i) i, typid, typmod from base order by i, level desc),
        element(i, level, typid, typmod) as (
            select l.i, 0, t.typelem, l.typmod
            from leaf l join pg_catalog.pg_type t on t.oid = l.typid
            where t.typcategory = 'A' and t.typelem <> 0
            union all
            select e.i, e.level + 1, t.typbasetype, t.typtypmod
            from element e join pg_catalog.pg_type t on t.oid = e.typid where t.typtype = 'd'),
        inner_leaf(i, typid, typmod) as (
            select distinct on (i) i, typid, typmod from element order by i, level desc)
        select pg_catalog.format_type(s.typid, s.typmod), s.not_null::text,
            t.oid::text, t.typtype::text, t.typname::text, l.typmod::text,
            u.oid::text, u.typtype::text, u.typname::text, e.typmod::text
        from source s join leaf l on l.i = s.i
        left join pg_catalog.pg_type t on t.oid = l.typid
        left join inner_leaf e on e.i = s.i
        left join pg_catalog.pg_type u on u.oid = e.typid
        order by s.i"
    )
}

fn of_row(column: &PgColumn, row: &PgRow) -> Column {
    let scalar = |at: usize| {
        let oid = cell(row, at)?.parse().ok()?;
        let typmod = cell(row, at + 3).and_then(|t| t.parse().ok());
        Scalar::of(
            oid,
            cell(row, at + 1)?,
            cell(row, at + 2)?,
            typmod.unwrap_or(-1),
        )
    };
    let is_array = cell(row, 6).is_some();
    let mapping = match (is_array, scalar(2), scalar(6)) {
        (true, _, Some(element)) => Mapping::List(element),
        (false, Some(scalar), _) => Mapping::Scalar(scalar),
        _ => Mapping::AsText,
    };
    Column {
        name: column.name().to_owned(),
        mapping,
        source_type: cell(row, 0).unwrap_or(column.type_info().name()).to_owned(),
        is_not_null: cell(row, 1) == Some("true"),
    }
}
