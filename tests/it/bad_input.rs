//! Bad input: each a sentence that names file and entry and what to do, exit 2, and nothing left behind.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use tarsup::tars::Service;

use crate::beside;
use crate::packages::{Entry, Packer, RECIPE, Workshop, entries};

/// The build must refuse, name all of this, and leave every file as it was.
fn refused(workshop: &Workshop, expected: &[&str]) {
    let before = workshop.listing();
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    for part in expected {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert_eq!(workshop.listing(), before, "something was left behind");
}

/// tarsstat's package, with one more entry.
fn with_entry(entry: Entry) -> Workshop {
    let workshop = Workshop::new();
    let mut all = entries(Service::Stat, "3.0.17");
    all.push(entry);
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), all);
    workshop
}

fn file(name: &str) -> Entry {
    Entry::File(name.to_owned(), b"x".to_vec(), false)
}

#[test]
fn package_that_is_no_tar_is_refused() {
    let workshop = Workshop::new();
    workshop.write("packages/tarsstat.tgz", "PK\u{3}\u{4} this is a zip");
    refused(&workshop, &["tarsstat.tgz", "a zip archive, which is not read", "make X-tar"]);
    workshop.write("packages/tarsstat.tgz", &"neither compressed nor a tar ".repeat(40));
    refused(&workshop, &["tarsstat.tgz", "it is no tar", "make X-tar"]);
    workshop.write("packages/tarsstat.tgz", "");
    refused(&workshop, &["tarsstat.tgz", "empty"]);
}

#[test]
fn package_that_is_cut_off_anywhere_is_refused() {
    let workshop = Workshop::new();
    let path = workshop.path("packages/tarsstat.tgz");
    let whole = fs::read(&path).unwrap();
    for length in [3, 11, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        refused(&workshop, &["tarsstat.tgz", "cut off"]);
    }
    // A gzip that is whole, around a tar that is not.
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(whole.as_slice()), &mut tar).unwrap();
    for length in [tar.len() - 1024, tar.len() - 1536, 1500] {
        gzip(&path, &tar[..length]);
        refused(&workshop, &["tarsstat.tgz", "cut off"]);
    }
    let mut damaged = whole.clone();
    let checksum = whole.len() - 6;
    damaged[checksum] ^= 0x55;
    fs::write(&path, damaged).unwrap();
    refused(&workshop, &["tarsstat.tgz", "damaged"]);
}

fn gzip(path: &Path, content: &[u8]) {
    let mut gzip =
        flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap();
}

#[test]
fn package_with_names_that_leave_it_is_refused() {
    for (name, why) in [
        ("tarsstat/../../etc/passwd", "climbs out"),
        ("..", "climbs out"),
        ("/etc/passwd", "absolute"),
        ("tarsstat/.wh.tarsstat", ".wh."),
        ("tarsstat/.wh..wh..opq", ".wh."),
        ("tarsstat/a\nb", "control characters"),
    ] {
        let shown = name.escape_debug().to_string();
        refused(&with_entry(file(name)), &["tarsstat.tgz", &shown, why]);
    }
}

#[test]
fn package_with_links_that_leave_it_is_refused() {
    for (name, target, kind) in [
        ("tarsstat/bad", "/etc/passwd", tar::EntryType::Symlink),
        ("tarsstat/bad", "../../etc/passwd", tar::EntryType::Symlink),
        ("tarsstat/bad", "x/../../../etc", tar::EntryType::Symlink),
        ("tarsstat/bad", "/etc/passwd", tar::EntryType::Link),
        ("tarsstat/bad", "../etc/passwd", tar::EntryType::Link),
        ("tarsstat/bad", "tarsstat/none", tar::EntryType::Link),
    ] {
        let entry = Entry::Odd(name.to_owned(), target.to_owned(), kind);
        refused(&with_entry(entry), &["tarsstat.tgz", "tarsstat/bad", target]);
    }
}

