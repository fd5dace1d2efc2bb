//! As many names as the limits allow, each as long as a name of the largest real input: memory stays within one bound.

use std::fs;
use std::path::Path;

use crate::attack::{Attack, Making, third_holds};
use crate::packages::{RECIPE, Workshop};
use crate::programs::{PROGRAM, Program};
use crate::tarballs::{Member, gzip, record, tar};

/// Entries of an archive, at the limit.
const MOST: usize = 200_000;
/// In MiB, of the program that is shipped (docs/limits.md): `TARSUP_HOSTILE` names it, as tests/long.sh does.
const OF_ANY: u64 = 64;
/// What the same program takes more without optimisation: its own code alone is five times as much.
const UNOPTIMISED: u64 = 16;

fn bound() -> u64 {
    if std::env::var_os("TARSUP_HOSTILE").is_some() { OF_ANY } else { OF_ANY + UNOPTIMISED }
}

/// Many members below a folder, in no order, with names of some ninety bytes.
fn many(count: usize, folder: &str, member: impl Fn(&str, &[u8]) -> Member) -> Vec<Member> {
    let name = |number: usize| {
        // Every number once, far from the one before.
        let mixed = number * 7_919 % count;
        format!(
            "{folder}/node_modules/a-module-of-many/{}/src/a-file-with-a-long-name-{mixed:06}.js",
            mixed / 100
        )
    };
    (0..count).map(|number| member(&name(number), format!("{number}\n").as_bytes())).collect()
}

fn write_package(folder: &Path, members: &[Member]) {
    let program = Member::file("tarsstat/bin/tarsstat", b"#!/bin/sh\n").moded(0o755);
    let all = [&[program], members].concat();
    fs::write(folder.join("packages/tarsstat.tgz"), gzip(&tar(&all))).unwrap();
}

