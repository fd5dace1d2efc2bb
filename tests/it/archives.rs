//! Packages and bases as the world writes them: long names, sparse files, compressions, links, privileges, odd bytes.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use tarsup::build::recipe::{Overrides, Recipe};
use tarsup::build::{self, Settings};
use tarsup::oci::{Digest, Image, Platform};
use tarsup::store::Cache;
use tarsup::tars::Service;
use tarsup::transport::layout;

use crate::packages::{Entry, Packer, RECIPE, Workshop, entries, program};

/// One entry, written by hand: nothing that a crate would refuse or put right.
#[derive(Clone)]
pub struct Raw<'a> {
    pub name: &'a [u8],
    pub target: &'a [u8],
    pub flag: u8,
    pub mode: &'a str,
    pub owner: &'a [u8],
    pub mtime: &'a [u8],
    /// PAX records before it.
    pub pax: Vec<(&'a str, Vec<u8>)>,
    pub content: &'a [u8],
}

impl Default for Raw<'_> {
    fn default() -> Self {
        Self {
            name: b"tarsstat/x",
            target: b"",
            flag: b'0',
            mode: "0000644",
            owner: b"0000000",
            mtime: b"14524770000",
            pax: Vec::new(),
            content: b"x",
        }
    }
}

impl Raw<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut records = Vec::new();
        for (key, value) in &self.pax {
            let rest = key.len() + value.len() + 3;
            let length = (1..6).map(|digits| rest + digits).find(|sum| sum.to_string().len() + rest == *sum);
            records.extend(format!("{} {key}=", length.unwrap()).into_bytes());
            records.extend_from_slice(value);
            records.push(b'\n');
        }
        let flag = if self.flag == b'g' { b'g' } else { b'x' };
        if !records.is_empty() {
            block(out, &Raw { name: b"pax", flag, content: &records, ..Raw::default() });
        }
        if self.flag != b'g' {
            block(out, self);
        }
    }
}