#[test]
fn package_with_devices_and_pipes_is_refused() {
    for (kind, why) in [
        (tar::EntryType::Block, "block device"),
        (tar::EntryType::Char, "character device"),
        (tar::EntryType::Fifo, "named pipe"),
    ] {
        let entry = Entry::Odd("tarsstat/bad".to_owned(), String::new(), kind);
        refused(&with_entry(entry), &["tarsstat.tgz", "tarsstat/bad", why]);
    }
}

#[test]
fn package_that_writes_through_a_link_or_over_a_file_is_refused() {
    let workshop = Workshop::new();
    let mut all = entries(Service::Stat, "3.0.17");
    all.push(Entry::Link("tarsstat/conf".to_owned(), "tarsstat".to_owned()));
    all.push(file("tarsstat/conf/x"));
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), all);
    refused(&workshop, &["tarsstat.tgz", "tarsstat/conf/x", "no folder"]);
    refused(&with_entry(file("tarsstat/tarsstat")), &["tarsstat.tgz", "there twice"]);
    let both = Entry::File("tarsstat/bin/tarsstat".to_owned(), b"other".to_vec(), true);
    refused(&with_entry(both), &["tarsstat.tgz", "mixes two layouts"]);
}

#[test]
fn package_of_an_unknown_service_or_without_its_program_is_refused() {
    refused(
        &with_entry(file("tarsfoo/tarsfoo")),
        &["tarsstat.tgz", "tarsfoo", "not a TARS framework service"],
    );
    let workshop = Workshop::new();
    let name = "tarsstat/conf/x.conf";
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), vec![file(name)]);
    refused(&workshop, &["tarsstat.tgz", "no program `tarsstat/bin/tarsstat`"]);
}

#[test]
fn packages_with_the_same_service_are_refused() {
    let workshop = Workshop::new();
    fs::copy(workshop.path("packages/tarslog.tgz"), workshop.path("packages/zz.tgz")).unwrap();
    refused(&workshop, &["tarslog.tgz", "zz.tgz", "both bring tarslog"]);
}

#[test]
fn role_without_one_of_its_services_is_refused() {
    let workshop = Workshop::new();
    fs::remove_file(workshop.path("packages/tarsquerystat.tgz")).unwrap();
    refused(&workshop, &["framework.yaml", "needs tarsquerystat", "make tarsquerystat-tar"]);
    fs::remove_file(workshop.path("packages/framework.tgz")).unwrap();
    refused(&workshop, &["tarsAdminRegistry, tarsregistry, tarsconfig, tarsnode", "make framework-tar"]);
}

#[test]
fn decompression_bomb_is_refused() {
    let workshop = Workshop::new();
    let mut gzip = flate2::write::GzEncoder::new(
        fs::File::create(workshop.path("packages/tarsstat.tgz")).unwrap(),
        flate2::Compression::fast(),
    );
    let mut header = tar::Header::new_gnu();
    header.set_path("tarsstat/tarsstat").unwrap();
    header.set_mode(0o755);
    header.set_size(300 << 20);
    header.set_cksum();
    gzip.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..300 {
        gzip.write_all(&zeros).unwrap();
    }
    gzip.write_all(&[0; 1024]).unwrap();
    gzip.finish().unwrap();
    refused(&workshop, &["tarsstat.tgz", "more than a package may hold", "TARSUP_LIMIT_UNPACKED="]);
    // A base is bounded as a package is; and whoever means it says so.
    fs::rename(workshop.path("packages/tarsstat.tgz"), workshop.path("base.tgz")).unwrap();
    workshop.pack(Packer::default(), Service::Stat, "3.0.17");
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tgz"));
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    for part in ["base.tgz", "more than a base may hold", "TARSUP_LIMIT_UNPACKED="] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!workshop.path("store").exists());
    let mut meant = workshop.command(&["build", "framework.yaml", "--json"]);
    let output = meant.env("TARSUP_LIMIT_UNPACKED", "1000000000").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("no folder in it"), "it is read to its end: {said}");
}

