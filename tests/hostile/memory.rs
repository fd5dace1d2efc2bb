//! As many names as the limits allow, each as long as a name of the largest real input: memory stays within one bound.

use std::fs;

use crate::attack::{Attack, all_hold};
use crate::packages::{RECIPE, Workshop};
use crate::tarballs::{Member, gzip, record, tar};

/// Entries of an archive, at the limit.
const MOST: usize = 200_000;
/// In MiB, as docs/limits.md says; the program has no optimisation here, and takes a dozen more than the one that is shipped.
const OF_ONE: u64 = 92;
/// The same where a package and the base are as large as one may be.
const OF_BOTH: u64 = 116;
/// The same for twice what the largest real input has.
const OF_REAL: u64 = 64;

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

/// A workshop with one package, and a base where one is given.
fn build(name: &str, package: Vec<Member>, base: Option<&[Member]>) -> Attack {
    let workshop = Workshop::new();
    let program = Member::file("tarsstat/bin/tarsstat", b"#!/bin/sh\n").moded(0o755);
    let all = [vec![program], package].concat();
    fs::write(workshop.path("packages/tarsstat.tgz"), gzip(&tar(&all))).unwrap();
    if let Some(members) = base {
        fs::write(workshop.path("base.tar"), tar(members)).unwrap();
        workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    }
    Attack::new(name, workshop.folder, &["build", "framework.yaml"]).taken().slowly()
}

/// What is left for many files, below the limit: their folders count as well.
const LESS: usize = MOST / 102 * 100;

fn base_of(count: usize) -> Vec<Member> {
    let etc = [Member::odd(b'5', "etc/", "")];
    etc.into_iter().chain(many(count, "usr/share", Member::file)).collect()
}

#[test]
fn memory_of_a_build_is_bounded_whatever_comes() {
    // All of them are small enough to stay in memory, each by itself.
    let small =
        (0..4_000).map(|n| Member::file(&format!("tarsstat/{n}"), &vec![n as u8; 60 << 10])).collect();
    let real = || many(20_000, "tarsstat", Member::file);
    let again = build("twice the largest real input, again", real(), Some(&base_of(20_000)));
    again.run();
    let attacks = vec![
        build("as many files as may be", many(LESS, "tarsstat", Member::file), None).within(OF_ONE),
        build("both", many(LESS, "tarsstat", Member::file), Some(&base_of(LESS))).within(OF_BOTH),
        build("a package of many small files", small, None).within(OF_REAL),
        build("twice the largest real input", real(), Some(&base_of(20_000))).within(OF_REAL),
        again.within(OF_REAL),
    ];
    all_hold("memory", 5, attacks);
}

#[test]
fn names_beyond_their_limit_are_refused_with_the_name_of_the_limit() {
    let long = |n: usize| Member::file(&format!("tarsstat/{n}"), b"");
    let one_more: Vec<Member> = (0..=MOST).map(long).collect();
    // Each name is short in its header and long in the record before it.
    let long_name = |n: usize| {
        let name = format!("tarsstat/{n}/{}", format!("{}/", "d".repeat(99)).repeat(38));
        [Member::pax(&record("path", &format!("{name}x"))), Member::file("x", b"")]
    };
    let names: Vec<Member> = (0..6_000).flat_map(long_name).collect();
    // Folders that nobody names are there all the same.
    let folders = (0..2_000).map(|n| Member::file(&format!("tarsstat/d{n}/{}x", "a/".repeat(40)), b""));
    let folders: Vec<Member> = folders.chain((0..190_000).map(long)).collect();
    let base: Vec<Member> = (0..=MOST).map(|n| Member::file(&format!("etc/{n}"), b"")).collect();
    let attacks = vec![
        build("folders that nobody names", folders, None).refused("TARSUP_LIMIT_ENTRIES"),
        build("one entry too many in a base", Vec::new(), Some(&base)).refused("TARSUP_LIMIT_ENTRIES"),
        build("one entry too many", one_more, None).refused("TARSUP_LIMIT_ENTRIES"),
        build("long names of few", names, None).refused("TARSUP_LIMIT_NAMES"),
    ];
    all_hold("limits of names", 4, attacks);
}
