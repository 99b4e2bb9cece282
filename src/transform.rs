//! What is done to a batch between source and format: columns chosen, ordered, renamed; values computed; rows filtered.
//!
//! Expressions are SQL, planned once against the Arrow schema and run vectorised by DataFusion's physical expressions.
//! This module alone knows DataFusion. It refuses to know where batches come from and what becomes of them.

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use crate::export::{Code, Column, Failure};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The expression can't be planned: syntax, unknown column, wrong type, forbidden construct, too large.
    #[error("{message}")]
    Invalid {
        /// Path in the request, as `spec.columns[2].expression`.
        field: String,
        message: String,
        /// 1-based, in characters.
        position: Option<u32>,
    },
    /// It failed on a value: a division by zero, a cast. `row` counts the batch's rows from 0 where it is known.
    #[error("{field}: {message}")]
    Evaluation { field: String, message: String },
}

impl Error {
    pub fn retryable(&self) -> bool {
        false
    }

    pub fn into_failure(self) -> Failure {
        match self {
            Self::Invalid {
                field,
                message,
                position,
            } => {
                let text = match position {
                    Some(position) => format!("{message} (at character {position})"),
                    None => message,
                };
                let mut failure = Failure::invalid_field(field, text);
                if let Some(position) = position {
                    failure = failure.metadata("position", position.to_string());
                }
                failure
            }
            Self::Evaluation { .. } => Failure::new(
                Code::FailedPrecondition,
                "EXPRESSION_FAILED",
                self.to_string(),
            ),
        }
    }
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
