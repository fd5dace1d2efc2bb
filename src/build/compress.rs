//! Deterministic gzip: one member, compressed in fixed blocks by several threads; the number of threads does not show.
//!
//! The encoder is named and pinned (`=` in Cargo.toml): zlib-rs of this version hashes and matches the same on every
//! CPU (its vector code only compares and slides), so the bytes follow from the content alone.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use zlib_rs::{Deflate, DeflateFlush};

/// Everything that decides the compressed bytes besides the content: part of every cache key.
pub const ENCODER: &str =
    "gzip by zlib-rs 0.6.8, level 6, blocks of 524288 with 32768 before them as dictionary";

const LEVEL: i32 = 6;
const BLOCK: usize = 512 * 1024;
/// What deflate can look back on: the end of the block before serves as dictionary, so blocks cost next to nothing.
const WINDOW: usize = 32 * 1024;
const WINDOW_BITS: u8 = 15;
/// Magic, deflate, no flags, mtime 0, no extra flags, OS 255 (unknown).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Threads that compress blocks, whichever layer they belong to.
pub struct Compressors {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    block: Vec<u8>,
    dictionary: Arc<Vec<u8>>,
    last: bool,
    answer: SyncSender<io::Result<Compressed>>,
}

struct Compressed {
    bytes: Vec<u8>,
    checksum: crc32fast::Hasher,
}

impl Compressors {
    /// Starts that many threads; they end when this is dropped.
    pub fn new(threads: NonZeroUsize) -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let work = |queue: Arc<Mutex<Receiver<Job>>>| {
            move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { break };
                    // Whoever asked may have failed meanwhile and hear no more.
                    let _ = job.answer.send(compress(&job.block, &job.dictionary, job.last));
                }
            }
        };
        let threads = (0..threads.get()).map(|_| thread::spawn(work(Arc::clone(&queue)))).collect();
        Self { jobs: Some(jobs), threads }
    }

    /// A gzip stream into `out`; [`GzipWriter::finish`] ends it.
    pub fn writer<W: Write>(&self, out: W) -> io::Result<GzipWriter<'_, W>> {
        let mut out = out;
        out.write_all(&HEADER)?;
        Ok(GzipWriter {
            pool: self,
            out,
            block: Vec::with_capacity(BLOCK),
            dictionary: Arc::default(),
            pending: VecDeque::new(),
            checksum: crc32fast::Hasher::new(),
            size: 0,
        })
    }
}

impl Drop for Compressors {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            // A thread that panicked has already failed the stream it worked for.
            let _ = thread.join();
        }
    }
}

/// A gzip stream whose blocks are compressed elsewhere and written in order.
pub struct GzipWriter<'a, W> {
    pool: &'a Compressors,
    out: W,
    block: Vec<u8>,
    dictionary: Arc<Vec<u8>>,
    pending: VecDeque<Receiver<io::Result<Compressed>>>,
    checksum: crc32fast::Hasher,
    size: u64,
}

impl<W: Write> GzipWriter<'_, W> {
    /// Ends the stream: last block, checksum and length.
    pub fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        let checksum = self.checksum.finalize();
        self.out.write_all(&checksum.to_le_bytes())?;
        let length = (self.size & u64::from(u32::MAX)).to_le_bytes();
        self.out.write_all(&length[..4])?;
        Ok(self.out)
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let tail = Arc::new(block[block.len().saturating_sub(WINDOW)..].to_vec());
        let dictionary = std::mem::replace(&mut self.dictionary, tail);
        let (answer, receiver) = sync_channel(1);
        self.size += block.len() as u64;
        let job = Job { block, dictionary, last, answer };
        let jobs = self.pool.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())?;
        self.pending.push_back(receiver);
        // Bounds the memory: so many blocks are under way for one stream.
        while self.pending.len() > 2 * self.pool.threads.len() {
            self.write_oldest()?;
        }
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.pending.pop_front() else { return Ok(()) };
        let compressed = oldest.recv().map_err(|_| gone())??;
        self.checksum.combine(&compressed.checksum);
        self.out.write_all(&compressed.bytes)
    }
}

impl<W: Write> Write for GzipWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.submit(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("a compressing thread ended early")
}

/// One block as raw deflate: it ends at a byte boundary, so that blocks can be joined.
fn compress(block: &[u8], dictionary: &[u8], last: bool) -> io::Result<Compressed> {
    let failed = |what: &str| io::Error::other(format!("deflate: {what}"));
    let mut deflate = Deflate::new(LEVEL, false, WINDOW_BITS);
    if !dictionary.is_empty() {
        deflate.set_dictionary(dictionary).map_err(|error| failed(error.as_str()))?;
    }
    // Deflate never grows data by more than five bytes in 16 KiB.
    let mut bytes = vec![0; block.len() + block.len() / 64 + 1024];
    let flush = if last { DeflateFlush::Finish } else { DeflateFlush::SyncFlush };
    deflate.compress(block, &mut bytes, flush).map_err(|error| failed(error.as_str()))?;
    if deflate.total_in() != block.len() as u64 {
        return Err(failed("the block did not fit"));
    }
    bytes.truncate(usize::try_from(deflate.total_out()).unwrap_or(usize::MAX));
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(block);
    Ok(Compressed { bytes, checksum })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::oci::Digest;

    fn gzip(content: &[u8], threads: usize) -> Vec<u8> {
        let pool = Compressors::new(NonZeroUsize::new(threads).unwrap());
        let mut writer = pool.writer(Vec::new()).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    /// Text-like content: a linear congruential generator over a small alphabet.
    fn content(size: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"tars framework\n"[(state >> 24) as usize % 15]
        };
        (0..size).map(|_| next()).collect()
    }

    #[test]
    fn gzip_is_one_member_that_others_read_back() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77] {
            let content = content(size);
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(gzip(&content, 3).as_slice()).read_to_end(&mut read).unwrap();
            assert!(read == content, "{size}");
        }
    }

    #[test]
    fn gzip_does_not_depend_on_the_number_of_threads() {
        let content = content(5 * BLOCK + 1234);
        let one = gzip(&content, 1);
        assert!(one == gzip(&content, 2) && one == gzip(&content, 7));
    }

    #[test]
    fn gzip_of_known_content_has_the_known_digest() {
        assert_eq!(
            Digest::of(gzip(&content(2 * BLOCK + 99), 2)).to_string(),
            "sha256:8e5ca7524fb61018d60c25f3a383e29919f4a0078efac369583ad02ac8c84907"
        );
    }
}
