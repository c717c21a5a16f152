//! Reading in a thread of its own, a little ahead of who uses what is read.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes that are passed on at once.
const PIECE: usize = 256 << 10;
/// Pieces that lie ready at most.
const AHEAD: usize = 3;

/// Reads `source` in another thread while `action` uses what has come. Both end before this returns.
pub(crate) fn read_ahead<T>(source: impl Read + Send, action: impl FnOnce(&mut (dyn Read + Send)) -> T) -> T {
    let (full, pieces) = sync_channel(AHEAD);
    let (used, empty) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || read_on(source, &full, &empty));
        // Dropped with the action's end, which ends the other thread too.
        let mut ahead = Ahead { pieces, used, piece: Vec::new(), at: 0, ended: false };
        let result = action(&mut ahead);
        drop(ahead);
        result
    })
}

type Piece = io::Result<Vec<u8>>;

/// Reads until the end, an error, or until nobody wants more.
fn read_on(mut source: impl Read, full: &SyncSender<Piece>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut piece = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
        piece.clear();
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let ended = read.as_ref().map_or(true, |count| *count == 0);
        // What came before an error comes before it here too.
        let sent = if ended && read.is_ok() { Ok(()) } else { full.send(Ok(piece)) };
        if sent.is_err() || ended {
            if let Err(error) = read {
                full.send(Err(error)).ok();
            }
            return;
        }
    }
}

/// What was read ahead.
struct Ahead {
    pieces: Receiver<Piece>,
    /// Pieces go back when they are used up.
    used: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.ended {
            match self.pieces.recv() {
                Ok(Ok(piece)) => {
                    // The other thread may have ended already.
                    self.used.send(std::mem::replace(&mut self.piece, piece)).ok();
                    self.at = 0;
                }
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(_) => self.ended = true,
            }
        }
        let mut rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes, a few at a time, and then an error.
    struct Failing(usize);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.0).min(1000);
            if count == 0 {
                return Err(io::Error::other("broken"));
            }
            self.0 -= count;
            buffer[..count].fill(7);
            Ok(count)
        }
    }

    fn all(source: impl Read + Send) -> (Vec<u8>, io::Result<usize>) {
        let mut bytes = Vec::new();
        let read = read_ahead(source, |ahead| ahead.read_to_end(&mut bytes));
        (bytes, read)
    }

    #[test]
    fn everything_comes_in_its_order() {
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 3] {
            let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let (read, count) = all(&bytes[..]);
            assert_eq!(count.unwrap(), len);
            assert!(read == bytes, "{len}");
        }
    }

    #[test]
    fn an_error_comes_after_what_was_before_it() {
        for len in [0, 1, PIECE, 2 * PIECE + 5] {
            let (read, error) = all(Failing(len));
            assert_eq!((read.len(), error.unwrap_err().to_string().as_str()), (len, "broken"));
        }
    }

    #[test]
    fn who_has_enough_waits_for_nothing() {
        let endless = io::repeat(1);
        let first = read_ahead(endless, |ahead| {
            let mut byte = [0];
            ahead.read_exact(&mut byte).map(|()| byte[0])
        });
        assert_eq!(first.unwrap(), 1);
    }
}
