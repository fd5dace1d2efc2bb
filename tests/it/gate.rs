//! The gate: programs that a base cannot run are refused by name, and only those.

use std::fs;

use tarsup::contents::Contents;
use tarsup::tars::Service;
use tarsup::transport::layout;

use crate::packages::{Entry, Packer, RECIPE, Workshop, entries};
use crate::programs::{LIBRARY, LOADER, Lies, PROGRAM, Program, debian, write_base};

/// What every program of C++ needs.
const CXX: Program<'static> = Program { needed: &["libstdc++.so.6", "libc.so.6"], ..PROGRAM };
const LIBSTDCXX_32: &[(&str, &[&str])] =
    &[("libstdc++.so.6", &["GLIBCXX_3.4.31", "GLIBCXX_3.4.32", "CXXABI_1.3"])];

/// A framework on a small Debian with these entries more.
fn on_debian(further: Vec<(&'static str, Lies<'static>)>) -> Workshop {
    let workshop = Workshop::new();
    write_base(&workshop.path("base.tar"), &debian(further));
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    workshop
}

/// Packs a service whose program this is.
fn pack(workshop: &Workshop, service: Service, program: Program<'_>) {
    let file = Entry::File(format!("{service}/{service}"), program.bytes(), true);
    Packer::default().write(&workshop.path(&format!("packages/{service}.tgz")), vec![file]);
}

fn refused(workshop: &Workshop) -> String {
    workshop.refused(&["build", "framework.yaml"], 3)
}

