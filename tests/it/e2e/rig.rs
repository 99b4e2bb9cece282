//! What the tests of an export's life share: a PostgreSQL source whose queries a test holds open, and short calls.

use std::{path::Path, time::Duration};

use rowgate::rpc::pb::{
    self, RowEncoding, State, export_service_client::ExportServiceClient,
    stream_rows_request::Target, stream_rows_response::Event,
};
use sqlx::{Connection, PgConnection, Row};
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_types::StatusExt;

use crate::support::{postgres, rowgate::Rowgate, temp_dir, wait_until};

/// Longer than anything may take on a busy machine, shorter than the test's own time-out.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Only a defect leaves a query at its server for longer. A second is promised, and `promises` keeps the time.
pub const GONE: Duration = Duration::from_secs(10);

pub type Exports = ExportServiceClient<Channel>;

/// A database whose queries can be held open.
pub struct Source {
    pub db: postgres::Database,
}

/// While it is held, queries of [`gated`] stand still before the row that they name.
pub struct Gate {
    connection: PgConnection,
}

impl Source {
    pub async fn create() -> Self {
        Self {
            db: postgres::Database::create().await,
        }
    }

    /// Named `shop`; small batches, so that the first rows come through while later ones are held.
    pub fn toml(&self) -> String {
        self.toml_with("")
    }

    /// With the queue in a database of PostgreSQL.
    pub fn toml_in_postgres(&self, queue: &postgres::Database) -> String {
        self.toml()
            .replace("[queue]\n", &format!("[queue]\nurl = \"{}\"\n", queue.url))
    }

    /// `more` stands in `[limits]`.
    pub fn toml_with(&self, more: &str) -> String {
        format!(
            "[queue]\npoll_interval = \"200ms\"\nbackoff_min = \"20ms\"\nbackoff_max = \"50ms\"\n\
             [server]\nshutdown_grace = \"1s\"\n{}\n[limits]\nbatch_rows = 100\n{more}\n",
            self.section("shop")
        )
    }

    pub fn section(&self, name: &str) -> String {
        format!(
            "[sources.{name}]\nurl = \"{}\"\nslots = 32\nallow_tables = [\"*\"]\nallow_sql = true\n",
            self.db.url
        )
    }

    pub async fn close_gate(&self) -> Gate {
        let mut connection = self.db.connect().await;
        sqlx::query("select pg_advisory_lock(7)")
            .execute(&mut connection)
            .await
            .unwrap();
        Gate { connection }
    }

    pub async fn look(&self) -> Look {
        Look {
            connection: tokio::sync::Mutex::new(self.db.connect().await),
        }
    }
}

impl Gate {
    pub async fn open(self) {
        self.connection.close().await.unwrap();
    }
}

/// Looks at the source's server.
pub struct Look {
    connection: tokio::sync::Mutex<PgConnection>,
}

impl Look {
    /// Process ids of the queries of exports that are at the server now, their preparation and estimate included.
    pub async fn queries(&self) -> Vec<i32> {
        self.pids("state = 'active'").await
    }

    /// Waits until that many stand still, at the gate or because nobody takes their rows. Each belongs to an export
    /// that is in the queue; one that is only being prepared or estimated may not be there yet.
    pub async fn until_queries(&self, count: usize) -> Vec<i32> {
        wait_until(
            PATIENCE,
            &format!("{count} queries at the source"),
            || async {
                let queries = self
                    .pids("state = 'active' and wait_event in ('advisory', 'ClientWrite')")
                    .await;
                (queries.len() == count).then_some(queries)
            },
        )
        .await
    }

