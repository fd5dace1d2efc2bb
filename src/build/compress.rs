//! Deterministic gzip: a member for each block, compressed by several threads; the number of threads does not show.
//!
//! The encoder is named and pinned (`=` in Cargo.toml): libdeflate of this version matches the same on every CPU (its vector
//! code only moves its tables), so the bytes follow from the content alone. It has neither dictionaries nor blocks that go on: hence
//! the members, which every reader of gzip joins (RFC 1952, 2.2).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use libdeflater::{CompressionLvl, Compressor};

use crate::store::size_member;

/// Everything that decides the compressed bytes besides the content: part of every cache key.
pub const ENCODER: &str = "gzip by libdeflate 1.26.1, level 5, members of 524288, and one that says the size";

const LEVEL: i32 = 5;
const BLOCK: usize = 512 * 1024;

/// Threads that compress blocks, whichever layer they belong to.
pub struct Compressors {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    block: Vec<u8>,
    answer: SyncSender<io::Result<Vec<u8>>>,
}

impl Compressors {
    /// Starts that many threads; they end when this is dropped.
    pub fn new(threads: NonZeroUsize) -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let work = |queue: Arc<Mutex<Receiver<Job>>>| {
            move || {
                // Its tables and its room are made with the first block: a thread that has none costs nothing.
                let mut compressor = None;
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { break };
                    // Whoever asked may have failed meanwhile and hear no more.
                    let _ = job.answer.send(compress(&mut compressor, &job.block));
                }
            }
        };
        let threads = (0..threads.get()).map(|_| thread::spawn(work(Arc::clone(&queue)))).collect();
        Self { jobs: Some(jobs), threads }
    }

    /// A gzip stream into `out`; [`GzipWriter::finish`] ends it.
    pub fn writer<W: Write>(&self, out: W) -> GzipWriter<'_, W> {
        GzipWriter { pool: self, out, block: Vec::new(), pending: VecDeque::new(), size: 0 }
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

/// A gzip stream whose members are compressed elsewhere and written in order.
pub struct GzipWriter<'a, W> {
    pool: &'a Compressors,
    out: W,
    block: Vec<u8>,
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    size: u64,
}

impl<W: Write> GzipWriter<'_, W> {
    /// Ends the stream: the last block, and the size of all.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.submit()?;
        }
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        self.out.write_all(&size_member(self.size))?;
        Ok(self.out)
    }

    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let (answer, receiver) = sync_channel(1);
        self.size += block.len() as u64;
        let jobs = self.pool.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { block, answer }).map_err(|_| gone())?;
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
        self.out.write_all(&compressed)
    }
}

impl<W: Write> Write for GzipWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.capacity() == 0 {
            self.block.reserve_exact(BLOCK);
        }
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.submit()?;
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

/// One block as a member of its own.
fn compress(compressor: &mut Option<(Compressor, Vec<u8>)>, block: &[u8]) -> io::Result<Vec<u8>> {
    let (compressor, room) = match compressor {
        Some(compressor) => compressor,
        none => {
            let level = CompressionLvl::new(LEVEL)
                .map_err(|error| io::Error::other(format!("libdeflate has no level {LEVEL}: {error:?}")))?;
            none.insert((Compressor::new(level), Vec::new()))
        }
    };
    let bound = compressor.gzip_compress_bound(block.len());
    if room.len() < bound {
        room.resize(bound, 0);
    }
    let size = compressor.gzip_compress(block, room).map_err(io::Error::other)?;
    // What waits to be written takes what it has, not what it might have had.
    Ok(room[..size].to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::oci::Digest;

    fn gzip(content: &[u8], threads: usize) -> Vec<u8> {
        let pool = Compressors::new(NonZeroUsize::new(threads).unwrap());
        let mut writer = pool.writer(Vec::new());
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
    fn gzip_of_several_members_is_read_back_by_others() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77] {
            let content = content(size);
            let mut read = Vec::new();
            flate2::read::MultiGzDecoder::new(gzip(&content, 3).as_slice()).read_to_end(&mut read).unwrap();
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
            "sha256:c956706620e5d3a743dc3e392a4176d018f7f7f71ba9c9235328fcaa6215a758"
        );
    }
}
