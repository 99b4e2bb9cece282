//! `submit`: asks for an export; waits for it, shows it, saves its file, as far as that is asked for.

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Client, Failure, OutputFormat, download, json,
    list::{print_export, succeeded},
    progress::{follow, is_terminal},
    spec::{FormatName, SpecArgs},
    table::{Table, print, printable},
};
use crate::rpc::pb;

#[derive(Args, Debug)]
pub struct SubmitArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Format of the file; by default that of --output's name, else rows for `rowgate stream`
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Name of the file, for display
    #[arg(long)]
    file_name: Option<String>,
    /// UUID under which a repeated submit returns the same export
    #[arg(long)]
    request_id: Option<String>,
    #[arg(long, value_enum)]
    execution: Option<ExecutionName>,
    /// Check only: print schema, sample and the predicted mode
    #[arg(long, conflicts_with_all = ["wait", "output"])]
    validate: bool,
    /// Wait for the end; exits 1 when the export fails
    #[arg(long)]
    wait: bool,
    /// Wait for the end and save the file here (`-`: standard output)
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the export is printed
    #[arg(short = 'o', long = "print", value_enum, default_value_t)]
    print: OutputFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExecutionName {
    Auto,
    Inline,
    Queued,
}

pub async fn submit(
    client: &mut Client,
    args: SubmitArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let waits = args.wait || args.output.is_some();
    if !args.spec.is_given() {
        return Err(Failure::Usage(
            "say what to export: --source with --definition, --table or --sql, or --json"
                .to_owned(),
        ));
    }
    let mut spec = args.spec.into_proto()?;
    let of_output = args
        .output
        .as_ref()
        .and_then(|path| path.extension()?.to_str())
        .and_then(FormatName::of_extension);
    if let Some(format) = args.format {
        spec.format = Some(format.to_proto());
    } else if spec.format.is_none() {
        spec.format = of_output.map(FormatName::to_proto);
    }
    if args.output.is_some() && spec.format.is_none() {
        return Err(Failure::Usage(
            "--output needs a file format: give --format".to_owned(),
        ));
    }
    spec.file_name = args.file_name.unwrap_or(spec.file_name);
    let execution = match args.execution {
        None => pb::Execution::Unspecified,
        Some(ExecutionName::Auto) => pb::Execution::Auto,
        Some(ExecutionName::Inline) => pb::Execution::Inline,
        Some(ExecutionName::Queued) => pb::Execution::Queued,
    };
    let request = pb::SubmitExportRequest {
        spec: Some(spec),
        request_id: args
            .request_id
            .unwrap_or_else(|| Uuid::new_v4().to_string()),
        validate_only: args.validate,
        execution: execution.into(),
        // The watch that follows shows progress, which this call does not.
        max_wait: waits.then(prost_types::Duration::default),
    };
    let answer = client.submit_export(request).await?.into_inner();
    if args.validate {
        return print_plan(&answer, args.print, out);
    }
    let mut export = answer.export.unwrap_or_default();
    if waits && !is_terminal(&export) {
        export = follow(client, &export.id).await?;
    }
    let Some(path) = args.output else {
        print_export(&export, args.print, out)?;
        return succeeded(export).map(drop);
    };
    let export = succeeded(export)?;
    download::save(client, &export.id, Some(path), out).await
}

fn print_plan(
    answer: &pb::SubmitExportResponse,
    format: OutputFormat,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let plan = answer.plan.clone().unwrap_or_default();
    let admission = answer.admission.clone().unwrap_or_default();
    let fields = plan.schema.iter().map(|field| {
        let nullable = if field.nullable { "yes" } else { "no" };
        vec![
            field.name.clone(),
            field.r#type.clone(),
            nullable.to_owned(),
            field.source_type.clone(),
        ]
    });
    let table = Table {
        header: vec!["COLUMN", "TYPE", "NULLABLE", "SOURCE TYPE"],
        rows: fields.collect(),
    };
    let json = || {
        let parts = [
            ("plan".to_owned(), json::plan(&plan)),
            ("admission".to_owned(), json::admission(&admission)),
        ];
        Value::Object(Map::from_iter(parts))
    };
    print(&table, json, format, out)?;
    if format == OutputFormat::Table {
        let mode = admission.mode().as_str_name();
        eprintln!("it would run as {mode}: {}", printable(&admission.reason));
        for warning in &plan.warnings {
            eprintln!("warning: {}", printable(warning));
        }
    }
    Ok(())
}