fn block(out: &mut Vec<u8>, entry: &Raw<'_>) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, entry.name);
    put(100, entry.mode.as_bytes());
    put(108, entry.owner);
    put(116, entry.owner);
    put(124, format!("{:011o}", entry.content.len()).as_bytes());
    put(136, entry.mtime);
    put(156, &[entry.flag]);
    put(157, entry.target);
    put(257, b"ustar\x0000");
    put(148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(header);
    out.extend(entry.content);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// tarsstat's program and these entries, gzipped, in a workshop of its own.
pub fn workshop_with(more: &[Raw<'_>]) -> Workshop {
    let workshop = Workshop::new();
    pack_with(&workshop, "packages/tarsstat.tgz", more);
    workshop
}

/// A package of tarsstat's program and these entries.
pub fn pack_with(workshop: &Workshop, package: &str, more: &[Raw<'_>]) {
    let program = program(Service::Stat, "3.0.17");
    let program = Raw { name: b"tarsstat/tarsstat", mode: "0000755", content: &program, ..Raw::default() };
    pack(workshop, package, &[&[program], more].concat());
}

/// A package of these entries.
pub fn pack(workshop: &Workshop, package: &str, entries: &[Raw<'_>]) {
    let mut tar = Vec::new();
    for entry in entries {
        entry.write(&mut tar);
    }
    tar.extend([0; 1024]);
    fs::write(workshop.path(package), gzip(&tar)).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// A layer's tar, by the layer's name.
pub fn layer(image: &Image, name: &str) -> Vec<u8> {
    let index = image.layer_names().iter().position(|have| have == name).unwrap();
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(image.layers[index].source.open().unwrap())
        .read_to_end(&mut tar)
        .unwrap();
    tar
}

/// Names and contents of a layer, read by the `tar` crate.
fn contents(image: &Image, name: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = layer(image, name);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    };
    archive.entries().unwrap().map(read).collect()
}

fn built(workshop: &Workshop) -> Image {
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    layout::read(&workshop.path("out"), None).unwrap()
}

fn tar(folder: &Path, arguments: &[&str]) {
    let status =
        Command::new("tar").current_dir(folder).args(arguments).status().expect("Debian's tar is there");
    assert!(status.success(), "tar {arguments:?}");
}

#[test]
fn package_with_long_names_is_built_whatever_their_length() {
    // From 90 to 100 bytes the last part fits into a header, but not behind the folder of a PAX header.
    let folder = "f".repeat(60);
    let names: Vec<String> = (85..=105)
        .chain([155, 156, 254, 255])
        .map(|length| format!("tarsstat/conf/{folder}/{}", "n".repeat(length)))
        .collect();
    let raw = |name| Raw { pax: vec![("path", Vec::from(name))], content: b"long", ..Raw::default() };
    let raw: Vec<Raw<'_>> = names.iter().map(|name| raw(name.as_bytes())).collect();
    let workshop = workshop_with(&raw);
    let contents = contents(&built(&workshop), "tarsstat");
    for name in &names {
        let path = format!("usr/local/app/tars/{name}");
        assert!(contents.iter().any(|(have, content)| *have == path && content == b"long"), "{path}");
    }
}

#[test]
fn sparse_files_of_every_format_are_read_rightly() {
    let workshop = Workshop::new();
    let folder = workshop.path("packing/tarsstat");
    fs::create_dir_all(&folder).unwrap();
    // Holes at the beginning, in the middle and at the end, and more pieces than fit into one old header.
    let file = fs::File::create(folder.join("tarsstat")).unwrap();
    for piece in 1..40_u64 {
        file.write_all_at(format!("piece {piece}").as_bytes(), piece * 128 * 1024).unwrap();
    }
    file.set_len(41 * 128 * 1024).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
    let expected = fs::read(folder.join("tarsstat")).unwrap();
    let package = workshop.path("packages/tarsstat.tgz");
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let arguments = [format, &["--sparse", "-czf", package.to_str().unwrap(), "tarsstat"]].concat();
        tar(&workshop.path("packing"), &arguments);
        assert!(
            gunzip(&fs::read(&package).unwrap()).len() < expected.len() / 2,
            "tar made holes: {format:?}"
        );
        let image = built(&workshop);
        let name = "usr/local/app/tars/tarsstat/bin/tarsstat";
        let contents = contents(&image, "tarsstat");
        let content =
            &contents.iter().find(|(have, _)| have == name).unwrap_or_else(|| panic!("{format:?}")).1;
        assert!(*content == expected, "{format:?}: {} bytes", content.len());
        let programs = contents.iter().filter(|(have, _)| !have.ends_with('/')).count();
        assert_eq!(programs, 1, "{format:?}: nothing stays of tar's own names");
    }
}

#[test]
fn sparse_file_that_does_not_fit_its_map_is_refused_by_name() {
    let text = |text: &str| text.as_bytes().to_vec();
    for (pax, why) in [
        (vec![("GNU.sparse.size", text("9")), ("GNU.sparse.map", text("0,2"))], "does not fit"),
        (vec![("GNU.sparse.size", text("9")), ("GNU.sparse.map", text("0"))], "cannot be read"),
        (vec![("GNU.sparse.major", text("3")), ("GNU.sparse.realsize", text("9"))], "not known"),
    ] {
        let message =
            workshop_with(&[Raw { pax, ..Raw::default() }]).refused(&["build", "framework.yaml"], 2);
        assert!(message.contains("`tarsstat/x` is a sparse file") && message.contains(why), "{message}");
    }
    // Little in the tar, and more than all disks when it is unpacked.
    let pax = vec![("GNU.sparse.size", text("8000000000000000")), ("GNU.sparse.map", text("0,1"))];
    let message = workshop_with(&[Raw { pax, ..Raw::default() }]).refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("more than a package may hold"), "{message}");
}

#[test]
fn names_that_no_file_system_takes_are_refused_by_name() {
    let long = "n".repeat(256);
    let deep = "d/".repeat(2047);
    for (name, why) in
        [(format!("tarsstat/{long}"), "256 bytes"), (format!("tarsstat/{deep}x"), "bytes; no path has more")]
    {
        let pax = vec![("path", name.into_bytes())];
        let message =
            workshop_with(&[Raw { pax, ..Raw::default() }]).refused(&["build", "framework.yaml"], 2);
        assert!(message.contains("entry `tarsstat/") && message.contains(why), "{message}");
    }
    // A path that fits in the package, and with the service's folder before it does not fit in the image.
    let name = format!("tarsstat/conf/{}", "d/".repeat(2035));
    let pax = vec![("path", name.into_bytes())];
    let message = workshop_with(&[Raw { pax, flag: b'5', content: b"", ..Raw::default() }])
        .refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("entry `tarsstat/conf/d/"), "{message}");
    assert!(message.contains("bytes; no path has more than 4095, where it lies in the image"), "{message}");
}

#[test]
fn archives_are_told_by_magic_and_not_by_name() {
    let workshop = Workshop::new();
    let expected = workshop.json(&["build", "framework.yaml"])["digest"].clone();
    let packed = fs::read(workshop.path("packages/tarsstat.tgz")).unwrap();
    let plain = gunzip(&packed);
    let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
    for bytes in [&plain, &zstd, &packed] {
        fs::write(workshop.path("packages/tarsstat.tgz"), bytes).unwrap();
        assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], expected);
    }
    // A folder of packages may have them all.
    fs::remove_file(workshop.path("packages/tarsstat.tgz")).unwrap();
    for (name, bytes) in [("stat.tar.zst", &zstd), ("stat.tar", &plain), ("stat.tar.gz", &packed)] {
        let path = workshop.path("packages").join(name);
        fs::write(&path, bytes).unwrap();
        let built = workshop.json(&["build", "framework.yaml", "--packages", "packages"]);
        assert_eq!(built["digest"], expected, "{name}");
        fs::remove_file(path).unwrap();
    }
    let cut = &zstd[..zstd.len() - 20];
    fs::write(workshop.path("packages/stat.tar.zst"), cut).unwrap();
    let message = workshop.refused(&["build", "framework.yaml", "--packages", "packages"], 2);
    assert!(message.contains("stat.tar.zst: it is cut off"), "{message}");
    let mut damaged = zstd.clone();
    let middle = zstd.len() / 2;
    damaged[middle] ^= 0x55;
    fs::write(workshop.path("packages/stat.tar.zst"), damaged).unwrap();
    let message = workshop.refused(&["build", "framework.yaml", "--packages", "packages"], 2);
    assert!(message.contains("stat.tar.zst: it is"), "{message}");
}

