//! Arithmetic that fails instead of wrapping, and `||` of bounded size.
//!
//! DataFusion's own operators wrap on overflow, also where it folds constants, and follow IEEE for floats: here an
//! overflow and a division by zero are errors for every type, and infinite dates take no part. The operators are replaced
//! after types were coerced and before constants are folded.

use std::{hash::Hash, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Datum, Scalar, new_empty_array},
    compute::{
        CastOptions, cast, cast_with_options,
        kernels::{
            concat_elements::concat_elements_utf8,
            numeric::{add, div, mul, neg, rem, sub},
        },
    },
    datatypes::{DataType, Decimal128Type, Float32Type, Float64Type},
    error::ArrowError,
    util::display::FormatOptions,
};
use datafusion_common::{
    DFSchema, DataFusionError, Result, ScalarValue, exec_datafusion_err,
    tree_node::{Transformed, TransformedResult, TreeNode},
};
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use super::{
    functions::{RESULT_BYTES_MAX, Texts, rows_to_fill},
    infinity,
};

/// `expr`, already coerced, with every operator that could wrap or grow replaced.
pub(super) fn checked(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform_up(|node| {
        let (operation, args) = match node {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let types = (left.get_type(schema)?, right.get_type(schema)?);
                match operation(op, &types.0, &types.1) {
                    Some(operation) => (operation, vec![*left, *right]),
                    None => {
                        let same = Expr::BinaryExpr(BinaryExpr { left, op, right });
                        return Ok(Transformed::no(same));
                    }
                }
            }
            Expr::Negative(inner) => (Operation::Negate, vec![*inner]),
            other => return Ok(Transformed::no(other)),
        };
        let function = ScalarUDF::new_from_impl(Checked {
            signature: Signature::any(args.len(), Volatility::Immutable),
            operation,
        });
        Ok(Transformed::yes(function.call(args)))
    })
    .data()
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Negate,
    Join,
    /// Between two dates.
    Days,
}

