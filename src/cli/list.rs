//! `status`, `watch`, `cancel`, `list` and `sources`.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    Client, Failure, OutputFormat, fields,
    json::{self, time_text},
    progress::{follow, state_name},
    table::{Table, print},
};
use crate::rpc::pb;

#[derive(Args, Debug)]
pub struct StatusArgs {
    #[arg(value_name = "EXPORT_ID")]
    id: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Args, Debug)]
pub struct WatchArgs {
    #[arg(value_name = "EXPORT_ID")]
    id: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Args, Debug)]
pub struct CancelArgs {
    #[arg(value_name = "EXPORT_ID")]
    id: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only exports in this state; may be repeated
    #[arg(long, value_enum)]
    state: Vec<StateName>,
    /// Only exports with this label; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = fields::pair)]
    label: Vec<(String, String)>,
    /// Exports to show at most
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Args, Debug)]
pub struct SourcesArgs {
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateName {
    Queued,
    Running,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<StateName> for pb::State {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Queued => Self::Queued,
            StateName::Running => Self::Running,
            StateName::Cancelling => Self::Cancelling,
            StateName::Succeeded => Self::Succeeded,
            StateName::Failed => Self::Failed,
            StateName::Cancelled => Self::Cancelled,
        }
    }
}

/// Exits 0 whatever the state is: the question was answered.
pub async fn status(
    client: &mut Client,
    args: StatusArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let request = pb::GetStatusRequest {
        export_id: args.id,
        wait: None,
    };
    let answer = client.get_status(request).await?.into_inner();
    print_export(&answer.export.unwrap_or_default(), args.output, out)
}

/// Exits 1 when the export fails or is cancelled.
pub async fn watch(
    client: &mut Client,
    args: WatchArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let export = follow(client, &args.id).await?;
    print_export(&export, args.output, out)?;
    succeeded(export).map(drop)
}

/// The export when it is not FAILED or CANCELLED.
pub fn succeeded(export: pb::Export) -> Result<pb::Export, Failure> {
    match export.state() {
        pb::State::Failed | pb::State::Cancelled => Err(Failure::Ended(Box::new(export))),
        _ => Ok(export),
    }
}

pub async fn cancel(
    client: &mut Client,
    args: CancelArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let request = pb::CancelExportRequest { export_id: args.id };
    let answer = client.cancel_export(request).await?.into_inner();
    print_export(&answer.export.unwrap_or_default(), args.output, out)
}

pub async fn list(
    client: &mut Client,
    args: ListArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let states = args
        .state
        .into_iter()
        .map(|state| pb::State::from(state).into());
    let mut request = pb::ListExportsRequest {
        states: states.collect(),
        labels: args.label.into_iter().collect(),
        ..Default::default()
    };
    let mut exports = Vec::new();
    while exports.len() < args.limit {
        let left = i32::try_from(args.limit - exports.len()).unwrap_or(i32::MAX);
        request.page_size = left;
        let page = client.list_exports(request.clone()).await?.into_inner();
        exports.extend(page.exports);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    exports.truncate(args.limit);
    let table = Table {
        header: vec![
            "ID", "STATE", "SOURCE", "FROM", "FORMAT", "ROWS", "BYTES", "CREATED",
        ],
        rows: exports.iter().map(export_row).collect(),
    };
    let json = || json!({ "exports": exports.iter().map(json::export).collect::<Vec<_>>() });
    print(&table, json, args.output, out)
}

fn export_row(export: &pb::Export) -> Vec<String> {
    let spec = export.spec.clone().unwrap_or_default();
    let (rows, bytes) = match (&export.result, &export.progress) {
        (Some(result), _) => (result.rows.to_string(), result.size_bytes.to_string()),
        (None, Some(progress)) => (
            progress.rows_written.to_string(),
            progress.bytes_written.to_string(),
        ),
        (None, None) => (String::new(), String::new()),
    };
    vec![
        export.id.clone(),
        state_name(export.state()).to_owned(),
        spec.source,
        from_text(spec.from.as_ref()),
        format_text(spec.format.as_ref()).to_owned(),
        rows,
        bytes,
        time_text(export.create_time).unwrap_or_default(),
    ]
}

fn from_text(from: Option<&pb::export_spec::From>) -> String {
    use pb::export_spec::From;
    match from {
        Some(From::Definition(name)) => name.clone(),
        Some(From::Table(table)) => table.name.clone(),
        Some(From::Sql(_)) => "(sql)".to_owned(),
        None => String::new(),
    }
}

fn format_text(format: Option<&pb::Format>) -> &'static str {
    use pb::format::Kind;
    match format.and_then(|format| format.kind.as_ref()) {
        Some(Kind::Csv(_)) => "csv",
        Some(Kind::Xlsx(_)) => "xlsx",
        Some(Kind::Jsonl(_)) => "jsonl",
        Some(Kind::Parquet(_)) => "parquet",
        Some(Kind::Arrow(_)) => "arrow",
        None => "rows",
    }
}

