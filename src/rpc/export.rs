//! `ExportService`: each handler parses, calls one use case, and converts the answer.

mod streams;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    convert,
    pb::{self, export_service_server::ExportService},
    status::from_failure,
};
use crate::{
    export::{Failure, TenantId},
    service::{
        DownloadRequest, ExportView, Service, StreamRequest, StreamTarget, SubmitMode,
        SubmitRequest, Submitted,
    },
};

/// Specs may be large: a page ends before clients refuse it for its size (4 MiB by default).
const PAGE_BYTES_MAX: usize = 3 << 20;

/// The handlers; cheap to clone.
#[derive(Clone)]
pub struct ExportHandlers {
    service: Arc<Service>,
}

impl ExportHandlers {
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Before authentication exists every caller is the same tenant.
fn tenant<T>(_request: &Request<T>) -> TenantId {
    TenantId::default()
}

#[tonic::async_trait]
impl ExportService for ExportHandlers {
    type StreamRowsStream = Responses<pb::StreamRowsResponse>;
    type WatchExportStream = Responses<pb::WatchExportResponse>;
    type DownloadResultStream = Responses<pb::DownloadResultResponse>;

    async fn submit_export(
        &self,
        request: Request<pb::SubmitExportRequest>,
    ) -> Result<Response<pb::SubmitExportResponse>, Status> {
        let (tenant, deadline) = (tenant(&request), deadline(request.metadata()));
        let submit = convert::submit_from_proto(request.into_inner()).map_err(from_failure)?;
        let request = SubmitRequest {
            spec: submit.spec,
            request_id: submit.request_id,
            mode: match submit.validate_only {
                true => SubmitMode::ValidateOnly,
                false => SubmitMode::Submit,
            },
            execution: submit.execution,
            max_wait: submit.max_wait,
            deadline,
        };
        let submitted = self
            .service
            .submit(&tenant, request)
            .await
            .map_err(from_failure)?;
        let response = submitted_to_proto(submitted).map_err(from_failure)?;
        Ok(Response::new(response))
    }

    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let tenant = tenant(&request);
        let asked = convert::get_status_from_proto(request.into_inner()).map_err(from_failure)?;
        let view = self
            .service
            .status(&tenant, asked.id, asked.wait.unwrap_or_default())
            .await
            .map_err(from_failure)?;
        Ok(Response::new(pb::GetStatusResponse {
            export: Some(view_to_proto(&view)),
        }))
    }

    async fn stream_rows(
        &self,
        request: Request<pb::StreamRowsRequest>,
    ) -> Result<Response<Self::StreamRowsStream>, Status> {
        let (tenant, deadline) = (tenant(&request), deadline(request.metadata()));
        let asked = convert::stream_rows_from_proto(request.into_inner(), &self.service.tokens)
            .map_err(from_failure)?;
        let request = StreamRequest {
            target: match asked.target {
                convert::StreamTarget::Spec(spec) => StreamTarget::Spec(spec),
                convert::StreamTarget::Export {
                    id,
                    guarantee,
                    from,
                } => StreamTarget::Export {
                    id,
                    guarantee,
                    from,
                },
            },
            encoding: asked.encoding,
            batch_rows_max: asked.batch_rows_max,
            batch_bytes_max: asked.batch_bytes_max,
            heartbeat: asked.heartbeat,
            deadline,
        };
        let encoding = request.encoding;
        let rows = self
            .service
            .stream(&tenant, request)
            .await
            .map_err(from_failure)?;
        let events = rows.events(self.service.draining.clone());
        Ok(Response::new(streams::rows(events, encoding)))
    }

    async fn watch_export(
        &self,
        request: Request<pb::WatchExportRequest>,
    ) -> Result<Response<Self::WatchExportStream>, Status> {
        let (tenant, deadline) = (tenant(&request), end_of_call(request.metadata()));
        let asked = convert::watch_from_proto(request.into_inner()).map_err(from_failure)?;
        // An unknown export is a plain error, not an empty stream.
        let first = self
            .service
            .status(&tenant, asked.id, Duration::ZERO)
            .await
            .map_err(from_failure)?;
        let watch = streams::watch(self.service.clone(), tenant, first, asked.interval);
        Ok(Response::new(streams::until(deadline, watch)))
    }

