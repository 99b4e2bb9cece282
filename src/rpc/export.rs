//! `ExportService`: each handler parses, calls one use case, and converts the answer.

mod streams;

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use prost::Message;
use tonic::{Request, Response, Status};

use super::{
    convert,
    deadline::deadline,
    pb::{self, export_service_server::ExportService},
    status::from_failure,
};
use crate::{
    export::{Failure, TenantId},
    queue::{ListCursor, ListFilter},
    service::{
        DownloadRequest, ExportView, Service, StreamRequest, StreamTarget, SubmitMode,
        SubmitRequest, Submitted,
    },
};

/// Specs may be large: a page ends before clients refuse it for its size (4 MiB by default).
const PAGE_BYTES_MAX: usize = 3 << 20;

/// Of a page that are held at once, beside what the page shows: a spec takes up to 1 MiB.
const ROWS_AT_ONCE: u32 = 16;

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

impl ExportHandlers {
    /// Rows are read a few at a time: all that a page may have, with large specs, would be 200 MiB.
    async fn page(&self, filter: ListFilter) -> Result<pb::ListExportsResponse, Failure> {
        let mut page = pb::ListExportsResponse::default();
        let (mut size_bytes, mut after) = (0, filter.after);
        loop {
            let left = filter.rows_max - page.exports.len() as u32;
            let rows = self
                .service
                .list(&ListFilter {
                    after,
                    rows_max: left.min(ROWS_AT_ONCE),
                    ..filter.clone()
                })
                .await?;
            for view in &rows.exports {
                let export = view_to_proto(view);
                size_bytes += export.encoded_len();
                if size_bytes > PAGE_BYTES_MAX && !page.exports.is_empty() {
                    page.next_page_token = self.token_behind(&filter, after);
                    return Ok(page);
                }
                page.exports.push(export);
                after = Some(view.cursor());
            }
            if !rows.has_more {
                return Ok(page);
            }
            if page.exports.len() >= filter.rows_max as usize {
                page.next_page_token = self.token_behind(&filter, after);
                return Ok(page);
            }
        }
    }

    fn token_behind(&self, filter: &ListFilter, last: Option<ListCursor>) -> String {
        last.map_or_else(String::new, |last| self.service.tokens.page(filter, last))
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
        let (tenant, deadline) = (tenant(&request), deadline(&request));
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
        let (tenant, deadline) = (tenant(&request), deadline(&request));
        let asked = convert::get_status_from_proto(request.into_inner()).map_err(from_failure)?;
        let view = self
            .service
            .status(&tenant, asked.id, asked.wait.unwrap_or_default(), deadline)
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
        let (tenant, deadline) = (tenant(&request), deadline(&request));
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
        let (tenant, deadline) = (tenant(&request), deadline(&request));
        let asked = convert::watch_from_proto(request.into_inner()).map_err(from_failure)?;
        let watched = streams::Watched {
            changes: self.service.changes(asked.id),
            service: self.service.clone(),
            tenant,
            id: asked.id,
            interval: asked.interval,
        };
        // An unknown export is a plain error, not an empty stream.
        let first = watched.look().await.map_err(from_failure)?;
        let watch = streams::watch(watched, first);
        Ok(Response::new(streams::until(deadline, watch)))
    }

    async fn list_exports(
        &self,
        request: Request<pb::ListExportsRequest>,
    ) -> Result<Response<pb::ListExportsResponse>, Status> {
        let tenant = tenant(&request);
        let filter = convert::list_from_proto(request.into_inner(), tenant, &self.service.tokens)
            .map_err(from_failure)?;
        let response = self.page(filter).await.map_err(from_failure)?;
        Ok(Response::new(response))
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
        let (tenant, deadline) = (tenant(&request), deadline(&request));
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
