//! A server that follows a script.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::rpc::pb::{
    self,
    export_service_server::{ExportService, ExportServiceServer},
};

type Events<T> = Vec<Result<T, Status>>;
type Stream<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;
type Answer<T> = Result<Response<T>, Status>;

#[derive(Default)]
pub struct Script {
    pub submit: Option<Result<pb::SubmitExportResponse, Status>>,
    pub submitted: Arc<Mutex<Option<pb::SubmitExportRequest>>>,
    pub status: Option<Result<pb::Export, Status>>,
    pub watch: Vec<pb::Export>,
    pub sources: Vec<pb::Source>,
    /// One for each call.
    pub streams: VecDeque<Events<pb::StreamRowsResponse>>,
    pub resume_tokens: Arc<Mutex<Vec<String>>>,
    pub file: Vec<u8>,
    /// The first download breaks after this many pieces of three bytes; 0: it doesn't.
    pub break_after_pieces: usize,
    pub download_offsets: Arc<Mutex<Vec<i64>>>,
}

pub struct Server {
    pub url: String,
    /// Stops it when dropped.
    _task: JoinSet<Result<(), tonic::transport::Error>>,
}

pub async fn serve(script: Script) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = ExportServiceServer::new(Scripted(Mutex::new(script)));
    let mut task = JoinSet::new();
    task.spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    Server { url, _task: task }
}

struct Scripted(Mutex<Script>);

fn stream<T>(events: Events<T>) -> Answer<Stream<T>> {
    Ok(Response::new(tokio_stream::iter(events)))
}

fn unscripted() -> Status {
    Status::unimplemented("the test's script does not have this")
}

#[tonic::async_trait]
impl ExportService for Scripted {
    type StreamRowsStream = Stream<pb::StreamRowsResponse>;
    type WatchExportStream = Stream<pb::WatchExportResponse>;
    type DownloadResultStream = Stream<pb::DownloadResultResponse>;

    async fn submit_export(
        &self,
        request: Request<pb::SubmitExportRequest>,
    ) -> Answer<pb::SubmitExportResponse> {
        let mut script = self.0.lock().unwrap();
        *script.submitted.lock().unwrap() = Some(request.into_inner());
        script
            .submit
            .take()
            .ok_or_else(unscripted)?
            .map(Response::new)
    }

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Answer<pb::GetStatusResponse> {
        let status = self.0.lock().unwrap().status.take();
        let export = Some(status.ok_or_else(unscripted)??);
        Ok(Response::new(pb::GetStatusResponse { export }))
    }

    async fn stream_rows(
        &self,
        request: Request<pb::StreamRowsRequest>,
    ) -> Answer<Self::StreamRowsStream> {
        let mut script = self.0.lock().unwrap();
        let token = request.into_inner().resume_token;
        script.resume_tokens.lock().unwrap().push(token);
        stream(script.streams.pop_front().ok_or_else(unscripted)?)
    }

    async fn watch_export(
        &self,
        _: Request<pb::WatchExportRequest>,
    ) -> Answer<Self::WatchExportStream> {
        let exports = std::mem::take(&mut self.0.lock().unwrap().watch);
        let events = exports.into_iter().map(|export| {
            Ok(pb::WatchExportResponse {
                export: Some(export),
            })
        });
        stream(events.collect())
    }

    async fn list_exports(
        &self,
        _: Request<pb::ListExportsRequest>,
    ) -> Answer<pb::ListExportsResponse> {
        Err(unscripted())
    }

    async fn cancel_export(
        &self,
        _: Request<pb::CancelExportRequest>,
    ) -> Answer<pb::CancelExportResponse> {
        Err(unscripted())
    }

    async fn delete_export(
        &self,
        _: Request<pb::DeleteExportRequest>,
    ) -> Answer<pb::DeleteExportResponse> {
        Err(unscripted())
    }

    async fn download_result(
        &self,
        request: Request<pb::DownloadResultRequest>,
    ) -> Answer<Self::DownloadResultStream> {
        let mut script = self.0.lock().unwrap();
        let offset = request.into_inner().offset;
        script.download_offsets.lock().unwrap().push(offset);
        let start = usize::try_from(offset).unwrap();
        let mut pieces: Events<_> = script.file[start..]
            .chunks(3)
            .enumerate()
            .map(|(i, data)| {
                Ok(pb::DownloadResultResponse {
                    data: bytes::Bytes::copy_from_slice(data),
                    offset: offset + 3 * i64::try_from(i).unwrap(),
                    crc32c: Some(crc32c::crc32c(data)),
                    result: (i == 0).then(|| pb::Result {
                        size_bytes: i64::try_from(script.file.len()).unwrap(),
                        sha256: hex::encode(Sha256::digest(&script.file)),
                        ..Default::default()
                    }),
                })
            })
            .collect();
        let break_after = std::mem::take(&mut script.break_after_pieces);
        if break_after > 0 {
            pieces.truncate(break_after);
            pieces.push(Err(Status::unavailable("restarting")));
        }
        stream(pieces)
    }

    async fn list_sources(
        &self,
        _: Request<pb::ListSourcesRequest>,
    ) -> Answer<pb::ListSourcesResponse> {
        let sources = std::mem::take(&mut self.0.lock().unwrap().sources);
        Ok(Response::new(pb::ListSourcesResponse { sources }))
    }
}
