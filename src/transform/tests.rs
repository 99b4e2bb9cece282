use std::sync::Arc;

use arrow::{
    array::{AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
};

use super::*;

fn people() -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("Name", DataType::Utf8, true),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from(vec![1, 2, 3])),
            Arc::new(StringArray::from(vec![Some("Ann"), None, Some("Bo")])),
        ],
    )
    .unwrap()
}

fn column(name: &str, expression: Option<&str>) -> Column {
    Column {
        name: name.to_owned(),
        expression: expression.map(str::to_owned),
        ..Column::default()
    }
}

fn compiled(columns: &[Column], filter: Option<&str>) -> Result<Transform, Error> {
    let request = Request {
        columns,
        filter,
        path: "spec.",
    };
    compile(people().schema_ref(), request)
}

#[test]
fn columns_are_chosen_ordered_and_renamed() {
    let columns = [
        column("Name", None),
        column("number", Some("id")),
        column("up", Some("upper(Name)")),
    ];
    let result = compiled(&columns, Some("id >= 2"))
        .unwrap()
        .apply(people())
        .unwrap();
    assert_eq!(result.num_rows(), 2);
    assert_eq!(result.schema().field(1).name(), "number");
    assert_eq!(
        result.column(1).as_primitive::<Int64Type>().values(),
        &[2, 3]
    );
    assert_eq!(result.column(2).as_string::<i32>().value(1), "BO");
}
