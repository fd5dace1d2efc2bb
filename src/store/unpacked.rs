//! What a layer of a layout takes once it is unpacked, told from the ends of its file.

use std::io::{self, Read as _, Seek as _, SeekFrom};

use super::Layout;
use super::proven::open_regular;
use crate::oci::Descriptor;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The bytes of a layer's tar; nothing where that cannot be told without reading all of it.
pub fn unpacked(layout: &Layout, layer: &Descriptor) -> Option<u64> {
    let told = || -> io::Result<Option<u64>> {
        let mut file = open_regular(&layout.blob(&layer.digest))?;
        let (mut magic, mut last) = ([0; 4], [0; 4]);
        file.read_exact(&mut magic)?;
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut last)?;
        Ok(size(magic, last, layer.size))
    };
    told().ok().flatten()
}

/// A gzip member ends with the size of what is in it, modulo 4 GiB (RFC 1952). What is smaller than the file is a larger layer, or
/// one of several members.
fn size(magic: [u8; 4], last: [u8; 4], stored: u64) -> Option<u64> {
    match magic {
        ZSTD => None,
        [first, second, ..] if [first, second] == GZIP => {
            Some(u64::from(u32::from_le_bytes(last))).filter(|size| *size >= stored)
        }
        _ => Some(stored),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::oci::{Digest, MediaType};

    fn told(bytes: &[u8]) -> Option<u64> {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::at(folder.path());
        let digest = Digest::of(bytes);
        let blob = layout.blob(&digest);
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(blob, bytes).unwrap();
        let size = u64::try_from(bytes.len()).unwrap();
        let layer = Descriptor {
            media_type: MediaType::ImageLayerGzip,
            digest,
            size,
            annotations: std::collections::BTreeMap::default(),
        };
        unpacked(&layout, &layer)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn size_of_a_tar_is_its_own_and_that_of_a_gzip_is_what_it_holds() {
        assert_eq!(told(&[b'x'; 10_240]), Some(10_240));
        assert_eq!(told(&gzip(&[b'x'; 10_240])), Some(10_240));
    }

    #[test]
    fn what_its_ends_do_not_tell_is_not_known() {
        let several = [gzip(&[b'x'; 10_240]), gzip(b"")].concat();
        assert_eq!(told(&several), None, "the last member holds nothing");
        assert_eq!(size([0x28, 0xb5, 0x2f, 0xfd], [0; 4], 100), None, "zstd");
        assert_eq!(told(b"tar"), None, "too short for a layer");
    }
}
