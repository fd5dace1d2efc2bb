//! Packages and bases: tar archives of every kind of lie.

use std::fs;

use crate::attack::{Attack, all_hold};
use crate::packages::{RECIPE, Workshop};
use crate::tarballs::{Member, gzip, record, tar, xz};

/// tarsstat's package with these members more.
fn package(name: impl Into<String>, members: &[Member]) -> Attack {
    let program = Member::file("tarsstat/bin/tarsstat", b"#!/bin/sh\n").moded(0o755);
    let mut all = vec![program];
    all.extend_from_slice(members);
    raw(name, &gzip(&tar(&all)))
}

/// These bytes as tarsstat's package.
fn raw(name: impl Into<String>, bytes: &[u8]) -> Attack {
    let workshop = Workshop::new();
    fs::write(workshop.path("packages/tarsstat.tgz"), bytes).unwrap();
    Attack::new(name, workshop.folder, &["build", "framework.yaml"])
}

/// These bytes as the base.
fn base(name: impl Into<String>, bytes: &[u8]) -> Attack {
    let workshop = Workshop::new();
    fs::write(workshop.path("base.tar"), bytes).unwrap();
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    Attack::new(name, workshop.folder, &["build", "framework.yaml"])
}

/// Members that no archive may have: each is put into a package and into a base.
fn lies() -> Vec<(String, Vec<Member>)> {
    let mut lies: Vec<(String, Vec<Member>)> = Vec::new();
    let mut add = |name: &str, members: Vec<Member>| lies.push((name.to_owned(), members));
    let x = |name: &str| Member::file(name, b"x");
    for name in [
        "../x",
        "/etc/x",
        "a/../../x",
        "tarsstat/../../../x",
        "..",
        "tarsstat/.wh.bin",
        "tarsstat/.wh..wh..opq",
        ".wh.tarsstat",
    ] {
        add(&format!("a file {name}"), vec![x(name)]);
    }
    for (kind, what) in [(b'1', "a hard link"), (b'2', "a link")] {
        for target in ["../../../../etc/passwd", "/etc/shadow", "..", ""] {
            add(&format!("{what} to {target:?}"), vec![Member::odd(kind, "tarsstat/l", target)]);
        }
    }
    add("a hard link to itself", vec![Member::odd(b'1', "tarsstat/l", "tarsstat/l")]);
    add(
        "a hard link to what comes later",
        vec![Member::odd(b'1', "tarsstat/l", "tarsstat/m"), x("tarsstat/m")],
    );
    add("a file through a link", vec![Member::odd(b'2', "tarsstat/d", "/etc"), x("tarsstat/d/x")]);
    add(
        "a folder over a file",
        vec![x("tarsstat/f"), Member::odd(b'5', "tarsstat/f/", ""), x("tarsstat/f/g")],
    );
    for (kind, what) in [
        (b'3', "a device"),
        (b'4', "a block device"),
        (b'6', "a pipe"),
        (b'Z', "an unknown kind"),
        (b'V', "a volume header"),
        (b'M', "a continuation"),
    ] {
        add(what, vec![Member::odd(kind, "tarsstat/odd", "")]);
    }
    // Sizes.
    for (what, size) in [
        ("a size of -1", *b"-0000000001\0"),
        ("a size of letters", *b"abcdefghijk\0"),
        ("a size of 8 GiB", *b"77777777777\0"),
        ("a base-256 size of 2^63", *b"\x80\0\0\0\x80\0\0\0\0\0\0\0"),
        ("a negative base-256 size", [0xff; 12]),
        ("no size", *b"\0\0\0\0\0\0\0\0\0\0\0\0"),
    ] {
        add(what, vec![x("tarsstat/s").sized(&size)]);
    }
    add("a wrong checksum", vec![Member { lie: 1, ..x("tarsstat/c") }]);
    // PAX.
    for (what, records) in [
        ("a record without a length", b"path=x\n".to_vec()),
        ("a record without an end", b"20 path=abcdefghijk".to_vec()),
        ("a record that is longer than it says", b"9 path=abcdef\n".to_vec()),
        ("a record of length 0", b"0 path=x\n".to_vec()),
        ("a record of length 2^64", b"18446744073709551616 path=x\n".to_vec()),
        ("a record with a sign", b"+9 path=x\n".to_vec()),
        ("a record without a key", record("", "x")),
        ("a record without =", b"8 pathx\n".to_vec()),
        ("a record of nul", record("path", "a\0b")),
        ("a size of -1 in PAX", record("size", "-1")),
        ("a size of 2^64 in PAX", record("size", "18446744073709551616")),
        ("a size of letters in PAX", record("size", "many")),
        ("a size of 1 TB in PAX", record("size", "1000000000000")),
        ("a path of 5,000", record("path", &format!("tarsstat/{}", "p/".repeat(2500)))),
        ("a component of 300", record("path", &format!("tarsstat/{}", "p".repeat(300)))),
        ("a path above", record("path", "../x")),
        ("a path of escapes above", record("path", "../\u{1b}[2J")),
        ("a link path of 5,000", record("linkpath", &"l/".repeat(2500))),
        ("a capability", record("SCHILY.xattr.security.capability", "\u{1}\0\0\u{2}")),
        (
            "a sparse map that lies",
            [
                record("GNU.sparse.major", "1"),
                record("GNU.sparse.minor", "0"),
                record("GNU.sparse.realsize", "99999999999"),
            ]
            .concat(),
        ),
        (
            "a sparse map of another version",
            [
                record("GNU.sparse.major", "9"),
                record("GNU.sparse.minor", "0"),
                record("GNU.sparse.realsize", "1"),
            ]
            .concat(),
        ),
        (
            "sparse numbers that overflow",
            [
                record("GNU.sparse.size", "18446744073709551615"),
                record("GNU.sparse.numblocks", "1"),
                record("GNU.sparse.map", "18446744073709551615,18446744073709551615"),
            ]
            .concat(),
        ),
        (
            "a sparse map of a million pieces",
            [
                record("GNU.sparse.size", "1"),
                record("GNU.sparse.numblocks", "1000000"),
                record("GNU.sparse.map", "0,1"),
            ]
            .concat(),
        ),
    ] {
        let target =
            if what.contains("link path") { Member::odd(b'2', "tarsstat/l", "x") } else { x("tarsstat/pax") };
        add(what, vec![Member::pax(&records), target]);
    }
    add("PAX of 64 MB", vec![Member::pax(&record("comment", &"c".repeat(64 << 20))), x("tarsstat/pax")]);
    add(
        "PAX of 300,000 records",
        vec![Member::pax(&record("comment", "c").repeat(300_000)), x("tarsstat/pax")],
    );
    add("PAX about nothing", vec![Member::pax(&record("path", "tarsstat/x"))]);
    add(
        "PAX about PAX",
        vec![Member::pax(&record("path", "a")), Member::pax(&record("path", "b")), x("tarsstat/p")],
    );
    add(
        "a global PAX path",
        vec![Member { kind: b'g', ..Member::pax(&record("path", "../x")) }, x("tarsstat/p")],
    );
    // GNU long names.
    for (kind, what) in [(b'L', "a long name"), (b'K', "a long link")] {
        let long = |content: &[u8]| Member { kind, ..Member::file("././@LongLink", content) };
        let about = if kind == b'L' { x("tarsstat/n") } else { Member::odd(b'2', "tarsstat/n", "x") };
        add(&format!("{what} of 5,000"), vec![long(&b"tarsstat/".repeat(600)), about.clone()]);
        add(&format!("{what} of 32 MB"), vec![long(&vec![b'a'; 32 << 20]), about.clone()]);
        add(
            &format!("{what} of 8 GiB that is not there"),
            vec![long(b"a").sized(b"77777777777\0"), about.clone()],
        );
        add(&format!("{what} above"), vec![long(b"../../x\0"), about.clone()]);
        add(&format!("{what} about nothing"), vec![long(b"tarsstat/y\0")]);
        add(&format!("{what} twice"), vec![long(b"tarsstat/y\0"), long(b"tarsstat/z\0"), about]);
    }
    lies
}

