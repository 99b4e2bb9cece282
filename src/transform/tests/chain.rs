//! What a definition fixes can't be lifted or probed by the caller's transform behind it.

use arrow::{array::AsArray, datatypes::Int64Type};

use super::{
    super::*,
    sample::{batch, column},
};

fn definition(columns: &[Column], filter: Option<&str>) -> Transform {
    let request = Request {
        columns,
        filter,
        path: "definition.",
    };
    compile(batch().schema_ref(), request).unwrap()
}

fn masked() -> Transform {
    let columns = [
        column("id", None),
        column("email", Some("mask_email(email)")),
        column("Name", None),
    ];
    definition(&columns, Some("id <> 3"))
}

fn caller<'a>(columns: &'a [Column], filter: Option<&'a str>) -> Request<'a> {
    Request {
        columns,
        filter,
        path: "spec.",
    }
}

#[test]
fn a_filter_on_a_masked_column_sees_the_mask() {
    let probe = |filter: &str| {
        let next = compile(masked().output_schema(), caller(&[], Some(filter))).unwrap();
        masked().then(next).apply(batch()).unwrap().num_rows()
    };
    assert_eq!(probe("email like 'ann%'"), 0);
    assert_eq!(probe("email like 'a***%'"), 1);
}

#[test]
fn rows_and_columns_that_a_definition_leaves_out_stay_out() {
    let error = compile(masked().output_schema(), caller(&[], Some("paid"))).unwrap_err();
    assert!(error.to_string().contains("no column \"paid\""), "{error}");
    let next = compile(
        masked().output_schema(),
        caller(&[], Some("id > 0 or true")),
    )
    .unwrap();
    let result = masked().then(next).apply(batch()).unwrap();
    assert_eq!(
        result.column(0).as_primitive::<Int64Type>().values(),
        &[1, 2]
    );
}

#[test]
fn a_caller_may_leave_out_reorder_and_compute() {
    let columns = [column("mail", Some("upper(email)")), column("id", None)];
    let next = compile(masked().output_schema(), caller(&columns, Some("id = 1"))).unwrap();
    let result = masked().then(next).apply(batch()).unwrap();
    assert_eq!(result.num_columns(), 2);
    assert_eq!(
        result.column(0).as_string::<i32>().value(0),
        "A******@EXAMPLE.COM"
    );
    assert_eq!(result.column(1).as_primitive::<Int64Type>().values(), &[1]);
}

#[test]
fn what_a_caller_leaves_out_is_not_computed() {
    let fixed = definition(
        &[
            column("broken", Some("10 / (id - id)")),
            column("Name", None),
            column("double", Some("id * 2")),
        ],
        None,
    );
    assert!(fixed.apply(batch()).is_err());
    let columns = [column("d", Some("double + 1"))];
    let next = compile(fixed.output_schema(), caller(&columns, Some("double > 2"))).unwrap();
    let result = fixed.then(next).apply(batch()).unwrap();
    assert_eq!(
        result.column(0).as_primitive::<Int64Type>().values(),
        &[5, 7]
    );
}

#[test]
fn three_stages_run_in_order() {
    let first = definition(
        &[column("a", Some("id + 1")), column("b", Some("id * 10"))],
        None,
    );
    let second = compile(
        first.output_schema(),
        caller(&[column("c", Some("a + b"))], None),
    )
    .unwrap();
    let two = first.then(second);
    let third = compile(two.output_schema(), caller(&[], Some("c > 12"))).unwrap();
    let result = two.then(third).apply(batch()).unwrap();
    assert_eq!(
        result.column(0).as_primitive::<Int64Type>().values(),
        &[23, 34]
    );
}

#[test]
fn the_identity_is_neutral() {
    let schema = batch().schema();
    let before = Transform::identity(schema).then(masked());
    let after = masked().then(Transform::identity(masked().output_schema().clone()));
    let plain = masked().apply(batch()).unwrap();
    assert_eq!(before.apply(batch()).unwrap(), plain);
    assert_eq!(after.apply(batch()).unwrap(), plain);
}

#[test]
fn a_definitions_failure_shows_no_value_to_the_client() {
    let fixed = definition(&[column("n", Some("cast(email as bigint)"))], None);
    let failure = fixed.apply(batch()).unwrap_err().into_failure();
    assert_eq!(
        failure.message,
        "definition.columns[0].expression: a value can't be converted to the type asked for"
    );
    let operator = failure.operator.unwrap();
    assert!(operator.contains("ann.lee@example.com"), "{operator}");
}

#[test]
#[should_panic(expected = "compiled against")]
fn a_transform_of_another_schema_is_a_defect() {
    let _ = masked().then(definition(&[], Some("paid")));
}
