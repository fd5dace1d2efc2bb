//! What a layer takes once it is unpacked, told from the ends of its file.

use std::io::{self, Read as _};
use std::path::Path;

use super::Layout;
use super::proven::{ends_with, open_regular};
use crate::oci::Descriptor;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How many bytes the last member of a layer of ours has.
const SIZE_MEMBER: usize = 34;
/// Gzip that may have an extra field (RFC 1952, 2.3.1.1), of twelve bytes: `TU`, and eight of the size. mtime 0, OS 255 (unknown).
const BEFORE: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 12, 0, b'T', b'U', 8, 0];
/// An empty final block, checksum and size of nothing.
const AFTER: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The last member of a layer of ours: nothing is in it, and its header says how large all the others unpack to. A size in a header
/// is what eStargz and bgzip have as well; readers pass it over.
pub fn size_member(size: u64) -> [u8; SIZE_MEMBER] {
    let mut member = [0; SIZE_MEMBER];
    member[..BEFORE.len()].copy_from_slice(&BEFORE);
    member[BEFORE.len()..][..8].copy_from_slice(&size.to_le_bytes());
    member[BEFORE.len() + 8..].copy_from_slice(&AFTER);
    member
}

/// The size that such a member says; `None` for any other end of a file.
fn size_of_all(end: &[u8; SIZE_MEMBER]) -> Option<u64> {
    let rest = end.strip_prefix(&BEFORE)?.strip_suffix(&AFTER)?;
    Some(u64::from_le_bytes(rest.try_into().ok()?))
}

/// The size that a blob of ours says of itself.
pub(super) fn said(path: &Path) -> io::Result<Option<u64>> {
    let mut end = [0; SIZE_MEMBER];
    Ok(if ends_with(path, &mut end)? { size_of_all(&end) } else { None })
}

/// The bytes of a layer's tar; nothing where that cannot be told without reading all of it.
pub fn unpacked(layout: &Layout, layer: &Descriptor) -> Option<u64> {
    let told = || -> io::Result<Option<u64>> {
        let path = layout.blob(&layer.digest);
        if let Some(size) = said(&path)? {
            return Ok(Some(size));
        }
        let (mut magic, mut last) = ([0; 4], [0; 4]);
        open_regular(&path)?.read_exact(&mut magic)?;
        ends_with(&path, &mut last)?;
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
    fn layer_of_ours_says_its_size_and_reads_as_any_gzip() {
        let content = vec![b'x'; 10_240];
        let ours = [gzip(&content[..5_000]), gzip(&content[5_000..]), size_member(10_240).to_vec()].concat();
        assert_eq!(told(&ours), Some(10_240));
        let mut read = Vec::new();
        io::copy(&mut flate2::read::MultiGzDecoder::new(ours.as_slice()), &mut read).unwrap();
        assert!(read == content);
    }

    #[test]
    fn what_its_ends_do_not_tell_is_not_known() {
        let several = [gzip(&[b'x'; 10_240]), gzip(b"")].concat();
        assert_eq!(told(&several), None, "the last member holds nothing");
        assert_eq!(size([0x28, 0xb5, 0x2f, 0xfd], [0; 4], 100), None, "zstd");
        assert_eq!(told(b"tar"), None, "too short for a layer");
    }
}