#[test]
fn recipe_that_is_wrong_is_refused_with_its_line() {
    for (from, to, expected) in [
        ("role: framework", "roel: framework", vec!["unknown field `roel`", "framework.yaml\":3"]),
        ("role: framework", "role: master", vec!["unknown variant `master`", "framework.yaml\":3"]),
        ("version: 3.0.17", "version: 3 0", vec!["3 0", "framework.yaml\":2"]),
        ("name: tars/framework", "name: Tars/x", vec!["Tars/x", "framework.yaml\":1"]),
        ("name: tars/framework", "name: tars/x:1", vec!["a name has no tag", "framework.yaml\":1"]),
        ("base: scratch", "base: debian:12", vec!["debian:12", "rootfs:FILE", "framework.yaml\":4"]),
        ("base: scratch", "base: rootfs:none.tar", vec!["none.tar", "cannot read"]),
        ("packages/*.tgz", "nowhere/*.tgz", vec!["nowhere/*.tgz", "no such file", "framework.yaml\":5"]),
        ("deploy: deploy", "deploy: none", vec!["none", "conf/tarsAdminRegistry/conf"]),
        ("deploy: deploy\n", "", vec!["needs `deploy`"]),
        ("init: tars-init", "init: none", vec!["no tars-init at"]),
        ("init: tars-init", "user: root", vec!["role framework decides that", "framework.yaml\":7"]),
        ("init: tars-init", "waive: [abi]", vec!["names no program and what it needs"]),
        ("init: tars-init", "labels: {io.tarsup.role: x}", vec!["tarsup's own"]),
        ("name: tars/framework", "name: [", vec!["framework.yaml"]),
        ("name: tars", "\u{feff}name: tars", vec!["begins with a byte order mark", "framework.yaml\":1"]),
    ] {
        let workshop = Workshop::new();
        workshop.write("framework.yaml", &RECIPE.replace(from, to));
        refused(&workshop, &expected);
    }
    let message = Workshop::new().refused(&["build", "none.yaml"], 2);
    assert!(message.contains("none.yaml"), "{message}");
}

