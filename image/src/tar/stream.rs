//! The bytes of an archive, in blocks.

use std::io::{ErrorKind, Read, Write};

use crate::index::{IndexError, TarFault};

/// The unit of a tar archive, in bytes.
pub(super) const BLOCK: usize = 512;

/// Large enough that the reader below is called rarely, small enough to stay in the processor's cache.
const BUFFER: usize = 256 * 1024;

/// A stream that is read once, forwards.
pub(super) struct Stream<'a> {
    source: &'a mut dyn Read,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes handed out or skipped so far.
    position: u64,
}

impl<'a> Stream<'a> {
    pub(super) fn new(source: &'a mut dyn Read) -> Self {
        Self { source, buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, position: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn fault(&self, fault: TarFault) -> IndexError {
        IndexError::Tar { at: self.position, fault }
    }

    /// Makes the buffer hold something; false at the end of the stream.
    fn fill(&mut self) -> Result<bool, IndexError> {
        while self.start == self.end {
            match self.source.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                // A reader that claims more than it was given is believed to the end of the buffer alone.
                Ok(got) => (self.start, self.end) = (0, got.min(self.buffer.len())),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(IndexError::Read(error)),
            }
        }
        Ok(true)
    }

    /// Fills `into` as far as the stream goes.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, IndexError> {
        let mut done = 0;
        while done < into.len() && self.fill()? {
            let step = (self.end - self.start).min(into.len() - done);
            into[done..done + step].copy_from_slice(&self.buffer[self.start..self.start + step]);
            self.start += step;
            done += step;
        }
        self.position += done as u64;
        Ok(done)
    }

    /// The next block; `None` where the stream ends before it.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, IndexError> {
        let mut block = [0; BLOCK];
        match self.read(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.fault(TarFault::Truncated)),
        }
    }

    /// A block that must be there.
    pub(super) fn need_block(&mut self) -> Result<[u8; BLOCK], IndexError> {
        self.block()?.ok_or_else(|| self.fault(TarFault::Truncated))
    }

    /// The next `len` bytes and what fills their last block.
    pub(super) fn data(&mut self, len: usize) -> Result<Vec<u8>, IndexError> {
        let mut data = vec![0; len];
        if self.read(&mut data)? < len {
            return Err(self.fault(TarFault::Truncated));
        }
        self.skip(0, padding(len as u64))?;
        Ok(data)
    }

    /// Hands on the next `len` bytes.
    pub(super) fn write(&mut self, len: u64, out: &mut dyn Write) -> Result<(), IndexError> {
        let mut left = len;
        while left > 0 {
            if !self.fill()? {
                return Err(self.fault(TarFault::Truncated));
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(self.end - self.start);
            out.write_all(&self.buffer[self.start..self.start + step]).map_err(IndexError::Read)?;
            self.start += step;
            self.position += step as u64;
            left -= step as u64;
        }
        Ok(())
    }

    /// Passes over `len` bytes that must be there, and `padding` more, which an archive may lack at its very end.
    pub(super) fn skip(&mut self, len: u64, padding: u64) -> Result<(), IndexError> {
        let mut left = len.checked_add(padding).ok_or_else(|| self.fault(TarFault::Truncated))?;
        while left > 0 {
            if !self.fill()? {
                return if left <= padding { Ok(()) } else { Err(self.fault(TarFault::Truncated)) };
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(self.end - self.start);
            self.start += step;
            self.position += step as u64;
            left -= step as u64;
        }
        Ok(())
    }
}

/// Bytes from `len` to the end of its block.
pub(super) fn padding(len: u64) -> u64 {
    len.wrapping_neg() % BLOCK as u64
}
