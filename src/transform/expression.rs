//! One SQL expression: compiled once against a schema, evaluated on batches.
//!
//! text -> [`parse`](super::parse) (syntax tree, checked) -> [`sql`](super::sql) (logical expression, typed and
//! simplified) -> a physical expression, here.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{FieldRef, SchemaRef},
};
use datafusion_common::{
    DataFusionError,
    tree_node::{Transformed, TransformedResult, TreeNode},
};
use datafusion_physical_expr::{PhysicalExpr, expressions::Column, utils::collect_columns};

use super::{Error, Problem, messages, parse, sql};

/// Planning walks trees by recursion: with the bounds that [`parse`] sets, a fraction of this is used.
const STACK_BYTES: usize = 64 << 20;

#[derive(Clone, Debug)]
pub(super) struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    /// Type of the result.
    field: FieldRef,
    /// Path in the request, for errors.
    path: Arc<str>,
}

/// What is wrong with an expression, before it is known whose it is.
#[derive(Debug)]
pub(super) struct Refusal {
    pub message: String,
    /// 1-based, in characters.
    pub position: Option<u32>,
}

impl Refusal {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: None,
        }
    }

    pub fn at(mut self, position: u32) -> Self {
        self.position = Some(position);
        self
    }
}

pub(super) fn compile(input: &SchemaRef, text: &str, path: String) -> Result<Expression, Problem> {
    let result = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("expression".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                let tree = parse::parse(text, input)?;
                sql::plan(tree, text, input)
            })
            .map_err(|error| Refusal::new(format!("no thread to plan it on: {error}")))?
            .join()
            .unwrap_or_else(|_| Err(Refusal::new("this can't be planned; write it differently")))
    });
    match result {
        Ok((physical, field)) => Ok(Expression {
            physical,
            field,
            path: path.into(),
        }),
        Err(Refusal { message, position }) => Err(Problem {
            field: path,
            message,
            position,
        }),
    }
}

impl Expression {
    /// Its name means nothing.
    pub fn field(&self) -> &FieldRef {
        &self.field
    }

    /// The input's column that this merely passes through.
    pub fn as_column(&self) -> Option<usize> {
        self.physical
            .downcast_ref::<Column>()
            .map(|column| column.index())
    }

    /// The input's columns that it reads, ascending.
    pub fn used_columns(&self) -> Vec<usize> {
        collect_columns(&self.physical)
            .iter()
            .map(Column::index)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The same over an input that holds only the columns `kept` (ascending) of what it was compiled against.
    pub fn renumber(&self, kept: &[usize]) -> Self {
        let physical = Arc::clone(&self.physical)
            .transform_down(|node| {
                let Some(column) = node.downcast_ref::<Column>() else {
                    return Ok(Transformed::no(node));
                };
                let index = kept
                    .binary_search(&column.index())
                    .expect("columns that are used are kept");
                let renumbered: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), index));
                Ok(Transformed::yes(renumbered))
            })
            .data()
            .expect("replacing columns doesn't fail");
        Self {
            physical,
            ..self.clone()
        }
    }

    /// As many values as the batch has rows.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, Error> {
        self.physical
            .evaluate(batch)
            .and_then(|value| value.into_array(batch.num_rows()))
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: DataFusionError) -> Error {
        let text = error.strip_backtrace();
        // A value in a message tells the caller nothing new about their own expression; a definition's works on columns
        // that the caller may not see.
        let message = match self.path.starts_with("spec.") {
            true => messages::readable(&error),
            false => messages::cause(&error).to_owned(),
        };
        Error::Evaluation {
            field: self.path.to_string(),
            message,
            operator: Some(text),
        }
    }
}
