//! One compiled request: the filter first, on the rows as they come in, then the columns of what is left.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    compute::{filter_record_batch, prep_null_mask_filter},
    datatypes::{Schema, SchemaRef},
};

use super::{
    Error,
    expression::{COMPUTED_BYTES_MAX, Expression},
};

#[derive(Clone, Debug)]
pub(super) struct Stage {
    filter: Option<Expression>,
    outputs: Vec<Output>,
    schema: SchemaRef,
    /// The input's columns that `outputs` read, ascending; only these go through the filter.
    read: Vec<usize>,
    /// `outputs`, renumbered for a batch that holds only `read`.
    narrow: Vec<Output>,
}

/// Where a column of the result comes from.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// The input's column with this index.
    Column(usize),
    Computed(Expression),
}

impl Stage {
    /// `schema` describes `outputs`, in their order.
    pub fn new(filter: Option<Expression>, outputs: Vec<Output>, schema: SchemaRef) -> Self {
        let read: Vec<usize> = outputs
            .iter()
            .flat_map(Output::used_columns)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let narrow = outputs
            .iter()
            .map(|output| output.renumber(&read))
            .collect();
        Self {
            filter,
            outputs,
            schema,
            read,
            narrow,
        }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The input's columns that filter or outputs read, ascending.
    pub fn used_columns(&self) -> Vec<usize> {
        let filter = self.filter.iter().flat_map(Expression::used_columns);
        self.read
            .iter()
            .copied()
            .chain(filter)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The same with only those outputs.
    pub fn keep(&self, outputs: &[usize]) -> Self {
        let fields: Vec<_> = outputs
            .iter()
            .map(|&index| self.schema.fields()[index].clone())
            .collect();
        Self::new(
            self.filter.clone(),
            outputs
                .iter()
                .map(|&index| self.outputs[index].clone())
                .collect(),
            Arc::new(Schema::new_with_metadata(
                fields,
                self.schema.metadata().clone(),
            )),
        )
    }

    /// The same over an input that holds only the columns `kept` (ascending) of what it was compiled against.
    pub fn renumber(&self, kept: &[usize]) -> Self {
        Self::new(
            self.filter.as_ref().map(|filter| filter.renumber(kept)),
            self.outputs
                .iter()
                .map(|output| output.renumber(kept))
                .collect(),
            self.schema.clone(),
        )
    }

    pub fn apply(&self, batch: RecordBatch) -> Result<RecordBatch, Error> {
        let mut bytes_left = COMPUTED_BYTES_MAX;
        let batch = self.filtered(batch, &mut bytes_left)?;
        let columns = self
            .narrow
            .iter()
            .map(|output| output.value(&batch, &mut bytes_left))
            .collect::<Result<Vec<ArrayRef>, Error>>()?;
        // The row count is explicit because a stage may keep no column at all (a later one needs only the rows).
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| {
            Error::Evaluation {
                field: "columns".to_owned(),
                message: "a column got values that it can't hold".to_owned(),
                operator: Some(error.to_string()),
            }
        })
    }

    fn filtered(&self, batch: RecordBatch, bytes_left: &mut usize) -> Result<RecordBatch, Error> {
        let kept = match &self.filter {
            None => None,
            Some(filter) => Some(filter.evaluate(&batch, bytes_left)?),
        };
        let batch = batch
            .project(&self.read)
            .expect("a stage reads columns of the schema that it was compiled against");
        let Some(kept) = kept else {
            return Ok(batch);
        };
        let kept = kept.as_boolean();
        // NULL is not true: the row goes.
        let kept = match kept.null_count() {
            0 => kept.clone(),
            _ => prep_null_mask_filter(kept),
        };
        if kept.true_count() == batch.num_rows() {
            return Ok(batch);
        }
        Ok(filter_record_batch(&batch, &kept).expect("a filter has one value for each row"))
    }
}

impl Output {
    fn used_columns(&self) -> Vec<usize> {
        match self {
            Self::Column(index) => vec![*index],
            Self::Computed(expression) => expression.used_columns(),
        }
    }

    fn renumber(&self, kept: &[usize]) -> Self {
        match self {
            Self::Column(index) => Self::Column(
                kept.binary_search(index)
                    .expect("columns that are used are kept"),
            ),
            Self::Computed(expression) => Self::Computed(expression.renumber(kept)),
        }
    }

    fn value(&self, batch: &RecordBatch, bytes_left: &mut usize) -> Result<ArrayRef, Error> {
        match self {
            Self::Column(index) => Ok(batch.column(*index).clone()),
            Self::Computed(expression) => expression.evaluate(batch, bytes_left),
        }
    }
}
