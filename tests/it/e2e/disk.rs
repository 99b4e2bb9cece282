//! A disk that is full: `ulimit -f` on the real server, and an ENOSPC that a result store gives back.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart, memory::InMemory,
    path::Path,
};
use rowgate::{
    export::{Code as FailureCode, ExportId, ExportSpec, Fence, Format, ReadFrom, spec::Csv},
    pipeline::{FileTarget, Meter, Pipeline, Plan, Sizes},
    rpc::pb::{Execution, State},
    storage::ResultStore,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::rig::{
    self, PATIENCE, Source, as_csv, as_xlsx, gated, queue, refused, sql, submit, submit_as, until,
};
use crate::support::{postgres, process::Process, reading, rowgate::Rowgate, temp_dir, wait_until};

const LIMIT_KIB: u64 = 4 << 10;

/// 20 MB that do not compress to less than half.
const NOISE: &str = "select held.i as id, \
    (select string_agg(md5(held.i::text || '-' || j::text), '') from generate_series(1, 32) j) as noise \
    from generate_series(1, 20000) held(i)";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_outgrows_its_limit_fails_the_export_and_not_the_server() {
    let (folder, source) = (temp_dir(), Source::create().await);
    // The limit holds for every file of the process, and it is not the queue's that is to be full.
    let db = postgres::Database::create().await;
    let toml = source.toml_in_postgres(&db);
    let server = Process::start_limited(folder.path(), &toml, LIMIT_KIB).await;
    for spec in [as_csv(sql(NOISE)), as_xlsx(sql(NOISE)), sql(NOISE)] {
        let format = format!("{:?}", spec.format);
        let id = queue(&server.exports, spec).await;
        let failed = rig::at_end(&server.exports, &id).await;
        assert_eq!(
            (failed.state(), failed.attempt),
            (State::Failed, 1),
            "{format}: {failed:?}"
        );
        let error = failed.error.unwrap();
        assert_eq!(error.reason, "STORAGE_FULL", "{format}: {error:?}");
        assert_eq!(error.code, Code::ResourceExhausted as i32);
        assert!(!error.retryable);
        rig::until_nothing_stored(folder.path()).await;
        let why = rig::download(&server.exports, &id).await;
        refused(why, Code::FailedPrecondition, "EXPORT_FAILED");
    }
    let inline = submit(
        &server.exports,
        submit_as(as_csv(sql(NOISE)), Execution::Inline),
    )
    .await;
    let inline = rig::at_end(&server.exports, &inline.unwrap().export.unwrap().id).await;
    assert_eq!(inline.error.unwrap().reason, "STORAGE_FULL");
    for spec in [as_csv(gated(100, 101)), as_xlsx(gated(100, 101))] {
        let id = queue(&server.exports, spec).await;
        until(&server.exports, &id, State::Succeeded).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_room_says_so_and_works_again_when_there_is_some() {
    /// The queue is larger than this after some dozens of exports.
    const QUEUE_KIB: u64 = 512;
    let (folder, source) = (temp_dir(), Source::create().await);
    let server = Process::start_limited(folder.path(), &source.toml(), QUEUE_KIB).await;
    let submit = async || {
        let request = submit_as(as_csv(gated(10, 11)), Execution::Queued);
        rig::submit(&server.exports, request).await
    };
    let mut refusals = 0;
    let mut tries = 0;
    // One failed commit must not make the next one another kind of failure.
    while refusals < 5 {
        tries += 1;
        assert!(tries < 2_000, "the queue stays below {QUEUE_KIB} KiB");
        let submitted = submit().await;
        if submitted.is_err() {
            let refusal = refused(submitted, Code::Unavailable, "QUEUE_UNAVAILABLE");
            assert!(rig::is_retryable(&refusal));
            refusals += 1;
        }
    }
    server.lift_limit();
    let submitted = wait_until(PATIENCE, "an export that is accepted", || async {
        submit().await.ok()
    })
    .await;
    let id = submitted.export.unwrap().id;
    until(&server.exports, &id, State::Succeeded).await;
}

/// Takes `parts_max` parts of each upload, then has no space left.
#[derive(Debug)]
struct Full {
    inner: InMemory,
    parts_max: usize,
    completed: Arc<AtomicUsize>,
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Full")
    }
}

#[derive(Debug)]
struct Parts {
    inner: Box<dyn MultipartUpload>,
    left: usize,
    completed: Arc<AtomicUsize>,
}

fn no_space() -> object_store::Error {
    object_store::Error::Generic {
        store: "Full",
        source: Box::new(io::Error::from(io::ErrorKind::StorageFull)),
    }
}

#[async_trait::async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.left == 0 {
            return async { Err(no_space()) }.boxed();
        }
        self.left -= 1;
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.inner.abort().await
    }
}

#[async_trait::async_trait]
impl ObjectStore for Full {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Parts {
            inner: self.inner.put_multipart_opts(location, options).await?,
            left: self.parts_max,
            completed: self.completed.clone(),
        }))
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn noise(format: Option<Format>) -> ExportSpec {
    ExportSpec {
        format,
        ..reading::spec(ReadFrom::Sql(NOISE.to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_space_is_told_as_such_and_nothing_is_completed() {
    let (source, scratch) = (Source::create().await, temp_dir());
    let config = Rowgate::config(scratch.path(), &source.toml());
    for format in [Some(Format::Csv(Csv::default())), None] {
        // The first part, and the second: before and after something was stored.
        for parts_max in [0, 1] {
            let completed = Arc::new(AtomicUsize::new(0));
            let store = Arc::new(Full {
                inner: InMemory::new(),
                parts_max,
                completed: completed.clone(),
            });
            let plan = Plan::new(&reading::catalog(&source.db.url), noise(format.clone()))
                .await
                .unwrap();
            let (meter, cancel) = (Arc::new(Meter::new(None)), CancellationToken::new());
            let prepare = plan.file_stages(FileTarget {
                results: ResultStore::over(store.clone()),
                id: ExportId::generate(),
                fence: Fence(1),
                meter: meter.clone(),
                scratch: scratch.path().to_owned(),
            });
            let pipeline = Pipeline {
                name: "full".to_owned(),
                plan,
                prepare,
                sizes: Arc::new(Sizes::new(&config.limits)),
                meter,
                cancel,
            };
            let failure = pipeline.run().await.unwrap_err();
            assert_eq!(
                (failure.code, failure.reason.as_str()),
                (FailureCode::ResourceExhausted, "STORAGE_FULL")
            );
            assert!(
                !failure.retryable && failure.retry_after.is_none(),
                "{failure:?}"
            );
            assert_eq!(completed.load(Ordering::Relaxed), 0);
            assert_eq!(store.list(None).count().await, 0);
        }
    }
    source.look().await.until_gone().await;
}
