//! From a request to a stage: names resolved, expressions compiled, everything that is wrong collected.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::{
    PROBLEMS_MAX, Problem, Request,
    expression::{self, Expression},
    names,
    stage::{Output, Stage},
};
use crate::export::{Column, field::metadata};

/// Of a request that changes something. What is wrong is looked for until [`PROBLEMS_MAX`] problems are found. Call it on
/// a planning thread.
pub(super) fn stage(input: &SchemaRef, request: Request<'_>) -> Result<Stage, Vec<Problem>> {
    let mut problems = Vec::new();
    let filter = request.filter.and_then(|text| {
        filter(input, text, request.path)
            .map_err(|problem| problems.push(problem))
            .ok()
    });
    let (outputs, fields) = if request.columns.is_empty() {
        let all = (0..input.fields().len()).map(Output::Column).collect();
        (all, input.fields().to_vec())
    } else {
        columns(input, request, &mut problems)
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
    Ok(Stage::new(filter, outputs, schema))
}

fn filter(input: &SchemaRef, text: &str, path: &str) -> Result<Expression, Problem> {
    let field = format!("{path}filter");
    let expression = expression::compile(input, text, field)?;
    match expression.field().data_type() {
        DataType::Boolean => Ok(expression),
        other => Err(Problem {
            message: format!(
                "a filter is true or false for each row; this is of type {}: compare it with something",
                names::data_type(other)
            ),
            field: format!("{path}filter"),
            position: None,
        }),
    }
}

fn columns(
    input: &SchemaRef,
    request: Request<'_>,
    problems: &mut Vec<Problem>,
) -> (Vec<Output>, Vec<FieldRef>) {
    let mut outputs = Vec::with_capacity(request.columns.len());
    let mut fields = Vec::with_capacity(request.columns.len());
    let mut first_use: HashMap<&str, usize> = HashMap::new();
    for (index, column) in request.columns.iter().enumerate() {
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
        let path = format!("{}columns[{index}]", request.path);
        if let Some(first) = first_use.insert(&column.name, index) {
            problems.push(Problem {
                field: format!("{path}.name"),
                message: format!(
                    "{} is the name of columns[{first}] already; names in a result are unique",
                    names::quoted(&column.name)
                ),
                position: None,
            });
        }
        match output(input, column, &path) {
            Ok((output, field)) => {
                outputs.push(output);
                fields.push(Arc::new(presented(field, column)));
            }
            Err(problem) => problems.push(problem),
        }
    }
    (outputs, fields)
}

fn output(input: &SchemaRef, column: &Column, path: &str) -> Result<(Output, Field), Problem> {
    if column.name.is_empty() {
        return Err(Problem {
            field: format!("{path}.name"),
            message: "a column needs a name".to_owned(),
            position: None,
        });
    }
    let Some(text) = &column.expression else {
        let index = names::find(input, &column.name).map_err(|message| Problem {
            field: format!("{path}.name"),
            message,
            position: None,
        })?;
        return Ok((Output::Column(index), input.field(index).clone()));
    };
    let expression = expression::compile(input, text, format!("{path}.expression"))?;
    let output = match expression.as_column() {
        // A mere column is passed through with all that is known about it: only its name is new.
        Some(index) => {
            let field = input.field(index).clone().with_name(&column.name);
            return Ok((Output::Column(index), field));
        }
        None => expression.field().as_ref().clone().with_name(&column.name),
    };
    Ok((Output::Computed(expression), output))
}

/// The field with what the request says about its presentation. What a definition set stays unless it is set anew.
fn presented(mut field: Field, column: &Column) -> Field {
    let mut entries = std::mem::take(field.metadata_mut());
    let said = [
        (metadata::HEADER, column.header.clone()),
        (metadata::NUMBER_FORMAT, column.number_format.clone()),
        (metadata::WIDTH, column.width.map(|width| width.to_string())),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            entries.insert(key.to_owned(), value);
        }
    }
    field.set_metadata(entries);
    field
}
