//! Which Arrow type a column gets.
//!
//! | declared as | exported as | values that agree |
//! |---|---|---|
//! | `BOOL`, `BOOLEAN` | bool | the integers 0 and 1 |
//! | anything with `INT` | int64 | integers |
//! | `REAL`, `FLOAT`, `DOUBLE` | double | reals, and integers up to 2^53 |
//! | `DECIMAL(p,s)`, `NUMERIC(p,s)`, p up to 38 | decimal128(p, s) | numbers that have the scale exactly; reals of at most 15 digits, which is what SQLite promises to give back |
//! | `DECIMAL`, `NUMERIC`, `NUMBER` | string, kind numeric | the same without a scale |
//! | anything with `CHAR`, `CLOB`, `TEXT` | string | text in UTF-8 |
//! | `BLOB`, `BINARY`, `VARBINARY`, `BYTEA` | binary | blobs |
//! | `DATE` | date32[day] | `2024-02-29` |
//! | `TIME` | time64[us] | `23:59`, `23:59:59.999999` |
//! | `DATETIME`, `TIMESTAMP`, `TIMESTAMPTZ` | timestamp[us], or timestamp[us, tz=UTC] | `2024-02-29 23:59:59` or with `T`; all with `Z` or an offset, or none |
//! | `UUID`, `GUID` | string, kind uuid | the hyphenated text |
//! | `JSON` | string, kind json | valid JSON text; numbers, which SQLite stores as such |
//! | anything else, an expression, or a declaration that the first rows contradict | typed by its first rows | |
//!
//! Typed by its first rows: integers int64, reals (and integers up to 2^53) double, text string, blobs binary; text
//! among numbers string; text that is no UTF-8, or among blobs, binary; numbers among blobs are refused. Only NULLs:
//! as declared, else string. First rows are 4,096 rows or 4 MiB, whatever the batch size: describing and
//! reading see the same.

use arrow::datatypes::{DataType, Field, TimeUnit};
use rusqlite::types::{Type, ValueRef};

use super::column::decode;
use crate::export::field::{kind, metadata};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Bool,
    Int64,
    Float64,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Numeric,
    Text,
    /// Text, and numbers as their text.
    MixedText,
    Binary,
    /// Blobs, and text as its bytes.
    MixedBinary,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Uuid,
    Json,
}

impl Kind {
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::Numeric | Self::Text | Self::MixedText | Self::Uuid | Self::Json => {
                DataType::Utf8
            }
            Self::Binary | Self::MixedBinary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// As errors and warnings call it.
    pub fn describe(self) -> String {
        match self {
            Self::Numeric => "numeric".to_owned(),
            Self::Uuid => "uuid".to_owned(),
            Self::Json => "json".to_owned(),
            Self::Text => "text".to_owned(),
            Self::MixedText => "text and numbers".to_owned(),
            Self::MixedBinary => "blobs and text".to_owned(),
            other => other.data_type().to_string(),
        }
    }

    fn metadata_kind(self) -> Option<&'static str> {
        match self {
            Self::Numeric => Some(kind::NUMERIC),
            Self::Uuid => Some(kind::UUID),
            Self::Json => Some(kind::JSON),
            _ => None,
        }
    }
}

/// What the result's header says of a column.
#[derive(Clone, Debug)]
pub struct Declared {
    pub name: String,
    /// Empty for expressions.
    pub r#type: String,
}

