//! `inspect` and its bill of materials: what is visible, where it comes from, and the same bytes each time.

use std::collections::BTreeMap;
use std::fs;

use cyclonedx_bom::prelude::{Bom, SpecVersion, Validate as _};
use serde_json::Value;
use tarsup::oci::Digest;
use tarsup::tars::Service;

use crate::packages::{Entry, Packer, RECIPE, Workshop, entries};
use crate::programs::{LIBRARY, Lies, PROGRAM, Program, debian, write_base};

const STAT: Program<'static> =
    Program { needed: &["libstdc++.so.6", "libown.so.1", "libc.so.6"], build_id: b"\xab\xcd\x01", ..PROGRAM };

/// A framework on a small Debian; tarsstat is a program with a library of its own.
fn workshop() -> Workshop {
    let workshop = Workshop::new();
    write_base(&workshop.path("base.tar"), &debian(vec![("bin", Lies::Folder)]));
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    pack(&workshop, STAT);
    workshop
}

fn pack(workshop: &Workshop, program: Program<'_>) {
    let own = Program { needed: &["libc.so.6"], build_id: b"\x0f", ..LIBRARY };
    let files = vec![
        Entry::File("tarsstat/tarsstat".to_owned(), program.bytes(), true),
        Entry::File("tarsstat/libown.so.1".to_owned(), own.bytes(), true),
    ];
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), files);
}

/// The bill of an image, known to be one.
fn bill(workshop: &Workshop, image: &str) -> (Vec<u8>, Value) {
    workshop.json(&["inspect", image, "--sbom", "bill.json"]);
    let bytes = fs::read(workshop.path("bill.json")).unwrap();
    let bom = Bom::parse_from_json_v1_5(bytes.as_slice()).unwrap();
    let judged = bom.validate_version(SpecVersion::V1_5);
    assert!(judged.passed(), "{judged:?}");
    (bytes.clone(), serde_json::from_slice(&bytes).unwrap())
}

fn component<'a>(bill: &'a Value, name: &str) -> &'a Value {
    let components = bill["components"].as_array().unwrap();
    components
        .iter()
        .find(|component| component["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {bill:#}"))
}

fn told(component: &Value, name: &str) -> Vec<String> {
    let properties = component["properties"].as_array().into_iter().flatten();
    let named = properties.filter(|property| property["name"] == format!("tarsup:{name}"));
    named.map(|property| property["value"].as_str().unwrap().to_owned()).collect()
}

fn digest_of(workshop: &Workshop, file: &str) -> String {
    Digest::of(fs::read(workshop.path(file)).unwrap()).to_string()
}

#[test]
fn bill_tells_packages_builds_and_libraries_in_the_same_bytes_each_time() {
    let workshop = workshop();
    workshop.json(&["build", "framework.yaml", "-o", "tars/framework:3.0.17", "-o", "oci:out:1"]);
    let (bytes, document) = bill(&workshop, "tars/framework:3.0.17");
    assert_eq!(bill(&workshop, "tars/framework:3.0.17").0, bytes);
    assert!(document.get("serialNumber").is_none(), "{document}");
    let inspected = workshop.json(&["inspect", "tars/framework:3.0.17"]);
    assert_eq!(document["metadata"]["timestamp"], inspected["created"]);
    let root = &document["metadata"]["component"];
    assert_eq!((&root["name"], &root["version"]), (&"tars/framework".into(), &"3.0.17".into()));
    assert_eq!(
        format!("sha256:{}", root["hashes"][0]["content"].as_str().unwrap()),
        inspected["digest"].as_str().unwrap()
    );

    let stat = component(&document, "tarsstat");
    assert_eq!((&stat["version"], &stat["type"]), (&"3.0.17".into(), &"application".into()));
    assert_eq!(stat["hashes"][0]["content"], Digest::of(STAT.bytes()).hex());
    assert_eq!(told(stat, "build-id"), ["abcd01"]);
    assert_eq!(told(stat, "needed"), STAT.needed);
    assert_eq!(told(stat, "package"), [digest_of(&workshop, "packages/tarsstat.tgz")]);
    assert_eq!(
        told(component(&document, "tarsregistry"), "package"),
        [digest_of(&workshop, "packages/framework.tgz")]
    );
    let own = &stat["components"][0];
    assert_eq!((&own["name"], told(own, "build-id")), (&"libown.so.1".into(), vec!["0f".to_owned()]));
    let zlib = component(&document, "zlib1g");
    assert_eq!(
        (&zlib["version"], &zlib["purl"]),
        (&"1:1.2.13".into(), &"pkg:deb/debian/zlib1g@1%3A1.2.13".into())
    );
    let dependencies = document["dependencies"].as_array().unwrap();
    let of_stat = dependencies.iter().find(|one| one["ref"] == "part:tarsstat").unwrap();
    let given = [
        "file:/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30",
        "file:/usr/local/app/tars/tarsstat/bin/libown.so.1",
        "file:/usr/lib/x86_64-linux-gnu/libc.so.6",
    ];
    assert_eq!(of_stat["dependsOn"], serde_json::json!(given));
    // A library leads to its package, where the base has that one: dpkg's list knows no libc6 here.
    let package = &component(&document, "libstdc++6")["bom-ref"];
    assert_eq!(package, "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14");
    let depends_on = |of: &str| &dependencies.iter().find(|one| one["ref"] == of).unwrap()["dependsOn"];
    assert_eq!(*depends_on(given[0]), serde_json::json!([package]));
    assert_eq!(depends_on(given[2]).as_array().map_or(0, Vec::len), 0);

    // Wherever it lies; and on another machine nobody knows the packages, and all else is the same.
    assert_eq!(bill(&workshop, "oci:out:1").0, bytes);
    fs::remove_dir_all(workshop.path("store")).unwrap();
    assert_eq!(
        bill(&workshop, "oci:out:1").0,
        bytes,
        "the cache knows the packages of layers that were made here"
    );
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let (_, elsewhere) = bill(&workshop, "oci:out:1");
    let without = |document: &Value| {
        let mut document = document.clone();
        for component in document["components"].as_array_mut().unwrap() {
            if let Some(properties) = component["properties"].as_array_mut() {
                properties.retain(|property| property["name"] != "tarsup:package");
            }
        }
        document
    };
    assert!(told(component(&elsewhere, "tarsstat"), "package").is_empty());
    assert_eq!(without(&elsewhere), without(&document));
}

