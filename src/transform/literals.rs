//! Literals as they were written, before anything is folded.

use datafusion_common::ScalarValue;
use datafusion_expr::Expr;

/// A whole number that a float of 32 bits holds.
pub(super) fn is_small_literal(expr: &Expr) -> bool {
    const MAX: u64 = 1 << 24;
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => value.unsigned_abs() <= MAX,
        Expr::Literal(ScalarValue::UInt64(Some(value)), _) => *value <= MAX,
        Expr::Negative(inner) => is_small_literal(inner),
        _ => false,
    }
}

/// With its sign.
pub(super) fn is_number_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Negative(inner) => is_number_literal(inner),
        _ => false,
    }
}

pub(super) fn is_text_literal(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Literal(
            ScalarValue::Utf8(_) | ScalarValue::LargeUtf8(_) | ScalarValue::Utf8View(_),
            _
        )
    )
}
