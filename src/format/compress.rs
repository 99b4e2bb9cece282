//! Compression of text files, which are put together from chunks.
//!
//! gzip is slow, so each chunk is compressed where it is rendered, in parallel, and is a member of its own: readers must
//! take members that follow each other for one file (RFC 1952). zstd is fast, and the same is said of its frames (RFC
//! 8878), but readers in wide use stop after the first one without a word (python-zstandard's `decompress`): a file is
//! one frame, compressed in order by the thread that writes it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use flate2::{Compress, FlushCompress, Status};
use zstd::stream::write::Encoder as Frame;

use crate::export::{Failure, spec::Compression};

use super::{Assembled, Assembler, Error, Payload, Rendered};

/// Of 9: below the usual 6, since an export waits for it.
const GZIP_LEVEL: u32 = 4;
const GZIP_WINDOW_BITS: u8 = 15;
const ZSTD_LEVEL: i32 = 3;
const FRAME_PIECE_BYTES: usize = 256 << 10;

/// The half of it that threads do in parallel.
pub(super) struct Compressor {
    codec: Codec,
}

enum Codec {
    None,
    /// States are kept for reuse; there are at most as many as threads render at once.
    Gzip(Mutex<Vec<Compress>>),
    Zstd,
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
            Compression::Zstd => Codec::Zstd,
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
            Codec::Zstd => zstd,
        }
    }

    /// Of a whole chunk, what can be done without the others.
    pub(super) fn compress(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let Codec::Gzip(idle) = &self.codec else {
            return Ok(bytes);
        };
        let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut state = kept.unwrap_or_else(|| {
            Compress::new_gzip(flate2::Compression::new(GZIP_LEVEL), GZIP_WINDOW_BITS)
        });
        let member = gzip_member(&mut state, &bytes)?;
        state.reset();
        idle.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(state);
        Ok(member)
    }

    /// Where the chunks go when they are compressed in order.
    fn frame(&self) -> Result<Option<Frame<'static, Vec<u8>>>, Error> {
        let Codec::Zstd = &self.codec else {
            return Ok(None);
        };
        let mut frame = Frame::new(Vec::new(), ZSTD_LEVEL)?;
        frame.include_checksum(true)?;
        Ok(Some(frame))
    }
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

/// The ordered half of text files: a head (BOM, header row), then chunks as [`Compressor::compress`] gave them.
pub(super) struct Appender {
    compressor: Arc<Compressor>,
    head: Vec<u8>,
    frame: Option<Frame<'static, Vec<u8>>>,
    is_empty: bool,
}

impl Appender {
    pub(super) fn new(compressor: Arc<Compressor>, head: Vec<u8>) -> Result<Self, Error> {
        Ok(Self {
            frame: compressor.frame()?,
            compressor,
            head,
            is_empty: true,
        })
    }

    fn append(&mut self, bytes: &[u8], out: &mut dyn io::Write) -> Result<(), Error> {
        self.is_empty &= bytes.is_empty();
        let Some(frame) = &mut self.frame else {
            return Ok(out.write_all(bytes)?);
        };
        // In pieces: what comes out is small, and gone before the next goes in.
        for piece in bytes.chunks(FRAME_PIECE_BYTES) {
            frame.write_all(piece)?;
            out.write_all(frame.get_ref())?;
            frame.get_mut().clear();
        }
        Ok(())
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

    /// A file of no bytes is neither a gzip nor a zstd file: a result without header and rows is an empty member or
    /// frame.
    fn finish(mut self: Box<Self>, out: &mut dyn io::Write) -> Result<Assembled, Error> {
        if self.is_empty {
            let nothing = self.compressor.compress(Vec::new())?;
            self.append(&nothing, out)?;
        }
        if let Some(frame) = self.frame {
            out.write_all(&frame.finish()?)?;
        }
        Ok(Assembled::default())
    }
}
