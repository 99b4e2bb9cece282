//! Results whose bytes are not those that were written: no client may take one for complete.

use std::{fs, path::PathBuf};

use rowgate::rpc::pb::{self, State};
use tonic::{Code, Status};

use super::rig::{
    self, Source, as_csv, download, files, gated, is_retryable, queue, refused, service, spooled,
    until,
};
use crate::support::rowgate::Rowgate;

/// Far more than one piece of a download, which has 256 KiB.
const ROWS: u32 = 2_000;

/// An export that has ended, and where its bytes are.
async fn stored(rowgate: &Rowgate, spec: pb::ExportSpec) -> (String, PathBuf) {
    let id = queue(&rowgate.exports, spec).await;
    until(&rowgate.exports, &id, State::Succeeded).await;
    let results = rowgate.folder.join("results");
    let file = files(&results)
        .into_iter()
        .find(|file| file.starts_with(&id) && results.join(file).is_file())
        .expect("a stored result");
    (id, results.join(file))
}

fn damaged<T>(outcome: Result<T, Status>) {
    let status = refused(outcome, Code::DataLoss, "RESULT_DAMAGED");
    assert!(!is_retryable(&status), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_short_is_never_downloaded_as_complete() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let (id, path) = stored(&rowgate, as_csv(gated(ROWS, ROWS + 1))).await;
    let whole = fs::read(&path).unwrap();
    assert!(download(&rowgate.exports, &id).await.unwrap() == whole);
    // Within a piece, between two pieces, before the first byte.
    for left in [whole.len() - 1, 300_000, 256 << 10, 0] {
        fs::write(&path, &whole[..left]).unwrap();
        damaged(download(&rowgate.exports, &id).await);
        let behind = pb::DownloadResultRequest {
            export_id: id.clone(),
            offset: whole.len() as i64 - 1,
            ..Default::default()
        };
        let mut pieces = rowgate.exports.clone().download_result(behind).await;
        let pieces = pieces.as_mut().unwrap().get_mut();
        assert!(pieces.message().await.unwrap().unwrap().result.is_some());
        damaged(pieces.message().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_ends_the_download_of_the_whole_file() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let (id, path) = stored(&rowgate, as_csv(gated(ROWS, ROWS + 1))).await;
    let whole = fs::read(&path).unwrap();
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut wrong = whole.clone();
        wrong[at] ^= 1;
        fs::write(&path, &wrong).unwrap();
        damaged(download(&rowgate.exports, &id).await);
    }
    fs::write(&path, &whole).unwrap();
    assert!(download(&rowgate.exports, &id).await.unwrap() == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_are_refused_before_the_stream_begins() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let (id, path) = stored(&rowgate, gated(ROWS, ROWS + 1)).await;
    let whole = fs::read(&path).unwrap();
    // In the first segment.
    let mut wrong = whole.clone();
    wrong[100] ^= 1;
    fs::write(&path, &wrong).unwrap();
    let answer = rig::stream(&rowgate.exports, spooled(&id)).await;
    let status = refused(answer, Code::DataLoss, "CHECKSUM_MISMATCH");
    assert!(!is_retryable(&status), "{status:?}");
    for left in [whole.len() - 1, whole.len() / 2, 0] {
        fs::write(&path, &whole[..left]).unwrap();
        damaged(rig::stream(&rowgate.exports, spooled(&id)).await);
    }
    fs::write(&path, &whole).unwrap();
    let mut rows = rig::stream(&rowgate.exports, spooled(&id)).await.unwrap();
    rig::events(&mut rows).await.1.unwrap();
}
