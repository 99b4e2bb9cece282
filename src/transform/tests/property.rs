//! A random filter lets through what a naive reading of it, row by row, lets through.

use std::sync::Arc;

use arrow::{
    array::{AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use proptest::prelude::*;

use super::super::*;

#[derive(Clone, Debug)]
enum Condition {
    /// `a`, `b` or a number, compared with the same.
    Compare(Number, &'static str, Number),
    TextIs(&'static str),
    TextLike(&'static str),
    TextIsNull,
    In(Number, Vec<i64>),
    Between(Number, i64, i64),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

#[derive(Clone, Debug)]
enum Number {
    A,
    B,
    Literal(i64),
    Sum(Box<Number>, Box<Number>),
    Or(Box<Number>, i64),
    /// A cast that cuts.
    Half(Box<Number>),
    /// A cast that gives NULL from 2 on.
    Tiny(Box<Number>),
}

#[derive(Clone, Debug)]
struct Row {
    a: Option<i64>,
    b: Option<i64>,
    text: Option<&'static str>,
}

const TEXTS: [&str; 4] = ["", "x", "xy", "Y"];
const COMPARISONS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

impl Number {
    fn sql(&self) -> String {
        match self {
            Self::A => "a".to_owned(),
            Self::B => "b".to_owned(),
            Self::Literal(value) => value.to_string(),
            // The naught makes it a bigint: two tinyints could overflow, which is an error.
            Self::Sum(left, right) => format!("({} + 0 + {})", left.sql(), right.sql()),
            Self::Or(number, other) => format!("coalesce({}, {other})", number.sql()),
            Self::Half(number) => {
                format!(
                    "cast(cast({} as decimal(12, 1)) * 0.5 as bigint)",
                    number.sql()
                )
            }
            Self::Tiny(number) => format!("try_cast({} * 100 as tinyint)", number.sql()),
        }
    }

    fn value(&self, row: &Row) -> Option<i64> {
        match self {
            Self::A => row.a,
            Self::B => row.b,
            Self::Literal(value) => Some(*value),
            Self::Sum(left, right) => Some(left.value(row)? + right.value(row)?),
            Self::Or(number, other) => Some(number.value(row).unwrap_or(*other)),
            Self::Half(number) => Some(number.value(row)? / 2),
            Self::Tiny(number) => i8::try_from(number.value(row)? * 100).ok().map(i64::from),
        }
    }
}

impl Condition {
    fn sql(&self) -> String {
        match self {
            Self::Compare(left, op, right) => format!("{} {op} {}", left.sql(), right.sql()),
            Self::TextIs(text) => format!("t = '{text}'"),
            Self::TextLike(start) => format!("t like '{start}%'"),
            Self::TextIsNull => "t is null".to_owned(),
            Self::In(number, list) => {
                let list: Vec<String> = list.iter().map(i64::to_string).collect();
                format!("{} in ({})", number.sql(), list.join(", "))
            }
            Self::Between(number, low, high) => {
                format!("{} between {low} and {high}", number.sql())
            }
            Self::Not(inner) => format!("not ({})", inner.sql()),
            Self::And(left, right) => format!("({}) and ({})", left.sql(), right.sql()),
            Self::Or(left, right) => format!("({}) or ({})", left.sql(), right.sql()),
        }
    }

    /// SQL's three values.
    fn holds(&self, row: &Row) -> Option<bool> {
        match self {
            Self::Compare(left, op, right) => {
                let (left, right) = (left.value(row)?, right.value(row)?);
                Some(match *op {
                    "=" => left == right,
                    "<>" => left != right,
                    "<" => left < right,
                    "<=" => left <= right,
                    ">" => left > right,
                    _ => left >= right,
                })
            }
            Self::TextIs(text) => Some(row.text? == *text),
            Self::TextLike(start) => Some(row.text?.starts_with(start)),
            Self::TextIsNull => Some(row.text.is_none()),
            Self::In(number, list) => Some(list.contains(&number.value(row)?)),
            Self::Between(number, low, high) => {
                let value = number.value(row)?;
                Some(*low <= value && value <= *high)
            }
            Self::Not(inner) => inner.holds(row).map(|holds| !holds),
            Self::And(left, right) => match (left.holds(row), right.holds(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(left, right) => match (left.holds(row), right.holds(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }
}

fn number() -> impl Strategy<Value = Number> {
    let leaf = prop_oneof![
        Just(Number::A),
        Just(Number::B),
        (-3..4_i64).prop_map(Number::Literal),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(l, r)| Number::Sum(Box::new(l), Box::new(r))),
            (inner.clone(), -3..4_i64).prop_map(|(n, other)| Number::Or(Box::new(n), other)),
            inner.clone().prop_map(|n| Number::Half(Box::new(n))),
            inner.prop_map(|n| Number::Tiny(Box::new(n))),
        ]
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        (number(), prop::sample::select(&COMPARISONS), number())
            .prop_map(|(l, op, r)| Condition::Compare(l, op, r)),
        prop::sample::select(&TEXTS).prop_map(Condition::TextIs),
        prop::sample::select(&TEXTS).prop_map(Condition::TextLike),
        Just(Condition::TextIsNull),
        (number(), prop::collection::vec(-3..4_i64, 1..6)).prop_map(|(n, l)| Condition::In(n, l)),
        (number(), -3..4_i64, -3..4_i64).prop_map(|(n, l, h)| Condition::Between(n, l, h)),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|c| Condition::Not(Box::new(c))),
            (inner.clone(), inner.clone())
                .prop_map(|(l, r)| Condition::And(Box::new(l), Box::new(r))),
            (inner.clone(), inner).prop_map(|(l, r)| Condition::Or(Box::new(l), Box::new(r))),
        ]
    })
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let number = || prop::option::of(-3..4_i64);
    let text = prop::option::of(prop::sample::select(&TEXTS));
    let row = (number(), number(), text).prop_map(|(a, b, text)| Row { a, b, text });
    prop::collection::vec(row, 0..40)
}

fn batch(rows: &[Row]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
    ]);
    let n = Int64Array::from_iter_values(0..rows.len() as i64);
    let a: Int64Array = rows.iter().map(|row| row.a).collect();
    let b: Int64Array = rows.iter().map(|row| row.b).collect();
    let text: StringArray = rows.iter().map(|row| row.text).collect();
    RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(n), Arc::new(a), Arc::new(b), Arc::new(text)],
    )
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_filter_lets_through_what_a_naive_reading_does(condition in condition(), rows in rows()) {
        let filter = condition.sql();
        let given = batch(&rows);
        let request = Request { columns: &[], filter: Some(&filter), path: "spec." };
        let transform = compile(given.schema_ref(), request)
            .map_err(|error| TestCaseError::fail(format!("{filter}: {error}")))?;
        let result = transform.apply(given).unwrap();
        let found = result.column(0).as_primitive::<Int64Type>().values().to_vec();
        let expected: Vec<i64> = (0_i64..)
            .zip(&rows)
            .filter(|(_, row)| condition.holds(row) == Some(true))
            .map(|(n, _)| n)
            .collect();
        prop_assert_eq!(found, expected, "{}", filter);
    }
}