#[test]
fn every_refusal_of_a_recipe_has_the_line_of_the_value() {
    // The texts stand more than once: a line that is found by searching for them is another one.
    let mut wrong = Vec::new();
    let head = "# role: none, 70000, relative, out, 1m\nname: x\nversion: 1\nrole: plain\nbase: scratch\n";
    for (rest, line, why) in [
        ("env: {A: '70000'}\nports:\n  - 80\n  - 70000\n", 9, "not a port"),
        ("labels: {a: relative}\nvolumes:\n  - /relative\n  - relative\n", 9, "absolute"),
        ("cmd: [relative]\nworkdir: relative\n", 7, "absolute"),
        ("files:\n  a: /out\n  b: out\n", 8, "absolute path in the image"),
        ("files:\n  a: /b\n  b:\n    path: /c\n    mode: '9'\n", 10, "not a mode"),
        ("files:\n  a: /b\n  b:\n    path: c\n    mode: '7'\n", 9, "absolute path in the image"),
        ("healthcheck:\n  test: x\n  timeout: 1m\n  interval: 1x\n", 9, "not a duration"),
        ("packages: []\nwaive:\n\n  - none\n", 9, "names no program and what it needs"),
        ("user: a\ncmd: b\nuser: c\n", 8, "stands on line 6 already"),
        ("env:\n  A: 1\n  A: 2\n", 8, "stands on line 7 already"),
        ("ports: [80]\nusre: x\n", 7, "unknown field `usre`"),
        ("ports: [80]\nhealthcheck:\n  test: x\n  retires: 3\n", 9, "unknown field `retires`"),
        ("ports:\n  - [80]\n", 7, "ports"),
        ("cmd:\n  a: b\n", 6, "`cmd` is neither a list"),
        ("files:\n  a: /b\n  c: [d]\n", 8, "`files.c` is neither a path"),
        ("files:\n  a: /b\n  b:\n    path: /c\n    moed: '0755'\n", 10, "unknown field `moed`"),
        ("files:\n  a: {path: /b, mode: [7]}\n", 7, "files.a.mode"),
        ("files:\n  a: {mode: '0755'}\n", 7, "missing field `path`"),
        ("relayer:\n  shaer: 3\n", 7, "unknown field `shaer`"),
        ("labels:\n  a: &a [x, x]\n  b: *nowhere\n", 8, "unknown anchor"),
    ] {
        let workshop = Workshop::new();
        workshop.write("framework.yaml", &format!("{head}{rest}"));
        let message = workshop.refused(&["build", "framework.yaml"], 2);
        let place = format!("framework.yaml\":{line}");
        if !(message.ends_with(&place) && message.contains(why)) {
            wrong.push(format!("{rest}: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn recipe_that_bakes_rebuild_into_the_image_is_refused_by_the_guard() {
    let workshop = Workshop::new();
    workshop.write("framework.yaml", &format!("{RECIPE}env: {{REBUILD: \"true\"}}\n"));
    let before = workshop.listing();
    let message = workshop.refused(&["build", "framework.yaml"], 3);
    assert!(message.contains("REBUILD") && message.contains("db_tars"), "{message}");
    assert_eq!(workshop.listing(), before);
}

#[test]
fn init_that_needs_a_loader_is_refused_on_scratch() {
    let workshop = Workshop::new();
    // The test itself is dynamically linked.
    fs::copy(std::env::current_exe().unwrap(), workshop.path("tars-init")).unwrap();
    refused(&workshop, &["tars-init", "dynamically linked", "statically linked"]);
}

#[test]
fn flags_that_cannot_be_are_refused() {
    let workshop = Workshop::new();
    let run = |arguments: &[&str], expected: &str| {
        let message = workshop.refused(&[&["build", "framework.yaml"], arguments].concat(), 2);
        assert!(message.contains(expected), "{message}");
    };
    run(&["--platform", "windows/amd64"], "not yet possible");
    run(&["--platform", "linux/amd64", "--platform", "linux/arm64"], "not yet possible");
    run(&["--packages", "nowhere"], "nowhere");
    run(&["--after", "tars/none:1"], "tars/none:1");
    run(&["-o", "oci:"], "a path must follow");
    run(&["--version", "a b"], "a b");
}

#[test]
fn web_console_that_could_not_start_is_refused() {
    let workshop = Workshop::new();
    let pack = |names: &[&str]| {
        let entries = names.iter().map(|name| Entry::File((*name).to_owned(), b"x".to_vec(), true)).collect();
        Packer::default().write(&workshop.path("web.tgz"), entries);
    };
    let module = "web/node_modules/sequelize/package.json";
    let recipe = format!("{RECIPE}web: web.tgz\n");
    workshop.write("framework.yaml", &recipe);
    for (names, words) in [
        (&["web/bin/www", "web/package.json"][..], &["web.tgz: there is no `node_modules`", "npm install"]),
        (&["web/index.js", module], &["web.tgz: there is no `bin/www`", "TarsWeb's whole folder"]),
        (&["web/bin/www", module], &["`web` needs node.js, and neither `base: scratch` nor", "nodejs"]),
    ] {
        pack(names);
        let message = workshop.refused(&["build", "framework.yaml"], 2);
        assert!(words.iter().all(|words| message.contains(words)), "{message}");
    }
    // Brought by the recipe, or by the base: on a system whose `/bin` is a link, too.
    workshop.write("framework.yaml", &format!("{recipe}files: {{tars-init: /bin/node}}\n"));
    workshop.json(&["build", "framework.yaml"]);
    workshop.write("framework.yaml", &recipe.replace("base: scratch", "base: rootfs:base.tar"));
    for (at, has_node) in [("./usr/bin/node", true), ("./usr/bin/nodes", false)] {
        let mut base = tar::Builder::new(Vec::new());
        for folder in ["./", "./usr/", "./usr/bin/"] {
            append(&mut base, folder, tar::EntryType::Directory, "");
        }
        append(&mut base, "./bin", tar::EntryType::Symlink, "usr/bin");
        append(&mut base, "./usr/bin/nodejs", tar::EntryType::Regular, "");
        append(&mut base, at, tar::EntryType::Symlink, "nodejs");
        fs::write(workshop.path("base.tar"), base.into_inner().unwrap()).unwrap();
        if has_node {
            workshop.json(&["build", "framework.yaml"]);
        } else {
            let message = workshop.refused(&["build", "framework.yaml"], 2);
            assert!(message.contains("base.tar nor `files` has a program `node`"), "{message}");
        }
    }
}

fn append(to: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, link: &str) {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(0);
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    to.append(&header, &[][..]).unwrap();
}

#[test]
fn base_that_is_no_root_file_system_is_refused() {
    let workshop = Workshop::new();
    workshop.write("framework.yaml", &RECIPE.replace("base: scratch", "base: rootfs:base.tar"));
    let base = workshop.path("base.tar");
    fs::write(&base, "").unwrap();
    refused(&workshop, &["base.tar", "empty"]);
    for (content, why) in [
        (&b"just some text that is long enough"[..], "base.tar"),
        (&b"\x28\xb5\x2f\xfd zstd"[..], "it is cut off"),
        (&b"\xfd7zXZ\0\0\x04"[..], "it is cut off"),
        (&b"\xfd7zXZ xz, or so"[..], "it is damaged"),
        (&b"BZh91AY&SY"[..], "compressed by bzip2"),
    ] {
        fs::write(&base, content).unwrap();
        let message = workshop.refused(&["build", "framework.yaml"], 2);
        assert!(message.contains(why), "{message}");
        assert!(!workshop.path("store").exists());
    }
}

#[test]
fn engine_that_is_not_there_ends_a_build_before_its_work() {
    let workshop = Workshop::new();
    let before = workshop.listing();
    let missing = format!("unix://{}", workshop.path("none.sock").display());
    let build = ["build", "framework.yaml", "-o", "docker-daemon:x:1", "-H", &missing];
    let message = workshop.refused(&build, 1);
    assert!(message.contains("no Docker engine answers"), "{message}");
    assert_eq!(workshop.listing(), before);
}

/// The beginning of a program for this machine (gABI, `e_machine`).
fn elf(machine: u16) -> Vec<u8> {
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(18, 0);
    program.extend(machine.to_le_bytes());
    program.resize(200_000, 7);
    program
}

#[test]
fn program_for_another_machine_is_refused_by_name_also_where_its_package_is_known() {
    let (amd64, arm64) = (elf(62), elf(183));
    let with_program = |program: Vec<u8>| {
        let workshop = Workshop::new();
        let program = Entry::File("tarsstat/tarsstat".to_owned(), program, true);
        Packer::default().write(&workshop.path("packages/tarsstat.tgz"), vec![program]);
        workshop
    };
    let message = with_program(arm64).refused(&["build", "framework.yaml"], 2);
    for part in ["layer tarsstat", "tarsstat is made for arm64", "for amd64", "--platform linux/arm64"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    let workshop = with_program(amd64);
    // What is in the package is remembered by its digest.
    workshop.json(&["build", "framework.yaml"]);
    let message = workshop.refused(&["build", "framework.yaml", "--platform", "linux/arm64"], 2);
    assert!(message.contains("tarsstat is made for amd64, and the image is for arm64"), "{message}");
}

#[test]
fn files_that_cannot_be_kept_meanwhile_are_no_fault_of_their_package() {
    let workshop = Workshop::new();
    let program = Entry::File("tarsstat/tarsstat".to_owned(), vec![7; 200_000], true);
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), vec![program]);
    workshop.write("big", &"x".repeat(200_000));
    let nowhere = workshop.path("nowhere");
    for recipe in [RECIPE.to_owned(), format!("{RECIPE}files: {{big: /big}}\n")] {
        workshop.write("framework.yaml", &recipe);
        let mut command = workshop.command(&["build", "framework.yaml", "--json"]);
        let output = command.env("TMPDIR", &nowhere).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("nowhere takes no more: ") && said.contains("TMPDIR"), "{said}");
        fs::remove_file(workshop.path("packages/tarsstat.tgz")).ok();
        workshop.pack(Packer::default(), Service::Stat, "3.0.17");
    }
}

/// Runs `tarsup` with a TMPDIR of its own that is full to the last byte; nothing where the machine lets nobody mount.
fn with_a_full_temporary_folder(workshop: &Workshop, arguments: &[&str]) -> Option<std::process::Output> {
    const SCRIPT: &str = "mount -t tmpfs -o size=256k none full || exit 99\n\
                          head -c 1000000 /dev/zero > full/x 2> /dev/null && exit 98\n\
                          TMPDIR=$PWD/full exec \"$@\"\n";
    fs::create_dir_all(workshop.path("full")).unwrap();
    let tarsup = workshop.command(arguments);
    let mut command = std::process::Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]).arg(tarsup.get_program());
    command.args(tarsup.get_args()).current_dir(workshop.folder.path());
    for (name, value) in tarsup.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || said.contains("unshare:") {
        assert!(std::env::var_os("CI").is_none(), "no file system can be mounted here: {said}");
        beside::say(&format!("SKIPPED full_temporary_folder: no file system can be mounted here: {said}"));
        return None;
    }
    Some(output)
}

