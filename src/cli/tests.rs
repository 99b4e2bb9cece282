//! The client commands against a server that answers what a test tells it to.

mod server;

use std::fs;

use clap::{CommandFactory, Parser};
use prost_types::{ListValue, Value, value::Kind};
use tonic::{Code, Status};

use self::server::{Script, serve};
use super::*;
use crate::{
    export::{self, Violation},
    rpc::{
        pb::{self, row_batch::Rows, stream_rows_response::Event},
        status,
    },
};

const ID: &str = "01937f0a-0000-7000-8000-000000000001";

struct Done {
    result: Result<(), Failure>,
    out: Vec<u8>,
}

impl Done {
    fn text(&self) -> &str {
        if let Err(failure) = &self.result {
            panic!("{failure}");
        }
        std::str::from_utf8(&self.out).unwrap()
    }

    fn exit_code(&self) -> u8 {
        self.result.as_ref().map_or_else(Failure::exit_code, |()| 0)
    }
}

async fn rowgate(script: Script, args: &[&str]) -> Done {
    let server = serve(script).await;
    let args = ["rowgate", "--server", &server.url]
        .into_iter()
        .chain(args.iter().copied());
    let cli = Cli::try_parse_from(args).unwrap();
    let Command::Client(command) = cli.command else {
        panic!("no client command");
    };
    let mut out = Vec::new();
    let work = run(&cli.server, *command, &mut out);
    let result = tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .unwrap();
    Done { result, out }
}

fn failed(code: export::Code, reason: &str) -> Status {
    status::from_failure(export::Failure::new(code, reason, "it went wrong"))
}

