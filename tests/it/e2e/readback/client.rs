//! Submits, waits and downloads, distrustful: every checksum and offset is looked at.

use std::time::Duration;

use rowgate::rpc::pb::{self, row_batch::Rows, stream_rows_response::Event};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Shop;

pub fn orders(format: Option<pb::Format>) -> pb::ExportSpec {
    pb::ExportSpec {
        source: "shop".to_owned(),
        from: Some(pb::export_spec::From::Table(pb::TableRead {
            name: "orders".to_owned(),
            order_by: vec!["id".to_owned()],
            limit: 0,
        })),
        format,
        ..Default::default()
    }
}

pub fn format(kind: pb::format::Kind) -> Option<pb::Format> {
    Some(pb::Format { kind: Some(kind) })
}

impl Shop {
    /// Runs an export to its success.
    pub async fn export(&mut self, spec: pb::ExportSpec) -> pb::Export {
        let request = pb::SubmitExportRequest {
            spec: Some(spec.clone()),
            execution: pb::Execution::Queued.into(),
            max_wait: Some(Duration::from_secs(150).try_into().unwrap()),
            ..Default::default()
        };
        let response = self.rowgate.exports.submit_export(request).await;
        let response = response.unwrap_or_else(|status| panic!("{status:?}, of {spec:?}"));
        let export = response.into_inner().export.unwrap();
        assert_eq!(export.state(), pb::State::Succeeded, "{export:?}");
        export
    }

    /// Runs an export, downloads its file whole and in parts, and describes it to `check.py`.
    pub async fn file(&mut self, spec: pb::ExportSpec, name: &str, options: Value) -> Value {
        let headers = headers(&spec);
        let export = self.export(spec).await;
        let result = export.result.unwrap();
        let whole = self.download(&export.id, 0, 0, &result).await;
        assert_eq!(whole.len() as i64, result.size_bytes);
        assert_eq!(hex::encode(Sha256::digest(&whole)), result.sha256);
        let size = result.size_bytes;
        for (offset, limit) in [
            (1, 0),
            (size / 2, 0),
            (size - 1, 0),
            (size, 0),
            (size / 3, 1000),
        ] {
            let part = self.download(&export.id, offset, limit, &result).await;
            let end = if limit == 0 {
                size
            } else {
                size.min(offset + limit)
            };
            assert!(
                part == whole[offset as usize..end as usize],
                "from {offset}, {limit} bytes"
            );
        }
        let path = self
            .folder
            .join(format!("{}-{}", export.id, result.file_name));
        std::fs::write(&path, whole).unwrap();
        json!({
            "path": path, "format": name, "options": options, "sheets": result.sheets,
            "fields": fields(&result.schema, &headers),
        })
    }

    async fn download(
        &mut self,
        id: &str,
        offset: i64,
        limit: i64,
        result: &pb::Result,
    ) -> Vec<u8> {
        let request = pb::DownloadResultRequest {
            export_id: id.to_owned(),
            offset,
            limit,
        };
        let mut stream = self
            .rowgate
            .exports
            .download_result(request)
            .await
            .unwrap()
            .into_inner();
        let first = stream.message().await.unwrap().expect("a first message");
        assert_eq!(first.result.as_ref(), Some(result));
        let mut bytes = first.data.to_vec();
        assert_eq!(first.offset, offset);
        while let Some(message) = stream.message().await.unwrap() {
            assert_eq!(message.offset, offset + bytes.len() as i64);
            assert_eq!(message.crc32c, Some(crc32c::crc32c(&message.data)));
            assert_eq!(message.result, None);
            bytes.extend_from_slice(&message.data);
        }
        bytes
    }
}

/// One batch as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    pub first_row: i64,
    pub rows: i32,
    pub payload: Vec<u8>,
}

/// A stream that ended with a footer.
pub struct Streamed {
    pub header: pb::StreamHeader,
    pub pieces: Vec<Piece>,
    /// Each with the number of pieces before it.
    pub tokens: Vec<(usize, String)>,
    pub footer: pb::StreamFooter,
}

