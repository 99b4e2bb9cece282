//! `infinity` in dates and timestamps: the extremes of their integers, which are no numbers to compute with.

use arrow::{
    array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, PrimitiveArray},
    datatypes::{ArrowPrimitiveType, DataType, Date32Type, TimeUnit, TimestampMicrosecondType},
    error::ArrowError,
};
use datafusion_common::Result;
use datafusion_expr::ColumnarValue;

/// Fails where an argument is infinite and `has_value` says that its row got a value all the same.
pub(super) fn refuse(
    name: &str,
    args: &[ColumnarValue],
    rows: usize,
    has_value: impl Fn(usize) -> bool,
) -> Result<()> {
    for arg in args {
        let found = match arg {
            ColumnarValue::Array(array) => infinite(array).into_iter().any(&has_value),
            ColumnarValue::Scalar(value) => {
                !infinite(&value.to_array()?).is_empty() && (0..rows).any(&has_value)
            }
        };
        if found {
            let text = format!("infinity is out of range for {name}");
            return Err(ArrowError::ArithmeticOverflow(text).into());
        }
    }
    Ok(())
}

/// Rows with an infinite date or timestamp; none for other types.
fn infinite(array: &ArrayRef) -> Vec<usize> {
    match array.data_type() {
        DataType::Date32 => extremes(array.as_primitive::<Date32Type>()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            extremes(array.as_primitive::<TimestampMicrosecondType>())
        }
        _ => Vec::new(),
    }
}

fn extremes<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> Vec<usize> {
    let (least, most) = (T::Native::MIN_TOTAL_ORDER, T::Native::MAX_TOTAL_ORDER);
    let rows = array.values().iter().enumerate();
    rows.filter(|(_, value)| value.is_eq(least) || value.is_eq(most))
        .map(|(row, _)| row)
        .filter(|row| array.is_valid(*row))
        .collect()
}
