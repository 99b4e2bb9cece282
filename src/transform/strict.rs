//! Types that DataFusion would bring together silently, and wrongly: text with numbers, moments with wall clocks.
//!
//! Runs on the expression as it was written, before types are coerced. Where both sides mean the same thing, it puts
//! the cast that keeps microseconds (DataFusion's own way is nanoseconds, which end in 2262).

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion_common::{
    DFSchema, Result, plan_err,
    tree_node::{Transformed, TransformedResult, TreeNode},
};
use datafusion_expr::{
    BinaryExpr, Expr, ExprSchemable, Operator,
    expr::{Case, InList, ScalarFunction},
    expr_fn::cast,
};

use super::{
    literals::{is_number_literal, is_small_literal, is_text_literal},
    names,
};
use crate::export::field::{kind, metadata};

/// Functions whose arguments are compared, or of which one is the result.
const ALIKE: [&str; 4] = ["coalesce", "nullif", "greatest", "least"];

/// Those of them that compare.
const COMPARING: [&str; 3] = ["nullif", "greatest", "least"];

const PATTERNS: [&str; 2] = ["regexp_like", "regexp_count"];

/// Of a whole number they are that number, or another whole one. DataFusion's own way is a float, which holds 53 bits.
const WHOLE: [&str; 3] = ["ceil", "floor", "trunc"];

pub(super) fn checked(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let rules = Rules { schema };
    expr.transform_up(|node| rules.apply(node)).data()
}

/// What a type is about; only values of one family meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    Null,
    Boolean,
    Number,
    Text,
    Bytes,
    Date,
    /// A wall clock: a timestamp without a time zone.
    Wall,
    /// A timestamp with a time zone.
    Moment,
    Time,
    Interval,
}

struct Rules<'a> {
    schema: &'a DFSchema,
}

