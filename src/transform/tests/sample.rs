//! A batch with every kind of column, and short ways to run an expression over it.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
        Int64Array, RecordBatch, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
        UInt64Array,
    },
    datatypes::{DataType, Field, Schema, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};

use super::super::*;
use crate::export::field::{kind, metadata};

/// 2024-01-31T10:20:30.123456Z
pub const MOMENT_US: i64 = 1_706_696_430_123_456;
pub const INFINITY_US: i64 = i64::MAX;

pub fn batch() -> RecordBatch {
    let marked = |name: &str, kind: &str| {
        Field::new(name, DataType::Utf8, true).with_metadata(
            [
                (metadata::KIND.to_owned(), kind.to_owned()),
                (metadata::SOURCE_TYPE.to_owned(), "numeric".to_owned()),
            ]
            .into(),
        )
    };
    let us = TimeUnit::Microsecond;
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("Name", DataType::Utf8, true),
        Field::new("email", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(12, 2), true),
        Field::new("status", DataType::Int32, true),
        Field::new("ratio", DataType::Float64, true),
        Field::new("paid", DataType::Boolean, true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(us, Some("UTC".into())), true),
        Field::new("wall", DataType::Timestamp(us, None), true),
        Field::new("clock", DataType::Time64(us), true),
        Field::new("big", DataType::UInt64, true),
        marked("any", kind::NUMERIC),
        Field::new("two words", DataType::Int64, true),
    ]);
    let moments = || vec![Some(MOMENT_US), None, Some(INFINITY_US)];
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef,
            Arc::new(StringArray::from(vec![Some("张三丰"), None, Some("Bo")])),
            Arc::new(StringArray::from(vec![
                Some("ann.lee@example.com"),
                Some("x@y"),
                Some("nonsense"),
            ])),
            Arc::new(
                Decimal128Array::from(vec![Some(1050), None, Some(-250)])
                    .with_precision_and_scale(12, 2)
                    .unwrap(),
            ),
            Arc::new(Int32Array::from(vec![Some(0), Some(1), None])),
            Arc::new(Float64Array::from(vec![Some(0.5), None, Some(0.0)])),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(Date32Array::from(vec![Some(19_753), None, Some(19_782)])),
            Arc::new(TimestampMicrosecondArray::from(moments()).with_timezone("UTC")),
            Arc::new(TimestampMicrosecondArray::from(moments())),
            Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(2)])),
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(5)])),
            Arc::new(StringArray::from(vec![Some("12.50"), None, Some("NaN")])),
            Arc::new(Int64Array::from(vec![Some(7), None, Some(0)])),
        ],
    )
    .unwrap()
}

pub fn column(name: &str, expression: Option<&str>) -> Column {
    Column {
        name: name.to_owned(),
        expression: expression.map(str::to_owned),
        ..Column::default()
    }
}

pub fn compiled(columns: &[Column], filter: Option<&str>) -> Result<Transform, Error> {
    let request = Request {
        columns,
        filter,
        path: "spec.",
    };
    compile(batch().schema_ref(), request)
}

/// Of one computed column: its type, and the values as text, `-` for NULL.
pub fn eval(expression: &str) -> Result<(DataType, Vec<String>), Error> {
    let columns = [column("x", Some(expression))];
    let result = compiled(&columns, None)?.apply(batch())?;
    let array = result.column(0);
    let options = FormatOptions::default().with_null("-");
    let text = ArrayFormatter::try_new(array, &options).unwrap();
    let infinite = |row: usize| {
        use arrow::{array::AsArray, datatypes::TimestampMicrosecondType as Us};
        matches!(array.data_type(), DataType::Timestamp(..))
            && array.as_primitive::<Us>().value(row) == INFINITY_US
            && array.is_valid(row)
    };
    let values = (0..array.len())
        .map(|row| match infinite(row) {
            true => "infinity".to_owned(),
            false => text.value(row).try_to_string().unwrap(),
        })
        .collect();
    Ok((array.data_type().clone(), values))
}

/// The ids that a filter lets through.
pub fn filtered(filter: &str) -> Result<Vec<i64>, Error> {
    use arrow::{array::AsArray, datatypes::Int64Type};
    let result = compiled(&[column("id", None)], Some(filter))?.apply(batch())?;
    Ok(result
        .column(0)
        .as_primitive::<Int64Type>()
        .values()
        .to_vec())
}

/// What is wrong with a column's expression, and where.
pub fn refusal(expression: &str) -> (String, Option<u32>) {
    match eval(expression) {
        Err(Error::Invalid(problems)) => {
            assert_eq!(problems.len(), 1, "{expression}: {problems:?}");
            let problem = problems.into_iter().next().unwrap();
            assert_eq!(problem.field, "spec.columns[0].expression");
            (problem.message, problem.position)
        }
        other => panic!("{expression} isn't refused: {other:?}"),
    }
}
