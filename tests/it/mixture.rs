//! Of which release the parts of an image are: what is compiled into programs, what trees say, and what a recipe lists.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tarsup::tars::Service;

use crate::listless::take_lists_out;
use crate::packages::{Entry, Packer, RECIPE, Workshop};
use crate::programs::LIBRARY;

/// A program of one release. The RPC library is two versions ahead of the framework, as upstream's is, and what speaks to the
/// database has a connector with versions of its own.
fn program(service: Service, framework: &str, library: &str) -> Vec<u8> {
    let mut bytes = LIBRARY.bytes();
    let mut texts = vec![library.to_owned(), "not a version 8.8.8".to_owned()];
    let has_framework =
        service == Service::AdminRegistry || service == Service::Node && !framework.starts_with("2.");
    texts.extend(has_framework.then(|| framework.to_owned()));
    if !matches!(service, Service::Node | Service::Patch | Service::Log) {
        texts.push("10.8.8".to_owned());
    }
    if matches!(service, Service::Notify | Service::Stat | Service::Property) {
        texts.push("3.3.11".to_owned());
    }
    for text in texts {
        bytes.extend([b"\0", text.as_bytes(), b"\0", service.name().as_bytes()].concat());
    }
    bytes
}

fn entry(service: Service, framework: &str, library: &str) -> Entry {
    let folder = if service.is_core() { "bin/" } else { "" };
    Entry::File(format!("{service}/{folder}{service}"), program(service, framework, library), true)
}

fn pack(workshop: &Workshop, service: Service, framework: &str, library: &str) {
    let path = workshop.path(&format!("packages/{service}.tgz"));
    Packer::default().write(&path, vec![entry(service, framework, library)]);
}

fn pack_bundle(workshop: &Workshop, framework: &str, library: &str) {
    let core = Service::ALL.into_iter().filter(|service| service.is_core());
    let entries = core.map(|service| entry(service, framework, library)).collect();
    Packer::default().write(&workshop.path("packages/framework.tgz"), entries);
}

/// A workshop with all packages of one release.
fn workshop(framework: &str, library: &str) -> Workshop {
    let workshop = Workshop::new();
    pack_bundle(&workshop, framework, library);
    for service in Service::ALL.into_iter().filter(|service| !service.is_core()) {
        pack(&workshop, service, framework, library);
    }
    workshop
}

fn recipe(workshop: &Workshop, version: &str, more: &str) {
    let version = if version.is_empty() { String::new() } else { format!("version: {version}\n") };
    workshop.write("framework.yaml", &format!("{}{more}", RECIPE.replace("version: 3.0.17\n", &version)));
}

const BUILD: [&str; 2] = ["build", "framework.yaml"];

fn refused(workshop: &Workshop, exit: i32, words: &[&str]) {
    let message = workshop.refused(&BUILD, exit);
    for word in words {
        assert!(message.contains(word), "no `{word}` in {message}");
    }
    assert!(!workshop.path("store").exists(), "nothing is written");
}