    async fn pids(&self, condition: &str) -> Vec<i32> {
        let sql = format!(
            "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() \
             and query like '%held%' and {condition}"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *self.connection.lock().await)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    pub async fn until_gone(&self) {
        wait_until(GONE, "no query at the source", || async {
            self.queries().await.is_empty().then_some(())
        })
        .await;
    }

    pub async fn kill(&self, pids: &[i32]) {
        for pid in pids {
            sqlx::query("select pg_terminate_backend($1)")
                .bind(pid)
                .execute(&mut *self.connection.lock().await)
                .await
                .unwrap();
        }
    }
}

/// `rows` rows of 1 kB; the gate stands before the row `held_from` (1 is the first).
pub fn gated(rows: u32, held_from: u32) -> pb::ExportSpec {
    sql(&format!(
        "select held.i as id, repeat('x', 1000) as pad, \
         case when held.i >= {held_from} then pg_advisory_xact_lock_shared(7)::text end as gate \
         from generate_series(1, {rows}) held(i)"
    ))
}

pub fn sql(text: &str) -> pb::ExportSpec {
    pb::ExportSpec {
        source: "shop".to_owned(),
        from: Some(pb::export_spec::From::Sql(text.to_owned())),
        ..Default::default()
    }
}

pub fn as_csv(spec: pb::ExportSpec) -> pb::ExportSpec {
    pb::ExportSpec {
        format: Some(pb::Format {
            kind: Some(pb::format::Kind::Csv(pb::Csv::default())),
        }),
        ..spec
    }
}

pub fn as_xlsx(spec: pb::ExportSpec) -> pb::ExportSpec {
    pb::ExportSpec {
        format: Some(pb::Format {
            kind: Some(pb::format::Kind::Xlsx(pb::Xlsx::default())),
        }),
        ..spec
    }
}

pub fn submit_as(spec: pb::ExportSpec, execution: pb::Execution) -> pb::SubmitExportRequest {
    pb::SubmitExportRequest {
        spec: Some(spec),
        execution: execution.into(),
        ..Default::default()
    }
}

pub async fn submit(
    exports: &Exports,
    request: pb::SubmitExportRequest,
) -> Result<pb::SubmitExportResponse, Status> {
    let response = exports.clone().submit_export(request).await?;
    Ok(response.into_inner())
}

/// Queued, and the id that it got.
pub async fn queue(exports: &Exports, spec: pb::ExportSpec) -> String {
    let request = submit_as(spec, pb::Execution::Queued);
    submit(exports, request).await.unwrap().export.unwrap().id
}

pub async fn status(exports: &Exports, id: &str) -> pb::Export {
    let request = pb::GetStatusRequest {
        export_id: id.to_owned(),
        wait: None,
    };
    let response = exports.clone().get_status(request).await.unwrap();
    response.into_inner().export.unwrap()
}

/// The export once it is in `state`; another end is a failure at once.
pub async fn until(exports: &Exports, id: &str, state: State) -> pb::Export {
    wait_until(PATIENCE, &format!("{id} {state:?}"), || async {
        let export = status(exports, id).await;
        let is_over = matches!(
            export.state(),
            State::Succeeded | State::Failed | State::Cancelled
        );
        if export.state() == state {
            return Some(export);
        }
        assert!(!is_over, "it should be {state:?}: {export:?}");
        None
    })
    .await
}

/// The export at its end, through `GetStatus` with a wait.
pub async fn at_end(exports: &Exports, id: &str) -> pb::Export {
    let request = pb::GetStatusRequest {
        export_id: id.to_owned(),
        wait: Some(seconds(PATIENCE.as_secs() as i64)),
    };
    let response = exports.clone().get_status(request).await.unwrap();
    response.into_inner().export.unwrap()
}

pub async fn cancel(exports: &Exports, id: &str) -> Result<pb::Export, Status> {
    let request = pb::CancelExportRequest {
        export_id: id.to_owned(),
    };
    let response = exports.clone().cancel_export(request).await?;
    Ok(response.into_inner().export.unwrap())
}

pub async fn download(exports: &Exports, id: &str) -> Result<Vec<u8>, Status> {
    let request = pb::DownloadResultRequest {
        export_id: id.to_owned(),
        ..Default::default()
    };
    let mut pieces = exports.clone().download_result(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await? {
        bytes.extend_from_slice(&piece.data);
    }
    Ok(bytes)
}

pub async fn list(exports: &Exports) -> Vec<pb::Export> {
    let request = pb::ListExportsRequest::default();
    let response = exports.clone().list_exports(request).await.unwrap();
    response.into_inner().exports
}

/// A live stream of JSON lines with a heartbeat each second.
pub fn live(spec: pb::ExportSpec) -> pb::StreamRowsRequest {
    pb::StreamRowsRequest {
        target: Some(Target::Spec(spec)),
        encoding: RowEncoding::JsonLines.into(),
        heartbeat: Some(seconds(1)),
        ..Default::default()
    }
}

/// Of a finished export.
pub fn spooled(id: &str) -> pb::StreamRowsRequest {
    pb::StreamRowsRequest {
        target: Some(Target::ExportId(id.to_owned())),
        ..live(pb::ExportSpec::default())
    }
}

pub async fn stream(
    exports: &Exports,
    request: impl tonic::IntoRequest<pb::StreamRowsRequest>,
) -> Result<Streaming<pb::StreamRowsResponse>, Status> {
    let response = exports.clone().stream_rows(request).await?;
    Ok(response.into_inner())
}

/// The same once a slot is free: a row says how a stream ended before its slot is given back.
pub async fn stream_in_a_free_slot(
    exports: &Exports,
    request: pb::StreamRowsRequest,
) -> Streaming<pb::StreamRowsResponse> {
    wait_until(PATIENCE, "a free slot for a stream", || async {
        match stream(exports, request.clone()).await {
            Ok(rows) => Some(rows),
            Err(status) => {
                assert_eq!(reason(&status), "STREAM_LIMIT", "{status:?}");
                None
            }
        }
    })
    .await
}

/// A client that reads until the first rows and then no more.
pub async fn stuck(
    exports: &Exports,
    request: impl tonic::IntoRequest<pb::StreamRowsRequest>,
) -> Streaming<pb::StreamRowsResponse> {
    let mut rows = stream(exports, request).await.unwrap();
    while !matches!(
        rows.message().await.unwrap().unwrap().event,
        Some(Event::Batch(_))
    ) {}
    rows
}

pub async fn rows_read(exports: &Exports, id: &str) -> i64 {
    wait_until(PATIENCE, "progress", || async {
        let progress = status(exports, id).await.progress;
        progress.map(|progress| progress.rows_read)
    })
    .await
}

/// The source is not read any more: the count stands still.
pub async fn until_it_stands(exports: &Exports, id: &str) -> i64 {
    let (mut last, mut same) = (-1, 0);
    loop {
        let rows = rows_read(exports, id).await;
        same = if rows == last { same + 1 } else { 0 };
        last = rows;
        // Each question is a round trip, and in that time a reader that runs reads thousands of rows.
        if same == 100 {
            return rows;
        }
    }
}

/// With `grpc-timeout`.
pub fn within<T>(request: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(timeout);
    request
}

pub fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}

pub fn is_retryable(status: &Status) -> bool {
    status.get_error_details().retry_info().is_some()
}

/// The call fails with this code and reason.
pub fn refused<T>(outcome: Result<T, Status>, code: Code, why: &str) -> Status {
    let Err(status) = outcome else {
        panic!("{code:?} {why} was expected, and the call succeeded");
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (code, why),
        "{status:?}"
    );
    status
}

/// Everything below a folder, relative, sorted; folders too.
pub fn files(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // Whose queue the results belong to; it stays.
            if entry.file_name() == ".rowgate-queue" {
                continue;
            }
            into.push(path.strip_prefix(root).unwrap().display().to_string());
            if path.is_dir() {
                walk(&path, root, into);
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

/// Neither results nor temporary files are in a service's folder.
pub async fn until_nothing_stored(folder: &Path) {
    wait_until(PATIENCE, "an empty result folder", || async {
        let left = [
            files(&folder.join("results")),
            files(&folder.join("results.scratch")),
        ];
        left.iter().all(Vec::is_empty).then_some(())
    })
    .await;
}

/// A service over a source, in-process.
pub async fn service(source: &Source) -> Rowgate {
    Rowgate::start(&source.toml()).await
}

/// A service over an empty file of SQLite, where [`SILENT_SQLITE`] can run, as hasty with estimates as an operator's.
///
/// [`SILENT_SQLITE`]: crate::support::reading::SILENT_SQLITE
pub async fn service_over_sqlite() -> (Rowgate, tempfile::TempDir) {
    let folder = temp_dir();
    rusqlite::Connection::open(folder.path().join("shop.db"))
        .unwrap()
        .execute_batch("create table t(i integer)")
        .unwrap();
    let toml = "[sources.shop]\nurl = \"sqlite://{folder}/shop.db\"\nallow_sql = true\n";
    let mut config = Rowgate::config(folder.path(), toml);
    config.estimate_patience = Duration::from_millis(500);
    let rowgate = Rowgate::start_of(config, folder.path().to_owned()).await;
    (rowgate, folder)
}

/// The rows of JSON lines that came so far, in order.
#[derive(Debug, Default)]
pub struct Lines {
    pub text: String,
    pub rows: i64,
}

impl Lines {
    pub fn take(&mut self, message: &pb::StreamRowsResponse) {
        let Some(Event::Batch(batch)) = &message.event else {
            return;
        };
        let Some(pb::row_batch::Rows::JsonLines(lines)) = &batch.rows else {
            panic!("another encoding");
        };
        assert_eq!(batch.first_row, self.rows);
        assert_eq!(lines.lines().count() as i32, batch.row_count);
        self.rows += i64::from(batch.row_count);
        self.text.push_str(lines);
        self.text.push('\n');
    }
}

/// The events of a stream to its end, and the status where it is one.
pub async fn events(
    stream: &mut Streaming<pb::StreamRowsResponse>,
) -> (Vec<Event>, Result<(), Status>) {
    let mut events = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, stream.message()).await {
            Ok(Ok(Some(message))) => events.extend(message.event),
            Ok(Ok(None)) => return (events, Ok(())),
            Ok(Err(status)) => return (events, Err(status)),
            Err(_) => panic!("a silent stream: {events:?}"),
        }
    }
}

/// The header, behind the heartbeats of a source that is slow to tell its columns.
pub async fn header(stream: &mut Streaming<pb::StreamRowsResponse>) -> pb::StreamRowsResponse {
    loop {
        let message = stream.message().await.unwrap().expect("a header comes");
        match message.event {
            Some(Event::Heartbeat(_)) => {}
            Some(Event::Header(_)) => return message,
            other => panic!("not a header: {other:?}"),
        }
    }
}

/// Whether a header came before anything but heartbeats.
pub fn begin_with_a_header(events: &[Event]) -> bool {
    let mut events = events.iter();
    let first = events.find(|event| !matches!(event, Event::Heartbeat(_)));
    matches!(first, Some(Event::Header(_)))
}