    async fn list_exports(
        &self,
        request: Request<pb::ListExportsRequest>,
    ) -> Result<Response<pb::ListExportsResponse>, Status> {
        let tenant = tenant(&request);
        let filter = convert::list_from_proto(request.into_inner(), tenant, &self.service.tokens)
            .map_err(from_failure)?;
        let page = self.service.list(&filter).await.map_err(from_failure)?;
        let (mut exports, mut size_bytes) = (Vec::new(), 0);
        for view in &page.exports {
            let export = view_to_proto(view);
            size_bytes += export.encoded_len();
            if size_bytes > PAGE_BYTES_MAX && !exports.is_empty() {
                break;
            }
            exports.push(export);
        }
        let is_cut = exports.len() < page.exports.len();
        let next_page_token = match page.exports[..exports.len()].last() {
            Some(last) if is_cut || page.has_more => self.service.page_token(&filter, last),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListExportsResponse {
            exports,
            next_page_token,
        }))
    }

    async fn cancel_export(
        &self,
        request: Request<pb::CancelExportRequest>,
    ) -> Result<Response<pb::CancelExportResponse>, Status> {
        let tenant = tenant(&request);
        let id =
            convert::export_id_from_proto(&request.into_inner().export_id).map_err(from_failure)?;
        let view = self
            .service
            .cancel(&tenant, id)
            .await
            .map_err(from_failure)?;
        Ok(Response::new(pb::CancelExportResponse {
            export: Some(view_to_proto(&view)),
        }))
    }

    async fn delete_export(
        &self,
        request: Request<pb::DeleteExportRequest>,
    ) -> Result<Response<pb::DeleteExportResponse>, Status> {
        let tenant = tenant(&request);
        let id =
            convert::export_id_from_proto(&request.into_inner().export_id).map_err(from_failure)?;
        self.service
            .delete(&tenant, id)
            .await
            .map_err(from_failure)?;
        Ok(Response::new(pb::DeleteExportResponse {}))
    }

    async fn download_result(
        &self,
        request: Request<pb::DownloadResultRequest>,
    ) -> Result<Response<Self::DownloadResultStream>, Status> {
        let (tenant, deadline) = (tenant(&request), end_of_call(request.metadata()));
        let asked = convert::download_from_proto(request.into_inner()).map_err(from_failure)?;
        let request = DownloadRequest {
            id: asked.id,
            offset: asked.offset_bytes,
            limit: asked.limit_bytes,
        };
        let download = self
            .service
            .download(&tenant, request)
            .await
            .map_err(from_failure)?;
        let pieces = streams::download(download);
        Ok(Response::new(streams::until(deadline, pieces)))
    }

    async fn list_sources(
        &self,
        _request: Request<pb::ListSourcesRequest>,
    ) -> Result<Response<pb::ListSourcesResponse>, Status> {
        let sources = self.service.catalog().list();
        Ok(Response::new(pb::ListSourcesResponse {
            sources: sources
                .map(|source| convert::source_to_proto(&source))
                .collect(),
        }))
    }
}

fn view_to_proto(view: &ExportView) -> pb::Export {
    convert::export_to_proto(&view.job, view.queue_position, view.progress.as_ref())
}

fn submitted_to_proto(submitted: Submitted) -> Result<pb::SubmitExportResponse, Failure> {
    Ok(match submitted {
        Submitted::Export { view, admission } => pb::SubmitExportResponse {
            export: Some(view_to_proto(&view)),
            admission: Some(convert::admission_to_proto(&admission)),
            plan: None,
        },
        Submitted::Validated {
            admission,
            described,
            sample,
        } => {
            let sample = pb::EncodedRows::from(sample);
            pb::SubmitExportResponse {
                export: None,
                admission: Some(convert::admission_to_proto(&admission)),
                plan: Some(convert::plan_to_proto(
                    &described.fields,
                    &sample,
                    described.warnings,
                )?),
            }
        }
    })
}

/// The call's own deadline: `grpc-timeout`, up to eight digits and a unit. tonic applies it to the handler only; streams
/// and admission need to know it, too. What is malformed is ignored, as tonic does.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

fn end_of_call(metadata: &MetadataMap) -> Option<Instant> {
    deadline(metadata).and_then(|deadline| Instant::now().checked_add(deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_deadlines_that_clients_send() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(read("10S"), Some(Duration::from_secs(10)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        for odd in ["", "S", "10", "-1S", "123456789S", "1é"] {
            assert_eq!(read_or_none(odd), None, "{odd}");
        }
    }

    fn read_or_none(text: &str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().ok()?);
        deadline(&metadata)
    }
}
