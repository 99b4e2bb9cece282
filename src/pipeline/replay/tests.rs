use arrow::array::{ArrayRef, Int64Array};
use jiff::Timestamp;

use crate::{
    export::{ExportId, Fence, ResultKind, RowEncoding},
    format::{Encoder, Render, spool::SpoolEncoder},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const ROWS: i64 = 20_000;

/// Numbers that don't compress.
fn segment(number: i64) -> RecordBatch {
    let rows = (number * ROWS..(number + 1) * ROWS)
        .map(|row| row.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64));
    let array: ArrayRef = Arc::new(Int64Array::from_iter_values(rows));
    RecordBatch::try_from_iter([("id", array)]).unwrap()
}

async fn stored(results: &ResultStore, segments: i64) -> ResultInfo {
    let begun = results.begin(ExportId::generate(), Fence(1), ".rows").await;
    let mut upload = begun.unwrap();
    let write = move || {
        let encoder = SpoolEncoder::new(&segment(0).schema()).unwrap();
        let mut assembler = encoder.assembler().unwrap();
        assembler.start(&mut upload).unwrap();
        for number in 0..segments {
            let rendered = encoder.render(segment(number)).unwrap();
            assembler.push(rendered, &mut upload).unwrap();
        }
        assembler.finish(&mut upload).unwrap();
        upload.finish().unwrap()
    };
    let stored = tokio::task::spawn_blocking(write).await.unwrap();
    ResultInfo {
        kind: ResultKind::Rows,
        file_name: String::new(),
        media_type: String::new(),
        path: stored.path,
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
        rows_read: 0,
        rows_filtered: 0,
        rows: (segments * ROWS) as u64,
        schema: Vec::new(),
        fidelity: Vec::new(),
        sheets: 0,
        query_hash: String::new(),
        read_started_at: Timestamp::UNIX_EPOCH,
        read_ended_at: Timestamp::UNIX_EPOCH,
        snapshot: None,
        expires_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_client_keeps_in_memory_is_in_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let results = ResultStore::local(folder.path()).unwrap();
    let result = stored(&results, 6).await;
    let rows = RowOptions {
        encoding: RowEncoding::JsonLines,
        max_batch_rows: None,
        max_batch_bytes: None,
    };
    let render = RowRender::new(rows, &segment(0).schema(), &TimeZone::UTC).unwrap();
    let chunks = render.chunks(segment(0)).unwrap();
    assert!(chunks.len() > super::super::CHUNKS_AHEAD);
    let rendered: u64 = chunks.iter().map(|chunk| chunk.payload.len() as u64).sum();
    for budget_bytes in [0, 1 << 30] {
        let spool = Spool::open(results.clone(), &result).await.unwrap();
        // One that waits, one that is read behind it; none where there is no memory for them.
        let ahead = match budget_bytes {
            0 => 0,
            _ => spool.index.segments()[1..3]
                .iter()
                .map(|segment| segment.bytes.end - segment.bytes.start)
                .sum(),
        };
        let bounds = Arc::new(Bounds::new(0, 0, budget_bytes));
        let options = ReplayOptions {
            rows,
            time_zone: TimeZone::UTC,
            first_row: 0,
            idle_timeout: PATIENCE * 2,
            bounds: bounds.clone(),
            cancel: CancellationToken::new(),
        };
        let (sender, mut received) = mpsc::channel(super::super::CHUNKS_AHEAD);
        let replay = spool.replay(options, Arc::new(Meter::new(None)), sender);
        let client = async {
            let counted = async {
                while bounds.used_bytes() != rendered + ahead {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let counted = tokio::time::timeout(PATIENCE, counted).await;
            assert!(counted.is_ok(), "{} bytes are counted", bounds.used_bytes());
            let mut rows = 0;
            while let Some(chunk) = received.recv().await {
                rows += u64::from(chunk.rows);
            }
            rows
        };
        let (sent, rows) = tokio::join!(replay, client);
        sent.unwrap();
        assert_eq!(rows, result.rows);
        assert_eq!(bounds.used_bytes(), 0);
    }
}