#[test]
fn base_is_the_same_layer_whatever_compressed_it() {
    let workshop = Workshop::new();
    workshop.write("framework.yaml", &RECIPE.replace("base: scratch", "base: rootfs:base.tar"));
    let tar = merged_usr();
    let joined = [xz(&tar[..1000]), xz(&tar[1000..])].concat();
    for bytes in [tar.clone(), gzip(&tar), zstd::encode_all(tar.as_slice(), 3).unwrap(), xz(&tar), joined] {
        fs::write(workshop.path("base.tar"), bytes).unwrap();
        let built = workshop.json(&["build", "framework.yaml"]);
        assert_eq!(built["layers"][0]["diff_id"], Digest::of(&tar).to_string());
    }
}

/// xz, as `xz -6` packs it.
fn xz(content: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(6);
    let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    out.write_all(content).unwrap();
    out.finish().unwrap()
}

#[test]
fn base_in_xz_that_is_cut_damaged_followed_by_something_or_greedy_is_refused() {
    let workshop = Workshop::new();
    workshop.write("framework.yaml", &RECIPE.replace("base: scratch", "base: rootfs:base.tar"));
    let whole = xz(&merged_usr());
    let refused = |bytes: &[u8], why: &str| {
        fs::write(workshop.path("base.tar"), bytes).unwrap();
        let message = workshop.refused(&["build", "framework.yaml"], 2);
        assert!(message.contains("base.tar") && message.contains(why), "{message}");
        assert!(!workshop.path("store").exists());
    };
    for length in [7, 14, 40, whole.len() / 2, whole.len() - 30, whole.len() - 1] {
        refused(&whole[..length], "it is cut off");
    }
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x55;
    refused(&damaged, "it is");
    refused(&[&whole[..], b"more"].concat(), "it is damaged");
    refused(&[&whole[..], &xz(b"more of it")].concat(), "something follows the end of its tar");
    // A dictionary of 4 GiB: said in the first block's header, which has a checksum of its own.
    let mut greedy = whole.clone();
    let header = 12..12 + (usize::from(whole[12]) + 1) * 4 - 4;
    assert_eq!(greedy[14..16], [0x21, 1], "the filter LZMA2, with one byte of properties");
    greedy[16] = 40;
    let checksum = crc32(&greedy[header.clone()]).to_le_bytes();
    greedy[header.end..header.end + 4].copy_from_slice(&checksum);
    refused(&greedy, "asks for more than 128 MiB of memory");
}

