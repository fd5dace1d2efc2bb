//! `tarsup diff`: what it says of programs, libraries, settings, statements, environment and packing, and what it never says.

use std::fs;

use serde_json::{Value, json};
use tarsup::oci::Digest;
use tarsup::tars::Service;

use crate::beside;
use crate::listless::take_lists_out;
use crate::packages::{Entry, Packer, RECIPE, Workshop, document};
use crate::programs::{LIBRARY, Lies, PROGRAM, Program, debian, write_base};

const SECRET: &str = "hunter2";

/// What the diff of two images says, as a document and as a text; neither tells the secret.
fn differ(workshop: &Workshop, from: &str, to: &str) -> (Value, String) {
    let document = workshop.json(&["diff", from, to]);
    let output = workshop.run(&["diff", from, to]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains(SECRET) && !document.to_string().contains(SECRET), "{text}\n{document}");
    (document, text)
}

/// The change of one file.
fn file<'d>(diff: &'d Value, end: &str) -> &'d Value {
    let files = diff["changed"].as_array().unwrap().iter().flat_map(|part| part["files"].as_array().unwrap());
    let found: Vec<&Value> = files.filter(|file| file["path"].as_str().unwrap().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{end}: {diff}");
    found[0]
}

/// Packs a service with these files.
fn pack(workshop: &Workshop, service: Service, files: Vec<(&str, Vec<u8>)>) {
    let entries =
        files.into_iter().map(|(name, bytes)| Entry::File(format!("{service}/{name}"), bytes, true));
    Packer::default().write(&workshop.path(&format!("packages/{service}.tgz")), entries.collect());
}

/// A framework on a small Debian.
fn on_debian() -> Workshop {
    let workshop = Workshop::new();
    write_base(&workshop.path("base.tar"), &debian(vec![]));
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    workshop
}

const STAT: Program<'static> = Program { needed: &["libc.so.6"], build_id: &[1, 2, 3], ..PROGRAM };

