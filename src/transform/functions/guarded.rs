//! DataFusion's functions with a check around them: on the size of what they are about to make, on floats that leave the
//! range of numbers, on infinite dates that would become numbers.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    compute::cast,
    datatypes::{DataType, FieldRef, Float64Type, Int64Type},
    error::ArrowError,
};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::{super::infinity, RESULT_BYTES_MAX, Texts, rows_to_fill};

/// Refuses to make more than [`RESULT_BYTES_MAX`] for a batch. The size is known before anything is made.
pub(super) fn bounded(inner: Arc<ScalarUDF>, size: Size) -> Arc<ScalarUDF> {
    guarded(inner, Guard::Size(size))
}

/// Refuses results that are infinite or no number, unless an argument is.
pub(super) fn finite(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    guarded(inner, Guard::Finite)
}

/// Refuses a value for an infinite date or timestamp; NULL is none.
pub(super) fn of_finite_times(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    guarded(inner, Guard::FiniteTimes)
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
    /// `(separator, text, text, ...)`
    Joined,
    /// `(moment, format)`
    Format,
}

/// What one code of a format may become: `%+` is 2001-07-08T00:34:60.026490708+09:30.
const CODE_BYTES_MAX: usize = 40;
/// What a number, a date or a boolean takes as text.
const PLAIN_BYTES_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Guard {
    Size(Size),
    Finite,
    FiniteTimes,
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
        let field = self.inner.return_field_from_args(args)?;
        // A part of an infinite date is NULL, also where no date is.
        Ok(Arc::new(field.as_ref().clone().with_nullable(true)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.guard {
            Guard::Size(size) => {
                let bytes = size.bytes(&args.args, rows_to_fill(&args.args, args.number_rows))?;
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
            Guard::FiniteTimes => {
                let (given, rows) = (args.args.clone(), args.number_rows);
                let result = self.inner.invoke_with_args(args)?;
                infinity::refuse(self.name(), &given, rows, |row| match &result {
                    ColumnarValue::Array(array) => array.is_valid(row),
                    ColumnarValue::Scalar(value) => !value.is_null(),
                })?;
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
    /// At most, for all rows together. Constants are never written out for each row here.
    fn bytes(self, args: &[ColumnarValue], rows: usize) -> Result<u128> {
        let text = |index: usize| Texts::of(&args[index]);
        let over_rows = |bytes: &dyn Fn(usize) -> u128| (0..rows).map(bytes).sum::<u128>();
        Ok(match self {
            Self::Repeat => {
                let (text, times) = (text(0)?, Counts::of(&args[1])?);
                over_rows(&|row| text.row(row).len() as u128 * times.row(row))
            }
            Self::Pad => {
                let characters = Counts::of(&args[1])?;
                // A character takes at most four bytes.
                over_rows(&|row| 4 * characters.row(row))
            }
            Self::Replace => {
                let (text, from, to) = (text(0)?, text(1)?, text(2)?);
                over_rows(&|row| {
                    let (text, from, to) = (text.row(row), from.row(row), to.row(row));
                    if to.len() <= from.len() {
                        return text.len() as u128;
                    }
                    (text.len() + text.matches(from).count() * to.len()) as u128
                })
            }
            Self::Sum => sum(args, rows)?,
            Self::Joined => {
                // All but the first one, which stands among the others already.
                let separators = args.len().saturating_sub(2) as u128;
                sum(args, rows)? + separators * text(0)?.bytes(rows)
            }
            Self::Format => {
                let format = text(1)?;
                let row_bytes = |row| {
                    let format = format.row(row);
                    (format.len() + CODE_BYTES_MAX * format.matches('%').count()) as u128
                };
                match &format {
                    Texts::One(_) => rows as u128 * row_bytes(0),
                    Texts::Each(_) => over_rows(&row_bytes),
                }
            }
        })
    }
}

fn sum(args: &[ColumnarValue], rows: usize) -> Result<u128> {
    let mut sum = (args.len() * PLAIN_BYTES_MAX * rows) as u128;
    for arg in args {
        sum += match arg {
            text if text.data_type().is_string() => Texts::of(text)?.bytes(rows),
            ColumnarValue::Scalar(value) => bytes(&value.to_array()?)? * rows as u128,
            ColumnarValue::Array(array) => bytes(array)?,
        };
    }
    Ok(sum)
}

/// Of an array's own rows: it may be a slice of a much larger one.
fn bytes(array: &ArrayRef) -> Result<u128> {
    Ok(array.to_data().get_slice_memory_size()? as u128)
}

/// A number of characters or times; negative and NULL are none.
enum Counts {
    One(i64),
    Each(Int64Array),
}

impl Counts {
    fn of(arg: &ColumnarValue) -> Result<Self> {
        Ok(match arg {
            ColumnarValue::Scalar(value) => {
                let one = cast(&value.to_array()?, &DataType::Int64)?;
                let one = one.as_primitive::<Int64Type>();
                Self::One(if one.is_valid(0) { one.value(0) } else { 0 })
            }
            ColumnarValue::Array(array) => Self::Each(
                cast(array, &DataType::Int64)?
                    .as_primitive::<Int64Type>()
                    .clone(),
            ),
        })
    }

    fn row(&self, row: usize) -> u128 {
        let count = match self {
            Self::One(count) => *count,
            Self::Each(counts) if counts.is_valid(row) => counts.value(row),
            Self::Each(_) => 0,
        };
        u128::try_from(count).unwrap_or(0)
    }
}