/// Those that mean something in a root file system, or that every reader of tar reads alike.
fn is_harmless(name: &str, in_base: bool) -> bool {
    let everywhere = ["no size", "about nothing", "twice", "PAX about PAX", "a path of 5,000"];
    let base_too = [
        "a link to",
        "a device",
        "a block device",
        "a pipe",
        "/etc/x",
        "a capability",
        "through a link",
        "a folder over a file",
    ];
    everywhere.iter().any(|known| name.contains(known)) || (in_base && base_too.iter().any(|known| name.contains(known)))
        || name.contains("a long link") && !name.contains("8 GiB")
        // A link may lead where the image has something, or will have.
        || name.starts_with("a link to \"/etc")
        || name == "a link to \"..\""
}

#[test]
fn packages_that_lie_are_refused_by_name() {
    let attacks = lies().into_iter().map(|(name, members)| {
        let attack = package(format!("a package with {name}"), &members);
        if is_harmless(&name, false) { attack.or_taken() } else { attack.saying("tarsstat.tgz") }
    });
    all_hold("packages", 60, attacks.collect());
}

#[test]
fn bases_that_lie_are_refused_by_name() {
    let attacks = lies().into_iter().map(|(name, members)| {
        let mut all = vec![Member::odd(b'5', "etc/", ""), Member::file("etc/os-release", b"ID=x\n")];
        all.extend(members);
        let attack = base(format!("a base with {name}"), &tar(&all));
        if is_harmless(&name, true) { attack.or_taken() } else { attack.saying("base.tar") }
    });
    all_hold("bases", 60, attacks.collect());
}