fn said(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn packages_of_one_release_build_under_its_name_and_under_names_that_are_no_version() {
    for (framework, library) in
        [("3.0.17", "3.0.19"), ("2.4.17", "2.4.23"), ("3.1.0", "3.0.19"), ("3.0.20", "3.0.20")]
    {
        let workshop = workshop(framework, library);
        for version in [
            framework,
            &format!("{framework}-1"),
            &format!("{framework}-patched"),
            "1",
            "1-stat",
            "v9.9.9",
            "main-0a1b2c3",
        ] {
            recipe(&workshop, version, "");
            let output = workshop.run(&[&BUILD[..], &["--strict"]].concat());
            assert!(!said(&output).contains("warning"), "{framework} as {version}: {}", said(&output));
        }
    }
}

#[test]
fn version_that_is_not_compiled_in_is_refused_by_name() {
    for (framework, library) in [("3.0.17", "3.0.19"), ("2.4.17", "2.4.23"), ("3.0.20", "3.0.20")] {
        let workshop = workshop(framework, library);
        recipe(&workshop, "9.9.9-1", "");
        // Where the RPC library is of the same version, nothing sets the framework's apart.
        let own = if framework == library { format!("{framework}, 10.8.8") } else { framework.to_owned() };
        let has = format!("tarsAdminRegistry has {own} compiled in, and the image's version is 9.9.9");
        refused(
            &workshop,
            3,
            &[
                &has,
                "correct `version`",
                &format!("`versions: {{tarsAdminRegistry: {framework}}}`"),
                "framework.yaml",
            ],
        );
    }
    // The same where packages are known by their digest alone, and from the command line.
    let workshop = workshop("3.0.17", "3.0.19");
    said(&workshop.run(&BUILD));
    let message = workshop.refused(&[&BUILD[..], &["--version", "3.0.18"]].concat(), 3);
    assert!(message.contains("has 3.0.17 compiled in, and the image's version is 3.0.18"), "{message}");
    // On purpose.
    recipe(&workshop, "9.9.9", "versions: {tarsAdminRegistry: 3.0.17, tarsnode: 3.0.17}\n");
    said(&workshop.run(&BUILD));
}

#[test]
fn node_of_another_release_is_refused_where_it_or_its_bundle_tells() {
    let workshop = workshop("3.0.17", "3.0.19");
    let node = |version: &str, packages: &str| {
        let text = RECIPE.replace("role: framework", "role: node").replace("packages/*.tgz", packages);
        workshop.write("framework.yaml", &text.replace("3.0.17", version));
    };
    node("3.0.18", "packages/framework.tgz");
    refused(&workshop, 3, &["tarsAdminRegistry has 3.0.17 compiled in"]);
    Packer::default().write(&workshop.path("node.tgz"), vec![entry(Service::Node, "3.0.17", "3.0.19")]);
    node("9.9.9", "node.tgz");
    refused(&workshop, 3, &["tarsnode has 3.0.17, 3.0.19 compiled in, and the image's version is 9.9.9"]);
    node("3.0.17", "node.tgz");
    said(&workshop.run(&BUILD));
    // The tarsnode of 2.4 has the RPC library's version alone.
    Packer::default().write(&workshop.path("node.tgz"), vec![entry(Service::Node, "2.4.17", "2.4.23")]);
    node("2.4.17", "node.tgz");
    let text = said(&workshop.run(&BUILD));
    assert!(text.contains("tarsnode has 2.4.23 compiled in, that of its RPC library"), "{text}");
    assert!(text.contains("whether it is of 2.4.17 is not proven"), "{text}");
    // Since 3.0 it has its release, and no release of another first number has this library.
    let refused_alone = |version: &str, found: &str| {
        node(version, "node.tgz");
        let message = workshop.refused(&BUILD, 3);
        let sentence = format!("tarsnode has {found} compiled in, and the image's version is {version}");
        assert!(message.contains(&sentence), "{message}");
        assert!(message.contains(&format!("versions: {{tarsnode: {found}}}")), "{message}");
    };
    refused_alone("3.0.17", "2.4.23");
    refused_alone("9.9.9", "2.4.23");
    refused_alone("1.6.0", "2.4.23");
    Packer::default().write(&workshop.path("node.tgz"), vec![entry(Service::Node, "2.4.17", "3.0.19")]);
    refused_alone("3.0.17", "3.0.19");
    refused_alone("2.4.17", "3.0.19");
    // What the recipe lists may be, and one version that is the release's own.
    let text = fs::read_to_string(workshop.path("framework.yaml")).unwrap();
    workshop.write("framework.yaml", &format!("{text}versions: {{tarsnode: 3.0.19}}\n"));
    said(&workshop.run(&BUILD));
    node("3.0.19", "node.tgz");
    let text = said(&workshop.run(&BUILD));
    assert!(!text.contains("is not proven"), "{text}");
}

#[test]
fn packed_install_tree_says_its_version_as_the_folder_does() {
    let workshop = workshop("3.0.17", "3.0.19");
    let pack = |above: &str, version: &str| {
        fs::remove_dir_all(workshop.path("packages")).unwrap();
        fs::create_dir(workshop.path("packages")).unwrap();
        let service = |service: &Service| {
            let bytes = program(*service, "3.0.17", "3.0.19");
            Entry::File(format!("{above}framework/servers/{service}/bin/{service}"), bytes, true)
        };
        let mut entries: Vec<Entry> = Service::ALL.iter().map(service).collect();
        entries.push(Entry::File(
            format!("{above}FRAMEWORK_VERSION.txt"),
            version.as_bytes().to_vec(),
            false,
        ));
        Packer::default().write(&workshop.path("packages/tree.tgz"), entries);
    };
    for above in ["", "./", "deploy/"] {
        pack(above, "3.0.17\n");
        recipe(&workshop, "", "");
        assert_eq!(workshop.json(&BUILD)["image"], "tars/framework:3.0.17", "{above}");
        pack(above, "2.4.17");
        // Also of a package that was read before.
        for version in ["3.0.17", "3.0.17-1"] {
            recipe(&workshop, version, "");
            let message = workshop.refused(&BUILD, 3);
            assert!(
                message.contains("tree.tgz is of 2.4.17, and the image's version is 3.0.17"),
                "{message}"
            );
        }
        recipe(&workshop, "main-0a1b2c3", "");
        let message = workshop.refused(&BUILD, 3);
        assert!(
            message.contains("has 3.0.17 compiled in, and that of ") && message.contains("tree.tgz"),
            "{message}"
        );
        pack(above, "about three");
        let message = workshop.refused(&BUILD, 2);
        assert!(message.contains("FRAMEWORK_VERSION.txt` does not tell a release"), "{message}");
    }
}

#[test]
fn mixture_of_releases_is_refused_with_every_service_named_unless_the_recipe_lists_it() {
    let workshop = workshop("3.0.17", "3.0.19");
    pack(&workshop, Service::Stat, "2.4.17", "2.4.23");
    let words = [
        "tarsstat has 2.4.23 compiled in, and the other services 3.0.19: they are not of one release",
        "`versions: {tarsstat: 2.4.23}`",
    ];
    refused(&workshop, 3, &words);
    // A plan says the same, with all else.
    let output = workshop.run(&[&BUILD[..], &["--plan", "--json"]].concat());
    assert_eq!(output.status.code(), Some(3));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(plan["refused"][0]["message"].as_str().unwrap().starts_with("tarsstat has 2.4.23"), "{plan}");

    recipe(&workshop, "3.0.17", "versions: {tarsstat: 2.4.23}\n");
    let text = said(&workshop.run(&[&BUILD[..], &["--strict"]].concat()));
    let note =
        "tarsstat has 2.4.23 compiled in, and the other services 3.0.19: a mixture, as the recipe lists";
    assert!(text.contains(note), "{text}");
    // What is listed must be so.
    for (list, exit, words) in [
        (
            "{tarsstat: 2.4.22}",
            2,
            [
                "`versions: {tarsstat: 2.4.22}`",
                "has 2.4.23, 3.3.11, 10.8.8 compiled in",
                "framework.yaml\":9",
            ],
        ),
        (
            "{tarslog: 3.0.19}",
            3,
            ["tarsstat has 2.4.23 compiled in", "the other services 3.0.19", "tarsstat: 2.4.23"],
        ),
        ("{tarsstats: 2.4.23}", 2, ["tarsstats", "not a service", "framework.yaml\":9"]),
        ("{tarsstat: 2.4}", 2, ["2.4", "not three numbers", "framework.yaml\":9"]),
    ] {
        recipe(&workshop, "3.0.17", &format!("versions:\n  {}\n", list.trim_matches(['{', '}'])));
        fs::remove_dir_all(workshop.path("store")).ok();
        refused(&workshop, exit, &words);
    }
}

#[test]
fn bundle_of_another_release_than_the_common_services_is_refused_whatever_the_recipe_says() {
    let five = "tarsAdminRegistry, tarsregistry, tarsconfig, tarsnode, tarspatch have 2.4.23";
    for (version, words) in [
        ("3.0.17", ["tarsAdminRegistry has 2.4.17 compiled in, and the image's version is 3.0.17", five]),
        ("2.4.17", [five, "the other services 3.0.19"]),
        ("1", [five, "the other services 3.0.19"]),
    ] {
        let workshop = workshop("3.0.17", "3.0.19");
        pack_bundle(&workshop, "2.4.17", "2.4.23");
        recipe(&workshop, version, "");
        let output = workshop.run(&BUILD);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{text}");
        for word in words {
            assert!(text.contains(word), "{version}: {text}");
        }
    }
}

#[test]
fn library_that_all_services_have_hides_no_mixture() {
    let workshop = workshop("3.0.17", "3.0.19");
    for service in Service::ALL {
        let library = if service == Service::Log { "3.0.20" } else { "3.0.19" };
        let mut bytes = program(service, "3.0.17", library);
        bytes.extend(b"\x001.43.0\0");
        let folder = if service.is_core() { "bin/" } else { "" };
        let file = Entry::File(format!("{service}/{folder}{service}"), bytes, true);
        Packer::default().write(&workshop.path(&format!("packages/{service}.tgz")), vec![file]);
    }
    fs::remove_file(workshop.path("packages/framework.tgz")).unwrap();
    refused(&workshop, 3, &["tarslog has 3.0.20 compiled in, and the other services 3.0.19"]);
}

#[test]
fn patched_service_is_exempt_and_stays_so_for_what_is_built_after_it() {
    let workshop = workshop("3.0.17", "3.0.19");
    said(&workshop.run(&BUILD));
    pack(&workshop, Service::Stat, "2.4.17", "2.4.23");
    let patch = [
        "build",
        "--patch",
        "tarsstat=packages/tarsstat.tgz",
        "--version",
        "3.0.17-1",
        "tars/framework:3.0.17",
    ];
    said(&workshop.run(&patch));
    let inspected = said_out(&workshop.run(&["inspect", "tars/framework:3.0.17-1"]));
    assert!(inspected.contains("(patched)"), "{inspected}");
    assert!(inspected.contains("the rule of one release does not hold for it"), "{inspected}");

    let next = ["build", "framework.yaml", "--version", "3.0.17-2", "--after"];
    let message = workshop.refused(&[&next[..], &["tars/framework:3.0.17"]].concat(), 3);
    assert!(message.contains("tarsstat has 2.4.23 compiled in"), "{message}");
    let text = said(&workshop.run(&[&next[..], &["tars/framework:3.0.17-1"]].concat()));
    assert!(text.contains("a mixture, as the predecessor was patched"), "{text}");
    pack(&workshop, Service::Log, "2.4.17", "2.4.23");
    let message = workshop.refused(&[&next[..], &["tars/framework:3.0.17-1"]].concat(), 3);
    assert!(message.contains("tarslog has 2.4.23 compiled in"), "{message}");
}

#[test]
fn patch_tells_of_which_release_its_service_is_and_so_does_inspect() {
    let workshop = workshop("3.0.17", "3.0.19");
    said(&workshop.run(&BUILD));
    let patch = |service: Service, framework: &str, library: &str, image: &str, version: &str| {
        Packer::default().write(&workshop.path("next.tgz"), vec![entry(service, framework, library)]);
        let patch = format!("{service}=next.tgz");
        let text = said(&workshop.run(&["build", "--patch", &patch, "--version", version, image]));
        let image = format!("tars/framework:{version}");
        let part = workshop.json(&["inspect", &image])["parts"].as_array().unwrap().iter().find_map(|part| {
            (part["name"] == service.name()).then(|| part["release"].as_str().unwrap().to_owned())
        });
        let inspected = said_out(&workshop.run(&["inspect", &image]));
        let sentence = part.unwrap();
        assert!(inspected.contains(&format!("\n    {sentence}\n")), "{inspected}");
        (text, sentence)
    };
    let other = "2.4.23 compiled in, and the other services 3.0.19";
    let framework_differs = "3.0.18 compiled in, and the framework of the image is 3.0.17";
    let image = "tars/framework:3.0.17";
    for (service, framework, library, told, is_mixture) in [
        (Service::Stat, "3.0.17", "3.0.19", "3.0.19 compiled in, as the other services", false),
        (Service::Stat, "2.4.17", "2.4.23", other, true),
        (Service::Node, "3.0.17", "3.0.19", "3.0.19 compiled in, as the other services", false),
        (Service::Node, "3.0.18", "3.0.19", framework_differs, true),
    ] {
        let (text, sentence) = patch(service, framework, library, image, "1");
        let expected =
            format!("{service} is patched: it has {told}; the rule of one release does not hold for it");
        assert_eq!(sentence, expected);
        let note = format!("{service} has {told}: a mixture, which a patched service may be");
        assert_eq!((text.contains(&note), text.contains("a mixture")), (is_mixture, is_mixture), "{text}");
    }
    // What was patched before is none of the others, and keeps what is said of it.
    let (text, _) = patch(Service::Stat, "2.4.17", "2.4.23", image, "1");
    assert!(text.contains(other), "{text}");
    let (text, _) = patch(Service::Log, "2.4.17", "2.4.23", "tars/framework:1", "2");
    assert!(text.contains(&format!("tarslog has {other}")), "{text}");
    let inspected = said_out(&workshop.run(&["inspect", "tars/framework:2"]));
    for service in ["tarsstat", "tarslog"] {
        assert!(inspected.contains(&format!("{service} is patched: it has {other}; ")), "{inspected}");
    }
    // An image whose list says nothing of versions, as those of an older tarsup.
    workshop.json(&["copy", image, "oci:out:1"]);
    take_lists_out(&workshop);
    let (text, sentence) = patch(Service::Log, "2.4.17", "2.4.23", "oci:out:old", "3");
    assert!(!text.contains("a mixture"), "{text}");
    assert!(
        sentence.contains("2.4.23 compiled in; what the other services have, the image's list does not tell")
    );
}

fn said_out(output: &std::process::Output) -> String {
    said(output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tree_says_the_version_where_the_recipe_does_not_and_is_refused_where_it_says_another() {
    let workshop = workshop("3.0.17", "3.0.19");
    recipe(&workshop, "", "");
    refused(&workshop, 2, &["missing field `version`", "FRAMEWORK_VERSION.txt", "framework.yaml"]);

    // Beside `deploy`, beside packages, and in an install tree.
    fs::create_dir(workshop.path("tree")).unwrap();
    fs::rename(workshop.path("deploy"), workshop.path("tree/framework")).unwrap();
    let in_tree = |version: &str| {
        recipe(&workshop, version, "");
        let text = fs::read_to_string(workshop.path("framework.yaml")).unwrap();
        workshop.write("framework.yaml", &text.replace("deploy: deploy", "deploy: tree/framework"));
    };
    for file in ["tree/FRAMEWORK_VERSION.txt", "packages/FRAMEWORK_VERSION.txt"] {
        workshop.write(file, "3.0.17\n");
        in_tree("");
        let built = workshop.json(&BUILD);
        assert_eq!(built["image"], "tars/framework:3.0.17", "{file}");
        // What the tree says counts also under a name that is no version.
        workshop.write(file, "2.4.17");
        in_tree("main-0a1b2c3");
        let message = workshop.refused(&BUILD, 3);
        assert!(
            message.contains("has 3.0.17 compiled in, and that of ") && message.contains(file),
            "{message}"
        );
        in_tree("3.0.17");
        let message = workshop.refused(&BUILD, 3);
        assert!(
            message.contains(&format!("{file} is of 2.4.17, and the image's version is 3.0.17")),
            "{message}"
        );
        assert_eq!(workshop.run(&[&BUILD[..], &["--version", "3.0.17-1"]].concat()).status.code(), Some(3));
        workshop.write(file, "about three");
        let message = workshop.refused(&BUILD, 2);
        assert!(message.contains(file) && message.contains("names no version"), "{message}");
        fs::remove_file(workshop.path(file)).unwrap();
    }
    workshop.write("tree/FRAMEWORK_VERSION.txt", "3.0.17");
    workshop.write("packages/FRAMEWORK_VERSION.txt", "3.0.18");
    in_tree("");
    let message = workshop.refused(&BUILD, 2);
    assert!(message.contains("it says 3.0.17, and ") && message.contains("3.0.18"), "{message}");
    for file in ["tree/FRAMEWORK_VERSION.txt", "packages/FRAMEWORK_VERSION.txt"] {
        fs::remove_file(workshop.path(file)).unwrap();
    }

    for service in Service::ALL {
        let bin = workshop.path(&format!("installed/framework/servers/{service}/bin"));
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join(service.name()), program(service, "3.0.17", "3.0.19")).unwrap();
    }
    workshop.write("installed/FRAMEWORK_VERSION.txt", "3.0.17");
    let installed = [&BUILD[..], &["--packages", "installed"]].concat();
    assert_eq!(workshop.json(&installed)["image"], "tars/framework:3.0.17");
    // A build of which nothing else changed hears of it too.
    workshop.write("installed/FRAMEWORK_VERSION.txt", "3.0.18");
    let message = workshop.refused(&[&installed[..], &["--version", "3.0.17"]].concat(), 3);
    assert!(message.contains("FRAMEWORK_VERSION.txt is of 3.0.18"), "{message}");
}

#[test]
fn real_releases_build_as_what_they_are_and_no_mixture_of_them_does() {
    let Some(real) = crate::beside::folder("real", "real_releases_build_as_what_they_are") else { return };
    let workshop = Workshop::new();
    // No file system: what its programs need is not what is asked here.
    let waive = "waive: ['*:ld-linux-x86-64.so.2', '*:RUNPATH', 'tarsnode:/bin/sh', 'tarsnode:/etc/profile', 'tarsnode:procps']\n";
    let lay_out = |from: [(&str, &[&str]); 2]| {
        for (release, packages) in from {
            for package in packages {
                let place = workshop.path("packages").join(package);
                fs::remove_file(&place).ok();
                std::os::unix::fs::symlink(real.join(release).join(package), place).unwrap();
            }
        }
    };
    let common: Vec<String> = Service::ALL
        .iter()
        .filter(|service| !service.is_core())
        .map(|service| format!("{service}.tgz"))
        .collect();
    let common: Vec<&str> = common.iter().map(String::as_str).collect();
    let build = |version: &str, command: &[&str]| {
        recipe(&workshop, version, waive);
        workshop.run(&[&BUILD[..], &["--plan"], command].concat())
    };
    let refusal = |output: &std::process::Output| {
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (release, other) in [("2.4.17", "v3.0.17"), ("3.0.17", "v2.4.17")] {
        let folder = format!("v{release}");
        lay_out([(&folder, &["framework.tgz"]), (&folder, &common)]);
        said(&build(release, &["--strict"]));
        let text = refusal(&build("9.9.9", &[]));
        assert!(text.contains(&format!("tarsAdminRegistry has {release} compiled in")), "{text}");
        lay_out([(other, &["tarslog.tgz"]), (other, &[])]);
        let text = refusal(&build(release, &[]));
        assert!(text.contains("tarslog has ") && text.contains("they are not of one release"), "{text}");
    }
    // Two services of a later build of the same release.
    lay_out([("v3.0.17", &["tarslog.tgz"]), ("v3.0.17-patched", &["tarsstat.tgz", "tarsnotify.tgz"])]);
    said(&build("3.0.17-patched", &["--strict"]));
    lay_out([("v2.4.17", &["framework.tgz"]), ("v2.4.17", &[])]);
    let text = refusal(&build("3.0.17", &[]));
    assert!(text.contains("tarsAdminRegistry has 2.4.17 compiled in"), "{text}");
    assert!(text.contains("tarsAdminRegistry, tarsregistry, tarsconfig, tarsnode, tarspatch"), "{text}");
    // Upstream's tree says of which release it is.
    lay_out([("v3.0.17", &["framework.tgz"]), ("v3.0.17", &common)]);
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(real.join("v3.0.17/deploy.tgz")).arg("-C").arg(workshop.folder.path());
    assert!(unpack.status().unwrap().success());
    recipe(&workshop, "", waive);
    let text = fs::read_to_string(workshop.path("framework.yaml")).unwrap();
    workshop.write("framework.yaml", &text.replace("deploy: deploy", "deploy: deploy/framework"));
    let plan = workshop.json(&[&BUILD[..], &["--plan"]].concat());
    assert_eq!(plan["image"], "tars/framework:3.0.17");
}
