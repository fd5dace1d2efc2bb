//! Packages as Debian's tar writes them in each of its formats: a name or a link's target is the same, however a header holds it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use tarsup::oci::{Digest, Image};
use tarsup::tars::Service;
use tarsup::transport::layout;

use crate::archives::layer;
use crate::packages::{Workshop, program};

/// A path of this length below `begins`, of folders of 70 bytes and a name of up to 100, as ustar divides it; no two have a folder in common.
fn path(begins: &str, length: usize) -> String {
    let mut path = begins.to_owned();
    while length - path.len() > 100 {
        let _ = write!(path, "{length:_<70}/");
    }
    let last = length - path.len();
    path + &format!("{length:_<100}")[..last]
}

/// A package with files and folders of so many bytes' path, links to so many bytes, and a second name of each file.
struct Package {
    workshop: Workshop,
    names: Vec<String>,
    targets: Vec<String>,
}

impl Package {
    fn new(lengths: &[usize], targets: &[usize]) -> Self {
        let workshop = Workshop::new();
        let names: Vec<String> = lengths.iter().map(|length| path("tarsstat/conf/", *length)).collect();
        let targets: Vec<String> = targets.iter().map(|length| path("../util/", *length)).collect();
        let at = |below: &str| workshop.path("packing").join(below);
        fs::create_dir_all(at("tarsstat/conf/links")).unwrap();
        fs::create_dir(at("tarsstat/conf/again")).unwrap();
        fs::write(at("tarsstat/tarsstat"), program(Service::Stat, "3.0.17")).unwrap();
        fs::set_permissions(at("tarsstat/tarsstat"), fs::Permissions::from_mode(0o755)).unwrap();
        for name in &names {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), name).unwrap();
            fs::hard_link(at(name), at(&format!("tarsstat/conf/again/{}", name.len()))).unwrap();
        }
        for target in &targets {
            symlink(target, at(&format!("tarsstat/conf/links/{}", target.len()))).unwrap();
        }
        Self { workshop, names, targets }
    }

    /// The package in this format, unzipped; and the layer of it.
    fn packed(&self, format: &str) -> (Vec<u8>, Digest) {
        let package: PathBuf = self.workshop.path("packages/tarsstat.tgz");
        let mut tar = Command::new("tar");
        tar.current_dir(self.workshop.path("packing")).arg(format!("--format={format}"));
        let output = tar.arg("-cf").arg(&package).arg("tarsstat").output().unwrap();
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
        self.workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
        let image = layout::read(&self.workshop.path("out"), None).unwrap();
        self.assert_read(&image, format);
        let index = image.layer_names().iter().position(|name| name == "tarsstat").unwrap();
        (fs::read(package).unwrap(), image.layers[index].diff_id)
    }

    /// Every path, content and target, read by the `tar` crate.
    fn assert_read(&self, image: &Image, format: &str) {
        let bytes = layer(image, "tarsstat");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let (mut files, mut links) = (Vec::new(), Vec::new());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let Some(path) = path.strip_prefix("usr/local/app/tars/").map(str::to_owned) else { continue };
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            match entry.link_name().unwrap() {
                Some(target) => links.push((path, target.to_str().unwrap().to_owned())),
                None if path.is_empty() || path.ends_with('/') => {}
                None => files.push((path, String::from_utf8(content).unwrap())),
            }
        }
        files.retain(|(path, _)| path != "tarsstat/bin/tarsstat");
        let again = |name: &String| (format!("tarsstat/conf/again/{}", name.len()), name.clone());
        let mut expected: Vec<_> = self.names.iter().map(|name| (name.clone(), name.clone())).collect();
        expected.extend(self.names.iter().map(again));
        let link = |target: &String| (format!("tarsstat/conf/links/{}", target.len()), target.clone());
        let mut targets: Vec<_> = self.targets.iter().map(link).collect();
        for (found, expected) in [(&mut files, &mut expected), (&mut links, &mut targets)] {
            found.sort();
            expected.sort();
            let lost: Vec<_> = expected.iter().filter(|one| !found.contains(one)).collect();
            assert!(
                lost.is_empty() && found.len() == expected.len(),
                "{format}: {} entries, without {lost:?}",
                found.len()
            );
        }
    }
}

/// How many headers of this kind there are of GNU's long names.
fn long_names(tar: &[u8], kind: u8) -> usize {
    tar.chunks(512).filter(|block| block.starts_with(b"././@LongLink") && block[156] == kind).count()
}

#[test]
fn long_names_and_targets_are_read_alike_in_every_format_that_has_them() {
    let package = Package::new(
        &[99, 100, 101, 102, 155, 156, 200, 254, 255, 256, 300, 1000],
        &[99, 100, 101, 102, 255, 256, 1000],
    );
    let (gnu, expected) = package.packed("gnu");
    assert!(long_names(&gnu, b'L') > 9 && long_names(&gnu, b'K') > 4, "tar wrote GNU's long names");
    for format in ["oldgnu", "posix"] {
        assert_eq!(package.packed(format).1, expected, "{format}");
    }
}

#[test]
fn names_that_older_formats_have_are_read_alike_in_all_of_them() {
    // A name of up to 255 bytes in two pieces, a target of 100; in v7 99 of either.
    for (format, names, targets) in [
        ("ustar", &[99, 100, 101, 155, 156, 200, 254, 255][..], &[99, 100][..]),
        ("v7", &[90, 98, 99], &[98, 99]),
    ] {
        let package = Package::new(names, targets);
        let (_, expected) = package.packed("posix");
        let (tar, found) = package.packed(format);
        assert_eq!(found, expected, "{format}");
        assert_eq!(long_names(&tar, b'L') + long_names(&tar, b'K'), 0, "{format}");
        assert_eq!(package.packed("gnu").1, expected, "gnu, beside {format}");
    }
}