impl Rules<'_> {
    fn apply(&self, node: Expr) -> Result<Transformed<Expr>> {
        match node {
            Expr::BinaryExpr(binary) => self.binary(binary),
            Expr::Between(mut between) => {
                let (expr, low) = self.alike(*between.expr, *between.low)?;
                let (expr, high) = self.alike(expr, *between.high)?;
                between.expr = Box::new(expr);
                between.low = Box::new(low);
                between.high = Box::new(high);
                Ok(Transformed::yes(Expr::Between(between)))
            }
            Expr::InList(InList {
                expr,
                list,
                negated,
            }) => {
                let mut expr = *expr;
                let mut items = Vec::with_capacity(list.len());
                for item in list {
                    let (side, item) = self.alike(expr, item)?;
                    expr = side;
                    items.push(item);
                }
                let list = InList::new(Box::new(expr), items, negated);
                Ok(Transformed::yes(Expr::InList(list)))
            }
            Expr::Case(case) => self.case(case),
            Expr::Like(like) => {
                self.must_be_text(&like.expr)?;
                self.must_be_text(&like.pattern)?;
                Ok(Transformed::no(Expr::Like(like)))
            }
            Expr::ScalarFunction(call) if PATTERNS.contains(&call.name()) => {
                // A pattern of each row's own would be compiled for each row.
                match call.args.get(1) {
                    Some(pattern) if !is_text_literal(pattern) => {
                        plan_err!("the pattern of {} is written as text", call.name())
                    }
                    _ => Ok(Transformed::no(Expr::ScalarFunction(call))),
                }
            }
            Expr::ScalarFunction(mut call) if ALIKE.contains(&call.name()) => {
                if COMPARING.contains(&call.name()) {
                    call.args
                        .iter()
                        .try_for_each(|arg| self.not_numeric_text(arg))?;
                }
                let args: Vec<&Expr> = call.args.iter().collect();
                self.one_family(&format!("the arguments of {}", call.name()), &args)?;
                self.to_floats(&mut call.args.iter_mut().collect::<Vec<_>>())?;
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            Expr::ScalarFunction(call) if WHOLE.contains(&call.name()) => self.whole(call),
            Expr::ScalarFunction(mut call) => {
                // Which argument, and of which kind, is brought to a wall clock in microseconds.
                let (index, family) = match call.name() {
                    "date_trunc" => (1, Family::Date),
                    "to_char" => (0, Family::Moment),
                    _ => return Ok(Transformed::no(Expr::ScalarFunction(call))),
                };
                if let Some(arg) = call.args.get_mut(index)
                    && self.family(arg)? == Some(family)
                {
                    *arg = cast(std::mem::take(arg), self.temporal(Family::Wall));
                }
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            Expr::Negative(inner) => {
                self.must_compute(&inner)?;
                Ok(Transformed::no(Expr::Negative(inner)))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    fn case(&self, mut case: Case) -> Result<Transformed<Expr>> {
        if case.expr.is_none() {
            for (when, _) in &case.when_then_expr {
                self.must_be_boolean(when)?;
            }
        }
        if let Some(base) = case.expr.take() {
            let mut base = *base;
            for (when, _) in &mut case.when_then_expr {
                let (side, value) = self.alike(base, (**when).clone())?;
                base = side;
                **when = value;
            }
            case.expr = Some(Box::new(base));
        }
        let results: Vec<&Expr> = results_of(&case).collect();
        self.one_family("the results of case", &results)?;
        let results = case.when_then_expr.iter_mut().map(|(_, then)| &mut **then);
        let mut results: Vec<_> = results.chain(case.else_expr.as_deref_mut()).collect();
        self.to_floats(&mut results)?;
        Ok(Transformed::yes(Expr::Case(case)))
    }

    fn whole(&self, mut call: ScalarFunction) -> Result<Transformed<Expr>> {
        let Some(number) = call.args.first_mut() else {
            return Ok(Transformed::no(Expr::ScalarFunction(call)));
        };
        let digits = match number.get_type(self.schema)? {
            DataType::UInt64 => 20,
            integer if integer.is_integer() => 19,
            _ => return Ok(Transformed::no(Expr::ScalarFunction(call))),
        };
        let number = std::mem::take(number);
        if call.args.len() == 1 {
            return Ok(Transformed::yes(number));
        }
        call.args[0] = cast(number, DataType::Decimal128(digits, 0));
        Ok(Transformed::yes(Expr::ScalarFunction(call)))
    }

    fn binary(&self, binary: BinaryExpr) -> Result<Transformed<Expr>> {
        let BinaryExpr { left, op, right } = binary;
        if is_comparison(op) {
            let (left, right) = self.alike(*left, *right)?;
            let compared = BinaryExpr::new(Box::new(left), op, Box::new(right));
            return Ok(Transformed::yes(Expr::BinaryExpr(compared)));
        }
        if matches!(
            op,
            Operator::Plus
                | Operator::Minus
                | Operator::Multiply
                | Operator::Divide
                | Operator::Modulo
        ) {
            self.must_compute(&left)?;
            self.must_compute(&right)?;
            return self.arithmetic(*left, op, *right);
        }
        if matches!(op, Operator::And | Operator::Or) {
            self.must_be_boolean(&left)?;
            self.must_be_boolean(&right)?;
        }
        let same = BinaryExpr { left, op, right };
        Ok(Transformed::no(Expr::BinaryExpr(same)))
    }

    /// A date and an interval make a timestamp, as in PostgreSQL: the interval may hold hours.
    fn arithmetic(&self, left: Expr, op: Operator, right: Expr) -> Result<Transformed<Expr>> {
        let wall = |date| cast(date, self.temporal(Family::Wall));
        let (left, right) = match (self.family(&left)?, self.family(&right)?) {
            (Some(Family::Date), Some(Family::Interval)) => (wall(left), right),
            (Some(Family::Interval), Some(Family::Date)) => (left, wall(right)),
            (Some(Family::Date), Some(Family::Time)) | (Some(Family::Time), Some(Family::Date)) => {
                return plan_err!(
                    "{} and {} can't be added: a date and a time of day",
                    shown(&left),
                    shown(&right)
                );
            }
            (Some(Family::Number), Some(Family::Number)) => {
                let (mut left, mut right) = (left, right);
                self.to_floats(&mut [&mut left, &mut right])?;
                (left, right)
            }
            _ => (left, right),
        };
        let computed = BinaryExpr::new(Box::new(left), op, Box::new(right));
        Ok(Transformed::yes(Expr::BinaryExpr(computed)))
    }

    fn must_be_boolean(&self, expr: &Expr) -> Result<()> {
        match self.family(expr)? {
            Some(Family::Boolean | Family::Null) => Ok(()),
            _ => plan_err!(
                "a condition is true or false; {} is {}: compare it with something",
                shown(expr),
                self.type_name(expr)?
            ),
        }
    }

    fn must_be_text(&self, expr: &Expr) -> Result<()> {
        match self.family(expr)? {
            Some(Family::Text | Family::Null) => Ok(()),
            _ => plan_err!(
                "like takes text; {} is {}: cast(... as text)",
                shown(expr),
                self.type_name(expr)?
            ),
        }
    }

    /// Text takes no part in arithmetic.
    fn must_compute(&self, expr: &Expr) -> Result<()> {
        self.not_numeric_text(expr)?;
        match self.family(expr)? {
            Some(Family::Text) => plan_err!(
                "{} is text; for arithmetic cast it, for instance cast(... as bigint) or cast(... as decimal(20, 4))",
                shown(expr)
            ),
            Some(Family::Boolean) => plan_err!(
                "{} is true or false, which takes no part in arithmetic; use case",
                shown(expr)
            ),
            _ => Ok(()),
        }
    }

    /// Both sides of a comparison, of one type where DataFusion would choose a wrong one.
    fn alike(&self, left: Expr, right: Expr) -> Result<(Expr, Expr)> {
        self.not_numeric_text(&left)?;
        self.not_numeric_text(&right)?;
        let (Some(l), Some(r)) = (self.family(&left)?, self.family(&right)?) else {
            return Ok((left, right));
        };
        use Family::*;
        match (l, r) {
            (Number, Number) => {
                let (mut left, mut right) = (left, right);
                self.to_floats(&mut [&mut left, &mut right])?;
                Ok((left, right))
            }
            _ if l == r || l == Null || r == Null => Ok((left, right)),
            // Text is read as what it is compared with, when it is a literal.
            (Date | Wall | Moment | Time, Text) if is_text_literal(&right) => {
                let target = self.temporal(l);
                Ok((left, cast(right, target)))
            }
            (Text, Date | Wall | Moment | Time) if is_text_literal(&left) => {
                let target = self.temporal(r);
                Ok((cast(left, target), right))
            }
            // A date is the midnight that it begins with.
            (Date, Wall) => Ok((cast(left, self.temporal(Wall)), right)),
            (Wall, Date) => Ok((left, cast(right, self.temporal(Wall)))),
            (Moment, Wall | Date) | (Wall | Date, Moment) => plan_err!(
                "{} and {} can't be compared: one of them has a time zone; bring it to the other's with at_zone(..., 'UTC'), or write a literal as '2024-01-31T00:00:00Z'",
                shown(&left),
                shown(&right)
            ),
            _ => plan_err!(
                "{} is {} and {} is {}: cast one of them{}",
                shown(&left),
                self.type_name(&left)?,
                shown(&right),
                self.type_name(&right)?,
                match (l, r) {
                    (Number, Text) if is_text_literal(&right) =>
                        ", or write the number without quotes",
                    (Text, Number) if is_text_literal(&left) =>
                        ", or write the number without quotes",
                    (Text, Number) => ", or put the number in quotes",
                    _ => "",
                }
            ),
        }
    }

    /// Decimals that meet floats become floats, as in PostgreSQL. DataFusion makes both decimal(30, 15), which large floats
    /// overflow and small ones vanish in. And it takes integers of any size for floats of 32 bits, which hold 24.
    fn to_floats(&self, values: &mut [&mut Expr]) -> Result<()> {
        let types = values.iter().map(|value| value.get_type(self.schema));
        let types = types.collect::<Result<Vec<_>>>()?;
        if !types.iter().any(DataType::is_floating) {
            return Ok(());
        }
        let is_narrow = types.iter().zip(values.iter()).all(|(r#type, value)| {
            use DataType::*;
            match r#type {
                Float64 => false,
                // A literal is as wide as the column: 0.1 is what a real column calls 0.1.
                Decimal128(..) | Decimal256(..) => is_number_literal(value),
                Int32 | Int64 | UInt32 | UInt64 => is_small_literal(value),
                _ => true,
            }
        });
        let target = match is_narrow {
            true => DataType::Float32,
            false => DataType::Float64,
        };
        for (value, r#type) in values.iter_mut().zip(&types) {
            if is_decimal(r#type) || (r#type.is_floating() && r#type != &target) {
                **value = cast(std::mem::take(*value), target.clone());
            }
        }
        Ok(())
    }

    fn one_family(&self, what: &str, values: &[&Expr]) -> Result<()> {
        let mut first: Option<(Family, &Expr)> = None;
        for value in values {
            let family = match self.family(value)? {
                Some(Family::Null) | None => continue,
                Some(family) => family,
            };
            match first {
                None => first = Some((family, value)),
                Some((one, _)) if one == family => {}
                Some((_, one)) => {
                    return plan_err!(
                        "{what} must be of one type: {} is {}, {} is {}; cast one of them",
                        shown(one),
                        self.type_name(one)?,
                        shown(value),
                        self.type_name(value)?
                    );
                }
            }
        }
        Ok(())
    }

    /// A number of any size travels as text, which neither computes nor compares as a number.
    fn not_numeric_text(&self, expr: &Expr) -> Result<()> {
        match self.numeric_text(expr) {
            None => Ok(()),
            Some(name) => plan_err!(
                "{} is a number without a fixed scale, which travels as text; say how exact it should be: cast({name} as decimal(20, 4))",
                names::quoted(name)
            ),
        }
    }

    /// The column with such numbers that `expr` hands on.
    fn numeric_text<'e>(&self, expr: &'e Expr) -> Option<&'e str> {
        match expr {
            Expr::Column(column) => {
                is_numeric_text(self.schema.as_arrow(), column.name()).then_some(column.name())
            }
            Expr::Case(case) => results_of(case).find_map(|result| self.numeric_text(result)),
            Expr::ScalarFunction(call) if ALIKE.contains(&call.name()) => {
                call.args.iter().find_map(|arg| self.numeric_text(arg))
            }
            _ => None,
        }
    }

    /// `None` for what has no place in expressions anyway.
    fn family(&self, expr: &Expr) -> Result<Option<Family>> {
        Ok(family_of(&expr.get_type(self.schema)?))
    }

    fn type_name(&self, expr: &Expr) -> Result<String> {
        Ok(names::data_type(&expr.get_type(self.schema)?))
    }

    fn temporal(&self, family: Family) -> DataType {
        match family {
            Family::Date => DataType::Date32,
            Family::Time => DataType::Time64(TimeUnit::Microsecond),
            Family::Moment => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }
}

fn family_of(data_type: &DataType) -> Option<Family> {
    Some(match data_type {
        DataType::Null => Family::Null,
        DataType::Boolean => Family::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Family::Bytes,
        DataType::Date32 | DataType::Date64 => Family::Date,
        DataType::Timestamp(_, None) => Family::Wall,
        DataType::Timestamp(_, Some(_)) => Family::Moment,
        DataType::Time32(_) | DataType::Time64(_) => Family::Time,
        DataType::Interval(_) | DataType::Duration(_) => Family::Interval,
        number if number.is_numeric() => Family::Number,
        _ => return None,
    })
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

fn results_of(case: &Case) -> impl Iterator<Item = &Expr> {
    let then = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
    then.chain(case.else_expr.as_deref())
}

fn is_numeric_text(schema: &Schema, name: &str) -> bool {
    schema.field_with_name(name).is_ok_and(|field| {
        field.metadata().get(metadata::KIND).map(String::as_str) == Some(kind::NUMERIC)
    })
}

/// As a message names it.
fn shown(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => names::quoted(column.name()),
        Expr::Literal(value, _) if is_text_literal(expr) => format!("'{value}'"),
        Expr::Literal(value, _) => value.to_string(),
        Expr::ScalarFunction(call) => format!("the result of {}", call.name()),
        Expr::Case(_) => "the result of case".to_owned(),
        Expr::Cast(cast) if is_text_literal(&cast.expr) => shown(&cast.expr),
        Expr::Cast(_) | Expr::TryCast(_) => "the result of the cast".to_owned(),
        Expr::BinaryExpr(binary) => format!("the result of {}", binary.op),
        _ => "one side".to_owned(),
    }
}
