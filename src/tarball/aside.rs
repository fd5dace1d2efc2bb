//! A reader that another thread reads: whoever unpacks and whoever takes in what comes of it have a processor each.

use std::io::{self, Read};
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;

/// So much is handed over at once.
const PIECE: usize = 128 * 1024;
/// So many pieces may wait to be taken.
const WAITING: usize = 3;

/// Has `reader` read aside while `take` takes in what it brings, in order and with its error, and gives it back as far as it was
/// read: where `take` goes on to the end, to its own.
pub fn reading<R: Read + Send, T>(mut reader: R, take: impl FnOnce(Pieces) -> T) -> (T, R) {
    let (full, pieces) = mpsc::sync_channel(WAITING);
    let (spent, empty) = mpsc::channel();
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            loop {
                let mut piece: Vec<u8> = empty.try_recv().unwrap_or_default();
                piece.resize(PIECE, 0);
                let read = match reader.read(&mut piece) {
                    Ok(0) => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(read) => {
                        piece.truncate(read);
                        Ok(piece)
                    }
                    Err(error) => Err(error),
                };
                let is_last = read.is_err();
                // Nobody takes any more, or there is no more.
                if full.send(read).is_err() || is_last {
                    break;
                }
            }
            reader
        });
        let taken = take(Pieces { full: pieces, spent, piece: Vec::new(), position: 0 });
        (taken, reading.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// What is read aside.
pub struct Pieces {
    full: mpsc::Receiver<io::Result<Vec<u8>>>,
    spent: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
    position: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.piece.len() {
            let Ok(piece) = self.full.recv() else { return Ok(0) };
            // Where its reader has come to its end nobody wants it back.
            let _ = self.spent.send(std::mem::replace(&mut self.piece, piece?));
            self.position = 0;
        }
        let read = (&self.piece[self.position..]).read(buffer)?;
        self.position += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes, a few at a time, and then its error.
    struct Breaking(usize);

    impl Read for Breaking {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("broken"));
            }
            let read = self.0.min(1000).min(buffer.len());
            buffer[..read].fill(7);
            self.0 -= read;
            Ok(read)
        }
    }

    #[test]
    fn what_is_read_aside_comes_whole_in_order_and_its_reader_back_at_its_end() {
        let bytes: Vec<u8> = (0..1_000_003_u32).flat_map(u32::to_le_bytes).collect();
        let (read, rest) = reading(&bytes[..], |mut pieces| {
            let mut read = Vec::new();
            pieces.read_to_end(&mut read).map(|_| read)
        });
        assert!(read.unwrap() == bytes && rest.is_empty());
    }

    #[test]
    fn error_comes_after_what_was_read_before_it() {
        let (read, _) = reading(Breaking(5_000_000), |mut pieces| {
            let mut read = Vec::new();
            (pieces.read_to_end(&mut read).unwrap_err().to_string(), read.len())
        });
        assert_eq!(read, ("broken".to_owned(), 5_000_000));
    }

    #[test]
    fn reader_without_an_end_is_given_up_with_whoever_takes() {
        let (read, _) = reading(io::repeat(1), |mut pieces| pieces.read(&mut [0; 10]).unwrap());
        assert_eq!(read, 10);
    }
}
