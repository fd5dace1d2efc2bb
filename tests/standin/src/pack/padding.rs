//! Bytes that make a stand-in as large as the real service, and as hard to compress (gzip keeps about 0.37 of it).

/// xorshift64*: the same bytes from the same seed, everywhere.
struct Random(u64);

impl Random {
    /// Seeded by FNV-1a of a text.
    fn of(text: &str) -> Self {
        let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % bound.max(1)
    }
}

/// Extends `bytes` to `size`: short runs of new bytes between copies of what stood shortly before, as in machine code.
pub fn extend(bytes: &mut Vec<u8>, size: usize, seed: &str) {
    let mut random = Random::of(seed);
    let start = bytes.len();
    while bytes.len() < size {
        let written = bytes.len() - start;
        let fresh = 3 + random.below(6);
        for _ in 0..fresh {
            bytes.push(random.next().to_le_bytes()[3]);
        }
        if written > 64 {
            let length = 6 + random.below(18);
            let back = length + random.below(written.min(16 * 1024) - length.min(written));
            let from = bytes.len() - back;
            bytes.extend_from_within(from..from + length);
        }
    }
    bytes.truncate(size.max(start));
}

/// Gives the program a GNU build id of its own, as every real service has one.
pub fn stamp_build_id(program: &mut [u8], seed: &str) {
    const HEAD: &[u8] = &[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0];
    let Some(at) = program.windows(HEAD.len()).position(|window| window == HEAD) else { return };
    let mut random = Random::of(seed);
    if let Some(id) = program.get_mut(at + HEAD.len()..at + HEAD.len() + 20) {
        for byte in id {
            *byte = random.next().to_le_bytes()[3];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn padding_compresses_like_a_real_binary() {
        let mut bytes = Vec::new();
        extend(&mut bytes, 1 << 20, "tarsregistry");
        assert_eq!(bytes.len(), 1 << 20);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&bytes).unwrap();
        let percent = gzip.finish().unwrap().len() * 100 / bytes.len();
        assert!((30..=44).contains(&percent), "{percent} %");
    }

    #[test]
    fn padding_depends_on_the_seed_alone() {
        let padded = |seed| {
            let mut bytes = vec![1, 2, 3];
            extend(&mut bytes, 5000, seed);
            bytes
        };
        assert_eq!(padded("a"), padded("a"));
        assert_ne!(padded("a"), padded("b"));
    }
}
