//! Batches of many rows: nothing that is made of one is larger than it may be.

use arrow::{array::AsArray, compute::concat_batches, datatypes::Int64Type};

use super::{
    super::{expression::ROWS_AT_ONCE, functions::CONSTANT_BYTES_MAX, *},
    sample::{batch, column, compiled},
};

/// The sample's rows, over and over.
fn many(rows: usize) -> RecordBatch {
    let sample = batch();
    let times = rows.div_ceil(sample.num_rows());
    let repeated = concat_batches(sample.schema_ref(), vec![&sample; times]).unwrap();
    repeated.slice(0, rows)
}

fn computed(expressions: &[&str], rows: usize) -> Result<RecordBatch, Error> {
    let columns: Vec<Column> = expressions
        .iter()
        .enumerate()
        .map(|(n, expression)| column(&format!("c{n}"), Some(expression)))
        .collect();
    compiled(&columns, None)?.apply(many(rows))
}

fn message_of(outcome: Result<RecordBatch, Error>) -> String {
    match outcome {
        Err(Error::Evaluation { message, .. }) => message,
        other => panic!(
            "it isn't refused: {:?}",
            other.map(|batch| batch.num_rows())
        ),
    }
}

#[test]
fn what_grows_a_text_is_bounded_for_the_whole_batch() {
    let long = format!("repeat('x', {CONSTANT_BYTES_MAX})");
    for expression in [
        "repeat(email, 2000)".to_owned(),
        "rpad(email, 5000)".to_owned(),
        format!("email || {long}"),
        format!("concat(email, {long})"),
        format!("concat_ws({long}, email, email, email, email)"),
        format!("replace(email, 'n', {long})"),
        format!("overlay(overlay(email placing {long} from 1 for 0) placing {long} from 1 for 0)"),
        "to_char(day, repeat('%A', 5000))".to_owned(),
        "to_char(day, repeat('%A', cast(id as bigint) * 500))".to_owned(),
    ] {
        let message = message_of(computed(&[&expression], ROWS_AT_ONCE));
        assert!(
            message.contains("takes more than 67108864 bytes for one batch"),
            "{expression}: {message}"
        );
    }
}

#[test]
fn the_longest_constant_fits_a_batch() {
    let longest = format!("repeat('x', {CONSTANT_BYTES_MAX})");
    let batch = computed(&[&longest], ROWS_AT_ONCE).unwrap();
    let texts = batch.column(0).as_string::<i32>();
    assert_eq!(texts.value_data().len(), functions::RESULT_BYTES_MAX);
}

#[test]
fn all_columns_together_are_bounded() {
    let chosen = format!("case when id > 0 then repeat('x', {CONSTANT_BYTES_MAX}) end");
    let message = message_of(computed(&[chosen.as_str(); 5], ROWS_AT_ONCE));
    assert!(message.contains("more than 268435456 bytes"), "{message}");
}

#[test]
fn a_large_batch_is_computed_in_parts() {
    let rows = 2 * ROWS_AT_ONCE + 77;
    let columns = [column("double", Some("id * 2")), column("id", None)];
    let transform = compiled(&columns, Some("id + 1 > 2")).unwrap();
    let result = transform.apply(many(rows)).unwrap();
    let ids: Vec<i64> = (0..rows as i64)
        .map(|row| row % 3 + 1)
        .filter(|id| *id > 1)
        .collect();
    let values = |index: usize| result.column(index).as_primitive::<Int64Type>().values();
    assert_eq!(values(1), &ids[..]);
    assert!(
        values(0)
            .iter()
            .zip(&ids)
            .all(|(double, id)| *double == 2 * id)
    );
}
