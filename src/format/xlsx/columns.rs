//! How a column looks: its title, width and number format.

use arrow::datatypes::{DataType, Field, Schema};
use rust_xlsxwriter::{Color, Format, FormatBorder};

use super::{SHEET_COLUMNS_MAX, strings};
use crate::{
    export::field::{kind, metadata},
    format::{Error, invalid},
};

const DATE_FORMAT: &str = "yyyy-mm-dd";
const DATE_TIME_FORMAT: &str = "yyyy-mm-dd hh:mm:ss";
const TIME_FORMAT: &str = "hh:mm:ss";
/// Characters of a number format in Excel.
const NUMBER_FORMAT_CHARS_MAX: usize = 255;
/// Decimal places that a number format may show in Excel.
const PLACES_MAX: i8 = 30;
/// Characters that a column may be wide in Excel.
const WIDTH_MAX: f64 = 255.0;
/// Wider than this only when it is asked for.
const GUESSED_WIDTH_MAX: usize = 60;
/// What the title needs beside its characters: bold type, some air.
const TITLE_PADDING: usize = 3;

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) width: f64,
    /// `None`: Excel's General.
    pub(super) format: Option<Format>,
}

#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) columns: Vec<Column>,
    pub(super) title_format: Format,
}

impl Layout {
    pub(super) fn new(schema: &Schema) -> Result<Self, Error> {
        let count = schema.fields().len();
        if count > SHEET_COLUMNS_MAX {
            return Err(invalid(
                "spec.format.xlsx",
                format!("Excel holds {SHEET_COLUMNS_MAX} columns; the result has {count}"),
            ));
        }
        let columns = schema.fields().iter().map(|field| Column::new(field));
        Ok(Self {
            columns: columns.collect::<Result<_, _>>()?,
            title_format: Format::new()
                .set_bold()
                .set_background_color(Color::RGB(0x00D9_E2F3))
                .set_border_bottom(FormatBorder::Thin),
        })
    }
}

impl Column {
    fn new(field: &Field) -> Result<Self, Error> {
        let meta = field.metadata();
        let title = meta.get(metadata::HEADER).unwrap_or_else(|| field.name());
        let number_format = match meta.get(metadata::NUMBER_FORMAT) {
            Some(asked) => {
                check_number_format(field.name(), asked)?;
                Some(asked.clone())
            }
            None => number_format(field.data_type()),
        };
        Ok(Self {
            name: field.name().clone(),
            title: title.clone(),
            width: match meta.get(metadata::WIDTH) {
                Some(asked) => width_asked(field.name(), asked)?,
                None => guessed_width(field, title) as f64,
            },
            format: number_format.map(|text| Format::new().set_num_format(text)),
        })
    }
}

fn check_number_format(column: &str, text: &str) -> Result<(), Error> {
    let wrong = if text.chars().count() > NUMBER_FORMAT_CHARS_MAX {
        format!("is longer than Excel's {NUMBER_FORMAT_CHARS_MAX} characters")
    } else if text.chars().any(char::is_control) {
        "holds a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(invalid(
        "spec.columns",
        format!("column {column}: number_format {wrong}"),
    ))
}

fn width_asked(column: &str, text: &str) -> Result<f64, Error> {
    match text.parse::<f64>() {
        Ok(width) if width > 0.0 && width <= WIDTH_MAX => Ok(width),
        _ => Err(invalid(
            "spec.columns",
            format!("column {column}: width must be above 0 and at most {WIDTH_MAX}, not {text}"),
        )),
    }
}

/// General would show 12 digits and more as `1.23457E+11`, and cut the zeros of money.
fn number_format(data_type: &DataType) -> Option<String> {
    use DataType::*;
    match data_type {
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => Some("0".to_owned()),
        Decimal128(_, scale) | Decimal256(_, scale) => match *scale {
            ..=0 => Some("0".to_owned()),
            1..=PLACES_MAX => Some(format!("0.{}", "0".repeat(*scale as usize))),
            _ => None,
        },
        Date32 => Some(DATE_FORMAT.to_owned()),
        Date64 | Timestamp(..) => Some(DATE_TIME_FORMAT.to_owned()),
        Time32(_) | Time64(_) => Some(TIME_FORMAT.to_owned()),
        _ => None,
    }
}

fn guessed_width(field: &Field, title: &str) -> usize {
    use DataType::*;
    let of_values = match field.data_type() {
        Boolean | Null => 8,
        Int8 | Int16 | UInt8 | UInt16 => 8,
        Int32 | UInt32 | Float32 | Float64 => 12,
        Int64 | UInt64 => 16,
        Decimal128(..) | Decimal256(..) => 16,
        Date32 => 12,
        Time32(_) | Time64(_) => 10,
        Date64 | Timestamp(..) => 20,
        Utf8 | LargeUtf8 | Utf8View => {
            match field.metadata().get(metadata::KIND).map(String::as_str) {
                Some(kind::UUID) => 38,
                Some(kind::NUMERIC) => 16,
                Some(kind::JSON) => 40,
                _ => 24,
            }
        }
        _ => 24,
    };
    of_values.max((cells_wide(title) + TITLE_PADDING).min(GUESSED_WIDTH_MAX))
}

/// East Asian characters are two digits wide. Counting everything from Hangul on as such is near enough for a guess.
fn cells_wide(text: &str) -> usize {
    strings::cut(text, GUESSED_WIDTH_MAX)
        .chars()
        .map(|c| if c >= '\u{1100}' { 2 } else { 1 })
        .sum()
}