#[test]
fn bill_and_parts_speak_of_what_is_visible_and_count_what_is_covered() {
    let workshop = workshop();
    workshop.json(&["build", "framework.yaml"]);
    let noise = crate::registry::image::noise(1, 20_000);
    let old = Program { build_id: b"\x11\x22", ..STAT };
    let files = vec![
        Entry::File("tarsstat/tarsstat".to_owned(), old.bytes(), true),
        Entry::File("tarsstat/libown.so.1".to_owned(), noise, true),
    ];
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), files);
    let first = "tars/framework:3.0.17";
    workshop.json(&["build", "framework.yaml", "--version", "1"]);
    pack(&workshop, STAT);
    let patch =
        ["build", "--patch", "tarsstat=packages/tarsstat.tgz", "--version", "1-1", "tars/framework:1"];
    workshop.json(&patch);
    let (bytes, document) = bill(&workshop, "tars/framework:1-1");
    let stat = component(&document, "tarsstat");
    assert_eq!(told(stat, "build-id"), ["abcd01"]);
    assert_eq!((&stat["version"], told(stat, "layer").len()), (&"1-1".into(), 2));
    assert_eq!(told(stat, "package"), [digest_of(&workshop, "packages/tarsstat.tgz")]);
    assert!(told(stat, "patched")[0].contains(" on sha256:"));
    assert!(!String::from_utf8(bytes).unwrap().contains(&Digest::of(old.bytes()).hex()), "covered");
    let log = component(&document, "tarslog");
    assert_eq!(
        (&log["version"], told(log, "package")),
        (&"1".into(), vec![digest_of(&workshop, "packages/tarslog.tgz")])
    );

    let inspected = workshop.json(&["inspect", "tars/framework:1-1"]);
    let part = |name: &str| {
        let parts = inspected["parts"].as_array().unwrap();
        parts.iter().find(|part| part["name"] == name).unwrap().clone()
    };
    let size =
        STAT.bytes().len() + Program { needed: &["libc.so.6"], build_id: b"\x0f", ..LIBRARY }.bytes().len();
    assert_eq!(part("tarsstat")["size"], size);
    assert_eq!(part("tarsstat")["covered"], old.bytes().len() + 20_000);
    assert_eq!(part("tarsstat")["build_id"], "abcd01");
    assert_eq!(part("tarslog")["covered"], 0);
    let mut sharing: Vec<String> = serde_json::from_value(part("tarslog")["shared_with"].clone()).unwrap();
    sharing.sort();
    assert_eq!(sharing, ["tars/framework:1", first]);
    assert_eq!(part("tarsstat")["shared_with"], serde_json::json!([]));
    let output = workshop.run(&["inspect", "tars/framework:1-1"]);
    let words = String::from_utf8_lossy(&output.stdout);
    let row = words.lines().find(|line| line.trim_start().starts_with("tarsstat ")).unwrap();
    for word in ["1-1 (patched)", "abcd01", "20."] {
        assert!(row.contains(word), "{row}");
    }
    // Name, version, build id, size, compressed, covered, and who shares it: as the document has them.
    let shown = |bytes: &Value| match bytes.as_u64().unwrap() {
        bytes if bytes < 1000 => format!("{bytes} B"),
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        bytes => format!("{:.1} kB", bytes as f64 / 1000.0),
    };
    for name in ["tarsstat", "tarslog", "deploy"] {
        let row = words.lines().find(|line| line.trim_start().starts_with(&format!("{name} "))).unwrap();
        let part = part(name);
        let compressed = inspected["layers"].as_array().unwrap().iter().filter(|one| one["name"] == name);
        let compressed: u64 = compressed.map(|layer| layer["size"].as_u64().unwrap()).sum();
        assert_eq!(part["compressed"], compressed, "{part}");
        let sharing: Vec<String> = serde_json::from_value(part["shared_with"].clone()).unwrap();
        let columns: Vec<&str> = row.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        assert_eq!((columns[3], columns[4]), (&*shown(&part["size"]), &*shown(&part["compressed"])), "{row}");
        assert_eq!(columns.get(6).copied().unwrap_or_default(), sharing.join(" "), "{row}");
        assert_eq!(sharing.len(), if name == "tarsstat" { 0 } else { 2 }, "{row}");
    }
    let header = words.lines().find(|line| line.contains("SHARED WITH")).unwrap();
    assert!(header.contains("COMPRESSED"), "{header}");
    assert!(words.contains("covered by later ones"), "{words}");
}