impl Shop {
    /// Reads a stream to its footer and looks at its checksums.
    pub async fn stream(&mut self, request: pb::StreamRowsRequest) -> Streamed {
        let encoding = request.encoding();
        let mut stream = self
            .rowgate
            .exports
            .stream_rows(request)
            .await
            .unwrap()
            .into_inner();
        let (mut header, mut footer) = (None, None);
        let (mut pieces, mut tokens) = (Vec::<Piece>::new(), Vec::new());
        let (mut hash, mut row) = (Sha256::new(), 0);
        while let Some(message) = stream.message().await.unwrap() {
            assert!(footer.is_none(), "nothing follows a footer");
            match message.event.unwrap() {
                Event::Header(first) => {
                    assert!(header.is_none() && pieces.is_empty());
                    row = first.first_row;
                    header = Some(first);
                }
                Event::Batch(batch) => {
                    assert_eq!(batch.first_row, row);
                    row += i64::from(batch.row_count);
                    let (payload, is_checked) = match batch.rows.unwrap() {
                        Rows::Values(rows) => (rows.wire.to_vec(), false),
                        Rows::ArrowIpc(bytes) => (bytes.to_vec(), true),
                        Rows::JsonLines(text) => (text.into_bytes(), true),
                    };
                    let checksum = is_checked.then(|| crc32c::crc32c(&payload));
                    assert_eq!(batch.crc32c, checksum);
                    hash.update(if is_checked { payload.as_slice() } else { &[] });
                    pieces.push(Piece {
                        first_row: batch.first_row,
                        rows: batch.row_count,
                        payload,
                    });
                }
                Event::Footer(last) => footer = Some(last),
                Event::Heartbeat(_) => {}
                Event::Drain(drain) => panic!("{drain:?}"),
            }
            if !message.resume_token.is_empty() {
                tokens.push((pieces.len(), message.resume_token));
            }
        }
        let footer = footer.expect("a footer");
        assert_eq!(footer.rows, row);
        let header = header.expect("a header");
        let sha256 = match encoding {
            pb::RowEncoding::Values => String::new(),
            _ => hex::encode(hash.finalize()),
        };
        assert_eq!(footer.sha256, sha256);
        Streamed {
            header,
            pieces,
            tokens,
            footer,
        }
    }

    /// Describes a stream to `check.py`.
    pub fn streamed(&self, streamed: &Streamed, encoding: pb::RowEncoding) -> Value {
        let payloads: Vec<_> = streamed
            .pieces
            .iter()
            .map(|piece| piece.payload.as_slice())
            .collect();
        let (name, bytes) = match encoding {
            pb::RowEncoding::JsonLines => ("json_lines", payloads.join(&b'\n')),
            pb::RowEncoding::ArrowIpc => {
                let schema = streamed.header.arrow_schema.to_vec();
                ("arrow_ipc", [schema, payloads.concat()].concat())
            }
            _ => {
                let framed =
                    |payload: &&[u8]| [&(payload.len() as u32).to_le_bytes(), *payload].concat();
                (
                    "values",
                    payloads.iter().map(framed).collect::<Vec<_>>().concat(),
                )
            }
        };
        let path = self.folder.join(format!("{}.{name}", uuid::Uuid::new_v4()));
        std::fs::write(&path, bytes).unwrap();
        json!({
            "path": path, "format": name, "options": {}, "first_row": streamed.header.first_row,
            "fields": fields(&streamed.header.schema, &[]),
        })
    }
}

/// Titles that the spec gives, by name.
fn headers(spec: &pb::ExportSpec) -> Vec<(String, String)> {
    let titled = spec
        .columns
        .iter()
        .filter(|column| !column.header.is_empty());
    titled
        .map(|column| (column.name.clone(), column.header.clone()))
        .collect()
}

pub fn fields(schema: &[pb::Field], headers: &[(String, String)]) -> Value {
    let one = |field: &pb::Field| {
        let title = headers.iter().find(|(name, _)| *name == field.name);
        let header = title.map_or(&field.name, |(_, header)| header);
        json!({"name": field.name, "header": header, "type": field.r#type, "nullable": field.nullable})
    };
    schema.iter().map(one).collect()
}