/// As a table: a line for each thing that is known.
pub fn print_export(
    export: &pb::Export,
    format: OutputFormat,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let table = Table {
        header: vec!["FIELD", "VALUE"],
        rows: export_facts(export)
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(field, value)| vec![field.to_owned(), value])
            .collect(),
    };
    print(&table, || json::export(export), format, out)
}

fn export_facts(export: &pb::Export) -> Vec<(&'static str, String)> {
    let spec = export.spec.clone().unwrap_or_default();
    let failure = |failure: &Option<pb::Failure>| {
        let failure = failure.as_ref();
        failure.map_or_else(String::new, |f| format!("{}: {}", f.reason, f.message))
    };
    let mut facts = vec![
        ("id", export.id.clone()),
        ("state", state_name(export.state()).to_owned()),
        ("source", spec.source.clone()),
        ("from", from_text(spec.from.as_ref())),
        ("format", format_text(spec.format.as_ref()).to_owned()),
        ("created", time_text(export.create_time).unwrap_or_default()),
        ("started", time_text(export.start_time).unwrap_or_default()),
        ("ended", time_text(export.end_time).unwrap_or_default()),
        ("attempt", export.attempt.to_string()),
        ("error", failure(&export.error)),
        ("last failure", failure(&export.last_failure)),
    ];
    if let Some(position) = export.queue_position {
        facts.push(("queue position", position.to_string()));
    }
    if let Some(progress) = &export.progress {
        facts.push(("rows read", progress.rows_read.to_string()));
        facts.push(("rows written", progress.rows_written.to_string()));
        facts.push(("slowest stage", progress.slowest_stage.clone()));
    }
    if let Some(result) = &export.result {
        facts.push(("file", result.file_name.clone()));
        facts.push(("rows", result.rows.to_string()));
        facts.push(("bytes", result.size_bytes.to_string()));
        facts.push(("sha256", result.sha256.clone()));
        facts.push(("expires", time_text(result.expire_time).unwrap_or_default()));
        for fidelity in &result.fidelity {
            let counts = fidelity.counts.iter();
            let counts: Vec<_> = counts.map(|(what, n)| format!("{what} {n}")).collect();
            facts.push((
                "changed",
                format!("{}: {}", fidelity.column, counts.join(", ")),
            ));
        }
    }
    facts
}

pub async fn sources(
    client: &mut Client,
    args: SourcesArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let answer = client.list_sources(pb::ListSourcesRequest {}).await?;
    let sources = answer.into_inner().sources;
    let table = Table {
        header: vec![
            "SOURCE",
            "KIND",
            "TABLES",
            "SQL",
            "DEFINITION",
            "TITLE",
            "PARAMS",
        ],
        rows: sources.iter().flat_map(source_rows).collect(),
    };
    let json = || json!({ "sources": sources.iter().map(json::source).collect::<Vec<_>>() });
    print(&table, json, args.output, out)
}

/// One for each definition; one for a source without any.
fn source_rows(source: &pb::Source) -> Vec<Vec<String>> {
    let yes = |allowed: bool| if allowed { "yes" } else { "no" }.to_owned();
    let row = |definition: &pb::Definition| {
        let params = definition.params.iter().map(|param| {
            let required = if param.required { "" } else { "?" };
            format!("{}{required} {}", param.name, param.r#type)
        });
        vec![
            source.name.clone(),
            source.kind.clone(),
            yes(source.allows_tables),
            yes(source.allows_sql),
            definition.name.clone(),
            definition.title.clone(),
            params.collect::<Vec<_>>().join(", "),
        ]
    };
    if source.definitions.is_empty() {
        return vec![row(&pb::Definition::default())];
    }
    source.definitions.iter().map(row).collect()
}