/// What the list's history entry tells of an image is what `inspect` learns of the list itself.
fn assert_summarized(workshop: &Workshop, image: &str) {
    let inspected = workshop.json(&["inspect", image]);
    let id = inspected["config_digest"].as_str().unwrap().trim_start_matches("sha256:");
    let config: Value =
        serde_json::from_slice(&fs::read(workshop.path("store/blobs/sha256").join(id)).unwrap()).unwrap();
    let history = config["history"].as_array().unwrap();
    let list = history.last().unwrap();
    assert!(list["created_by"].as_str().unwrap().starts_with("tarsup build contents: "), "{list}");
    let mut told: BTreeMap<String, Value> = serde_json::from_str(list["comment"].as_str().unwrap()).unwrap();
    for part in inspected["parts"].as_array().unwrap() {
        let told =
            told.remove(part["name"].as_str().unwrap()).unwrap_or_else(|| panic!("{part} is not told"));
        assert_eq!(told["size"], part["size"], "{image}: {part}");
        assert_eq!(told["covered"].as_u64().unwrap_or(0), part["covered"], "{image}: {part}");
        assert_eq!(told["build_id"], part["build_id"], "{image}: {part}");
        if part["name"] == "web" {
            assert_eq!(told["version"], part["version"], "{image}: {part}");
        }
    }
    assert_eq!(told, BTreeMap::new(), "{image}");
    assert!(history.iter().rev().skip(1).all(|entry| entry["comment"].is_null()), "{history:?}");
}