/// The checksum of gzip and xz.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    }) ^ !0
}

/// A base with `/bin -> usr/bin`, `/etc`, `/usr/bin/old`, `/opt/implied/x` and a link in a circle.
fn merged_usr() -> Vec<u8> {
    let mut tar = Vec::new();
    let folder = |name| Raw { name, flag: b'5', mode: "0000755", content: b"", ..Raw::default() };
    let link = |name, target| Raw { name, target, flag: b'2', content: b"", ..Raw::default() };
    for name in [&b"usr/"[..], b"usr/bin/", b"etc/"] {
        folder(name).write(&mut tar);
    }
    link(b"bin", b"usr/bin").write(&mut tar);
    link(b"round", b"round").write(&mut tar);
    Raw { name: b"usr/bin/old", ..Raw::default() }.write(&mut tar);
    // Whose folders no entry names.
    Raw { name: b"opt/implied/x", ..Raw::default() }.write(&mut tar);
    tar.extend([0; 1024]);
    tar
}

fn on_merged_usr(files: &str) -> Workshop {
    let workshop = Workshop::new();
    fs::write(workshop.path("base.tar"), merged_usr()).unwrap();
    let recipe = "name: x\nversion: 1\nrole: plain\nbase: rootfs:base.tar\nfiles: FILES\n";
    workshop.write("framework.yaml", &recipe.replace("FILES", files));
    workshop
}

#[test]
fn file_below_a_link_of_the_base_lands_where_the_link_leads() {
    let through = on_merged_usr("{tars-init: /bin/x}");
    let names: Vec<String> = contents(&built(&through), "files").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["usr/", "usr/bin/", "usr/bin/x"], "the link itself stays");
    let straight = on_merged_usr("{tars-init: /usr/bin/x}");
    assert_eq!(layer(&built(&through), "files"), layer(&built(&straight), "files"));
    // However the path is written.
    for written in ["/./bin/x", "/usr//bin/x", "/usr/./bin//./x", "//bin/x"] {
        let odd = on_merged_usr(&format!("{{tars-init: {written}}}"));
        assert_eq!(layer(&built(&odd), "files"), layer(&built(&straight), "files"), "{written}");
    }
    // The plan knows it too, once the base is known.
    let plan = through.json(&["build", "framework.yaml", "--plan"]);
    assert_eq!(plan["layers"][1]["cached"], true, "{plan}");

    let folder = on_merged_usr("{deploy/sql: /bin}");
    let names: Vec<String> = contents(&built(&folder), "files").into_iter().map(|(name, _)| name).collect();
    assert!(
        names.contains(&"usr/bin/db_tars.sql".to_owned()) && !names.contains(&"bin/".to_owned()),
        "{names:?}"
    );
}

#[test]
fn file_that_would_replace_what_the_base_has_is_refused() {
    for (files, why) in [
        ("{tars-init: /etc}", "/etc, which is a folder in the base"),
        ("{tars-init: /bin}", "/bin, which is a folder in the base"),
        ("{deploy/sql: /usr/bin/old}", "/usr/bin/old, which is a file in the base"),
        ("{deploy/sql: /bin/old/below}", "/usr/bin/old, which is a file in the base"),
        ("{tars-init: /round/x}", "lead in a circle"),
        ("{tars-init: /bin/x, deploy/sql/db_tars.sql: /usr/bin/x}", "the place /usr/bin/x is taken"),
        ("{tars-init: /opt/implied}", "/opt/implied, which is a folder in the base"),
        ("{tars-init: /etc/.wh.passwd}", ".wh."),
        ("{tars-init: /etc/.wh.passwd}", "give it a name that fits | \"framework.yaml\":5"),
    ] {
        let message = on_merged_usr(files).refused(&["build", "framework.yaml"], 2);
        assert!(message.contains(why), "{files}: {message}");
    }
}

#[test]
fn two_layers_with_different_files_at_one_path_are_refused() {
    let workshop = Workshop::new();
    let files = "files: {deploy/sql/db_tars.sql: /usr/local/app/tars/tarsstat/bin/tarsstat}";
    workshop.write("framework.yaml", &format!("{RECIPE}{files}\n"));
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(
        message.contains("layers tarsstat and files both have /usr/local/app/tars/tarsstat"),
        "{message}"
    );
}

