//! Text arguments as they came: a constant once, however many rows there are.

use arrow::{
    array::{Array, AsArray, StringArray},
    compute::cast,
    datatypes::DataType,
};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::ColumnarValue;

/// NULL is the empty text here: nothing comes of it.
pub(in crate::transform) enum Texts {
    /// The same in all rows.
    One(String),
    Each(StringArray),
}

impl Texts {
    /// Of what isn't text, its text.
    pub fn of(arg: &ColumnarValue) -> Result<Self> {
        Ok(match arg {
            ColumnarValue::Scalar(value) => match value.cast_to(&DataType::Utf8)? {
                ScalarValue::Utf8(Some(text)) => Self::One(text),
                _ => Self::One(String::new()),
            },
            ColumnarValue::Array(array) => {
                Self::Each(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
            }
        })
    }

    pub fn row(&self, row: usize) -> &str {
        match self {
            Self::One(text) => text,
            Self::Each(texts) if texts.is_valid(row) => texts.value(row),
            Self::Each(_) => "",
        }
    }

    /// What they take in that many rows.
    pub fn bytes(&self, rows: usize) -> u128 {
        match self {
            Self::One(text) => text.len() as u128 * rows as u128,
            // From first to last offset: an array may be a slice of a much larger one.
            Self::Each(texts) => (texts.offsets()[texts.len()] - texts.offsets()[0]) as u128,
        }
    }
}