#[test]
fn history_tells_of_the_parts_what_their_list_does() {
    let workshop = workshop();
    workshop.json(&["build", "framework.yaml"]);
    assert_summarized(&workshop, "tars/framework:3.0.17");
    let other = Program { build_id: b"\x11\x22", ..STAT };
    pack(&workshop, other);
    fs::remove_file(workshop.path("packages/tarslog.tgz")).unwrap();
    Packer::default().write(&workshop.path("packages/tarslog.tgz"), entries(Service::Log, "other"));
    workshop.json(&["build", "framework.yaml", "--version", "1", "--after", "tars/framework:3.0.17"]);
    assert_summarized(&workshop, "tars/framework:1");
    pack(&workshop, STAT);
    let patch =
        ["build", "--patch", "tarsstat=packages/tarsstat.tgz", "--version", "1-1", "tars/framework:1"];
    workshop.json(&patch);
    assert_summarized(&workshop, "tars/framework:1-1");
    // A plain image on one of ours tells of itself.
    workshop.write(
        "plain.yaml",
        "name: plain\nversion: 1\nrole: plain\nbase: scratch\nfiles: {plain.yaml: /x}\n",
    );
    workshop.json(&["build", "plain.yaml", "-o", "oci:out:1", "-o", "plain:1"]);
    workshop.write(
        "above.yaml",
        "name: above\nversion: 1\nrole: plain\nbase: oci:out:1\nfiles: {plain.yaml: /y}\n",
    );
    workshop.json(&["build", "above.yaml"]);
    let inspected = workshop.json(&["inspect", "above:1"]);
    let id = inspected["config_digest"].as_str().unwrap().trim_start_matches("sha256:");
    let config = fs::read(workshop.path("store/blobs/sha256").join(id)).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    // The base's own layers are told apart from those that stand on it, by how their history begins.
    let told = |index: usize| config["history"][index]["created_by"].as_str().unwrap().to_owned();
    assert!(told(0).starts_with("tarsup built files: "), "{config:#}");
    assert!(told(1).starts_with("tarsup built contents: "), "{config:#}");
    let own = config["history"].as_array().unwrap().iter().skip(2);
    assert!(
        own.clone().count() > 1
            && own.clone().all(|entry| entry["created_by"].as_str().unwrap().starts_with("tarsup build ")),
        "{config:#}"
    );
    let last = config["history"].as_array().unwrap().last().unwrap();
    let size = fs::metadata(workshop.path("plain.yaml")).unwrap().len();
    assert_eq!(last["comment"], format!(r#"{{"base":{{}},"files":{{"size":{size}}}}}"#), "{last}");
}

/// A console with packages that are installed in every way, and some that are none.
fn console(workshop: &Workshop, lodash: &str) {
    let large = format!(r#"{{"name":"large","version":"1","x":"{}"}}"#, "x".repeat(1 << 20));
    let manifest = |path: &str, text: &str| {
        Entry::File(format!("web/{path}package.json"), text.as_bytes().to_vec(), false)
    };
    let entries = vec![
        Entry::File("web/bin/www".to_owned(), b"www".to_vec(), true),
        manifest("", r#"{"name":"tars-web","version":"3.0.15"}"#),
        manifest(
            "node_modules/@Babel/core/",
            r#"{"name":"@Babel/core","version":"7.0.0+x","license":"MIT"}"#,
        ),
        manifest("node_modules/a/", r#"{"name":"a","version":"1.0.0","license":"(MIT OR GPL-3.0)"}"#),
        manifest("node_modules/a/esm/", r#"{"name":"no-package","version":"1.0.0"}"#),
        manifest(
            "node_modules/a/node_modules/lodash/",
            r#"{"name":"lodash","version":"3.0.0","license":"BSD"}"#,
        ),
        manifest("node_modules/broken/", "{"),
        manifest("node_modules/large/", &large),
        manifest("node_modules/lodash/", &format!(r#"{{"name":"lodash","version":"{lodash}"}}"#)),
        manifest("node_modules/other-name/", r#"{"name":"c","version":"1","licenses":[{"type":"ISC"}]}"#),
    ];
    Packer::default().write(&workshop.path("web.tgz"), entries);
    workshop.write("framework.yaml", &format!("{RECIPE}web: web.tgz\nfiles: {{tars-init: /usr/bin/node}}\n"));
}

/// The npm packages of the console: folder → URL and licences.
fn modules(bill: &Value) -> BTreeMap<String, (String, Value)> {
    let modules = component(bill, "web")["components"].as_array().unwrap().iter();
    let told = |module: &Value| {
        let folder =
            told(module, "path").remove(0).trim_start_matches("/usr/local/app/web/node_modules/").to_owned();
        (folder, (module["purl"].as_str().unwrap().to_owned(), module["licenses"].clone()))
    };
    modules.map(told).collect()
}

#[test]
fn bill_tells_the_npm_packages_of_the_console_and_what_it_cannot() {
    let workshop = Workshop::new();
    console(&workshop, "4.17.21");
    let built = workshop.json(&["build", "framework.yaml", "-o", "tars/framework:3.0.17", "-o", "oci:out:1"]);
    let (bytes, document) = bill(&workshop, "oci:out:1");
    let web = component(&document, "web");
    assert_eq!((&web["version"], &web["type"]), (&"3.0.15".into(), &"application".into()));
    let folder = "/usr/local/app/web/node_modules";
    assert_eq!(told(web, "npm-unread"), [format!("{folder}/broken"), format!("{folder}/large")]);
    let id = |id: &str| serde_json::json!([{"license": {"id": id}}]);
    let expected = [
        ("@Babel/core", "pkg:npm/%40babel/core@7.0.0%2Bx", id("MIT")),
        ("a", "pkg:npm/a@1.0.0", serde_json::json!([{"expression": "(MIT OR GPL-3.0)"}])),
        ("a/node_modules/lodash", "pkg:npm/lodash@3.0.0", serde_json::json!([{"license": {"name": "BSD"}}])),
        ("lodash", "pkg:npm/lodash@4.17.21", Value::Null),
        ("other-name", "pkg:npm/c@1", id("ISC")),
    ];
    let expected = expected.map(|(folder, url, licence)| (folder.to_owned(), (url.to_owned(), licence)));
    let found = modules(&document);
    assert_eq!(found, BTreeMap::from(expected));
    let scoped = &web["components"][0];
    assert_eq!((&scoped["group"], &scoped["name"]), (&"@Babel".into(), &"core".into()));
    let output = workshop.run(&["inspect", "oci:out:1", "--sbom", "bill.json"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("web: 2 npm packages are in the bill as `npm-unread` alone: /usr/local/app/web/node_modules/broken"), "{words}");
    assert_summarized(&workshop, "tars/framework:3.0.17");

    // The list tells it all: no other layer needs to be there.
    let mut copy = std::process::Command::new("cp");
    assert!(
        copy.args(["-r", "out", "listed"]).current_dir(workshop.folder.path()).status().unwrap().success()
    );
    for layer in built["layers"].as_array().unwrap() {
        if !layer["name"].as_str().unwrap().starts_with("contents") {
            let digest = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
            fs::remove_file(workshop.path("listed/blobs/sha256").join(digest)).unwrap();
        }
    }
    fs::rename(workshop.path("store"), workshop.path("away")).unwrap();
    fs::rename(workshop.path("cache"), workshop.path("far")).unwrap();
    let of_the_list = bill(&workshop, "oci:listed:1").1;
    assert_eq!(modules(&of_the_list), found);
    assert_eq!(component(&of_the_list, "tarsstat")["hashes"], component(&document, "tarsstat")["hashes"]);
    fs::rename(workshop.path("away"), workshop.path("store")).unwrap();
    assert!(!workshop.path("cache").exists());
    fs::rename(workshop.path("far"), workshop.path("cache")).unwrap();

    // What is recalled of the console without reading it makes the same list.
    let again = workshop.json(&["build", "framework.yaml", "--version", "1"]);
    let list = |built: &Value| {
        let layers = built["layers"].as_array().unwrap();
        layers.iter().find(|layer| layer["name"] == "contents-below").unwrap()["diff_id"].clone()
    };
    assert_eq!(list(&again), list(&built));

    // A package that changed is told as it is now.
    console(&workshop, "4.17.22");
    workshop.json(&["build", "framework.yaml", "--version", "2", "--after", "oci:out:1"]);
    let (now, document) = bill(&workshop, "tars/framework:2");
    assert_ne!(now, bytes);
    assert_eq!(modules(&document)["lodash"].0, "pkg:npm/lodash@4.17.22");
    assert_eq!(modules(&document).len(), found.len());
}

#[test]
fn library_that_no_package_brought_leads_to_none() {
    let workshop = Workshop::new();
    let strange = Program { exports: &["libz.so.1"], ..LIBRARY };
    let base = debian(vec![("usr/local/lib/libz.so.1", Lies::File(strange.bytes()))]);
    write_base(&workshop.path("base.tar"), &base);
    let environment = "env: {LD_LIBRARY_PATH: /usr/local/lib}\n";
    workshop
        .write("framework.yaml", &RECIPE.replace("scratch\n", &format!("rootfs:base.tar\n{environment}")));
    pack(&workshop, Program { needed: &["libz.so.1"], ..STAT });
    workshop.json(&["build", "framework.yaml"]);
    let (_, document) = bill(&workshop, "tars/framework:3.0.17");
    component(&document, "zlib1g");
    let dependencies = document["dependencies"].as_array().unwrap();
    let library = dependencies.iter().find(|one| one["ref"] == "file:/usr/local/lib/libz.so.1").unwrap();
    assert_eq!(library["dependsOn"].as_array().map_or(0, Vec::len), 0, "{library}");
}

#[test]
fn image_without_a_list_has_no_bill_and_a_reason() {
    let bench = crate::registry::image::Bench::new(&[100]);
    let words = bench.refused(&["inspect", "oci:image:1", "--sbom", "bill.json"], 2);
    assert!(words.contains("has no list of its files"), "{words}");
    assert!(!bench.path("bill.json").exists());
}

#[test]
fn build_id_of_a_real_program_is_what_its_linker_wrote() {
    let real = fs::read("/proc/self/exe").unwrap();
    let elf = tarsup::elf::read(real.as_slice(), real.len() as u64).unwrap().unwrap();
    let id = elf.build_id.expect("GNU's linker writes one");
    assert!(id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let bytes: Vec<u8> =
        (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect();
    let note = [&b"GNU\0"[..], &bytes].concat();
    assert!(real.windows(note.len()).any(|window| window == note), "{id}");
}
