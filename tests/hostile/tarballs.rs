//! Tar archives by hand: every field of a header may lie.

/// An entry as its header says it, and the bytes that follow.
#[derive(Clone)]
pub struct Member {
    /// The name, cut at 100 bytes.
    pub name: Vec<u8>,
    /// The type flag.
    pub kind: u8,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Octal or base-256 bytes of the size; `None`: as many as there are.
    pub size: Option<[u8; 12]>,
    /// Mode bits.
    pub mode: u32,
    /// What follows, padded.
    pub content: Vec<u8>,
    /// Add this to the checksum.
    pub lie: u32,
}

impl Member {
    /// A regular file.
    pub fn file(name: &str, content: &[u8]) -> Self {
        Self {
            name: name.into(),
            kind: b'0',
            link: Vec::new(),
            size: None,
            mode: 0o644,
            content: content.to_vec(),
            lie: 0,
        }
    }

    /// Another kind without content.
    pub fn odd(kind: u8, name: &str, link: &str) -> Self {
        Self { kind, link: link.into(), ..Self::file(name, b"") }
    }

    /// A PAX header with these records, as they stand.
    pub fn pax(records: &[u8]) -> Self {
        Self { kind: b'x', ..Self::file("PaxHeaders/x", records) }
    }

    /// With a size that is not that of its content.
    pub fn sized(mut self, size: &[u8; 12]) -> Self {
        self.size = Some(*size);
        self
    }

    /// With these mode bits.
    pub fn moded(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Appends header and content.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut block = [0u8; 512];
        let fill = |block: &mut [u8; 512], at: usize, most: usize, bytes: &[u8]| {
            let length = bytes.len().min(most);
            block[at..at + length].copy_from_slice(&bytes[..length]);
        };
        fill(&mut block, 0, 100, &self.name);
        fill(&mut block, 100, 8, format!("{:07o}\0", self.mode).as_bytes());
        fill(&mut block, 108, 8, b"0000000\0");
        fill(&mut block, 116, 8, b"0000000\0");
        let size = self.size.unwrap_or_else(|| {
            let mut octal = [0u8; 12];
            octal.copy_from_slice(format!("{:011o}\0", self.content.len()).as_bytes());
            octal
        });
        fill(&mut block, 124, 12, &size);
        fill(&mut block, 136, 12, b"00000000000\0");
        fill(&mut block, 148, 8, b"        ");
        block[156] = self.kind;
        fill(&mut block, 157, 100, &self.link);
        fill(&mut block, 257, 8, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>() + self.lie;
        fill(&mut block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&block);
        out.extend_from_slice(&self.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

/// A record of a PAX header, rightly counted.
pub fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

/// An archive, with its end.
pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        member.write(&mut out);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// Compressed.
pub fn xz(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// The same in gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
