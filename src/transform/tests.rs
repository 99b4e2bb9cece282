mod chain;
mod documentation;
mod large;
mod property;
mod refusals;
mod sample;
mod values;

use arrow::{
    array::AsArray,
    datatypes::{DataType, Int64Type},
};

use self::sample::{batch, column, compiled, filtered};
use super::*;
use crate::export::field::{kind, metadata};

#[test]
fn without_columns_and_filter_nothing_happens() {
    let transform = compiled(&[], None).unwrap();
    let given = batch();
    let result = transform.apply(given.clone()).unwrap();
    assert_eq!(transform.output_schema(), &given.schema());
    for (before, after) in given.columns().iter().zip(result.columns()) {
        assert!(Arc::ptr_eq(before, after), "a column was copied");
    }
}

#[test]
fn columns_are_chosen_ordered_and_renamed() {
    let columns = [
        column("Name", None),
        column("number", Some("id")),
        column("id", None),
    ];
    let given = batch();
    let result = compiled(&columns, None)
        .unwrap()
        .apply(given.clone())
        .unwrap();
    let names: Vec<&str> = result
        .schema_ref()
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect();
    assert_eq!(names, ["Name", "number", "id"]);
    assert!(
        Arc::ptr_eq(result.column(1), given.column(0)),
        "a renamed column was copied"
    );
}

#[test]
fn a_column_that_is_passed_through_keeps_what_is_known_about_it() {
    let columns = [
        Column {
            header: Some("Number".to_owned()),
            number_format: Some("0.00".to_owned()),
            width: Some(12.5),
            ..column("n", Some("\"any\""))
        },
        column("text", Some("upper(\"any\")")),
    ];
    let transform = compiled(&columns, None).unwrap();
    let passed = transform.output_schema().field(0).metadata();
    assert_eq!(passed[metadata::KIND], kind::NUMERIC);
    assert_eq!(passed[metadata::SOURCE_TYPE], "numeric");
    assert_eq!(passed[metadata::HEADER], "Number");
    assert_eq!(passed[metadata::NUMBER_FORMAT], "0.00");
    assert_eq!(passed[metadata::WIDTH], "12.5");
    assert!(transform.output_schema().field(1).metadata().is_empty());
}

#[test]
fn a_filter_sees_input_columns_and_null_is_not_true() {
    assert_eq!(filtered("paid").unwrap(), [1]);
    assert_eq!(filtered("not paid").unwrap(), [3]);
    assert_eq!(filtered("Name is null").unwrap(), [2]);
    assert_eq!(
        filtered("id >= 2 and \"two words\" is not null").unwrap(),
        [3]
    );
    assert_eq!(filtered("true").unwrap(), [1, 2, 3]);
    assert_eq!(filtered("id > 100").unwrap(), [0_i64; 0]);
}

#[test]
fn rows_are_filtered_even_where_no_column_is_read() {
    let transform = compiled(&[column("one", Some("1"))], Some("id >= 2")).unwrap();
    let result = transform.apply(batch()).unwrap();
    assert_eq!(
        result.column(0).as_primitive::<Int64Type>().values(),
        &[1, 1]
    );
}

#[test]
fn an_empty_batch_passes() {
    let transform = compiled(&[column("x", Some("upper(Name)"))], Some("id = 1")).unwrap();
    let result = transform.apply(batch().slice(0, 0)).unwrap();
    assert_eq!(result.num_rows(), 0);
    assert_eq!(result.schema().field(0).data_type(), &DataType::Utf8);
}

#[test]
fn columns_are_computed_only_for_rows_that_stay() {
    let columns = [column("x", Some("10 / \"two words\""))];
    let unfiltered = compiled(&columns, None).unwrap().apply(batch());
    assert!(
        matches!(unfiltered, Err(Error::Evaluation { .. })),
        "{unfiltered:?}"
    );
    let transform = compiled(&columns, Some("\"two words\" <> 0")).unwrap();
    let result = transform.apply(batch()).unwrap();
    assert_eq!(result.column(0).as_primitive::<Int64Type>().values(), &[1]);
}

#[test]
fn a_column_that_is_never_null_may_have_no_year() {
    use arrow::{
        array::{Array, TimestampMicrosecondArray},
        datatypes::{Field, Schema, TimeUnit},
    };
    let at = DataType::Timestamp(TimeUnit::Microsecond, None);
    let schema = Arc::new(Schema::new(vec![Field::new("at", at, false)]));
    let columns = [column("year", Some("extract(year from at)"))];
    let request = Request {
        columns: &columns,
        filter: Some("extract(year from at) is null"),
        path: "spec.",
    };
    let transform = compile(&schema, request).unwrap();
    let values = TimestampMicrosecondArray::from(vec![0, sample::INFINITY_US]);
    let batch = RecordBatch::try_new(schema, vec![Arc::new(values)]).unwrap();
    let result = transform.apply(batch).unwrap();
    assert_eq!((result.num_rows(), result.column(0).null_count()), (1, 1));
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let columns = [
        column("id", None),
        column("nmae", None),
        column("id", Some("id +")),
        column("", Some("id")),
    ];
    let Err(Error::Invalid(problems)) = compiled(&columns, Some("id")) else {
        panic!("it was accepted");
    };
    let fields: Vec<&str> = problems
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.filter",
            "spec.columns[1].name",
            "spec.columns[2].name",
            "spec.columns[2].expression",
            "spec.columns[3].name",
        ]
    );
    assert!(
        problems[1].message.contains("did you mean \"Name\""),
        "{}",
        problems[1].message
    );
    assert!(
        problems[2].message.contains("columns[0] already"),
        "{}",
        problems[2].message
    );
    let failure = Error::Invalid(problems).into_failure();
    assert_eq!(failure.code, Code::InvalidArgument);
    assert_eq!(failure.violations.len(), 5);
}

#[test]
fn no_more_than_twenty_violations_are_reported() {
    let columns: Vec<Column> = (0..50).map(|n| column(&format!("c{n}"), None)).collect();
    let Err(Error::Invalid(problems)) = compiled(&columns, None) else {
        panic!("it was accepted");
    };
    assert_eq!(problems.len(), PROBLEMS_MAX);
}

#[test]
fn a_failed_evaluation_names_its_expression() {
    let error = filtered("10 / \"two words\" > 1").unwrap_err();
    assert!(!error.retryable());
    let failure = error.into_failure();
    assert_eq!(failure.code, Code::FailedPrecondition);
    assert_eq!(failure.reason, "EXPRESSION_FAILED");
    assert_eq!(failure.message, "spec.filter: division by zero");
}

#[test]
fn two_columns_of_one_name_are_refused_only_where_they_are_named() {
    use arrow::datatypes::{Field, Schema};
    let field = |name| Field::new(name, DataType::Int64, false);
    let schema = Arc::new(Schema::new(vec![field("a"), field("a"), field("b")]));
    let by = |name: &str| {
        let columns = [column(name, None)];
        compile(
            &schema,
            Request {
                columns: &columns,
                filter: Some("b > 0"),
                path: "spec.",
            },
        )
    };
    assert!(by("b").is_ok());
    let message = by("a").unwrap_err().to_string();
    assert!(message.contains("several columns named \"a\""), "{message}");
}
