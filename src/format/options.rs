//! What the options of formats may be, whatever the columns. Requests are checked with these rules as they arrive, stored
//! specs as their encoders are made; each says what is wrong with a value, for the client.

use crate::export::spec::Compression;

use super::xlsx::SHEET_NAME_UNITS_MAX;

/// Of csv and jsonl.
pub const TEXT_COMPRESSIONS: &[Compression] =
    &[Compression::None, Compression::Gzip, Compression::Zstd];
pub const PARQUET_COMPRESSIONS: &[Compression] = &[
    Compression::None,
    Compression::Gzip,
    Compression::Zstd,
    Compression::Snappy,
    Compression::Lz4,
];
pub const ARROW_COMPRESSIONS: &[Compression] =
    &[Compression::None, Compression::Zstd, Compression::Lz4];

const ROW_GROUP_ROWS_MAX: u64 = 100_000_000;

pub fn delimiter(delimiter: u8) -> Result<(), String> {
    if delimiter.is_ascii() && !matches!(delimiter, b'"' | b'\r' | b'\n' | 0) {
        return Ok(());
    }
    Err(
        "must be one ASCII character that is no quote, line break or NUL, as \",\", \";\" or a tab"
            .to_owned(),
    )
}

/// It is written unquoted, so that it differs from text.
pub fn null_text(text: &str, delimiter: u8) -> Result<(), String> {
    let special = |byte| byte == delimiter || matches!(byte, b'"' | b'\r' | b'\n');
    if !text.bytes().any(special) {
        return Ok(());
    }
    Err(
        "contains a quote, a line break or the delimiter; it is written unquoted, so that it differs from text"
            .to_owned(),
    )
}

/// Excel's own rules; a name that breaks one makes it call the file damaged.
pub fn sheet_name(name: &str) -> Result<(), String> {
    let units = name.encode_utf16().count();
    let is_forbidden =
        |c: char| r"*?:[]\/".contains(c) || c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}');
    Err(if name.trim().is_empty() {
        "must not be blank".to_owned()
    } else if units > SHEET_NAME_UNITS_MAX {
        format!("has {units} characters; Excel allows {SHEET_NAME_UNITS_MAX}")
    } else if let Some(character) = name.chars().find(|&c| is_forbidden(c)) {
        format!(r"holds {character:?}; Excel forbids * ? : [ ] \ / and control characters")
    } else if name.starts_with('\'') || name.ends_with('\'') {
        "starts or ends with an apostrophe, which Excel forbids".to_owned()
    } else if name.eq_ignore_ascii_case("history") {
        "is reserved by Excel".to_owned()
    } else {
        return Ok(());
    })
}

/// Of xlsx. 0 would be stored, which its library can't.
pub fn compression_level(level: i32) -> Result<(), String> {
    match level {
        1..=9 => Ok(()),
        _ => Err("must be 1 to 9; level 0 (stored) is not available yet".to_owned()),
    }
}

pub fn row_group_rows(rows: u64) -> Result<(), String> {
    match rows {
        1..=ROW_GROUP_ROWS_MAX => Ok(()),
        _ => Err(format!(
            "is {rows}; it must be from 1 to {ROW_GROUP_ROWS_MAX}"
        )),
    }
}
