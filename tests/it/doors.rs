//! One spelling of a path, at every door that a path comes in by: what one takes all take, and to the same place.

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tarsup::build::base::{self, Look, Rootfs};
use tarsup::build::hints::Hints;
use tarsup::build::recipe::{Overrides, Recipe};
use tarsup::build::{skeleton, unpack};
use tarsup::contents::{self, Part};
use tarsup::oci::image::BlobSource;
use tarsup::oci::{Descriptor, Digest, Image, Layer, MediaType};
use tarsup::store::Cache;
use tempfile::TempDir;

/// A tar of one file with this name, in a PAX header, beside `other/x`.
fn tar(name: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut append = |kind, name: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    };
    append(tar::EntryType::Directory, "other/", b"");
    append(tar::EntryType::Regular, "other/x", b"x");
    let rest = [b" path=", name, b"\n"].concat();
    let length =
        (1..8).map(|digits| rest.len() + digits).find(|sum| sum.to_string().len() + rest.len() == *sum);
    append(tar::EntryType::XHeader, "pax", &[length.unwrap().to_string().as_bytes(), &rest].concat());
    append(tar::EntryType::Regular, "x", b"odd");
    builder.into_inner().unwrap()
}

/// Where the file lies that is not `other/x`.
fn odd(paths: impl Iterator<Item = impl Into<String>>) -> Option<String> {
    paths.map(Into::into).find(|path| !path.starts_with("other"))
}

struct InMemory(Vec<u8>);

impl BlobSource for InMemory {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.0.clone())))
    }
}

/// Each door, and where it takes a file of this name; `None` where it takes none.
fn doors(folder: &Path, name: &str) -> Vec<(&'static str, Option<String>)> {
    let (tar, file) = (tar(name.as_bytes()), folder.join("x.tar"));
    fs::write(&file, &tar).unwrap();
    let package = unpack::read_archive(&file).ok().and_then(|read| {
        let files = read.tree.iter().filter(|(path, _)| !read.tree.has_below(path));
        odd(files.map(|(path, _)| path))
    });
    let rootfs = Rootfs::find(&file, &Hints::new(&Cache::at(folder.join("cache"))), false).unwrap();
    let base = base::hash(&rootfs, Look::AtNames).ok().and_then(|(_, paths)| odd(paths.files.keys()));
    let layer = Layer {
        diff_id: Digest::of(&tar),
        descriptor: Descriptor {
            media_type: MediaType::ImageLayer,
            digest: Digest::of(&tar),
            size: tar.len() as u64,
            annotations: [("io.tarsup.layer".to_owned(), "x".to_owned())].into(),
        },
        source: Arc::new(InMemory(tar)),
    };
    let image = Image { manifest: Vec::new(), config: b"{}".to_vec(), layers: vec![layer] };
    let files = |part: &Part| odd(part.entries.iter().map(|(path, _)| path));
    let image = contents::folded(&image).ok().and_then(|contents| files(&contents.parts["x"]));
    let list = json!({"version": 1, "layers": [], "entries": {name: {}}});
    let list = serde_json::from_value(list).ok().and_then(|part| files(&part));
    let recipe = folder.join("recipe.yaml");
    let target = json!(format!("/{name}"));
    let text = format!("name: x\nversion: 1\nrole: plain\nbase: scratch\nfiles: {{x.tar: {target}}}\n");
    fs::write(&recipe, text).unwrap();
    let recipe = Recipe::read(&recipe, &Overrides::default()).ok().and_then(|recipe| {
        let tree = skeleton::files(&recipe.plain.files).ok()?;
        let files = tree.iter().filter(|(path, _)| !tree.has_below(path));
        odd(files.map(|(path, _)| path))
    });
    vec![
        ("recipe", recipe),
        ("package", package),
        ("base", base),
        ("layer of an image", image),
        ("list of an image", list),
    ]
}

/// Every door says the same; what it is.
fn agreed(folder: &Path, name: &str) -> Option<String> {
    let said = doors(folder, name);
    let first = said[0].1.clone();
    let shown: String = name.escape_debug().take(100).collect();
    assert!(said.iter().all(|(_, place)| *place == first), "`{shown}`: {said:?}");
    first
}

#[test]
fn odd_spellings_of_a_path_come_to_one_place_or_to_none_by_every_door() {
    let folder = TempDir::new().unwrap();
    let (part, deep) = (|length| "n".repeat(length), "d/".repeat(2047));
    for (name, place) in [
        ("lib/x", Some("lib/x")),
        ("./lib/x", Some("lib/x")),
        ("usr//lib64/x", Some("usr/lib64/x")),
        ("usr/lib64/./x", Some("usr/lib64/x")),
        ("./usr//./lib64///x", Some("usr/lib64/x")),
        ("usr/lib64/x/.", Some("usr/lib64/x")),
        ("usr/a.wh.b", Some("usr/a.wh.b")),
        ("usr/..x", Some("usr/..x")),
        ("usr/...", Some("usr/...")),
        ("usr/ü/中文 x", Some("usr/ü/中文 x")),
        ("usr\\x", Some("usr\\x")),
        (".", None),
        ("./", None),
        ("..", None),
        ("a/../b", None),
        ("usr/..", None),
        ("./../x", None),
        ("etc/passwd\0.d/y", None),
        ("etc/.wh.passwd", None),
        ("etc/.wh.passwd/x", None),
        ("etc/.wh..wh..opq", None),
        ("etc/.wh..wh..opq/x", None),
        (".wh.etc", None),
        ("etc/.wh.", None),
        ("etc/.wh.../x", None),
        (&format!("etc/{}", part(255)), Some(&format!("etc/{}", part(255)))),
        (&format!("etc/{}", part(256)), None),
        (&format!("etc/{}/x", part(256)), None),
        (&format!("{deep}x"), Some(&format!("{deep}x"))),
        (&format!("{deep}xy"), None),
        (&format!("{}x", "./".repeat(3000)), Some("x")),
    ] {
        let shown: String = name.escape_debug().take(100).collect();
        assert_eq!(agreed(folder.path(), name).as_deref(), place, "{shown}");
    }
}

#[test]
fn parts_in_any_order_come_to_one_place_or_to_none_by_every_door() {
    let folder = TempDir::new().unwrap();
    let long = "n".repeat(256);
    let parts =
        ["usr", "usr", "lib64", "ü", "a.wh.b", ".", "", "", "..", ".wh.x", ".wh..wh..opq", "a\0b", &long];
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut taken = 0;
    for _ in 0..300 {
        let name: Vec<&str> = (0..=random(4)).map(|_| parts[random(parts.len())]).collect();
        // A name that begins with a slash is absolute, which an archive's is not.
        let name = name.join("/").trim_start_matches('/').to_owned();
        taken += usize::from(!name.is_empty() && agreed(folder.path(), &name).is_some());
    }
    assert!((50..250).contains(&taken), "{taken}");
}

/// What doors differ in, and why: a recipe's path begins at the root, an archive's does not, and a name of ours is a text.
#[test]
fn doors_differ_in_what_is_theirs_alone() {
    let folder = TempDir::new().unwrap();
    let taken = |name: &str| -> Vec<&str> {
        doors(folder.path(), name)
            .into_iter()
            .filter(|(_, place)| place.is_some())
            .map(|(door, _)| door)
            .collect()
    };
    assert_eq!(taken("/usr/x"), ["recipe", "layer of an image", "list of an image"]);
    assert_eq!(taken("usr/a\u{1b}b"), ["base", "layer of an image", "list of an image"]);
}
