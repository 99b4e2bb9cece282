//! What is done to a batch between source and format: columns chosen, ordered, renamed; values computed; rows filtered.
//!
//! Expressions are SQL, planned once against the Arrow schema and run vectorised by DataFusion's physical expressions.
//! This module alone knows DataFusion. It refuses to know where batches come from and what becomes of them.
//!
//! Reading order: [`plan`] turns a request into a [`stage`]; `stage` runs it on batches.

mod arithmetic;
mod casts;
mod expression;
mod functions;
mod infinity;
mod literals;
mod messages;
mod names;
mod parse;
mod plan;
mod sql;
mod stage;
mod strict;

use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use self::stage::Stage;
use crate::export::{Code, Column, Failure, Violation};

/// Violations that one request reports; more are cut off.
const PROBLEMS_MAX: usize = 20;

/// A compiled chain of column choices, computations and filters, immutable and cheap to clone: every worker of the
/// pipeline's transform step holds one.
#[derive(Clone, Debug)]
pub struct Transform {
    /// Run in this order; empty for the identity.
    stages: Arc<[Stage]>,
    input: SchemaRef,
    output: SchemaRef,
}

/// Columns and a filter as a definition or a request gives them.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Empty: every column as it is.
    pub columns: &'a [Column],
    /// Over the input's columns, not over `columns`.
    pub filter: Option<&'a str>,
    /// What field paths in errors begin with: `spec.` or `definition.`.
    pub path: &'a str,
}

/// Compiles `request` against the columns of `input`. All that is wrong with it is reported at once.
///
/// Takes about a millisecond for each expression, for which the caller waits: CPU work, not for the runtime's threads.
pub fn compile(input: &SchemaRef, request: Request<'_>) -> Result<Transform, Error> {
    if request.columns.is_empty() && request.filter.is_none() {
        return Ok(Transform::identity(input.clone()));
    }
    let planned = expression::on_planning_thread(|| plan::stage(input, request));
    let stage = planned.unwrap_or_else(|error| {
        Err(vec![Problem {
            field: format!("{}columns", request.path),
            message: format!("no thread to plan expressions on: {error}"),
            position: None,
        }])
    });
    let stage = stage.map_err(|mut problems| {
        problems.truncate(PROBLEMS_MAX);
        Error::Invalid(problems)
    })?;
    Ok(Transform {
        input: input.clone(),
        output: stage.schema().clone(),
        stages: Arc::new([stage]),
    })
}

impl Transform {
    /// Changes nothing and costs nothing.
    pub fn identity(input: SchemaRef) -> Self {
        Self {
            stages: Arc::new([]),
            output: input.clone(),
            input,
        }
    }

    /// `self` first, then `next`, which must have been compiled against `self.output_schema()`: what `self` took away
    /// or masked, `next` can't see. Columns that `next` doesn't use are no longer computed.
    ///
    /// # Panics
    /// When `next` was compiled against another schema.
    pub fn then(self, next: Transform) -> Self {
        assert_eq!(
            self.output, next.input,
            "a transform follows the one whose output it was compiled against"
        );
        if self.stages.is_empty() {
            return next;
        }
        if next.stages.is_empty() {
            return self;
        }
        let mut stages: Vec<Stage> = self
            .stages
            .iter()
            .chain(next.stages.iter())
            .cloned()
            .collect();
        // From the back: what a stage leaves out, the one before it need not compute.
        for later in (1..stages.len()).rev() {
            let used = stages[later].used_columns();
            stages[later - 1] = stages[later - 1].keep(&used);
            stages[later] = stages[later].renumber(&used);
        }
        Self {
            stages: stages.into(),
            input: self.input,
            output: next.output,
        }
    }

    /// The schema of every batch that [`Transform::apply`] returns.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output
    }

    /// Rows that a filter doesn't let through are gone. CPU work: call it off the runtime's threads.
    pub fn apply(&self, batch: RecordBatch) -> Result<RecordBatch, Error> {
        self.stages
            .iter()
            .try_fold(batch, |batch, stage| stage.apply(batch))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Expressions that can't be planned (syntax, unknown column, wrong type, forbidden construct, too large), columns
    /// that don't exist, names used twice. Never empty.
    #[error("{}", Listed(.0))]
    Invalid(Vec<Problem>),
    /// An expression failed on a value: a division by zero, a cast.
    #[error("{field}: {message}")]
    Evaluation {
        field: String,
        /// For the client: holds no value of a column that the caller can't see.
        message: String,
        /// For the log.
        operator: Option<String>,
    },
}

/// One thing that is wrong with a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Path in the request, as `spec.columns[2].expression`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
    /// Where in the expression: 1-based, in characters.
    pub position: Option<u32>,
}

impl Error {
    pub fn retryable(&self) -> bool {
        false
    }

    pub fn into_failure(self) -> Failure {
        match self {
            Self::Invalid(problems) => {
                let position = problems.first().and_then(|first| first.position);
                let failure = Failure::invalid_fields(
                    problems
                        .into_iter()
                        .map(|problem| Violation {
                            description: problem.description(),
                            field: problem.field,
                        })
                        .collect(),
                );
                match position {
                    Some(position) => failure.metadata("position", position.to_string()),
                    None => failure,
                }
            }
            Self::Evaluation {
                field,
                message,
                operator,
            } => {
                let failure = Failure::new(
                    Code::FailedPrecondition,
                    "EXPRESSION_FAILED",
                    format!("{field}: {message}"),
                );
                match operator {
                    Some(operator) => failure.operator(operator),
                    None => failure,
                }
            }
        }
    }
}

impl Problem {
    fn description(&self) -> String {
        match self.position {
            Some(position) => format!("{} (at character {position})", self.message),
            None => self.message.clone(),
        }
    }
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", problem.field, problem.description())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