impl Declared {
    pub fn field(&self, kind: Kind) -> Field {
        let mut pairs = vec![(metadata::SOURCE_TYPE.to_owned(), self.r#type.clone())];
        if let Some(kind) = kind.metadata_kind() {
            pairs.push((metadata::KIND.to_owned(), kind.to_owned()));
        }
        Field::new(&self.name, kind.data_type(), true).with_metadata(pairs.into_iter().collect())
    }
}

/// What a column got, and what the caller should know about it.
pub struct Decided {
    pub kind: Kind,
    pub warning: Option<String>,
}

/// `values` are the column's first ones. `Err` is the index of one that goes with none of the types.
pub fn decide<'a>(
    declared: &Declared,
    values: impl Iterator<Item = ValueRef<'a>> + Clone,
) -> Result<Decided, Misfit> {
    let candidates = candidates(&declared.r#type);
    let fitting = candidates.iter().find(|kind| {
        values
            .clone()
            .all(|value| value.data_type() == Type::Null || decode(**kind, value).is_some())
    });
    if let Some(kind) = fitting {
        return Ok(Decided {
            kind: *kind,
            warning: None,
        });
    }
    let kind = infer(values)?;
    let warning = (!candidates.is_empty()).then(|| {
        format!(
            "column {} is declared {} but holds other values: it is exported as {}",
            declared.name,
            declared.r#type,
            kind.describe()
        )
    });
    Ok(Decided { kind, warning })
}

/// A value that its column can't take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misfit {
    /// Index among the values looked at.
    pub index: usize,
    pub expected: String,
}

/// The types that a declaration asks for, in the order in which they are tried.
fn candidates(declared: &str) -> Vec<Kind> {
    let upper = declared.to_ascii_uppercase();
    let (name, arguments) = split_arguments(&upper);
    match name {
        "BOOL" | "BOOLEAN" => return vec![Kind::Bool],
        "DATE" => return vec![Kind::Date],
        "TIME" => return vec![Kind::Time],
        "DATETIME" | "TIMESTAMP" | "TIMESTAMPTZ" => {
            return vec![Kind::Timestamp, Kind::Timestamptz];
        }
        "UUID" | "GUID" | "UNIQUEIDENTIFIER" => return vec![Kind::Uuid],
        "JSON" => return vec![Kind::Json],
        "BINARY" | "VARBINARY" | "BYTEA" => return vec![Kind::Binary],
        "DECIMAL" | "NUMERIC" | "DEC" | "NUMBER" => return vec![decimal(arguments)],
        _ => {}
    }
    let has = |part: &str| upper.contains(part);
    if upper.starts_with("TIMESTAMP ") {
        vec![Kind::Timestamp, Kind::Timestamptz]
    } else if has("INT") {
        vec![Kind::Int64]
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        vec![Kind::Text]
    } else if has("BLOB") {
        vec![Kind::Binary]
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        vec![Kind::Float64]
    } else {
        Vec::new()
    }
}

/// `DECIMAL (12, 2)` is `DECIMAL` and `12, 2`.
fn split_arguments(declared: &str) -> (&str, Option<&str>) {
    match declared.split_once('(') {
        Some((name, rest)) => (name.trim(), rest.split_once(')').map(|(inside, _)| inside)),
        None => (declared.trim(), None),
    }
}

fn decimal(arguments: Option<&str>) -> Kind {
    let numbers: Option<Vec<u8>> = arguments.map(|text| {
        text.split(',')
            .map_while(|n| n.trim().parse().ok())
            .collect()
    });
    match numbers.as_deref() {
        Some([precision @ 1..=38]) => Kind::Decimal {
            precision: *precision,
            scale: 0,
        },
        Some([precision @ 1..=38, scale]) if scale <= precision => Kind::Decimal {
            precision: *precision,
            scale: *scale,
        },
        _ => Kind::Numeric,
    }
}

fn infer<'a>(values: impl Iterator<Item = ValueRef<'a>> + Clone) -> Result<Kind, Misfit> {
    let holds = |class: Type| values.clone().any(|value| value.data_type() == class);
    let ladder: &[Kind] = match (
        holds(Type::Text),
        holds(Type::Blob),
        holds(Type::Integer) || holds(Type::Real),
    ) {
        (false, false, false) => &[Kind::Text],
        (false, false, true) => &[Kind::Int64, Kind::Float64, Kind::Numeric],
        (true, false, false) => &[Kind::Text, Kind::MixedBinary],
        (true, false, true) => &[Kind::MixedText],
        (false, true, _) => &[Kind::Binary],
        (true, true, _) => &[Kind::MixedBinary],
    };
    let mut misfit = None;
    for kind in ladder {
        let bad = values
            .clone()
            .position(|value| value.data_type() != Type::Null && decode(*kind, value).is_none());
        match bad {
            None => return Ok(*kind),
            Some(index) => {
                misfit = Some(Misfit {
                    index,
                    expected: kind.describe(),
                });
            }
        }
    }
    Err(misfit.expect("no ladder is empty, and each step that fails leaves a misfit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(declared: &str, values: &[ValueRef<'_>]) -> Kind {
        let declared = Declared {
            name: "c".to_owned(),
            r#type: declared.to_owned(),
        };
        decide(&declared, values.iter().copied())
            .expect("a type is found")
            .kind
    }

    const NULL: ValueRef<'_> = ValueRef::Null;

    #[test]
    fn declarations_are_heeded_where_the_values_agree() {
        let decimal = |precision, scale| Kind::Decimal { precision, scale };
        for (declared, value, kind) in [
            ("BOOLEAN", ValueRef::Integer(1), Kind::Bool),
            ("unsigned big int", ValueRef::Integer(1), Kind::Int64),
            ("DOUBLE PRECISION", ValueRef::Real(0.1), Kind::Float64),
            ("float", ValueRef::Integer(3), Kind::Float64),
            ("DECIMAL(12, 2)", ValueRef::Real(12.34), decimal(12, 2)),
            ("numeric(5)", ValueRef::Integer(12), decimal(5, 0)),
            ("NUMERIC", ValueRef::Real(12.34), Kind::Numeric),
            ("VARCHAR(20)", ValueRef::Text(b"x"), Kind::Text),
            ("BLOB", ValueRef::Blob(b"x"), Kind::Binary),
            ("DATE", ValueRef::Text(b"2024-02-29"), Kind::Date),
            ("TIME", ValueRef::Text(b"10:00"), Kind::Time),
            (
                "DATETIME",
                ValueRef::Text(b"2024-02-29 10:00:00"),
                Kind::Timestamp,
            ),
            (
                "TIMESTAMP WITH TIME ZONE",
                ValueRef::Text(b"2024-02-29T10:00:00Z"),
                Kind::Timestamptz,
            ),
            (
                "UUID",
                ValueRef::Text(b"67e55044-10b1-426f-9247-bb680e5fe0c8"),
                Kind::Uuid,
            ),
            ("JSON", ValueRef::Text(b"{\"a\":1}"), Kind::Json),
        ] {
            assert_eq!(kind_of(declared, &[NULL, value]), kind, "{declared}");
            assert_eq!(
                kind_of(declared, &[NULL]),
                kind_of(declared, &[]),
                "{declared}"
            );
        }
    }

    #[test]
    fn contradicted_declarations_give_way_with_a_warning() {
        for (declared, value, kind) in [
            ("BOOLEAN", ValueRef::Integer(2), Kind::Int64),
            ("INTEGER", ValueRef::Text(b"x"), Kind::Text),
            ("DECIMAL(12,2)", ValueRef::Real(0.125), Kind::Float64),
            ("DATE", ValueRef::Text(b"29.02.2024"), Kind::Text),
            ("DATETIME", ValueRef::Integer(1_700_000_000), Kind::Int64),
            ("JSON", ValueRef::Text(b"{a:1}"), Kind::Text),
            ("TEXT", ValueRef::Text(b"\xff"), Kind::MixedBinary),
        ] {
            let declared = Declared {
                name: "c".to_owned(),
                r#type: declared.to_owned(),
            };
            let decided = decide(&declared, [value].into_iter()).expect("a type is found");
            assert_eq!(decided.kind, kind, "{declared:?}");
            assert!(decided.warning.is_some(), "{declared:?}");
        }
    }

    #[test]
    fn mixtures() {
        let (int, real, text, blob) = (
            ValueRef::Integer(7),
            ValueRef::Real(0.5),
            ValueRef::Text(b"x"),
            ValueRef::Blob(b"x"),
        );
        assert_eq!(kind_of("", &[NULL]), Kind::Text);
        assert_eq!(kind_of("", &[int, real]), Kind::Float64);
        assert_eq!(
            kind_of("", &[ValueRef::Integer(i64::MAX), real]),
            Kind::Numeric
        );
        assert_eq!(kind_of("", &[int, text]), Kind::MixedText);
        assert_eq!(kind_of("", &[blob, text]), Kind::MixedBinary);
        let declared = Declared {
            name: "c".to_owned(),
            r#type: String::new(),
        };
        let refused = decide(&declared, [blob, NULL, int].into_iter()).err();
        assert_eq!(refused.map(|misfit| misfit.index), Some(2));
    }
}
