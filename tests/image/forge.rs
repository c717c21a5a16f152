//! Archives written by hand, byte by byte, as no well-behaved writer would.

/// An archive in the making.
#[derive(Clone, Default)]
pub(crate) struct Forge(pub(crate) Vec<u8>);

/// A header block; the fields that a case does not care for are those of a plain file of root's.
#[derive(Clone)]
pub(crate) struct Head {
    block: [u8; 512],
}

impl Head {
    /// A ustar header.
    pub(crate) fn new(flag: u8, name: &[u8]) -> Self {
        let mut head = Self { block: [0; 512] };
        let name = &name[..name.len().min(100)];
        head.put(0, name).octal(100, 8, 0o644).octal(108, 8, 0).octal(116, 8, 0);
        head.octal(124, 12, 0).octal(136, 12, 1_000_000_000);
        head.block[156] = flag;
        head.put(257, b"ustar\x0000").octal(329, 8, 0).octal(337, 8, 0);
        head
    }

    /// Writes bytes at an offset.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Writes an octal field.
    pub(crate) fn octal(&mut self, at: usize, len: usize, value: u64) -> &mut Self {
        let text = format!("{value:0width$o}\0", width = len - 1);
        self.put(at, text.as_bytes())
    }

    pub(crate) fn mode(&mut self, mode: u64) -> &mut Self {
        self.octal(100, 8, mode)
    }

    pub(crate) fn owner(&mut self, uid: u64, gid: u64) -> &mut Self {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    pub(crate) fn size(&mut self, size: u64) -> &mut Self {
        self.octal(124, 12, size)
    }

    pub(crate) fn link(&mut self, target: &[u8]) -> &mut Self {
        self.put(157, target)
    }

    pub(crate) fn gnu(&mut self) -> &mut Self {
        self.put(257, b"ustar  \0")
    }

    /// The block with its checksum.
    pub(crate) fn finish(&self) -> [u8; 512] {
        let mut block = self.block;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// One PAX record.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let len = (1..).find(|len: &usize| len.to_string().len() + body.len() == *len).unwrap();
    [len.to_string().as_bytes(), &body].concat()
}

impl Forge {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A header as it is, and data filled up to a block.
    pub(crate) fn raw(mut self, head: &Head, data: &[u8]) -> Self {
        self.0.extend_from_slice(&head.finish());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        let mut head = Head::new(b'0', name.as_bytes());
        self.raw(head.size(data.len() as u64), data.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.raw(Head::new(b'5', name.as_bytes()).mode(0o750).owner(7, 8), b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(Head::new(b'2', name.as_bytes()).link(target.as_bytes()).mode(0o777), b"")
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.raw(Head::new(b'1', name.as_bytes()).link(target.as_bytes()), b"")
    }

    /// An extended header of a flag.
    pub(crate) fn side(self, flag: u8, data: &[u8]) -> Self {
        let mut head = Head::new(flag, b"side");
        if matches!(flag, b'L' | b'K') {
            head.gnu();
        }
        self.raw(head.size(data.len() as u64), data)
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.side(b'x', &data)
    }

    /// The archive with its end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
