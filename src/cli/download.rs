//! `download`: the file of an export, checked piece by piece and as a whole, gone on with where it broke off.
//!
//! A file appears under its name only when it is complete and its SHA-256 is right; until then it is
//! `NAME.EXPORT_ID.part`, which another call takes up.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use sha2::{Digest, Sha256};
use tonic::Code;

use super::{Client, Failure, progress::Display};
use crate::rpc::pb;

/// In a row, without a byte between them.
const RETRIES_MAX: u32 = 8;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(8);

#[derive(Args, Debug)]
pub struct DownloadArgs {
    #[arg(value_name = "EXPORT_ID")]
    id: String,
    /// Where to save it (`-`: standard output); by default under its own name in the current folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub async fn download(
    client: &mut Client,
    args: DownloadArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    save(client, &args.id, args.output, out).await
}

/// Into `path`, or the file's own name; `-` is `out`.
pub async fn save(
    client: &mut Client,
    id: &str,
    path: Option<PathBuf>,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    if path.as_deref() == Some(Path::new("-")) {
        let mut transfer = Transfer::new(id, &mut *out);
        transfer.run(client).await?;
        return out.flush().map_err(Failure::output("standard output"));
    }
    let path = match path {
        Some(path) => path,
        None => own_name(client, id).await?,
    };
    let part = part_path(&path, id);
    let shown = path.display().to_string();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(&part)
        .map_err(Failure::output(part.display().to_string()))?;
    let mut transfer = Transfer::new(id, file);
    transfer
        .take_up()
        .map_err(Failure::output(part.display().to_string()))?;
    let result = match transfer.run(client).await {
        Ok(result) => result,
        Err(failure) => {
            // Damaged: what is there is not the beginning of this file. Empty: there is nothing to go on from.
            if matches!(failure, Failure::Damaged(_)) || transfer.offset == 0 {
                fs::remove_file(&part).map_err(Failure::output(part.display().to_string()))?;
            }
            return Err(failure);
        }
    };
    transfer
        .sink
        .sync_all()
        .and_then(|()| fs::rename(&part, &path))
        .map_err(Failure::output(shown.clone()))?;
    eprintln!("{shown}: {} rows, {} bytes", result.rows, result.size_bytes);
    Ok(())
}

/// The server's text is no path: only a plain name is taken from it.
async fn own_name(client: &mut Client, id: &str) -> Result<PathBuf, Failure> {
    let request = pb::GetStatusRequest {
        export_id: id.to_owned(),
        wait: None,
    };
    let export = client.get_status(request).await?.into_inner().export;
    let name = export.and_then(|e| e.result).map(|r| r.file_name);
    let name = name.unwrap_or_default();
    let plain = Path::new(&name)
        .file_name()
        .filter(|plain| **plain == name[..]);
    match plain {
        Some(plain) => Ok(PathBuf::from(plain)),
        // Not ready, or not a file: the download itself says so.
        None => Ok(PathBuf::from(format!("export-{id}"))),
    }
}

fn part_path(path: &Path, id: &str) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    // Ids come from the command line.
    let id: String = id
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    part.push(format!(".{id}.part"));
    PathBuf::from(part)
}

struct Transfer<'a, W> {
    id: &'a str,
    sink: W,
    sha256: Sha256,
    offset: u64,
    result: Option<pb::Result>,
    display: Display,
}

impl<'a> Transfer<'a, File> {
    /// Goes on behind what an earlier call has left.
    fn take_up(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = self.sink.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            self.sha256.update(&buffer[..length]);
            self.offset += length as u64;
        }
    }
}

impl<'a, W: Write> Transfer<'a, W> {
    fn new(id: &'a str, sink: W) -> Self {
        Self {
            id,
            sink,
            sha256: Sha256::new(),
            offset: 0,
            result: None,
            display: Display::new(),
        }
    }

    /// To the end of the file, over as many calls as it takes.
    async fn run(&mut self, client: &mut Client) -> Result<pb::Result, Failure> {
        let mut retries = 0;
        loop {
            let before = self.offset;
            match self.call(client).await {
                Ok(()) => break,
                Err(failure) => {
                    retries = if self.offset > before { 0 } else { retries + 1 };
                    if retries >= RETRIES_MAX || !may_pass(&failure) {
                        return Err(failure);
                    }
                    let delay = RETRY_DELAY_MIN * 2_u32.pow(retries);
                    tokio::time::sleep(delay.min(RETRY_DELAY_MAX)).await;
                }
            }
        }
        self.display.clear();
        self.verified()
    }

    async fn call(&mut self, client: &mut Client) -> Result<(), Failure> {
        let request = pb::DownloadResultRequest {
            export_id: self.id.to_owned(),
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            limit: 0,
        };
        let answer = client.download_result(request).await;
        let mut pieces = match answer {
            Err(status) if status.code() == Code::OutOfRange => {
                return Err(Failure::Damaged(
                    "the part that is here is longer than the file; it is deleted, try again"
                        .to_owned(),
                ));
            }
            answer => answer?.into_inner(),
        };
        while let Some(piece) = pieces.message().await? {
            self.take(piece)?;
        }
        let size = self.result.as_ref().map(|r| r.size_bytes);
        if size.and_then(|size| u64::try_from(size).ok()) == Some(self.offset) {
            return Ok(());
        }
        // A stream that ends early without an error: as if the connection had broken.
        Err(tonic::Status::unavailable("the server ended the download early").into())
    }

    fn take(&mut self, piece: pb::DownloadResultResponse) -> Result<(), Failure> {
        if let Some(result) = piece.result {
            self.result = Some(result);
        }
        if u64::try_from(piece.offset).ok() != Some(self.offset) && !piece.data.is_empty() {
            return Err(Failure::Damaged(format!(
                "the server sent bytes from {} where those from {} come next",
                piece.offset, self.offset
            )));
        }
        if piece
            .crc32c
            .is_some_and(|crc| crc != crc32c::crc32c(&piece.data))
        {
            return Err(Failure::Damaged(format!(
                "the bytes from {} on fail their CRC-32C",
                self.offset
            )));
        }
        self.sink
            .write_all(&piece.data)
            .map_err(Failure::output("the file"))?;
        self.sha256.update(&piece.data);
        self.offset += piece.data.len() as u64;
        if let Some(result) = &self.result {
            let total = u64::try_from(result.size_bytes).unwrap_or(0);
            self.display.show_bytes(self.offset, total);
        }
        Ok(())
    }

    fn verified(&mut self) -> Result<pb::Result, Failure> {
        let result = self.result.take().unwrap_or_default();
        let found = hex::encode(self.sha256.finalize_reset());
        if found == result.sha256 {
            return Ok(result);
        }
        Err(Failure::Damaged(format!(
            "the file's SHA-256 is {found}; the server says {}",
            result.sha256
        )))
    }
}

/// Whether going on from the offset that was reached may help.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Rpc(status) => matches!(
            status.code(),
            Code::Unavailable | Code::Aborted | Code::Cancelled | Code::Unknown
        ),
        _ => false,
    }
}
