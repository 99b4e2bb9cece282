//! Casts stay what they were written as.
//!
//! DataFusion moves a cast from a column to the literal that it is compared with: `cast(x as T) = 10` becomes `x = 10`. That is
//! right only where the cast neither brings two values together nor fails: as an integer 10.50 is 10, as a `smallint` 70000 is an
//! error, and with `try_cast` NULL. Every other cast is put into a function, which is not looked into. Constants are
//! folded all the same.

use arrow::datatypes::DataType;
use datafusion_common::{
    DFSchema, Result, internal_err,
    tree_node::{Transformed, TransformedResult, TreeNode},
};
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// `expr`, already coerced and not yet simplified, with every cast that could lose something kept in its place.
pub(super) fn kept(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform_up(|node| {
        let is_harmless = match &node {
            Expr::Cast(cast) => widens(&cast.expr.get_type(schema)?, cast.field.data_type()),
            Expr::TryCast(_) => false,
            _ => true,
        };
        if is_harmless {
            return Ok(Transformed::no(node));
        }
        let function = ScalarUDF::new_from_impl(Kept {
            signature: Signature::any(1, Volatility::Immutable),
        });
        Ok(Transformed::yes(function.call(vec![node])))
    })
    .data()
}

/// Whether every value of `from` has one of its own in `to`.
fn widens(from: &DataType, to: &DataType) -> bool {
    if from == to || from == &DataType::Null || (from.is_string() && to.is_string()) {
        return true;
    }
    if from.is_integer() && to.is_integer() {
        let is_signed = to.is_signed_integer();
        let from_bits = bits(from) + u32::from(from.is_unsigned_integer() && is_signed);
        return from_bits <= bits(to) && (is_signed || from.is_unsigned_integer());
    }
    match (whole_digits(from), whole_digits(to), to) {
        (Some(from), Some(to), DataType::Decimal128(..) | DataType::Decimal256(..)) => {
            from.0 <= to.0 && from.1 <= to.1
        }
        _ => false,
    }
}

fn bits(integer: &DataType) -> u32 {
    integer
        .primitive_width()
        .map_or(0, |bytes| 8 * bytes as u32)
}

/// Before and behind the point, of integers and decimals.
fn whole_digits(data_type: &DataType) -> Option<(i32, i32)> {
    match data_type {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            let scale = i32::from(*scale);
            Some((i32::from(*precision) - scale, scale))
        }
        DataType::Int8 | DataType::UInt8 => Some((3, 0)),
        DataType::Int16 | DataType::UInt16 => Some((5, 0)),
        DataType::Int32 | DataType::UInt32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::UInt64 => Some((20, 0)),
        _ => None,
    }
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Kept {
    signature: Signature,
}

impl ScalarUDFImpl for Kept {
    fn name(&self) -> &str {
        "cast"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [of] => Ok(of.clone()),
            _ => internal_err!("a cast has one value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => internal_err!("a cast has one value"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DataType::*, widens};

    #[test]
    fn only_what_holds_every_value_is_wider() {
        for (from, to) in [
            (Int16, Int64),
            (UInt32, Int64),
            (UInt8, UInt16),
            (Int64, Decimal128(19, 0)),
            (UInt64, Decimal128(22, 2)),
            (Decimal128(12, 2), Decimal128(13, 3)),
        ] {
            assert!(widens(&from, &to), "{from} to {to}");
        }
        for (from, to) in [
            (Int64, Int16),
            (UInt64, Int64),
            (Int8, UInt64),
            (Int64, Decimal128(20, 2)),
            (Decimal128(12, 2), Int64),
            (Decimal128(12, 2), Decimal128(13, 4)),
            (Int64, Float64),
            (Int64, Utf8),
            (Utf8, Int64),
        ] {
            assert!(!widens(&from, &to), "{from} to {to}");
        }
    }
}
