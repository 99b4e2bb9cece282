//! DataFusion's functions with a check around them: on the size of what they are about to make, or on floats that
//! leave the range of numbers.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, FieldRef, Float64Type, Int64Type},
    error::ArrowError,
};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::RESULT_BYTES_MAX;

/// Refuses to make more than [`RESULT_BYTES_MAX`] for a batch. The size is known before anything is made.
pub(super) fn bounded(inner: Arc<ScalarUDF>, size: Size) -> Arc<ScalarUDF> {
    guarded(inner, Guard::Size(size))
}

/// Refuses results that are infinite or no number, unless an argument is.
pub(super) fn finite(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    guarded(inner, Guard::Finite)
}

fn guarded(inner: Arc<ScalarUDF>, guard: Guard) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Guarded { inner, guard }))
}

/// How the arguments say how large the result will be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Size {
    /// `(text, times)`
    Repeat,
    /// `(text, characters, fill)`
    Pad,
    /// `(text, from, to)`
    Replace,
    /// All the arguments' sizes together, for each row.
    Sum,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Guard {
    Size(Size),
    Finite,
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    guard: Guard,
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.guard {
            Guard::Size(size) => {
                let bytes = size.bytes(&args.args, args.number_rows)?;
                if bytes > RESULT_BYTES_MAX as u128 {
                    return exec_err!(
                        "the result of {} takes more than {RESULT_BYTES_MAX} bytes for one batch of rows",
                        self.name()
                    );
                }
                self.inner.invoke_with_args(args)
            }
            Guard::Finite => {
                let (given, rows) = (args.args.clone(), args.number_rows);
                let result = self.inner.invoke_with_args(args)?;
                if result.data_type().is_floating() {
                    self.check_finite(&given, &result, rows)?;
                }
                Ok(result)
            }
        }
    }
}

impl Guarded {
    fn check_finite(
        &self,
        given: &[ColumnarValue],
        result: &ColumnarValue,
        rows: usize,
    ) -> Result<()> {
        let float = |value: &ColumnarValue| -> Result<_> {
            Ok(cast(&value.to_array(rows)?, &DataType::Float64)?)
        };
        let result = float(result)?;
        let result = result.as_primitive::<Float64Type>();
        if result.values().iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        let given = given.iter().map(float).collect::<Result<Vec<_>>>()?;
        for row in 0..rows {
            let odd = |array: &dyn Array| {
                let array = array.as_primitive::<Float64Type>();
                array.is_valid(row) && !array.value(row).is_finite()
            };
            if odd(result) && !given.iter().any(|array| odd(array)) {
                let text = format!("{} has no result, or one out of range", self.name());
                return Err(ArrowError::ArithmeticOverflow(text).into());
            }
        }
        Ok(())
    }
}

impl Size {
    /// At most, for all rows together.
    fn bytes(self, args: &[ColumnarValue], rows: usize) -> Result<u128> {
        if self == Self::Sum {
            let mut bytes = 0;
            for arg in args {
                bytes += match arg {
                    ColumnarValue::Scalar(ScalarValue::Utf8(text)) => {
                        text.as_ref().map_or(0, String::len) as u128 * rows as u128
                    }
                    other => other.to_array(rows)?.get_array_memory_size() as u128,
                };
            }
            return Ok(bytes);
        }
        let text = |index: usize| -> Result<_> {
            Ok(cast(&args[index].to_array(rows)?, &DataType::Utf8)?)
        };
        let count = |index: usize| -> Result<_> {
            Ok(cast(&args[index].to_array(rows)?, &DataType::Int64)?)
        };
        let value = text(0)?;
        let value = value.as_string::<i32>();
        let lengths = value
            .offsets()
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as u128);
        let times = |counts: &dyn Array, row: usize| -> u128 {
            let counts = counts.as_primitive::<Int64Type>();
            match counts.is_valid(row) {
                true => u128::try_from(counts.value(row)).unwrap_or(0),
                false => 0,
            }
        };
        Ok(match self {
            Self::Repeat => {
                let counts = count(1)?;
                lengths
                    .enumerate()
                    .map(|(row, length)| length * times(&counts, row))
                    .sum()
            }
            Self::Pad => {
                let counts = count(1)?;
                // A character takes at most four bytes.
                (0..rows).map(|row| 4 * times(&counts, row)).sum()
            }
            Self::Replace => {
                let (from, to) = (text(1)?, text(2)?);
                let (from, to) = (from.as_string::<i32>(), to.as_string::<i32>());
                lengths
                    .enumerate()
                    .map(|(row, length)| {
                        let (from, to) = (from.value(row), to.value(row));
                        if to.len() <= from.len() {
                            return length;
                        }
                        length + (value.value(row).matches(from).count() * to.len()) as u128
                    })
                    .sum()
            }
            Self::Sum => 0,
        })
    }
}
