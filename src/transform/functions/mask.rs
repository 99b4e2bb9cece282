//! `mask` and `mask_email`: text that shows as little as it is told to.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, StringArray, StringBuilder},
    datatypes::{DataType, Int64Type},
};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

const MASK: char = '*';

/// `mask(text, first, last)`: the first and the last characters stay, every other becomes `*`. A text that would be
/// shown whole is masked whole.
pub(super) fn mask() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Mask {
        signature: Signature::exact(
            vec![DataType::Utf8, DataType::Int64, DataType::Int64],
            Volatility::Immutable,
        ),
    }))
}

/// `mask_email(text)`: the first character and everything from the last `@` on stay. Without an `@`, or with a single
/// character before it, nothing of that part stays.
pub(super) fn mask_email() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(MaskEmail {
        signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
    }))
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Mask {
    signature: Signature,
}

impl ScalarUDFImpl for Mask {
    fn name(&self) -> &str {
        "mask"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let text = arrays[0].as_string::<i32>();
        let first = arrays[1].as_primitive::<Int64Type>();
        let last = arrays[2].as_primitive::<Int64Type>();
        let mut masked = StringBuilder::with_capacity(text.len(), text.value_data().len());
        for row in 0..text.len() {
            if text.is_null(row) || first.is_null(row) || last.is_null(row) {
                masked.append_null();
                continue;
            }
            let (first, last) = (first.value(row), last.value(row));
            let (Ok(first), Ok(last)) = (usize::try_from(first), usize::try_from(last)) else {
                return exec_err!("mask keeps 0 or more characters, not {}", first.min(last));
            };
            append_masked(&mut masked, text.value(row), first, last);
            masked.append_value("");
        }
        Ok(returned(masked.finish(), &args.args))
    }
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct MaskEmail {
    signature: Signature,
}

impl ScalarUDFImpl for MaskEmail {
    fn name(&self) -> &str {
        "mask_email"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let text = arrays[0].as_string::<i32>();
        let mut masked = StringBuilder::with_capacity(text.len(), text.value_data().len());
        for value in text {
            let Some(value) = value else {
                masked.append_null();
                continue;
            };
            match value.rfind('@') {
                Some(at) => {
                    append_masked(&mut masked, &value[..at], 1, 0);
                    masked.append_value(&value[at..]);
                }
                None => {
                    append_masked(&mut masked, value, 0, 0);
                    masked.append_value("");
                }
            }
        }
        Ok(returned(masked.finish(), &args.args))
    }
}

/// To the value that `masked` is building; what counts is characters, not bytes.
fn append_masked(masked: &mut StringBuilder, text: &str, first: usize, last: usize) {
    use std::fmt::Write;
    let characters = text.chars().count();
    let (first, last) = match first.saturating_add(last) < characters {
        true => (first, last),
        false => (0, 0),
    };
    for (index, character) in text.chars().enumerate() {
        let shown = index < first || index >= characters - last;
        masked
            .write_char(if shown { character } else { MASK })
            .expect("a builder takes any text");
    }
}

/// A constant stays one, so that it can be folded.
fn returned(array: StringArray, args: &[ColumnarValue]) -> ColumnarValue {
    let constant = args
        .iter()
        .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    if constant && array.len() == 1 {
        let value = array.is_valid(0).then(|| array.value(0).to_owned());
        return ColumnarValue::Scalar(ScalarValue::Utf8(value));
    }
    ColumnarValue::Array(Arc::new(array))
}