fn operation(op: Operator, left: &DataType, right: &DataType) -> Option<Operation> {
    if left == &DataType::Date32 && right == &DataType::Date32 {
        return (op == Operator::Minus).then_some(Operation::Days);
    }
    // DataFusion's own: time of day plus interval, which is meant to go round the clock.
    let of_times = [left, right]
        .iter()
        .any(|side| matches!(side, DataType::Time32(_) | DataType::Time64(_)));
    if of_times {
        return None;
    }
    match op {
        Operator::Plus => Some(Operation::Add),
        Operator::Minus => Some(Operation::Subtract),
        Operator::Multiply => Some(Operation::Multiply),
        Operator::Divide => Some(Operation::Divide),
        Operator::Modulo => Some(Operation::Remainder),
        Operator::StringConcat => Some(Operation::Join),
        _ => None,
    }
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Checked {
    signature: Signature,
    operation: Operation,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "+",
            Operation::Subtract | Operation::Negate | Operation::Days => "-",
            Operation::Multiply => "*",
            Operation::Divide => "/",
            Operation::Remainder => "%",
            Operation::Join => "||",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if self.operation == Operation::Join {
            return Ok(DataType::Utf8);
        }
        let empty: Vec<ArrayRef> = types.iter().map(new_empty_array).collect();
        let operands: Vec<&dyn Datum> = empty.iter().map(|array| array as &dyn Datum).collect();
        Ok(self.compute(&operands)?.data_type().clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let result = if self.operation == Operation::Join {
            join(&args.args, rows)?
        } else {
            infinity::refuse(self.name(), &args.args, rows, |_| true)?;
            let operands = args
                .args
                .iter()
                .map(operand)
                .collect::<Result<Vec<Box<dyn Datum>>>>()?;
            let operands: Vec<&dyn Datum> = operands.iter().map(AsRef::as_ref).collect();
            let result = self.compute(&operands)?;
            check_decimal(&result)?;
            self.check_float(&result, &args.args)?;
            result
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &result, 0,
            )?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Checked {
    fn compute(&self, operands: &[&dyn Datum]) -> Result<ArrayRef, ArrowError> {
        match self.operation {
            Operation::Add => add(operands[0], operands[1]),
            Operation::Subtract => sub(operands[0], operands[1]),
            Operation::Multiply => mul(operands[0], operands[1]),
            Operation::Divide => div(operands[0], operands[1]),
            Operation::Remainder => rem(operands[0], operands[1]),
            Operation::Negate => neg(operands[0].get().0),
            Operation::Days => sub(days(operands[0])?.as_ref(), days(operands[1])?.as_ref()),
            Operation::Join => Err(ArrowError::InvalidArgumentError("text".to_owned())),
        }
    }

    /// Infinity and NaN may come out only where they went in.
    fn check_float(&self, result: &ArrayRef, args: &[ColumnarValue]) -> Result<()> {
        let Some(row) = first_odd(result) else {
            return Ok(());
        };
        let rows = result.len();
        let args = args
            .iter()
            .map(|arg| arg.to_array(rows))
            .collect::<Result<Vec<_>>>()?;
        for row in row..rows {
            let odd = |array: &ArrayRef| array.is_valid(row) && !value(array, row).is_finite();
            if !odd(result) || args.iter().any(odd) {
                continue;
            }
            let divides = matches!(self.operation, Operation::Divide | Operation::Remainder);
            return Err(match divides && value(&args[1], row) == 0.0 {
                true => DataFusionError::from(ArrowError::DivideByZero),
                false => DataFusionError::from(ArrowError::ArithmeticOverflow(format!(
                    "overflow in {} of floating-point numbers",
                    self.name()
                ))),
            });
        }
        Ok(())
    }
}

fn operand(arg: &ColumnarValue) -> Result<Box<dyn Datum>> {
    Ok(match arg {
        ColumnarValue::Array(array) => Box::new(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => Box::new(scalar.to_scalar()?),
    })
}

/// The first row whose value is infinite or no number.
fn first_odd(array: &ArrayRef) -> Option<usize> {
    match array.data_type() {
        DataType::Float64 => array
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .position(|value| !value.is_finite()),
        DataType::Float32 => array
            .as_primitive::<Float32Type>()
            .values()
            .iter()
            .position(|value| !value.is_finite()),
        _ => None,
    }
}

fn value(array: &ArrayRef, row: usize) -> f64 {
    match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).into(),
        _ => 0.0,
    }
}

/// Arrow's kernels check that a result fits 128 bits, which hold a little more than 38 digits.
fn check_decimal(result: &ArrayRef) -> Result<()> {
    if let DataType::Decimal128(precision, _) = result.data_type() {
        result
            .as_primitive::<Decimal128Type>()
            .validate_decimal_precision(*precision)
            .map_err(|error| ArrowError::ArithmeticOverflow(error.to_string()))?;
    }
    Ok(())
}

/// A date as the number of its day, in 64 bits: no difference overflows them.
fn days(date: &dyn Datum) -> Result<Box<dyn Datum>, ArrowError> {
    let (date, is_scalar) = date.get();
    let days = cast(date, &DataType::Int64)?;
    Ok(match is_scalar {
        true => Box::new(Scalar::new(days)),
        false => Box::new(days),
    })
}

/// What is no text fails, rather than becoming NULL.
const EXACT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: FormatOptions::new(),
};

fn join(sides: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let mut bytes = 0;
    for side in sides {
        bytes += Texts::of(side)?.bytes(rows_to_fill(sides, rows));
    }
    if bytes > RESULT_BYTES_MAX as u128 {
        return Err(exec_datafusion_err!(
            "the result of || takes more than {RESULT_BYTES_MAX} bytes for one batch of rows"
        ));
    }
    let sides = sides
        .iter()
        .map(|side| {
            Ok(cast_with_options(
                &side.to_array(rows)?,
                &DataType::Utf8,
                &EXACT,
            )?)
        })
        .collect::<Result<Vec<_>>>()?;
    let (left, right) = (sides[0].as_string::<i32>(), sides[1].as_string::<i32>());
    Ok(Arc::new(concat_elements_utf8(left, right)?))
}
