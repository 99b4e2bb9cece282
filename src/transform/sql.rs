//! From a checked syntax tree to a physical expression: resolved, coerced, simplified by DataFusion.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit},
};
use datafusion_common::{
    DFSchema, DFSchemaRef, DataFusionError, Result as PlanResult, ScalarValue, TableReference,
    config::ConfigOptions,
    not_impl_err, plan_err,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{
    AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF,
    execution_props::ExecutionProps,
    physical_planning_context::PhysicalPlanningContext,
    planner::{ContextProvider, ExprPlanner, PlannerResult, TypePlanner},
    simplify::SimplifyContext,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::{
    planner::{ParserOptions, PlannerContext, SqlToRel},
    sqlparser::ast::{self, Visit},
};

use super::{
    arithmetic, casts, expression::Refusal, functions, messages::readable, names, parse, strict,
};

pub(super) fn plan(
    tree: ast::Expr,
    text: &str,
    input: &SchemaRef,
) -> Result<(Arc<dyn PhysicalExpr>, FieldRef), Refusal> {
    let schema = planning_schema(input);
    let expr =
        logical(tree.clone(), &schema).map_err(|error| culprit(&tree, text, &schema, &error))?;
    let expr = carried(expr, &schema)?;
    physical(&expr, &schema, input).map_err(|error| Refusal::new(readable(&error)))
}

/// DataFusion knows columns by name: those whose name is used twice are left out, and [`super::parse`] refuses them.
fn planning_schema(input: &SchemaRef) -> DFSchemaRef {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for field in input.fields() {
        *uses.entry(field.name()).or_default() += 1;
    }
    let unique: Vec<FieldRef> = input
        .fields()
        .iter()
        .filter(|field| uses[field.name().as_str()] == 1)
        .cloned()
        .collect();
    let schema = DFSchema::try_from(Schema::new(unique)).expect("names are unique");
    Arc::new(schema)
}

fn logical(tree: ast::Expr, schema: &DFSchemaRef) -> PlanResult<Expr> {
    let catalog = Catalog::new();
    let options = ParserOptions::new()
        .with_parse_float_as_decimal(true)
        .with_enable_ident_normalization(false)
        .with_support_varchar_with_length(false);
    let planner = SqlToRel::new_with_options(&catalog, options);
    let expr = planner.sql_to_expr(tree, schema, &mut PlannerContext::new())?;
    let context = SimplifyContext::builder()
        .with_schema(schema.clone())
        .build();
    let simplifier = ExprSimplifier::new(context);
    let expr = strict::checked(expr, schema)?;
    let expr = simplifier.coerce(expr, schema)?;
    let expr = arithmetic::checked(expr, schema)?;
    let expr = casts::kept(expr, schema)?;
    let expr = simplifier.simplify(expr)?;
    constants_have_values(&expr)?;
    constants_are_short(&expr)?;
    // What depends on constant arguments, such as the name of a time zone, is checked only here.
    physical_of(&expr, schema)?;
    Ok(expr)
}

/// Simplifying replaces what doesn't depend on a row by its value; what it left could not be computed. Evaluated here
/// once more for the reason, so that `1 / 0` is refused when it is submitted.
fn constants_have_values(expr: &Expr) -> PlanResult<()> {
    let nothing = DFSchema::empty();
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(nothing.inner().clone(), Vec::new(), &one_row)?;
    expr.apply(|node| {
        if matches!(node, Expr::Literal(..) | Expr::Column(_)) || node.any_column_refs() {
            return Ok(TreeNodeRecursion::Continue);
        }
        physical_of(node, &nothing)?.evaluate(&batch)?;
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(())
}

/// A constant is written out for every row of a batch. What is written in an expression is short; what is computed from
/// it need not be.
fn constants_are_short(expr: &Expr) -> PlanResult<()> {
    expr.apply(|node| {
        let Expr::Literal(value, _) = node else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let bytes = match value {
            ScalarValue::Utf8(text)
            | ScalarValue::Utf8View(text)
            | ScalarValue::LargeUtf8(text) => text.as_ref().map_or(0, String::len),
            ScalarValue::Binary(bytes)
            | ScalarValue::BinaryView(bytes)
            | ScalarValue::LargeBinary(bytes) => bytes.as_ref().map_or(0, Vec::len),
            _ => 0,
        };
        match bytes > functions::CONSTANT_BYTES_MAX {
            false => Ok(TreeNodeRecursion::Continue),
            true => plan_err!(
                "a constant may take {} bytes; this takes {bytes}",
                functions::CONSTANT_BYTES_MAX
            ),
        }
    })?;
    Ok(())
}

/// The logical expression doesn't know where its parts were written; the syntax tree does. The innermost part that
/// can't be planned by itself is what is wrong.
fn culprit(tree: &ast::Expr, text: &str, schema: &DFSchemaRef, whole: &DataFusionError) -> Refusal {
    let mut found = None;
    let mut search = Search {
        schema,
        text,
        found: &mut found,
    };
    let _ = tree.visit(&mut search);
    found.unwrap_or_else(|| Refusal {
        message: readable(whole),
        position: parse::start_of(text, tree),
    })
}

struct Search<'a> {
    schema: &'a DFSchemaRef,
    text: &'a str,
    found: &'a mut Option<Refusal>,
}

impl ast::Visitor for Search<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        let Err(error) = logical(expr.clone(), self.schema) else {
            return ControlFlow::Continue(());
        };
        let mut message = readable(&error);
        if let ast::Expr::Function(function) = expr
            && let Some(usage) = functions::usage(&function.name.to_string())
        {
            message += &format!("; it is used like {usage}");
        }
        *self.found = Some(Refusal {
            message,
            position: parse::start_of(self.text, expr),
        });
        ControlFlow::Break(())
    }
}

/// With a cast to a type that every format knows, where its own is none.
fn carried(expr: Expr, schema: &DFSchema) -> Result<Expr, Refusal> {
    let own = expr
        .get_type(schema)
        .map_err(|error| Refusal::new(readable(&error)))?;
    let target = carried_type(&own)?;
    if target == own {
        return Ok(expr);
    }
    expr.cast_to(&target, schema)
        .map_err(|error| Refusal::new(readable(&error)))
}

fn carried_type(own: &DataType) -> Result<DataType, Refusal> {
    Ok(match own {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Dictionary(_, value) => carried_type(value)?,
        // Such as the literal 1e3, which readers of files don't expect.
        DataType::Decimal128(precision, scale) if *scale < 0 => {
            let digits = precision.saturating_add(scale.unsigned_abs());
            if digits > DECIMAL128_MAX_PRECISION {
                return Err(Refusal::new(
                    "this number is too large for a decimal; cast it to double",
                ));
            }
            DataType::Decimal128(digits, 0)
        }
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Null => {
            return Err(Refusal::new(
                "this is always NULL and has no type; write cast(null as text)",
            ));
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            return Err(Refusal::new(
                "an interval can't be a result; use extract(...), or to_unixtime(a) - to_unixtime(b) for seconds",
            ));
        }
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => own.clone(),
        other => {
            return Err(Refusal::new(format!(
                "a value of type {} can't be a result; cast it",
                names::data_type(other)
            )));
        }
    })
}

fn physical(
    expr: &Expr,
    schema: &DFSchemaRef,
    input: &SchemaRef,
) -> PlanResult<(Arc<dyn PhysicalExpr>, FieldRef)> {
    let physical = physical_of(expr, schema)?;
    // Planned against the unique names; batches have every column.
    let physical = datafusion_physical_expr::utils::reassign_expr_columns(physical, input)?;
    let data_type = physical.data_type(input)?;
    // Whatever is known of the columns: some functions have no value for some values (`extract` of infinity).
    Ok((physical, Arc::new(Field::new("", data_type, true))))
}

fn physical_of(expr: &Expr, schema: &DFSchema) -> PlanResult<Arc<dyn PhysicalExpr>> {
    create_physical_expr(
        expr,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
}

/// What the planner asks for: functions, and nothing else.
struct Catalog {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Catalog {
    fn new() -> Self {
        Self {
            options: ConfigOptions::default(),
            planners: vec![Arc::new(Calls)],
        }
    }
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> PlanResult<Arc<dyn TableSource>> {
        not_impl_err!("there is no table {name} in expressions")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        functions::find(name)
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        functions::names().map(str::to_owned).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What has a syntax of its own becomes a call of the function that may be called by its name, too: DataFusion's planners
/// would call theirs, without our checks.
#[derive(Debug)]
struct Calls;

impl ExprPlanner for Calls {
    fn plan_extract(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        call("date_part", args)
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        call("overlay", args)
    }

    fn plan_position(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        call("strpos", args)
    }
}

fn call(name: &str, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
    match functions::find(name) {
        Some(function) => Ok(PlannerResult::Planned(function.call(args))),
        None => not_impl_err!("there is no function {name}"),
    }
}

/// Types as `cast` and typed literals name them. DataFusion's own reading takes nanoseconds for times, which end in
/// the year 2262.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> PlanResult<Option<FieldRef>> {
        use ast::{DataType as Sql, ExactNumberInfo, TimezoneInfo};
        let data_type = match sql_type {
            Sql::Text | Sql::String(_) | Sql::Varchar(None) | Sql::CharacterVarying(None) => {
                DataType::Utf8
            }
            Sql::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Timestamp(TimeUnit::Microsecond, None)
            }
            Sql::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            Sql::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Time64(TimeUnit::Microsecond)
            }
            Sql::Varchar(Some(_))
            | Sql::CharacterVarying(Some(_))
            | Sql::Char(_)
            | Sql::Character(_) => {
                return plan_err!(
                    "text has no length here; write text, and left(..., 10) to cut it"
                );
            }
            Sql::Decimal(ExactNumberInfo::None)
            | Sql::Numeric(ExactNumberInfo::None)
            | Sql::Dec(ExactNumberInfo::None) => {
                return plan_err!(
                    "say how many digits, and how many of them after the point: decimal(20, 4)"
                );
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
