//! One SQL expression: compiled once against a schema, evaluated on batches.
//!
//! text -> [`parse`](super::parse) (syntax tree, checked) -> [`sql`](super::sql) (logical expression, typed and
//! simplified) -> a physical expression, here.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::concat,
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
/// Rows that are computed at once, however large the batch: what functions make for them is bounded.
pub(super) const ROWS_AT_ONCE: usize = 4096;
/// What all that is computed for one batch may take. A batch itself is some 4 MiB.
pub(super) const COMPUTED_BYTES_MAX: usize = 256 << 20;

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

/// Runs `work`, which compiles expressions, on a thread with a stack for them, and waits for it.
pub(super) fn on_planning_thread<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("expressions".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Call it on a planning thread.
pub(super) fn compile(input: &SchemaRef, text: &str, path: String) -> Result<Expression, Problem> {
    let plan = || sql::plan(parse::parse(text, input)?, text, input);
    let result = catch_unwind(AssertUnwindSafe(plan))
        .unwrap_or_else(|_| Err(Refusal::new("this can't be planned; write it differently")));
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

    /// As many values as the batch has rows, of the type that was planned. What they take is taken off `bytes_left`.
    pub fn evaluate(&self, batch: &RecordBatch, bytes_left: &mut usize) -> Result<ArrayRef, Error> {
        let rows = batch.num_rows();
        let mut parts = Vec::with_capacity(rows.div_ceil(ROWS_AT_ONCE));
        for from in (0..rows.max(1)).step_by(ROWS_AT_ONCE) {
            let part = self.part(&batch.slice(from, ROWS_AT_ONCE.min(rows - from)))?;
            *bytes_left = bytes_left
                .checked_sub(bytes_of(&part))
                .ok_or_else(|| self.too_large())?;
            parts.push(part);
        }
        if let [one] = parts.as_slice() {
            return Ok(one.clone());
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        concat(&parts).map_err(|error| self.failed(error.into()))
    }

    fn part(&self, rows: &RecordBatch) -> Result<ArrayRef, Error> {
        let values = self
            .physical
            .evaluate(rows)
            .and_then(|value| value.into_array(rows.num_rows()))
            .map_err(|error| self.failed(error))?;
        if values.data_type() == self.field.data_type() && values.len() == rows.num_rows() {
            return Ok(values);
        }
        Err(Error::Evaluation {
            field: self.path.to_string(),
            message: "it can't be computed; write it differently".to_owned(),
            operator: Some(format!(
                "{} values of {} for {} rows of {}",
                values.len(),
                values.data_type(),
                rows.num_rows(),
                self.field.data_type()
            )),
        })
    }

    fn too_large(&self) -> Error {
        Error::Evaluation {
            field: self.path.to_string(),
            message: format!(
                "what is computed for one batch of rows takes more than {COMPUTED_BYTES_MAX} bytes"
            ),
            operator: None,
        }
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

/// Of the array's own rows: it may be a slice of a much larger one.
fn bytes_of(array: &ArrayRef) -> usize {
    let own = array.to_data().get_slice_memory_size();
    own.unwrap_or_else(|_| array.get_array_memory_size())
}