/// What is said beside a build that is done.
fn warned(workshop: &Workshop, arguments: &[&str]) -> String {
    let output = workshop.run(arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    words
}

#[test]
fn version_of_symbols_that_the_base_lacks_is_refused_unless_waived() {
    let workshop = on_debian(vec![]);
    pack(&workshop, Service::Stat, CXX);
    workshop.json(&["build", "framework.yaml"]);
    pack(&workshop, Service::Stat, Program { versions: LIBSTDCXX_32, ..CXX });
    let words = refused(&workshop);
    let expected = "tarsstat needs GLIBCXX_3.4.32; base.tar has up to GLIBCXX_3.4.30 (libstdc++.so.6.0.30) | take a newer base";
    assert!(words.starts_with(expected), "{words}");
    assert!(words.contains("(base.tar has libstdc++6 12.2.0-14)"), "{words}");
    assert!(words.contains("`waive: [tarsstat:GLIBCXX_3.4.32]`"), "{words}");
    assert!(words.contains("framework.yaml"), "{words}");

    for waiver in ["tarsstat:GLIBCXX_3.4.32", "*:GLIBCXX_3.4.32"] {
        let words = warned(&workshop, &["build", "framework.yaml", "--waive", waiver]);
        assert!(words.contains("warning: tarsstat needs GLIBCXX_3.4.32, as waived"), "{words}");
    }
    let recipe = fs::read_to_string(workshop.path("framework.yaml")).unwrap();
    workshop.write("waived.yaml", &format!("{recipe}waive: [tarsstat:GLIBCXX_3.4.32, tarslog:libx.so.1]\n"));
    let words = warned(&workshop, &["build", "waived.yaml"]);
    assert!(words.contains("`waive: tarslog:libx.so.1` waives nothing"), "{words}");
    workshop.write("unnamed.yaml", &format!("{recipe}waive: [abi]\n"));
    let words = workshop.refused(&["build", "unnamed.yaml"], 2);
    assert!(
        words.contains("names no program and what it needs") && words.contains("unnamed.yaml\":8"),
        "{words}"
    );
}

#[test]
fn library_that_no_layer_has_is_refused_with_its_debian_package_and_once_for_all_that_need_it() {
    let workshop = on_debian(vec![]);
    for service in [Service::Stat, Service::Log] {
        pack(&workshop, service, Program { needed: &["libc.so.6", "libmariadb.so.3"], ..PROGRAM });
    }
    pack(&workshop, Service::Notify, Program { needed: &["libz.so.1"], ..PROGRAM });
    let output = workshop.run(&["build", "framework.yaml"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(words.contains("error: tarsstat, tarslog need libmariadb.so.3; no layer has it\n"), "{words}");
    assert!(words.contains("add the Debian package libmariadb3 to base.tar"), "{words}");
    assert!(words.contains("error: tarsnotify needs libz.so.1; no layer has it\n"), "{words}");
    assert!(words.contains("base.tar lists the Debian package zlib1g, and yet its file is gone"), "{words}");
}

#[test]
fn library_is_found_where_a_loader_looks_and_nowhere_else() {
    let odd = Program { machine: 183, ..LIBRARY };
    let needs = |needed: &'static [&'static str]| Program { needed, ..PROGRAM };
    let lies = |program: Program<'_>| Lies::File(program.bytes());
    let mariadb = Program { needed: &["libssl.so.3"], rpath: "$ORIGIN/ssl", ..LIBRARY };
    let further = || {
        vec![
            ("opt/lib/libopt.so.1", lies(LIBRARY)),
            ("srv", Lies::Folder),
            ("srv/libsrv.so.1", lies(LIBRARY)),
            ("usr/lib/libodd.so.1", lies(odd)),
            ("opt/db", Lies::Folder),
            ("opt/db/libmariadb.so.3", lies(mariadb)),
            ("opt/db/ssl/libssl.so.3", lies(Program { needed: &["libcrypto.so.3"], ..LIBRARY })),
        ]
    };
    let ours =
        |name: &str, program: Program<'_>| Entry::File(format!("tarsstat/{name}"), program.bytes(), true);
    for (name, program, wanted) in [
        ("a folder of ld.so.conf", needs(&["libopt.so.1"]), None),
        ("a link of the base", needs(&["libstdc++.so.6"]), None),
        (
            "no folder that is searched",
            needs(&["libsrv.so.1"]),
            Some("tarsstat needs libsrv.so.1; no layer has it"),
        ),
        ("RUNPATH", Program { runpath: "/srv", ..needs(&["libsrv.so.1"]) }, None),
        ("RPATH", Program { rpath: "/srv", ..needs(&["libsrv.so.1"]) }, None),
        (
            "RUNPATH with $ORIGIN",
            Program { runpath: "${ORIGIN}/../../../../../../srv", ..needs(&["libsrv.so.1"]) },
            None,
        ),
        ("the machine of another", needs(&["libodd.so.1"]), Some("libodd.so.1")),
        ("beside the program, as tars-init starts it", needs(&["libours.so.1"]), None),
        ("a path", needs(&["/srv/libsrv.so.1"]), None),
        // What a library needs in its turn: RUNPATH counts for the program alone, RPATH for all below.
        (
            "a library's own",
            Program { runpath: "/opt/db", ..needs(&["libmariadb.so.3"]) },
            Some("tarsstat needs libcrypto.so.3 (for libssl.so.3)"),
        ),
        (
            "RPATH from above",
            Program { rpath: "/opt/db:/srv", ..needs(&["libmariadb.so.3", "libcrypto.so.3"]) },
            Some("tarsstat needs libcrypto.so.3;"),
        ),
        (
            "another loader",
            Program { interpreter: Some("/lib/ld-musl-x86_64.so.1"), ..PROGRAM },
            Some("the loader /lib/ld-musl-x86_64.so.1; no layer has it"),
        ),
    ] {
        let workshop = on_debian(further());
        let entries = vec![ours("bin/tarsstat", program), ours("bin/libours.so.1", LIBRARY)];
        Packer::default().write(&workshop.path("packages/tarsstat.tgz"), entries);
        match wanted {
            None => assert!(!warned(&workshop, &["build", "framework.yaml"]).contains("RUNPATH"), "{name}"),
            Some(wanted) => {
                let words = refused(&workshop);
                assert!(words.contains(wanted), "{name}: {words}");
            }
        }
    }
}

#[test]
fn library_of_our_own_counts_where_the_loader_sees_it() {
    let workshop = on_debian(vec![]);
    fs::write(
        workshop.path("prog"),
        Program { needed: &["libx.so.1"], versions: &[("libx.so.1", &["X_2"])], ..PROGRAM }.bytes(),
    )
    .unwrap();
    let library =
        |exports| fs::write(workshop.path("libx.so.1"), Program { exports, ..LIBRARY }.bytes()).unwrap();
    library(&["libx.so.1", "X_1", "X_2"]);
    let recipe = |path: &str, more: &str| {
        let text = format!(
            "name: x\nversion: 1\nrole: plain\nbase: rootfs:base.tar\nfiles: {{prog: /bin/prog, libx.so.1: {path}}}\n{more}"
        );
        workshop.write("x.yaml", &text);
    };
    recipe("/usr/lib/libx.so.1", "");
    workshop.json(&["build", "x.yaml"]);
    recipe("/lib/x86_64-linux-gnu/libx.so.1", "");
    workshop.json(&["build", "x.yaml"]);
    recipe("/opt/lib/libx.so.1", "");
    let words = workshop.refused(&["build", "x.yaml"], 3);
    assert!(
        words.contains("/bin/prog needs libx.so.1; it lies in /opt/lib, where its loader does not look"),
        "{words}"
    );
    assert!(words.contains("ld.so.cache"), "{words}");
    recipe("/opt/lib/libx.so.1", "env: {LD_LIBRARY_PATH: /opt/lib}\n");
    workshop.json(&["build", "x.yaml"]);
    library(&["libx.so.1", "X_1"]);
    let words = workshop.refused(&["build", "x.yaml"], 3);
    assert!(words.contains("/bin/prog needs X_2; layer files has up to X_1 (libx.so.1)"), "{words}");
}

#[test]
fn static_program_and_library_without_versions_are_taken() {
    let workshop = on_debian(vec![("usr/lib/libplain.so.1", Lies::File(LIBRARY.bytes()))]);
    pack(&workshop, Service::Log, Program { interpreter: None, ..PROGRAM });
    let versions: &[(&str, &[&str])] = &[("libplain.so.1", &["PLAIN_1"])];
    pack(&workshop, Service::Stat, Program { needed: &["libplain.so.1"], versions, ..PROGRAM });
    workshop.json(&["build", "framework.yaml"]);
    // Without a base there is no loader.
    workshop.write("scratch.yaml", RECIPE);
    let words = workshop.refused(&["build", "scratch.yaml"], 3);
    assert!(words.contains(&format!("tarsstat needs the loader {LOADER}; no layer has it")), "{words}");
}

#[test]
fn search_path_left_from_a_build_is_reported_and_refused_with_strict() {
    let workshop = on_debian(vec![]);
    for service in [Service::Stat, Service::Log] {
        pack(&workshop, service, Program { runpath: "/home/ci/build/lib:/opt/lib:$ORIGIN", ..CXX });
    }
    let words = warned(&workshop, &["build", "framework.yaml"]);
    assert!(
        words
            .contains("warning: tarsstat, tarslog: RUNPATH names /home/ci/build/lib: no folder of the image"),
        "{words}"
    );
    let words = workshop.refused(&["build", "framework.yaml", "--strict"], 3);
    assert!(words.contains("RUNPATH names /home/ci/build/lib"), "{words}");
    warned(&workshop, &["build", "framework.yaml", "--strict", "--waive", "*:RUNPATH"]);
    pack(&workshop, Service::Stat, Program { runpath: "lib", ..CXX });
    let words = warned(&workshop, &["build", "framework.yaml"]);
    assert!(words.contains("tarsstat: RUNPATH names the folder that a program is started in"), "{words}");
}

#[test]
fn list_tells_what_the_base_offers_and_a_patch_is_judged_by_it() {
    let workshop = on_debian(vec![("usr/lib/x86_64-linux-gnu/gconv/UTF-7.so", Lies::File(LIBRARY.bytes()))]);
    pack(&workshop, Service::Stat, CXX);
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    let image = layout::read(&workshop.path("out"), Some("1")).unwrap();
    let offers = Contents::of(&image).unwrap().unwrap().parts["base"].offers.clone().unwrap();
    let names: Vec<&str> = offers.libraries.keys().map(|path| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["ld-linux-x86-64.so.2", "libc.so.6", "libstdc++.so.6.0.30"]);
    let libstdcxx = &offers.libraries["usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30"];
    assert!(libstdcxx.exports.contains("GLIBCXX_3.4.30") && libstdcxx.needed == ["libc.so.6"]);
    assert_eq!(offers.folders, ["opt/lib"]);
    let packages: Vec<(&str, &str)> =
        offers.packages.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
    assert_eq!(packages, [("libstdc++6", "12.2.0-14"), ("zlib1g", "1:1.2.13")]);

    // No base is at hand for a patch.
    fs::remove_file(workshop.path("base.tar")).unwrap();
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let patch = |program: Program<'_>| {
        pack(&workshop, Service::Stat, program);
        let arguments = [
            "build",
            "--patch",
            "tarsstat=packages/tarsstat.tgz",
            "--version",
            "2",
            "oci:out:1",
            "-o",
            "oci:out:2",
        ];
        workshop.command(&arguments).arg("--json").output().unwrap()
    };
    let output = patch(Program { versions: LIBSTDCXX_32, ..CXX });
    let words = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(
        words.contains("tarsstat needs GLIBCXX_3.4.32; the base of oci:out:1 has up to GLIBCXX_3.4.30"),
        "{words}"
    );
    let versions: &[(&str, &[&str])] = &[("libstdc++.so.6", &["GLIBCXX_3.4.30"])];
    let output = patch(Program { versions, ..CXX });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let image = layout::read(&workshop.path("out"), Some("2")).unwrap();
    assert_eq!(Contents::of(&image).unwrap().unwrap().parts["base"].offers.as_ref(), Some(&offers));
}

#[test]
fn cold_build_after_an_image_is_judged_as_a_warm_one() {
    let workshop = on_debian(vec![]);
    pack(&workshop, Service::Stat, CXX);
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    pack(&workshop, Service::Stat, Program { needed: &["libc.so.6"], ..CXX });
    let build = ["build", "framework.yaml", "--version", "2", "--after", "oci:out:1", "-o", "oci:out:2"];
    let warm = workshop.json(&build);
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    assert_eq!(workshop.json(&build)["digest"], warm["digest"]);
    for _ in ["without a cache", "with what was noted"] {
        assert_eq!(workshop.json(&build)["digest"], warm["digest"]);
    }
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    pack(&workshop, Service::Stat, Program { versions: LIBSTDCXX_32, ..CXX });
    assert!(workshop.refused(&build, 3).contains("base.tar has up to GLIBCXX_3.4.30"));
}

/// The bundle, with a tarsnode that is a program.
fn pack_tarsnode(workshop: &Workshop) {
    let others = Service::ALL.into_iter().filter(|service| service.is_core() && *service != Service::Node);
    let mut all: Vec<Entry> = others.flat_map(|service| entries(service, "3.0.17")).collect();
    all.push(Entry::File("tarsnode/bin/tarsnode".to_owned(), PROGRAM.bytes(), true));
    Packer::default().write(&workshop.path("packages/framework.tgz"), all);
}

#[test]
fn what_tarsnodes_scripts_need_is_warned_about_by_name_and_refused_with_strict() {
    let command = ["build", "framework.yaml"];
    let file = |name: &'static str| (name, Lies::File(b"x".to_vec()));
    let all =
        || vec![("usr/bin", Lies::Folder), file("usr/bin/ps"), file("usr/bin/top"), file("etc/profile")];
    let with_shell = |mut all: Vec<(&'static str, Lies<'static>)>| {
        all.extend([
            file("usr/bin/dash"),
            ("usr/bin/sh", Lies::Link("dash")),
            ("bin", Lies::Link("usr/bin")),
        ]);
        all
    };
    let workshop = on_debian(with_shell(all()));
    pack_tarsnode(&workshop);
    let words = warned(&workshop, &[&command[..], &["--strict"]].concat());
    assert!(!words.contains("warning"), "{words}");
    for (lacking, waiver, why) in [
        (
            "usr/bin/dash",
            "tarsnode:/bin/sh",
            "that need /bin/sh, and base.tar has none: add the Debian package dash",
        ),
        (
            "etc/profile",
            "tarsnode:/etc/profile",
            "that need /etc/profile, and base.tar has none: add the Debian package base-files",
        ),
        (
            "usr/bin/top",
            "tarsnode:procps",
            "that need `ps` and `top` (procps), and base.tar has none: add the Debian package procps",
        ),
    ] {
        let entries = with_shell(all()).into_iter().filter(|(name, _)| *name != lacking).collect();
        let workshop = on_debian(entries);
        pack_tarsnode(&workshop);
        let words = warned(&workshop, &command);
        assert!(
            words.contains(&format!(
                "warning: tarsnode: it starts and restarts services through scripts {why}"
            )),
            "{words}"
        );
        let words = workshop.refused(&[&command[..], &["--strict"]].concat(), 3);
        assert!(words.contains(why), "{words}");
        warned(&workshop, &[&command[..], &["--strict", "--waive", waiver]].concat());
        // A node has a tarsnode as well.
        workshop.write(
            "node.yaml",
            &fs::read_to_string(workshop.path("framework.yaml"))
                .unwrap()
                .replace("role: framework", "role: node"),
        );
        assert!(warned(&workshop, &["build", "node.yaml"]).contains(why));
    }
}