fn export_in(state: pb::State) -> pb::Export {
    pb::Export {
        id: ID.to_owned(),
        state: state.into(),
        spec: Some(pb::ExportSpec {
            source: "shop".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
    for args in [
        &["rowgate", "serve", "--config", "x.toml", "--insecure"][..],
        &["rowgate", "migrate"],
        &["rowgate", "config", "show"],
        &["rowgate", "config", "check", "--config", "x.toml"],
        &["rowgate", "demo", "--serve"],
    ] {
        Cli::try_parse_from(args).unwrap();
    }
}

#[tokio::test]
async fn submit_sends_what_the_flags_say() {
    let script = Script {
        submit: Some(Ok(pb::SubmitExportResponse {
            export: Some(export_in(pb::State::Queued)),
            ..Default::default()
        })),
        ..Default::default()
    };
    let seen = script.submitted.clone();
    let args = [
        "submit",
        "--source",
        "shop",
        "--definition",
        "paid",
        "--param",
        "since=2026-01-01",
        "--param",
        "ids:=[1,2]",
        "--column",
        "id",
        "--column",
        "up=upper(name)",
        "--filter",
        "id > 1",
        "--format",
        "xlsx",
        "--file-name",
        "a.xlsx",
        "--label",
        "team=x",
        "--ttl",
        "2h",
        "--priority",
        "3",
        "-o",
        "json",
    ];
    let done = rowgate(script, &args).await;
    let printed: serde_json::Value = serde_json::from_str(done.text()).unwrap();
    assert_eq!(printed["state"], "STATE_QUEUED");
    assert_eq!(printed["fence"], "0");

    let request = seen.lock().unwrap().take().unwrap();
    assert!(uuid::Uuid::parse_str(&request.request_id).is_ok());
    assert_eq!(request.max_wait, None);
    let spec = crate::rpc::convert::spec_from_proto(request.spec.unwrap()).unwrap();
    assert_eq!(spec.from, export::ReadFrom::Definition("paid".to_owned()));
    assert_eq!(spec.params["since"], "2026-01-01");
    assert_eq!(spec.params["ids"], serde_json::json!([1, 2]));
    assert_eq!(spec.columns[1].expression.as_deref(), Some("upper(name)"));
    assert_eq!(spec.format.unwrap().name(), "xlsx");
    assert_eq!(spec.ttl, Some(Duration::from_secs(7200)));
    assert_eq!((spec.labels["team"].as_str(), spec.priority), ("x", 3));
}

#[tokio::test]
async fn submit_reads_a_spec_file_and_flags_override_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spec.json");
    let text = r#"{"source": "shop", "table": {"name": "t", "limit": "7", "orderBy": ["id desc"]},
        "format": {"csv": {"delimiter": ";", "null_text": "NULL", "compression": "COMPRESSION_GZIP"}},
        "ttl": "90s", "columns": [{"name": "id", "numberFormat": "0"}]}"#;
    fs::write(&path, text).unwrap();
    let script = Script {
        submit: Some(Ok(pb::SubmitExportResponse::default())),
        ..Default::default()
    };
    let seen = script.submitted.clone();
    let path = path.to_str().unwrap();
    rowgate(script, &["submit", "--json", path, "--source", "other"])
        .await
        .text();
    let spec = seen.lock().unwrap().take().unwrap().spec.unwrap();
    let spec = crate::rpc::convert::spec_from_proto(spec).unwrap();
    assert_eq!(spec.source, "other");
    assert_eq!(spec.ttl, Some(Duration::from_secs(90)));
    let Some(export::Format::Csv(csv)) = spec.format else {
        panic!();
    };
    assert_eq!((csv.delimiter, csv.null_text.as_str()), (b';', "NULL"));
    let export::ReadFrom::Table(table) = spec.from else {
        panic!();
    };
    assert_eq!((table.limit, table.order_by.len()), (Some(7), 1));

    for bad in [
        r#"{"sourc": "x"}"#,
        r#"{"format": {"csv": {"sheet": "x"}}}"#,
        r#"{"format": {"csv": {"compression": "gzip"}}}"#,
        r#"{"sql": "x", "definition": "y"}"#,
        r#"{"ttl": "soon"}"#,
        "[]",
    ] {
        fs::write(path, bad).unwrap();
        let done = rowgate(Script::default(), &["submit", "--json", path]).await;
        assert_eq!(done.exit_code(), 2, "{bad}");
    }
}

#[tokio::test]
async fn every_code_has_an_exit_code_and_a_next_step() {
    use export::Code as C;
    for (code, reason, exit, next) in [
        (C::InvalidArgument, "INVALID_FIELD", 2, ""),
        (C::AlreadyExists, "REQUEST_ID_REUSED", 2, "--request-id"),
        (C::NotFound, "EXPORT_NOT_FOUND", 3, "rowgate list"),
        (C::NotFound, "SOURCE_NOT_FOUND", 3, "rowgate sources"),
        (C::Unavailable, "SOURCE_UNAVAILABLE", 4, ""),
        (C::DeadlineExceeded, "STATEMENT_TIMEOUT", 4, ""),
        (C::ResourceExhausted, "STORAGE_FULL", 1, ""),
        (C::ResourceExhausted, "ROW_TOO_LARGE", 1, ""),
        (C::Cancelled, "CANCELLED", 1, ""),
        (C::Cancelled, "CLIENT_GONE", 4, ""),
        (C::PermissionDenied, "SQL_NOT_ALLOWED", 5, "rowgate sources"),
        (C::Unauthenticated, "NO_CREDENTIALS", 5, ""),
        (C::FailedPrecondition, "NOT_READY", 6, "rowgate watch"),
        (C::FailedPrecondition, "RESULT_EXPIRED", 6, "submit"),
        (C::FailedPrecondition, "EXPORT_ENDED", 6, ""),
        (C::FailedPrecondition, "EXPORT_NOT_ENDED", 6, ""),
        (C::FailedPrecondition, "NOT_ROWS", 6, "rowgate download"),
        (C::FailedPrecondition, "NOT_A_FILE", 6, "rowgate stream"),
        (C::FailedPrecondition, "RESUME_UNAVAILABLE", 6, ""),
        (
            C::FailedPrecondition,
            "TOO_LARGE_FOR_INLINE",
            2,
            "--execution",
        ),
        (C::FailedPrecondition, "EXPORT_FAILED", 1, "rowgate status"),
        (C::FailedPrecondition, "EXPORT_CANCELLED", 1, ""),
        (C::FailedPrecondition, "EXPRESSION_FAILED", 1, ""),
        (C::FailedPrecondition, "QUERY_FAILED", 1, ""),
        (C::DataLoss, "DAMAGED", 8, "submit"),
        (C::Internal, "INTERNAL", 9, "log"),
    ] {
        let script = Script {
            status: Some(Err(failed(code, reason))),
            ..Default::default()
        };
        let done = rowgate(script, &["status", ID]).await;
        assert_eq!(done.exit_code(), exit, "{reason}");
        let text = done.result.unwrap_err().to_string();
        assert!(
            text.contains(reason) && text.contains("it went wrong"),
            "{text}"
        );
        assert!(text.contains(next), "{text}");
    }
}

#[tokio::test]
async fn an_error_names_fields_and_when_to_retry() {
    let violations = vec![Violation {
        field: "spec.columns[1].name".to_owned(),
        description: "is \u{1b}[31mtwice".to_owned(),
    }];
    let full = export::Failure::new(export::Code::ResourceExhausted, "NO_PERMIT", "full");
    let script = Script {
        status: Some(Err(status::from_failure(
            full.retry_after(Duration::from_secs(2)),
        ))),
        ..Default::default()
    };
    let done = rowgate(script, &["status", ID]).await;
    assert_eq!(done.exit_code(), 4);
    let failure = export::Failure::invalid_fields(violations).retry_after(Duration::from_secs(5));
    let script = Script {
        status: Some(Err(status::from_failure(failure))),
        ..Default::default()
    };
    let text = rowgate(script, &["status", ID])
        .await
        .result
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("\n  spec.columns[1].name: is \\u{1b}[31mtwice"),
        "{text}"
    );
    assert!(text.ends_with("next: try again in 5s"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_with_a_next_step() {
    let cli =
        Cli::try_parse_from(["rowgate", "sources", "--server", "http://127.0.0.1:1"]).unwrap();
    let Command::Client(command) = cli.command else {
        panic!();
    };
    let failure = run(&cli.server, *command, &mut Vec::new())
        .await
        .unwrap_err();
    assert_eq!(failure.exit_code(), 4);
    assert!(failure.to_string().contains("rowgate serve"));
}

#[tokio::test]
async fn watch_ends_with_the_export_and_fails_with_it() {
    let mut failed = export_in(pb::State::Failed);
    failed.error = Some(pb::Failure {
        reason: "QUERY_FAILED".to_owned(),
        message: "division by zero".to_owned(),
        ..Default::default()
    });
    let script = Script {
        watch: vec![export_in(pb::State::Running), failed],
        ..Default::default()
    };
    let done = rowgate(script, &["watch", ID]).await;
    assert_eq!(done.exit_code(), 1);
    let text = done.result.unwrap_err().to_string();
    assert!(text.contains("QUERY_FAILED: division by zero"), "{text}");

    let script = Script {
        watch: vec![
            export_in(pb::State::Running),
            export_in(pb::State::Succeeded),
        ],
        ..Default::default()
    };
    assert!(
        rowgate(script, &["watch", ID])
            .await
            .text()
            .contains("SUCCEEDED")
    );
}

#[tokio::test]
async fn sources_are_printed_as_csv() {
    let script = Script {
        sources: vec![pb::Source {
            name: "shop".to_owned(),
            kind: "postgres".to_owned(),
            definitions: vec![pb::Definition {
                name: "paid".to_owned(),
                title: "Paid, all".to_owned(),
                params: vec![],
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let done = rowgate(script, &["sources", "-o", "csv"]).await;
    let expected = "SOURCE,KIND,TABLES,SQL,DEFINITION,TITLE,PARAMS\n\
                    shop,postgres,no,no,paid,\"Paid, all\",\n";
    assert_eq!(done.text(), expected);
}

fn header(first_row: i64) -> Result<pb::StreamRowsResponse, Status> {
    let field = |name: &str| pb::Field {
        name: name.to_owned(),
        ..Default::default()
    };
    event(Event::Header(pb::StreamHeader {
        schema: vec![field("id"), field("name")],
        first_row,
        ..Default::default()
    }))
}

fn event(event: Event) -> Result<pb::StreamRowsResponse, Status> {
    Ok(pb::StreamRowsResponse {
        event: Some(event),
        resume_token: String::new(),
    })
}

fn lines(first_row: i64, lines: &str) -> Result<pb::StreamRowsResponse, Status> {
    event(Event::Batch(pb::RowBatch {
        first_row,
        row_count: i32::try_from(lines.lines().count()).unwrap(),
        crc32c: Some(crc32c::crc32c(lines.as_bytes())),
        rows: Some(Rows::JsonLines(lines.to_owned())),
    }))
}

fn footer(rows: i64) -> Result<pb::StreamRowsResponse, Status> {
    event(Event::Footer(pb::StreamFooter {
        rows,
        ..Default::default()
    }))
}

fn with_token(
    event: Result<pb::StreamRowsResponse, Status>,
    token: &str,
) -> Result<pb::StreamRowsResponse, Status> {
    event.map(|event| pb::StreamRowsResponse {
        resume_token: token.to_owned(),
        ..event
    })
}

async fn streamed(calls: Vec<Vec<Result<pb::StreamRowsResponse, Status>>>) -> Done {
    let script = Script {
        streams: calls.into(),
        ..Default::default()
    };
    rowgate(script, &["stream", ID]).await
}

#[tokio::test]
async fn a_stream_is_json_lines() {
    let done = streamed(vec![vec![
        header(0),
        lines(0, "{\"id\":1}\n{\"id\":2}"),
        footer(2),
    ]])
    .await;
    assert_eq!(done.text(), "{\"id\":1}\n{\"id\":2}\n");
}

#[tokio::test]
async fn a_stream_without_a_footer_fails_loudly() {
    let done = streamed(vec![vec![header(0), lines(0, "{}")]]).await;
    assert_eq!(done.exit_code(), 8);
    assert!(done.result.unwrap_err().to_string().contains("footer"));
    assert_eq!(done.out, b"{}\n");
}

#[tokio::test]
async fn damaged_and_missing_rows_are_noticed() {
    let mut damaged = lines(0, "{}").unwrap();
    let Some(Event::Batch(batch)) = &mut damaged.event else {
        panic!();
    };
    batch.crc32c = Some(1);
    let mut wrong_sha = footer(1).unwrap();
    let Some(Event::Footer(foot)) = &mut wrong_sha.event else {
        panic!();
    };
    foot.sha256 = "00".repeat(32);
    for events in [
        vec![header(0), Ok(damaged), footer(1)],
        vec![header(0), lines(0, "{}"), Ok(wrong_sha)],
        vec![header(0), lines(0, "{}"), lines(5, "{}"), footer(2)],
        vec![header(0), lines(0, "{}"), footer(2)],
        vec![header(3), footer(3)],
    ] {
        assert_eq!(streamed(vec![events]).await.exit_code(), 8);
    }
}

#[tokio::test]
async fn a_stream_with_tokens_goes_on_after_a_drain() {
    let drain = event(Event::Drain(pb::Drain {
        reason: "restart".to_owned(),
    }));
    let broken = vec![
        header(0),
        with_token(lines(0, "{\"a\":0}"), "after-0"),
        drain,
        Err(Status::new(Code::Unavailable, "draining")),
    ];
    let rest = vec![header(1), lines(1, "{\"a\":1}"), footer(2)];
    let script = Script {
        streams: vec![broken, rest].into(),
        ..Default::default()
    };
    let tokens = script.resume_tokens.clone();
    let done = rowgate(script, &["stream", ID]).await;
    assert_eq!(done.text(), "{\"a\":0}\n{\"a\":1}\n");
    assert_eq!(*tokens.lock().unwrap(), ["", "after-0"]);
}

#[tokio::test]
async fn a_live_stream_that_breaks_is_not_started_again() {
    let broken = vec![
        header(0),
        lines(0, "{}"),
        Err(Status::new(Code::Unavailable, "gone")),
    ];
    let again = vec![header(0), lines(0, "{}"), footer(1)];
    let script = Script {
        streams: vec![broken, again].into(),
        ..Default::default()
    };
    let done = rowgate(script, &["stream", "--source", "shop", "--table", "t"]).await;
    assert_eq!(done.exit_code(), 4);
    assert_eq!(done.out, b"{}\n");
}

#[tokio::test]
async fn a_live_stream_that_fails_or_is_cancelled_ends_as_its_export_does() {
    use export::Code as C;
    for (code, reason, exit) in [
        (C::FailedPrecondition, "QUERY_FAILED", 1),
        (C::Cancelled, "CANCELLED", 1),
        (C::DeadlineExceeded, "STATEMENT_TIMEOUT", 4),
    ] {
        let script = Script {
            streams: vec![vec![header(0), lines(0, "{}"), Err(failed(code, reason))]].into(),
            ..Default::default()
        };
        let args = ["stream", "--source", "shop", "--table", "t"];
        let done = rowgate(script, &args).await;
        assert_eq!(done.exit_code(), exit, "{reason}");
    }
}

#[tokio::test]
async fn values_are_printed_as_csv() {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let null = Value {
        kind: Some(Kind::NullValue(0)),
    };
    let rows = pb::EncodedRows::from(bytes::Bytes::from({
        let row = |values| ListValue { values };
        let mut wire = Vec::new();
        for row in [
            row(vec![text("1"), text("a\"b")]),
            row(vec![text("2"), null]),
            row(vec![text("3"), text("")]),
        ] {
            prost::encoding::message::encode(1, &row, &mut wire);
        }
        wire
    }));
    let batch = event(Event::Batch(pb::RowBatch {
        row_count: 3,
        rows: Some(Rows::Values(rows)),
        ..Default::default()
    }));
    let script = Script {
        streams: vec![vec![header(0), batch, footer(3)]].into(),
        ..Default::default()
    };
    let done = rowgate(script, &["stream", ID, "-o", "csv"]).await;
    assert_eq!(done.text(), "id,name\n1,\"a\"\"b\"\n2,\n3,\"\"\n");
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.csv");
    // What an earlier call has left.
    fs::write(folder.path().join(format!("orders.csv.{ID}.part")), "id,n").unwrap();
    let script = Script {
        file: b"id,name\n1,a\n2,b\n".to_vec(),
        break_after_pieces: 2,
        ..Default::default()
    };
    let offsets = script.download_offsets.clone();
    let done = rowgate(script, &["download", ID, "-o", path.to_str().unwrap()]).await;
    done.text();
    assert_eq!(fs::read(&path).unwrap(), b"id,name\n1,a\n2,b\n");
    assert_eq!(*offsets.lock().unwrap(), [4, 10]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_download_that_is_not_the_file_never_gets_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.csv");
    fs::write(folder.path().join(format!("orders.csv.{ID}.part")), "XXXX").unwrap();
    let script = Script {
        file: b"id,name\n1,a\n".to_vec(),
        ..Default::default()
    };
    let done = rowgate(script, &["download", ID, "-o", path.to_str().unwrap()]).await;
    assert_eq!(done.exit_code(), 8);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_download_can_go_to_the_standard_output() {
    let script = Script {
        file: b"id\n1\n".to_vec(),
        ..Default::default()
    };
    let done = rowgate(script, &["download", ID, "-o", "-"]).await;
    assert_eq!(done.text(), "id\n1\n");
}
