//! DataFusion's errors in words that whoever wrote an expression understands.

use arrow::error::ArrowError;
use datafusion_common::DataFusionError;

/// How DataFusion and Arrow frame what they say.
const FRAMES: [&str; 12] = [
    "Error during planning: ",
    "Execution error: ",
    "Arrow error: ",
    "SQL error: ",
    "Schema error: ",
    "External error: ",
    "Cast error: ",
    "Parser error: ",
    "Compute error: ",
    "Arithmetic overflow: ",
    "Invalid argument error: ",
    "This feature is not implemented: ",
];

/// Arrow's names of types, longest first, and those that `cast` takes.
const TYPES: [(&str, &str); 16] = [
    ("Timestamp(µs, \"UTC\")", "timestamp with time zone"),
    ("Timestamp(µs)", "timestamp"),
    ("Time64(µs)", "time"),
    ("Decimal128", "decimal"),
    ("Float64", "double"),
    ("Float32", "real"),
    ("Boolean", "boolean"),
    ("UInt64", "bigint unsigned"),
    ("UInt32", "int unsigned"),
    ("UInt16", "smallint unsigned"),
    ("Int64", "bigint"),
    ("Int32", "int"),
    ("Int16", "smallint"),
    ("Int8", "tinyint"),
    ("Date32", "date"),
    ("Utf8", "text"),
];

/// What DataFusion says, without its own framing.
pub(super) fn readable(error: &DataFusionError) -> String {
    if matches!(root(error), Some(ArrowError::DivideByZero)) {
        return "division by zero".to_owned();
    }
    let whole = error.find_root().strip_backtrace();
    // Function 'x' user-defined coercion failed with: Error during planning: what is meant
    let mut text = match whole.rsplit_once("coercion failed with: ") {
        Some((_, meant)) => meant,
        None => whole.as_str(),
    };
    while let Some(rest) = FRAMES.iter().find_map(|frame| text.strip_prefix(frame)) {
        text = rest;
    }
    if text.starts_with("regex parse error") {
        // A drawing of the pattern, and in the last line the reason.
        let reason = text.lines().last().unwrap_or(text);
        let reason = reason.trim().trim_start_matches("error: ");
        return format!("the regular expression is wrong: {reason}");
    }
    if text.starts_with("Failed to coerce arguments") {
        // What follows lists every signature in Arrow's terms; the caller adds how the function is used.
        return "the arguments have the wrong types, or there are too few or too many".to_owned();
    }
    let line = text.lines().next().unwrap_or(text).trim();
    TYPES.iter().fold(line.to_owned(), |line, (theirs, ours)| {
        match line.contains(theirs) {
            true => line.replace(theirs, ours),
            false => line,
        }
    })
}

/// What went wrong, without the value that it went wrong on.
pub(super) fn cause(error: &DataFusionError) -> &'static str {
    match root(error) {
        Some(ArrowError::DivideByZero) => "division by zero",
        Some(ArrowError::ArithmeticOverflow(_)) => "a number is out of range",
        Some(ArrowError::CastError(_) | ArrowError::ParseError(_)) => {
            "a value can't be converted to the type asked for"
        }
        _ => "it can't be computed for a value",
    }
}

fn root(error: &DataFusionError) -> Option<&ArrowError> {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => Some(error),
        _ => None,
    }
}