#[test]
fn program_is_told_with_its_build_id_and_libraries_with_what_they_export_no_more() {
    let workshop = on_debian();
    let symbols = ["x_open", "x_read"];
    let library = Program { exports: &["libx.so.1", "X_1", "X_2"], symbols: &symbols, ..LIBRARY };
    let files = |program: Program<'_>, library: Program<'_>| {
        vec![
            ("bin/tarsstat", program.bytes()),
            ("lib/libx.so.1", library.bytes()),
            ("util/x.sh", b"a\n".to_vec()),
        ]
    };
    pack(&workshop, Service::Stat, files(STAT, library));
    workshop.json(&["build", "framework.yaml"]);
    let program = Program { build_id: &[4, 5, 6], needed: &["libstdc++.so.6"], ..STAT };
    let symbols = ["x_open", "x_write"];
    let library = Program { exports: &["libx.so.1", "X_1", "X_3"], symbols: &symbols, ..LIBRARY };
    pack(&workshop, Service::Stat, files(program, library));
    workshop.json(&["build", "framework.yaml", "--version", "2"]);
    let (diff, text) = differ(&workshop, "tars/framework:3.0.17", "tars/framework:2");
    let changed = diff["changed"].as_array().unwrap();
    assert_eq!((changed.len(), &changed[0]["name"]), (1, &json!("tarsstat")), "{diff}");
    assert_eq!(changed[0]["files"].as_array().unwrap().len(), 2, "the script is the same: {diff}");
    let program = file(&diff, "/bin/tarsstat");
    assert_eq!(program["kind"], "program");
    assert_eq!(program["build_id"], json!({"from": "010203", "to": "040506"}));
    assert_eq!(program["needed"], json!({"added": ["libstdc++.so.6"], "removed": ["libc.so.6"]}));
    assert!(program.get("abi_break").is_none(), "{program}");
    let library = file(&diff, "/libx.so.1");
    assert_eq!((&library["kind"], &library["abi_break"]), (&json!("library"), &json!(true)));
    assert_eq!(library["exports"], json!({"added": ["X_3"], "removed": ["X_2"]}));
    assert_eq!(library["symbols"], json!({"added": ["x_write"], "removed": ["x_read"]}));
    for line in [
        "  ~ tarsstat ",
        "      ~ program /usr/local/app/tars/tarsstat/bin/tarsstat  ",
        "\n          build id 010203 -> 040506\n",
        "\n          linked with + libstdc++.so.6 - libc.so.6\n",
        "\n          ABI break: exports no more X_2\n",
        "\n          ABI break: exports no more x_read\n",
        "\n          exports + X_3\n",
        "\n          exports + x_write\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn base_is_told_by_its_packages_and_by_the_libraries_that_take_the_place_of_others() {
    let workshop = on_debian();
    workshop.json(&["build", "framework.yaml"]);
    let exports = ["libstdc++.so.6", "GLIBCXX_3.4", "GLIBCXX_3.4.9", "GLIBCXX_3.4.30", "GLIBCXX_3.4.32"];
    let newer = Program { exports: &exports, needed: &["libc.so.6"], ..LIBRARY };
    let mut entries =
        debian(vec![("usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.32", Lies::File(newer.bytes()))]);
    entries.retain(|(name, _)| !name.ends_with("libstdc++.so.6.0.30"));
    for (name, lies) in &mut entries {
        match *name {
            "var/lib/dpkg/status" => {
                *lies = Lies::File(crate::programs::STATUS.replace("12.2.0-14", "13.1.0-1").into_bytes());
            }
            "usr/lib/x86_64-linux-gnu/libstdc++.so.6" => *lies = Lies::Link("libstdc++.so.6.0.32"),
            _ => {}
        }
    }
    write_base(&workshop.path("base.tar"), &entries);
    workshop.json(&["build", "framework.yaml", "--version", "2"]);
    let (diff, text) = differ(&workshop, "tars/framework:3.0.17", "tars/framework:2");
    assert_eq!(
        diff["changed"][0]["packages"],
        json!([{"key": "libstdc++6", "from": "12.2.0-14", "to": "13.1.0-1"}]),
        "{diff}"
    );
    let library = file(&diff, "libstdc++.so.6.0.32");
    assert_eq!(library["replaces"], "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30");
    assert_eq!(library["exports"], json!({"added": ["GLIBCXX_3.4.32"], "removed": ["CXXABI_1.3"]}));
    assert!(file(&diff, "libstdc++.so.6.0.30").get("abi_break").is_none(), "{diff}");
    let link = file(&diff, "libstdc++.so.6");
    assert_eq!(link["kind"], "link");
    assert_eq!(link["target"], json!({"from": "libstdc++.so.6.0.30", "to": "libstdc++.so.6.0.32"}));
    assert!(text.contains("ABI break: exports no more CXXABI_1.3"), "{text}");
    assert!(text.contains("~ Debian package libstdc++6: 12.2.0-14 -> 13.1.0-1"), "{text}");
}

#[test]
fn environment_labels_and_ports_are_told_but_for_secrets() {
    let workshop = Workshop::new();
    workshop.write("x", "x");
    let recipe = |version: u32, more: &str| {
        workshop.write(
            "p.yaml",
            &format!("name: p\nversion: {version}\nrole: plain\nbase: scratch\nfiles: {{x: /x}}\n{more}"),
        );
        workshop.json(&["build", "p.yaml"]);
    };
    recipe(
        1,
        "env: {A: one, DB_PASSWORD: hunter2, GONE: x, REBUILD: \"false\", DSN: \"mysql://u:hunter2@h/d\"}\n\
         ports: [80, 81]\nlabels: {team: blue, api_token: hunter2}\ncmd: [run, --password=hunter2]\n",
    );
    recipe(
        2,
        "env: {A: two, DB_PASSWORD: hunter22, NEW: \"\", REBUILD: \"\", DSN: \"mysql://u:hunter23@h/d\"}\n\
         ports: [80, 82]\nlabels: {team: red, api_token: hunter23}\ncmd: [run, --password=hunter24]\n",
    );
    let (diff, text) = differ(&workshop, "p:1", "p:2");
    let change = |key: &str| {
        let found = diff["config"].as_array().unwrap().iter().find(|change| change["key"] == key);
        found.map(|change| (change["from"].clone(), change["to"].clone())).unwrap()
    };
    assert_eq!(change("Env.A"), (json!("one"), json!("two")));
    assert_eq!(change("Env.GONE"), (json!("x"), Value::Null));
    assert_eq!(change("Env.NEW"), (Value::Null, json!("")));
    assert_eq!(change("Env.REBUILD"), (json!("false"), json!("")));
    assert_eq!(change("Labels.team"), (json!("blue"), json!("red")));
    assert_eq!(change("ExposedPorts.81/tcp").1, Value::Null);
    for masked in ["Env.DB_PASSWORD", "Env.DSN", "Labels.api_token", "Cmd"] {
        assert_eq!(change(masked), (json!("***"), json!("***")), "{masked}");
    }
    for line in [
        "~ environment A: one -> two",
        "~ environment DB_PASSWORD: *** -> ***",
        "~ environment REBUILD: false -> (empty)",
        "- environment GONE: x",
        "+ environment NEW",
        "- port 81/tcp",
        "+ port 82/tcp",
        "~ label team: blue -> red",
        "~ config Cmd: *** -> ***",
    ] {
        assert!(text.contains(&format!("\n  {line}\n")), "{line}\n{text}");
    }
}

/// A framework whose deploy folder has these files besides, and its image with this version.
fn deploy(workshop: &Workshop, version: &str, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = workshop.path(&format!("deploy/{name}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    workshop.json(&["build", "framework.yaml", "--version", version]);
}

const CONF: &str = "conf/tarslog/conf/tars.tarslog.config.conf";

#[test]
fn settings_are_told_key_by_key_and_templates_by_name() {
    let workshop = Workshop::new();
    let conf = "<tars>\n<application>\n<server>\nlogsize=10M\ndbpass=hunter2\nkept=1\n</server>\n</application>\n</tars>\n";
    let template = "<tars>\n<x>\na=1\n</x>\n</tars>\n";
    deploy(
        &workshop,
        "1",
        &[(CONF, conf), ("sql/template/tars.default", template), ("sql/template/tars.x", "<a>\nk=v\n</a>\n")],
    );
    let changed =
        conf.replace("10M", "50M").replace("hunter2", "hunter23").replace("</server>", "new=2\n</server>");
    deploy(
        &workshop,
        "2",
        &[
            (CONF, &changed),
            ("sql/template/tars.default", &template.replace("a=1", "a=2\ntoken=hunter2")),
            ("sql/template/tars.x", "# a comment\n<a>\n  k = v\n</a>\n"),
        ],
    );
    let (diff, text) = differ(&workshop, "tars/framework:1", "tars/framework:2");
    let conf = file(&diff, "tars.tarslog.config.conf");
    assert_eq!(conf["kind"], "configuration");
    let key = |key: &str, from: &str, to: &str| json!({"key": key, "from": from, "to": to});
    assert_eq!(
        conf["keys"],
        json!([
            key("/tars/application/server/dbpass", "***", "***"),
            key("/tars/application/server/logsize", "10M", "50M"),
            {"key": "/tars/application/server/new", "from": null, "to": "2"},
        ])
    );
    let template = file(&diff, "/template/tars.default");
    assert_eq!(template["kind"], "template");
    assert_eq!(
        template["keys"],
        json!([key("/tars/x/a", "1", "2"), {"key": "/tars/x/token", "from": null, "to": "***"}])
    );
    let same = file(&diff, "/template/tars.x");
    assert_eq!(same["note"], "comments, white space or order alone differ");
    assert!(same.get("keys").is_none(), "{same}");
    for line in [
        "          ~ /tars/application/server/logsize: 10M -> 50M\n",
        "          ~ /tars/application/server/dbpass: *** -> ***\n",
        "          + /tars/x/token: ***\n",
        "      ~ template /usr/local/tars/cpp/deploy/framework/sql/template/tars.default  ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // Read from another place, and against an image in which the layer on top has the file.
    workshop.json(&["copy", "tars/framework:2", "docker-archive:two.tar"]);
    assert_eq!(differ(&workshop, "tars/framework:1", "docker-archive:two.tar").0["changed"], diff["changed"]);
    workshop.json(&[
        "build",
        "framework.yaml",
        "--version",
        "3",
        "--after",
        "tars/framework:1",
        "-o",
        "oci:out:3",
    ]);
    let on_top = differ(&workshop, "tars/framework:1", "oci:out:3").0;
    assert_eq!(on_top["changed"][0]["files"], diff["changed"][0]["files"]);
    assert_eq!(on_top["classic"]["layers"], 2, "{on_top}");
}

#[test]
fn statements_are_told_by_table_and_column_and_their_values_never() {
    let workshop = Workshop::new();
    let old = "CREATE TABLE t (a INT, b INT);\nINSERT INTO t (a, b) VALUES (1, 2);\n";
    deploy(&workshop, "1", &[("sql/db_tars.sql", old)]);
    let new = "CREATE TABLE t (a BIGINT, c INT);\nCREATE TABLE u (a INT);\nINSERT INTO t (a, c) VALUES (1, 'hunter2');\n";
    deploy(&workshop, "2", &[("sql/db_tars.sql", new)]);
    let (diff, text) = differ(&workshop, "tars/framework:1", "tars/framework:2");
    let sql = file(&diff, "/db_tars.sql");
    assert_eq!(sql["kind"], "sql");
    let column = |key: &str, from: Value, to: Value| json!({"key": key, "from": from, "to": to});
    assert_eq!(
        sql["tables"],
        json!([
            {"table": "t", "change": "changed", "columns": [
                column("a", "INT".into(), "BIGINT".into()),
                column("b", "INT".into(), Value::Null),
                column("c", Value::Null, "INT".into()),
            ]},
            {"table": "u", "change": "created"},
        ])
    );
    assert_eq!(
        sql["statements"],
        json!({"added": ["INSERT INTO t(a, c) VALUES …"], "removed": ["INSERT INTO t(a, b) VALUES …"]})
    );
    for line in [
        "\n          ~ table t:\n              ~ a: INT -> BIGINT\n              - b: INT\n",
        "\n          + table u\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn text_that_lies_or_lies_too_deep_in_a_large_layer_is_told_by_its_size_and_breaks_nothing() {
    let workshop = Workshop::new();
    let fine = "<a>\nk=1\n</a>\n";
    let names = ["one", "two", "three", "four", "five"].map(|name| format!("conf/tarslog/conf/{name}.conf"));
    let texts = |texts: [&str; 5]| -> Vec<(String, Vec<u8>)> {
        names.iter().cloned().zip(texts.map(|text| text.as_bytes().to_vec())).collect()
    };
    let put = |files: Vec<(String, Vec<u8>)>, version: &str| {
        for (name, bytes) in files {
            fs::write(workshop.path(&format!("deploy/{name}")), bytes).unwrap();
        }
        workshop.json(&["build", "framework.yaml", "--version", version]);
    };
    put(texts([fine; 5]), "1");
    let deep = format!("{}{}", "<a>\n".repeat(100_000), "</a>\n".repeat(100_000));
    let huge = format!("<a>\n{}</a>\n", "k=hunter2\n".repeat(200_000));
    let mut lies = texts(["<a>\n<hunter2\n</a>\n", &deep, &huge, "", "<a>\nk=2\n</a>\n"]);
    lies[3].1 = b"\x7f\xff\0hunter2".to_vec();
    put(lies, "2");
    let (diff, text) = differ(&workshop, "tars/framework:1", "tars/framework:2");
    let note =
        |name: &str| file(&diff, &format!("/{name}.conf"))["note"].as_str().unwrap_or_default().to_owned();
    assert_eq!(note("one"), "not compared within: line 2 is not as a configuration of TARS has it");
    assert_eq!(note("two"), "not compared within: line 201 is not as a configuration of TARS has it");
    assert_eq!(note("three"), format!("not looked into: it has {} bytes, 1048576 are the most", huge.len()));
    assert_eq!(note("four"), "not looked into: it is no text");
    assert_eq!(file(&diff, "/five.conf")["keys"], json!([{"key": "/a/k", "from": "1", "to": "2"}]));
    assert!(text.contains("\n          not looked into: it is no text\n"), "{text}");

    let mut command = workshop.command(&["diff", "tars/framework:1", "tars/framework:2", "--json"]);
    let small = document(&command.env("TARSUP_LIMIT_LOOKED", "10").output().unwrap());
    let fifth = file(&small, "/five.conf");
    let said = fifth["note"].as_str().unwrap();
    assert!(
        said.starts_with("not looked into: its layer has ")
            && said.ends_with("(TARSUP_LIMIT_LOOKED raises that)"),
        "{said}"
    );
    assert!(fifth.get("keys").is_none(), "{fifth}");
}

#[test]
fn library_without_versions_breaks_by_its_name_and_by_what_it_defines_no_more() {
    let workshop = on_debian();
    let library = Program { soname: "libx.so.1", symbols: &["x_open"], ..LIBRARY };
    let image = |library: Program<'_>, version: &str| {
        pack(
            &workshop,
            Service::Stat,
            vec![("bin/tarsstat", STAT.bytes()), ("lib/libx.so", library.bytes())],
        );
        workshop.json(&["build", "framework.yaml", "--version", version]);
    };
    image(library, "1");
    image(Program { symbols: &["x_open", "x_more"], ..library }, "2");
    image(Program { soname: "libx.so.2", ..library }, "3");
    let more = differ(&workshop, "tars/framework:1", "tars/framework:2").0;
    let more = file(&more, "/libx.so");
    assert_eq!(more["symbols"], json!({"added": ["x_more"], "removed": []}));
    assert!(more.get("abi_break").is_none(), "more is no break: {more}");
    let (named, text) = differ(&workshop, "tars/framework:1", "tars/framework:3");
    let named = file(&named, "/libx.so");
    assert_eq!(named["soname"], json!({"from": "libx.so.1", "to": "libx.so.2"}));
    assert_eq!(named["abi_break"], true);
    assert!(text.contains("\n          ABI break: its name is libx.so.1 -> libx.so.2\n"), "{text}");
}

#[test]
fn part_with_the_same_files_differs_in_packing_only() {
    let workshop = on_debian();
    workshop.json(&["build", "framework.yaml"]);
    workshop.pack(Packer { mtime: 1_600_000_000, ..Packer::default() }, Service::Stat, "3.0.17");
    // Another order is another layer of a base.
    let mut entries = debian(vec![]);
    let last = entries.len() - 1;
    entries.swap(last, last - 2);
    write_base(&workshop.path("base.tar"), &entries);
    workshop.json(&["build", "framework.yaml", "--version", "2"]);
    let (diff, text) = differ(&workshop, "tars/framework:3.0.17", "tars/framework:2");
    assert_eq!(diff["changed"], json!([]), "{diff}");
    let packing = diff["packing"].as_array().unwrap();
    let of = |name: &str| packing.iter().find(|packing| packing["name"] == name).unwrap();
    assert_eq!(packing.len(), 2, "{diff}");
    let package = &of("tarsstat")["package"];
    assert_ne!(package["from"], package["to"]);
    assert_eq!(
        package["to"],
        Digest::of(fs::read(workshop.path("packages/tarsstat.tgz")).unwrap()).to_string()
    );
    assert!(of("tarsstat").get("layers").is_none(), "{diff}");
    let layers = &of("base")["layers"];
    assert_eq!([&layers["added"], &layers["removed"]].map(|layers| layers.as_array().unwrap().len()), [1, 1]);
    for line in ["tarsstat           another package", "base               other layers"] {
        let line = format!("\n  = {line}, the same files: differs in packing only\n");
        assert!(text.contains(&line), "{line}\n{text}");
    }
    // What nobody noted is not told: an image out of the store says nothing of its packages.
    workshop.json(&["copy", "tars/framework:2", "oci:out:2"]);
    fs::remove_dir_all(workshop.path("store")).unwrap();
    assert_eq!(differ(&workshop, "oci:out:2", "oci:out:2").0["packing"], json!([]));
}

/// Builds a real release; its packages are linked with what `base: scratch` has not.
fn release(workshop: &Workshop, version: &str, packages: &std::path::Path, deploy: &std::path::Path) {
    let out = workshop.path(&format!("real-{version}"));
    fs::create_dir_all(&out).unwrap();
    let unpacked =
        std::process::Command::new("tar").arg("-xzf").arg(deploy).arg("-C").arg(&out).status().unwrap();
    assert!(unpacked.success());
    let waived =
        ["ld-linux-x86-64.so.2", "libc.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libz.so.1"];
    let waived: Vec<String> = waived.iter().map(|name| format!("\"*:{name}\"")).collect();
    workshop.write(
        "real.yaml",
        &format!(
            "name: tars/real\nversion: {version}\nrole: framework\nbase: scratch\npackages: [{0}/t*.tgz, {0}/framework.tgz]\n\
             deploy: {1}/deploy/framework\ninit: tars-init\nwaive: [{2}]\n",
            packages.display(),
            out.display(),
            waived.join(", ")
        ),
    );
    workshop.json(&["build", "real.yaml", "--version", version]);
}

#[test]
fn real_releases_are_told_by_their_build_ids_tables_and_templates() {
    const NAME: &str = "real_releases_are_told_by_their_build_ids_tables_and_templates";
    let Some(real) = beside::folder("real", NAME) else { return };
    let workshop = Workshop::new();
    for version in ["2.4.17", "3.0.17"] {
        let folder = real.join(format!("v{version}"));
        release(&workshop, version, &folder, &folder.join("deploy.tgz"));
    }
    // The release with two patched services.
    let patched = workshop.path("patched");
    fs::create_dir(&patched).unwrap();
    for folder in ["v3.0.17", "v3.0.17-patched"] {
        for entry in fs::read_dir(real.join(folder)).unwrap().map(|entry| entry.unwrap()) {
            let to = patched.join(entry.file_name());
            let _ = fs::remove_file(&to);
            fs::copy(entry.path(), to).unwrap();
        }
    }
    release(&workshop, "3.0.17-1", &patched, &real.join("v3.0.17/deploy.tgz"));
    let (diff, _) = differ(&workshop, "tars/real:3.0.17", "tars/real:3.0.17-1");
    let mut names: Vec<&str> =
        diff["changed"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["tarsnotify", "tarsstat"], "{diff}");
    for name in names {
        let program = file(&diff, &format!("/{name}/bin/{name}"));
        let id = &program["build_id"];
        assert_eq!(program["kind"], "program");
        assert!(id["from"].is_string() && id["to"].is_string() && id["from"] != id["to"], "{program}");
        assert!(program.get("needed").is_none() && program.get("note").is_none(), "{program}");
    }
    assert_eq!(diff["packing"], json!([]), "{diff}");

    let (diff, text) = differ(&workshop, "tars/real:2.4.17", "tars/real:3.0.17");
    let tables = file(&diff, "/sql/db_tars.sql")["tables"].as_array().unwrap();
    let table = |name: &str| tables.iter().find(|table| table["table"] == name).unwrap();
    assert_eq!(table("t_base_image")["change"], "created");
    assert_eq!(table("t_ats_cases")["change"], "gone");
    let columns = table("t_server_conf")["columns"].as_array().unwrap();
    let added: Vec<&str> = columns
        .iter()
        .filter(|column| column["from"].is_null())
        .map(|column| column["key"].as_str().unwrap())
        .collect();
    assert_eq!(added, ["base_image_id", "run_type", "source"]);
    let keys = &file(&diff, "/sql/template/tars.default")["keys"];
    assert_eq!(
        *keys,
        json!([
            {"key": "/tars/application/server/activating-timeout", "from": "10000", "to": "60000"},
            {"key": "/tars/application/server/nodename", "from": null, "to": "${nodename}"},
        ])
    );
    assert!(
        file(&diff, "/template/tars.tarspatch")["note"]
            .as_str()
            .unwrap()
            .starts_with("comments, white space")
    );
    assert!(!text.contains("not looked into") && !text.contains("not compared"), "{text}");
}

#[test]
fn image_without_a_list_is_told_by_what_lies_in_its_layers() {
    let workshop = on_debian();
    let library = Program { symbols: &["x_open", "x_read"], exports: &["libx.so.1", "X_1"], ..LIBRARY };
    let files = |program: Program<'_>, library: Program<'_>| {
        vec![("bin/tarsstat", program.bytes()), ("lib/libx.so.1", library.bytes())]
    };
    pack(&workshop, Service::Stat, files(STAT, library));
    workshop.write(&format!("deploy/{CONF}"), "<tars>\n</tars>\n");
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    take_lists_out(&workshop);
    let program = Program { build_id: &[4], needed: &["libstdc++.so.6"], ..STAT };
    pack(&workshop, Service::Stat, files(program, Program { symbols: &["x_open"], exports: &[], ..library }));
    deploy(&workshop, "2", &[(CONF, "<tars>\n<x>\npassword=hunter2\n</x>\n</tars>\n")]);
    let (diff, _) = differ(&workshop, "oci:out:old", "tars/framework:2");
    let program = file(&diff, "/bin/tarsstat");
    assert_eq!(program["build_id"], json!({"from": "010203", "to": "04"}), "{diff}");
    assert_eq!(program["needed"], json!({"added": ["libstdc++.so.6"], "removed": ["libc.so.6"]}));
    assert!(program.get("symbols").is_none() && program.get("abi_break").is_none(), "{program}");
    let library = file(&diff, "/libx.so.1");
    assert_eq!(library["exports"], json!({"added": [], "removed": ["X_1"]}));
    assert_eq!((&library["symbols"]["removed"], &library["abi_break"]), (&json!(["x_read"]), &json!(true)));
    let keys = file(&diff, "tars.tarslog.config.conf")["keys"].as_array().unwrap();
    assert!(keys.contains(&json!({"key": "/tars/x/password", "from": null, "to": "***"})), "{keys:?}");
}