#[test]
fn floods_and_bombs_of_archives_end_soon() {
    let many = |count: usize, name: fn(usize) -> String| -> Vec<Member> {
        (0..count).map(|number| Member::file(&name(number), b"")).collect()
    };
    let zeros = gzip(&tar(&[Member::file("tarsstat/zeros", &vec![0; 96 << 20])]));
    let small: Vec<Member> =
        (0..2000).map(|n| Member::file(&format!("tarsstat/f{n}"), &[n as u8; 16 << 10])).collect();
    let deep: Vec<Member> = (1..45).map(|n| Member::odd(b'5', &"a/".repeat(n), "")).collect();
    let nothing = tar(&[]);
    let mut attacks = vec![
        package("many zeros", &[Member::file("tarsstat/zeros", &vec![0; 96 << 20])]).or_taken(),
        package("2,000 small files", &small).or_taken(),
        package("150,000 empty files", &many(150_000, |n| format!("tarsstat/{n}"))).or_taken().within(96),
        package(
            "150,000 folders",
            &(0..150_000).map(|n| Member::odd(b'5', &format!("tarsstat/{n}/"), "")).collect::<Vec<_>>(),
        )
        .or_taken()
        .within(96),
        package("20,000 times one file", &many(20_000, |_| "tarsstat/one".to_owned())).or_taken(),
        package("folders in folders", &deep).or_taken(),
        raw("gzip in gzip", &gzip(&gzip(&zeros))),
        raw("gzip joined a thousand times", &gzip(&[0; 512]).repeat(1000)),
        raw("only its end", &gzip(&nothing)),
        raw(
            "an end and more",
            &gzip(&[nothing.clone(), tar(&[Member::file("tarsstat/later", b"x")])].concat()),
        ),
        raw("a header and no more", &gzip(&tar(&[Member::file("a", b"x")])[..512])),
        raw("no end", &gzip(&tar(&[Member::file("tarsstat/bin/tarsstat", b"x")])[..1024])),
        raw("a zip", b"PK\x03\x04 and more of it"),
        raw("bzip2", b"BZh91AY&SY"),
        raw("an xz header", b"\xfd7zXZ\0\0\x04"),
        raw("xz of many zeros", &xz(&tar(&[Member::file("tarsstat/zeros", &vec![0; 96 << 20])]))),
        raw("xz joined a thousand times", &xz(&[0; 512]).repeat(1000)),
        raw("xz of no block a thousand times", &xz(b"").repeat(1000)),
        raw("xz in gzip", &gzip(&xz(&zeros))),
        base("a base in xz without an end", &xz(&tar(&[Member::file("etc/os-release", b"x")])[..1024])),
        base("a base in xz and more", &[xz(&tar(&[Member::file("etc/x", b"x")])), vec![7; 5000]].concat()),
        raw("zstd that is cut", b"\x28\xb5\x2f\xfd\x04"),
        raw("a gzip header", b"\x1f\x8b\x08"),
        raw("a gzip with flags", b"\x1f\x8b\x08\xff\0\0\0\0\0\xff\xff\xff"),
        raw("nothing", b""),
        raw("nul", &[0; 1 << 20]),
        raw(
            "noise",
            &(0..1u32 << 18).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>(),
        ),
        base("only its end", &nothing),
        base("no end", &tar(&[Member::file("etc/os-release", b"x")])[..1024]),
        base("an end and more", &[nothing.clone(), tar(&[Member::file("etc/later", b"x")])].concat()),
        base("nothing", b""),
        base(
            "noise",
            &(0..1u32 << 18).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>(),
        ),
        base("150,000 empty files", &tar(&many(150_000, |n| format!("etc/{n}")))).or_taken(),
    ];
    let cut = gzip(&tar(&[Member::file("tarsstat/bin/tarsstat", &[7; 5000])]));
    for length in [1, 5, 10, 18, cut.len() / 2, cut.len() - 8, cut.len() - 1] {
        attacks.push(raw(format!("cut after {length} bytes"), &cut[..length]));
        attacks.push(base(format!("a base cut after {length} bytes"), &cut[..length]));
    }
    for at in [12, 20, cut.len() / 2, cut.len() - 6, cut.len() - 2] {
        let mut other = cut.clone();
        other[at] ^= 0x55;
        attacks.push(raw(format!("another byte at {at}"), &other));
    }
    all_hold("floods of archives", 40, attacks);
}
