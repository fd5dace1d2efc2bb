//! Programs and libraries: ELF files that lie about what they need and offer.

use crate::attack::{Attack, all_hold};
use crate::packages::{Entry, Packer, RECIPE, Workshop};
use crate::programs::{LIBRARY, Lies, PROGRAM, Program, debian, write_base};

/// The file as a service's program and as a library of the base.
fn attacks(name: &str, file: &[u8], all: &mut Vec<Attack>) {
    let in_both = [(Some(file), None), (None, Some(file))];
    for (program, library) in in_both {
        let workshop = Workshop::new();
        let mut entries = debian(vec![]);
        entries.extend(library.map(|file| ("usr/lib/libx.so.1", Lies::File(file.to_vec()))));
        write_base(&workshop.path("base.tar"), &entries);
        workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
        let asking = Program { needed: &["libx.so.1"], ..PROGRAM }.bytes();
        let program = program.map_or(asking, <[u8]>::to_vec);
        let file = Entry::File("tarsstat/tarsstat".to_owned(), program, true);
        Packer::default().write(&workshop.path("packages/tarsstat.tgz"), vec![file]);
        let mut attack = Attack::new(name, workshop.folder, &["build", "framework.yaml"]).or_taken();
        attack.leaves.push("cache".to_owned());
        all.push(attack);
    }
}

fn put(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn programs_that_lie_are_understood_or_passed_over() {
    let names: Vec<String> = (0..64).map(|number| format!("V_{number}")).collect();
    let versions: Vec<&str> = names.iter().map(String::as_str).collect();
    let whole = Program {
        needed: &["libc.so.6", "libx.so.1"],
        runpath: "$ORIGIN:/opt",
        versions: &[("libc.so.6", &versions), ("libx.so.1", &versions)],
        exports: &versions,
        ..PROGRAM
    }
    .bytes();
    let mut all = Vec::new();
    for length in [4, 16, 20, 63, 64, 100, 231, 232, 240, 1000, whole.len() / 2, whole.len() - 1] {
        attacks(&format!("cut after {length} bytes"), &whole[..length], &mut all);
    }
    let most = [0xff; 8];
    let headers = [("LOAD", 64), ("DYNAMIC", 64 + 56), ("INTERP", 64 + 112)];
    for (name, at) in headers {
        for (field, within) in [("offset", 8), ("address", 16), ("size", 32)] {
            for (value, bytes) in [("2^64", most), ("2^63", [0, 0, 0, 0, 0, 0, 0, 0x80]), ("0", [0; 8])] {
                attacks(&format!("{name} with {field} {value}"), &put(&whole, at + within, &bytes), &mut all);
            }
        }
    }
    attacks("65,535 program headers", &put(&whole, 56, &[0xff, 0xff]), &mut all);
    attacks("program headers of no size", &put(&whole, 54, &[0, 0]), &mut all);
    attacks("program headers at 2^64", &put(&whole, 32, &most), &mut all);
    attacks("32 bits that are 64", &put(&whole, 4, &[1]), &mut all);
    attacks("the other order of bytes", &put(&whole, 5, &[2]), &mut all);
    // Versions: the first need begins behind the names.
    let needs = whole.windows(4).position(|bytes| bytes == [1, 0, 64, 0]).unwrap();
    attacks("a need that is its own next one", &put(&whole, needs + 12, &[0, 0, 0, 0]), &mut all);
    attacks("needs that overlap", &put(&whole, needs + 12, &[1, 0, 0, 0]), &mut all);
    attacks(
        "65,535 versions that overlap",
        &put(&put(&whole, needs + 2, &[0xff, 0xff]), needs + 16 + 12, &[1, 0, 0, 0]),
        &mut all,
    );
    attacks("names at 2^32", &put(&whole, needs + 4, &[0xff; 4]), &mut all);
    all_hold("programs", 40, all);
}

#[test]
fn many_programs_and_libraries_end_soon() {
    let mut all = Vec::new();
    // Each library needs all others, each program one of them.
    let names: Vec<String> = (0..250).map(|number| format!("libn{number}.so.1")).collect();
    let needed: Vec<&str> = names.iter().map(String::as_str).collect();
    let library = Program { needed: &needed, ..LIBRARY }.bytes();
    let workshop = Workshop::new();
    let paths: Vec<String> = names.iter().map(|name| format!("usr/lib/{name}")).collect();
    let mut entries: Vec<(&str, Lies<'_>)> = debian(vec![]);
    entries.extend(paths.iter().map(|path| (path.as_str(), Lies::File(library.clone()))));
    write_base(&workshop.path("base.tar"), &entries);
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    let program = Program { needed: &["libn0.so.1"], ..PROGRAM }.bytes();
    let files = (0..2000).map(|number| Entry::File(format!("tarsstat/bin/p{number}"), program.clone(), true));
    let own = Entry::File("tarsstat/bin/tarsstat".to_owned(), program.clone(), true);
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), files.chain([own]).collect());
    let mut attack =
        Attack::new("2,000 programs, 250 libraries", workshop.folder, &["build", "framework.yaml"])
            .saying("more than 200000 places where a library is looked for");
    attack.leaves.push("cache".to_owned());
    all.push(attack);

    // Every program needs 200 libraries of names of its own that are nowhere.
    let workshop = Workshop::new();
    write_base(&workshop.path("base.tar"), &debian(vec![]));
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    let files = (0..40).map(|number| {
        let names: Vec<String> =
            (0..200).map(|at| format!("lib{}{number}-{at}.so.1", "x".repeat(150))).collect();
        let needed: Vec<&str> = names.iter().map(String::as_str).collect();
        let program = Program { needed: &needed, runpath: "/home/\u{1b}[2Jx", ..PROGRAM }.bytes();
        Entry::File(format!("tarsstat/bin/p{number}"), program, true)
    });
    let own = Entry::File("tarsstat/bin/tarsstat".to_owned(), program, true);
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), files.chain([own]).collect());
    let mut attack =
        Attack::new("8,000 needs", workshop.folder, &["build", "framework.yaml"]).saying("more findings");
    attack.leaves.push("cache".to_owned());
    all.push(attack);
    all_hold("many programs", 2, all);
}