#[test]
fn base_with_names_that_delete_files_or_fit_nowhere_is_refused_by_name() {
    let long = "n".repeat(256);
    for (name, why) in [
        (&b"usr/.wh.bin"[..], "`usr/.wh.bin` has a name that deletes files"),
        (b".wh..wh..opq", "deletes files"),
        (long.as_bytes(), "256 bytes"),
        (b"../x", "leaves the root file system"),
        (b"usr/bin/old/x", "lies below `usr/bin/old`, which is no folder"),
    ] {
        let workshop = on_merged_usr("{tars-init: /x}");
        let mut tar = merged_usr();
        tar.truncate(tar.len() - 1024);
        Raw { pax: vec![("path", name.to_vec())], ..Raw::default() }.write(&mut tar);
        tar.extend([0; 1024]);
        fs::write(workshop.path("base.tar"), tar).unwrap();
        let message = workshop.refused(&["build", "framework.yaml"], 2);
        assert!(message.contains("base.tar: entry `") && message.contains(why), "{message}");
    }
}

#[test]
fn messages_escape_what_a_terminal_would_obey() {
    for (name, shown) in [
        (&b"tarsstat/\x1b[31mred"[..], "tarsstat/\\u{1b}[31mred"),
        (b"tarsstat/\xff\xfe", "tarsstat/\\xff\\xfe"),
        (b"tarsstat/a\nb", "tarsstat/a\\nb"),
    ] {
        let message =
            workshop_with(&[Raw { name, ..Raw::default() }]).refused(&["build", "framework.yaml"], 2);
        assert!(message.contains(&format!("entry `{shown}`")), "{message}");
    }
    let link = Raw { flag: b'2', target: b"a\x1b]0;title\x07\xff", content: b"", ..Raw::default() };
    let message = workshop_with(&[link]).refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("a\\u{1b}]0;title\\u{7}\\xff"), "{message}");

    // The name of the package itself, and words of a recipe.
    let workshop = Workshop::new();
    let odd = workshop.folder.path().join(OsStr::from_bytes(b"packages/\x1b[2J\xff.tgz"));
    fs::write(odd, b"PK\x03\x04").unwrap();
    let recipe =
        RECIPE.replace("packages: [packages/*.tgz]", "packages: [packages/*.tgz, \"packages/\\e[2J*\"]");
    workshop.write("framework.yaml", &recipe);
    let output = workshop.run(&["build", "framework.yaml", "--packages", "packages"]);
    for output in [output, workshop.run(&["build", "framework.yaml"])] {
        assert!(!output.status.success());
        assert!(!output.stderr.contains(&0x1b), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(std::str::from_utf8(&output.stderr).is_ok());
    }
    workshop.write("framework.yaml", &RECIPE.replace("role:", "\"ro\\ele\":"));
    let output = workshop.run(&["build", "framework.yaml"]);
    assert!(!output.stderr.contains(&0x1b), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn headers_of_odd_programs_are_read_or_refused_by_name() {
    let expected = Workshop::new().json(&["build", "framework.yaml"])["digest"].clone();
    let program = program(Service::Stat, "3.0.17");
    let stat = || Raw { name: b"tarsstat/tarsstat", mode: "0000755", content: &program, ..Raw::default() };
    let text = |text: &str| text.as_bytes().to_vec();
    // Owners beyond octal digits, times before 1970 and after 2262, in binary and in PAX: none of it shows in a layer.
    for odd in [
        Raw { owner: b"\x80\x00\x00\x00\x7f\xff\xff\xff", ..stat() },
        Raw { mtime: b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", ..stat() },
        Raw { mtime: b"\x80\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff", ..stat() },
        Raw { pax: vec![("mtime", text("-1.5")), ("uid", text("4294967295"))], ..stat() },
        Raw { pax: vec![("mtime", text("99999999999.123456789")), ("comment", text("a\nb=c"))], ..stat() },
        Raw { pax: vec![("SCHILY.acl.access", text("user::rwx\nother::r--\n"))], ..stat() },
        Raw { mode: "   755 ", mtime: b" 1452477000 ", ..stat() },
    ] {
        let workshop = Workshop::new();
        let mut tar = Vec::new();
        odd.write(&mut tar);
        tar.extend([0; 1024]);
        fs::write(workshop.path("packages/tarsstat.tgz"), gzip(&tar)).unwrap();
        let output = workshop.run(&["build", "framework.yaml", "--json"]);
        assert_eq!(crate::packages::document(&output)["digest"], expected);
    }
    let comment = Raw { flag: b'g', pax: vec![("comment", text("0123456789abcdef"))], ..Raw::default() };
    built(&workshop_with(&[comment]));
    for key in ["path", "size", "GNU.sparse.size", "SCHILY.xattr.security.capability"] {
        let global = Raw { flag: b'g', pax: vec![(key, text("1"))], ..Raw::default() };
        let message = workshop_with(&[global]).refused(&["build", "framework.yaml"], 2);
        assert!(message.contains("a global PAX header changes what all files are"), "{key}: {message}");
    }
    let hard = Raw { flag: b'1', target: b"tarsstat/tarsstat", content: b"", ..Raw::default() };
    let contents = contents(&built(&workshop_with(&[hard])), "tarsstat");
    assert!(contents.iter().any(|(name, content)| name.ends_with("bin/x") && *content == program));
}

#[test]
fn archive_after_the_end_of_an_archive_is_refused() {
    let workshop = Workshop::new();
    let path = workshop.path("packages/tarsstat.tgz");
    let first = fs::read(&path).unwrap();
    // `cat a.tgz b.tgz`: gzip joins them, and no reader of tars would see the second.
    Packer::default().write(&path, vec![Entry::File("tarsstat/more".to_owned(), b"x".to_vec(), false)]);
    let second = fs::read(&path).unwrap();
    fs::write(&path, [first, second].concat()).unwrap();
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("something follows the end of its tar"), "{message}");
}

#[test]
fn base_that_changes_between_hash_and_use_is_refused_and_not_kept() {
    let workshop = Workshop::new();
    workshop.write("framework.yaml", &RECIPE.replace("base: scratch", "base: rootfs:base.tar"));
    let genuine = merged_usr();
    let path = workshop.path("base.tar");
    fs::write(&path, &genuine).unwrap();
    let settings = || Settings {
        platform: Platform::linux("amd64"),
        created: None,
        threads: std::num::NonZeroUsize::MIN,
        cache: Cache::at(workshop.path("cache")),
        rehearses: false,
        predecessor: None,
        init: None,
        base: None,
        strict: false,
        waive: Vec::new(),
    };
    let recipe = Recipe::read(&workshop.path("framework.yaml"), &Overrides::default()).unwrap();
    let first = settings();
    let prepared = build::prepare(&recipe, &first).unwrap();
    let mut other = Vec::new();
    Raw { name: b"usr/", flag: b'5', mode: "0000755", content: b"", ..Raw::default() }.write(&mut other);
    Raw { name: b"usr/evil", ..Raw::default() }.write(&mut other);
    other.extend([0; 1024]);
    other.resize(genuine.len(), 0);
    fs::write(&path, &other).unwrap();
    let Err(error) = prepared.build(&()) else {
        panic!("the base that was read is not the one that was hashed")
    };
    assert!(error.to_string().contains("it was changed while the image was being built"), "{error}");
    // The genuine base is there again: what is built is of its bytes.
    fs::write(&path, &genuine).unwrap();
    let second = settings();
    let built = build::prepare(&recipe, &second).unwrap().build(&()).ok().unwrap();
    assert_eq!(built.image.layers[0].diff_id, Digest::of(&genuine));
}

#[test]
fn every_service_keeps_its_digest_when_packed_by_debians_tar() {
    let workshop = Workshop::new();
    let expected = workshop.json(&["build", "framework.yaml"])["digest"].clone();
    for entry in entries(Service::Stat, "3.0.17") {
        let Entry::File(name, content, _) = entry else { continue };
        let path = workshop.path("packing").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let package = workshop.path("packages/tarsstat.tgz");
    for format in ["v7", "ustar", "gnu", "oldgnu", "posix"] {
        let format = format!("--format={format}");
        tar(&workshop.path("packing"), &[&format, "-czf", package.to_str().unwrap(), "tarsstat"]);
        assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], expected, "{format}");
    }
}