#[test]
fn full_temporary_folder_is_named_and_leaves_the_store_as_it_was() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    workshop.json(&["copy", "tars/framework:3.0.17", "docker-archive:image.tar"]);
    let mut gzip = flate2::write::GzEncoder::new(
        fs::File::create(workshop.path("image.tgz")).unwrap(),
        flate2::Compression::fast(),
    );
    gzip.write_all(&fs::read(workshop.path("image.tar")).unwrap()).unwrap();
    gzip.finish().unwrap();
    let program = Entry::File("tarsstat/tarsstat".to_owned(), vec![7; 200_000], true);
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), vec![program]);
    workshop.write("big", &"x".repeat(200_000));
    let store =
        || workshop.listing().into_iter().filter(|path| path.starts_with("store")).collect::<Vec<_>>();
    let before = store();
    let file = format!("{RECIPE}files: {{big: /big}}\n");
    for (recipe, arguments) in [
        (RECIPE.to_owned(), ["build", "framework.yaml", "--version=2", "--json"]),
        (file, ["build", "framework.yaml", "--version=2", "--json"]),
        (
            RECIPE.replace("scratch", "docker-archive:image.tgz"),
            ["build", "framework.yaml", "--version=2", "--json"],
        ),
        (RECIPE.to_owned(), ["copy", "docker-archive:image.tgz", "oci:out:1", "--json"]),
    ] {
        workshop.write("framework.yaml", &recipe);
        let Some(output) = with_a_full_temporary_folder(&workshop, &arguments) else { return };
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        for part in ["full takes no more", "No space left", "another folder in TMPDIR"] {
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
        assert!(
            !said.contains("damaged") && !said.contains("it cannot be unpacked"),
            "{arguments:?}: {said}"
        );
        assert_eq!(store(), before, "{arguments:?}");
        assert!(!workshop.path("out").exists(), "{arguments:?}");
    }
    workshop.json(&["store", "verify"]);
    workshop.write("framework.yaml", RECIPE);
    workshop.json(&["build", "framework.yaml", "--version=2"]);
}