/// So many npm packages; each has a licence of so many bytes.
fn modules(count: usize, licence: usize) -> Vec<Member> {
    let module = |number: usize| {
        let text = format!(r#"{{"name":"m{number}","version":"1.0.0","license":"{}"}}"#, "x".repeat(licence));
        Member::file(&format!("tarsstat/node_modules/m{number}/package.json"), text.as_bytes())
    };
    (0..count).map(module).collect()
}

/// A workshop with one package, and a base where one is given.
fn build(name: &str, package: &[Member], base: Option<&[Member]>) -> Attack {
    let workshop = Workshop::new();
    write_package(workshop.folder.path(), package);
    if let Some(members) = base {
        fs::write(workshop.path("base.tar"), tar(members)).unwrap();
        workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    }
    Attack::new(name, workshop.folder, &["build", "framework.yaml"]).taken().slowly()
}

/// A plain image of a folder of the host, with as many files as there may be.
fn folder_of(count: usize) -> Attack {
    let workshop = Workshop::new();
    let folder = workshop.path("folder");
    for number in 0..count {
        let below = folder.join(format!("a-folder-with-a-long-name-among-others/{}", number / 1_000));
        if number % 1_000 == 0 {
            fs::create_dir_all(&below).unwrap();
        }
        fs::write(below.join(format!("a-file-with-a-long-name-{number:06}.js")), number.to_string()).unwrap();
    }
    workshop.write(
        "framework.yaml",
        "name: x/files\nversion: 1\nrole: plain\nbase: scratch\nfiles: {folder: /opt/folder}\n",
    );
    Attack::new("a folder of as many files as may be", workshop.folder, &["build", "framework.yaml"])
        .taken()
        .slowly()
}

/// What is left for many files, below the limit: their folders count as well.
const LESS: usize = MOST / 102 * 100;

fn base_of(count: usize) -> Vec<Member> {
    let etc = [Member::odd(b'5', "etc/", "")];
    etc.into_iter().chain(many(count, "usr/share", Member::file)).collect()
}

/// So many members of which no name begins as another one does.
fn unlike(count: usize, length: usize) -> Vec<Member> {
    let name = |number: usize| {
        // Any digits: what they begin with differs, and so does the rest.
        let mut digits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut text = String::new();
        while text.len() < length {
            digits = digits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            text += &format!("{:08x}", digits >> 32);
        }
        format!("tarsstat/{text}")
    };
    (0..count).map(|number| Member::file(&name(number), b"")).collect()
}

/// The folder after a build of it, and the attack that builds what comes next after that image.
fn after(name: &str, first: &Attack, second: &[Member]) -> Attack {
    first.run();
    let folder = tempfile::TempDir::new().unwrap();
    for below in ["deploy", "packages", "store", "cache", "tars-init", "base.tar", "framework.yaml"] {
        let (from, to) = (first.folder.path().join(below), folder.path().join(below));
        if from.exists() {
            fs::rename(from, to).unwrap();
        }
    }
    let recipe = fs::read_to_string(folder.path().join("framework.yaml")).unwrap();
    fs::write(folder.path().join("framework.yaml"), recipe.replace("3.0.17", "3.0.18")).unwrap();
    write_package(folder.path(), second);
    Attack::new(name, folder, &["build", "--after", "tars/framework:3.0.17", "framework.yaml"])
        .taken()
        .slowly()
        .within(bound())
}

/// An input within the bound, once its turn comes.
fn making(make: impl FnOnce() -> Attack + 'static) -> Making {
    Box::new(move || make().within(bound()))
}

#[test]
fn memory_of_a_build_is_bounded_whatever_comes() {
    let real = || many(20_000, "tarsstat", Member::file);
    let small = || -> Vec<Member> {
        // All of them are small enough to stay in memory, each by itself.
        (0..4_000).map(|n| Member::file(&format!("tarsstat/{n}"), &vec![n as u8; 60 << 10])).collect()
    };
    let mut makings = vec![
        making(|| {
            build("both as large as may be", &many(LESS, "tarsstat", Member::file), Some(&base_of(LESS)))
        }),
        making(move || build("a package of many small files", &small(), None)),
        making(move || build("twice the largest real input", &real(), Some(&base_of(20_000)))),
        making(|| folder_of(20_000)),
        making(|| build("npm packages with long licences", &modules(8_000, 1024), None)),
        making(move || {
            let first = build("", &real(), Some(&base_of(20_000)));
            after("twice the largest real input, after another", &first, &real()[..19_000])
        }),
        making(move || {
            let again = build("twice the largest real input, again", &real(), Some(&base_of(20_000)));
            again.run();
            again
        }),
    ];
    if std::env::var_os("TARSUP_EVERY").is_some() {
        let large = || many(LESS, "tarsstat", Member::file);
        makings.push(making(move || {
            let first = build("", &large(), Some(&base_of(LESS)));
            after("as large as may be, after another such", &first, &large()[..LESS - 1000]).or_taken()
        }));
        makings.push(making(move || {
            let both = after("", &build("", &large(), None), &large()[..LESS - 1000]);
            both.run();
            let differ = ["diff", "tars/framework:3.0.17", "tars/framework:3.0.18"];
            Attack::new("what differs between two such", both.folder, &differ).taken().slowly()
        }));
        makings.push(making(|| folder_of(190_000)));
        makings
            .push(making(|| build("npm packages as many as may be", &modules(40_000, 20), None).or_taken()));
        makings.push(making(|| {
            build("npm packages as many as fit, with long licences", &modules(12_000, 1024), None).or_taken()
        }));
        makings.push(making(move || build("as many files as may be", &large(), None)));
        makings.push(making(|| build("names that begin unlike", &unlike(190_000, 80), None).or_taken()));
    }
    third_holds("memory", 7, makings);
}

/// Folders that nobody names are there all the same.
fn unnamed_folders() -> Vec<Member> {
    let folders = (0..2_000).map(|n| Member::file(&format!("tarsstat/d{n}/{}x", "a/".repeat(40)), b""));
    folders.chain((0..190_000).map(|n| Member::file(&format!("tarsstat/{n}"), b""))).collect()
}

/// Each name is short in its header and long in the record before it.
fn long_names() -> Vec<Member> {
    let long_name = |n: usize| {
        let name = format!("tarsstat/{n}/{}", format!("{}/", "d".repeat(99)).repeat(38));
        [Member::pax(&record("path", &format!("{name}x"))), Member::file("x", b"")]
    };
    (0..9_000).flat_map(long_name).collect()
}

/// What programs ask for is in memory as well.
fn asking_programs() -> Vec<Member> {
    let names: Vec<String> = (0..100).map(|number| format!("lib{number}.so")).collect();
    let needed: Vec<&str> = names.iter().map(String::as_str).collect();
    let program = Program { needed: &needed, ..PROGRAM }.bytes();
    (0..8_000).map(|number| Member::file(&format!("tarsstat/{number}"), &program)).collect()
}

/// Each package is within its limits, and all together are not.
fn several() -> Attack {
    let several = build("many in several packages", &[], None);
    for service in ["tarslog", "tarsproperty", "tarsquerystat", "tarsstat"] {
        let program = Member::file(&format!("{service}/{service}"), b"#!/bin/sh\n").moded(0o755);
        let all = [vec![program], many(20_000, service, Member::file)].concat();
        fs::write(several.folder.path().join(format!("packages/{service}.tgz")), gzip(&tar(&all))).unwrap();
    }
    several.with("TARSUP_LIMIT_NAMES", "4194304")
}

#[test]
fn names_beyond_their_limit_are_refused_with_the_name_of_the_limit() {
    const ENTRIES: &str = "TARSUP_LIMIT_ENTRIES";
    const NAMES: &str = "TARSUP_LIMIT_NAMES";
    let one_too_many = |folder: &'static str| -> Vec<Member> {
        (0..=MOST).map(|n| Member::file(&format!("{folder}/{n}"), b"")).collect()
    };
    let makings = vec![
        making(|| build("folders that nobody names", &unnamed_folders(), None).refused(ENTRIES)),
        making(move || {
            build("one entry too many in a base", &[], Some(&one_too_many("etc"))).refused(ENTRIES)
        }),
        making(move || build("one entry too many", &one_too_many("tarsstat"), None).refused(ENTRIES)),
        making(|| build("long names of few", &long_names(), None).refused(NAMES)),
        making(|| build("small programs that ask for much", &asking_programs(), None).refused(NAMES)),
        making(|| several().refused(NAMES)),
    ];
    third_holds("limits of names", 6, makings);
}
