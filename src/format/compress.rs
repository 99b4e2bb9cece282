//! Compression of files that are made of independent chunks: gzip members and zstd frames, one for each batch, so that
//! they are compressed in parallel and any reader takes their concatenation for one file.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use flate2::{Compress, FlushCompress, Status};
use zstd::{bulk, zstd_safe::CParameter};

use crate::export::{Failure, spec::Compression};

use super::{Assembled, Assembler, Error, Payload, Rendered};

/// Of 9: below the usual 6, since an export waits for it.
const GZIP_LEVEL: u32 = 4;
const GZIP_WINDOW_BITS: u8 = 15;
const ZSTD_LEVEL: i32 = 3;

/// Compresses whole chunks. States are kept for reuse; there are at most as many as threads render at once.
pub(super) struct Compressor {
    codec: Codec,
}

enum Codec {
    None,
    Gzip(Mutex<Vec<Compress>>),
    Zstd(Mutex<Vec<bulk::Compressor<'static>>>),
}

impl Compressor {
    /// `field` is the path of the option in the request.
    ///
    /// # Errors
    /// [`Error::Invalid`] for compressions that no reader of such files expects.
    pub(super) fn new(compression: Compression, field: &str) -> Result<Self, Error> {
        let codec = match compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip(Mutex::default()),
            Compression::Zstd => Codec::Zstd(Mutex::default()),
            Compression::Snappy | Compression::Lz4 => {
                return Err(Error::Invalid(Failure::invalid_field(
                    field,
                    "text files are compressed with gzip or zstd, or not at all",
                )));
            }
        };
        Ok(Self { codec })
    }

    /// The one of three that goes with the compression: none, gzip, zstd.
    pub(super) fn choose<T>(&self, none: T, gzip: T, zstd: T) -> T {
        match self.codec {
            Codec::None => none,
            Codec::Gzip(_) => gzip,
            Codec::Zstd(_) => zstd,
        }
    }

    /// One complete gzip member or zstd frame.
    pub(super) fn compress(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        match &self.codec {
            Codec::None => Ok(bytes),
            Codec::Gzip(idle) => {
                let mut state = take(idle).unwrap_or_else(|| {
                    Compress::new_gzip(flate2::Compression::new(GZIP_LEVEL), GZIP_WINDOW_BITS)
                });
                let member = gzip_member(&mut state, &bytes)?;
                state.reset();
                give_back(idle, state);
                Ok(member)
            }
            Codec::Zstd(idle) => {
                let mut state = match take(idle) {
                    Some(state) => state,
                    None => {
                        let mut state = bulk::Compressor::new(ZSTD_LEVEL)?;
                        state.set_parameter(CParameter::ChecksumFlag(true))?;
                        state
                    }
                };
                let frame = state.compress(&bytes)?;
                give_back(idle, state);
                Ok(frame)
            }
        }
    }
}

fn take<T>(idle: &Mutex<Vec<T>>) -> Option<T> {
    idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn give_back<T>(idle: &Mutex<Vec<T>>, state: T) {
    idle.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(state);
}

fn gzip_member(state: &mut Compress, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(bytes.len() / 3 + 64);
    loop {
        let taken = state.total_in() as usize;
        let status = state
            .compress_vec(&bytes[taken..], &mut out, FlushCompress::Finish)
            .map_err(|error| Error::Broken(format!("gzip: {error}")))?;
        if status == Status::StreamEnd {
            return Ok(out);
        }
        out.reserve(bytes.len() / 4 + 64);
    }
}

/// The ordered half of text files: a head (BOM, header row), then finished chunks.
pub(super) struct Appender {
    compressor: Arc<Compressor>,
    head: Vec<u8>,
    is_empty: bool,
}

impl Appender {
    pub(super) fn new(compressor: Arc<Compressor>, head: Vec<u8>) -> Self {
        Self {
            compressor,
            head,
            is_empty: true,
        }
    }

    fn append(&mut self, bytes: &[u8], out: &mut dyn io::Write) -> Result<(), Error> {
        self.is_empty &= bytes.is_empty();
        Ok(out.write_all(bytes)?)
    }
}

impl Assembler for Appender {
    fn start(&mut self, out: &mut dyn io::Write) -> Result<(), Error> {
        if self.head.is_empty() {
            return Ok(());
        }
        let head = self.compressor.compress(std::mem::take(&mut self.head))?;
        self.append(&head, out)
    }

    fn push(&mut self, rendered: Rendered, out: &mut dyn io::Write) -> Result<(), Error> {
        match rendered.payload {
            Payload::Bytes(bytes) => self.append(&bytes, out),
            other => Err(Error::Broken(format!("not a chunk of text: {other:?}"))),
        }
    }

    /// A file of no bytes is not a gzip file: a result without header and rows is one empty member.
    fn finish(mut self: Box<Self>, out: &mut dyn io::Write) -> Result<Assembled, Error> {
        if self.is_empty {
            let nothing = self.compressor.compress(Vec::new())?;
            self.append(&nothing, out)?;
        }
        Ok(Assembled::default())
    }
}
