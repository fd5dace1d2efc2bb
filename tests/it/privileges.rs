//! Setuid and setgid bits and file capabilities of packages and `files`: kept where the recipe says so, else refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{XattrFlags, setxattr};
use serde_json::{Value, json};
use tarsup::transport::layout;

use crate::archives::{Raw, layer, pack, pack_with, workshop_with};
use crate::packages::{RECIPE, Workshop};

/// `cap_net_bind_service=ep`, as `setcap` writes it.
const BIND: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `cap_setpcap,cap_net_raw=ep`.
const RAW: [u8; 20] = [1, 0, 0, 2, 0, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const X: &str = "/usr/local/app/tars/tarsstat/bin/x";

fn with_capabilities(value: &[u8]) -> Raw<'static> {
    Raw { mode: "0000755", pax: vec![("SCHILY.xattr.security.capability", value.to_vec())], ..Raw::default() }
}

fn with_bits(mode: &'static str) -> Raw<'static> {
    Raw { mode, ..Raw::default() }
}

/// The recipe of the workshop, which keeps this.
fn keeping(workshop: &Workshop, kept: &str) {
    workshop.write("framework.yaml", &format!("{RECIPE}privileges: {kept}\n"));
}

/// Path → mode, and the bytes of the attribute as the `tar` crate finds them.
type Rights = BTreeMap<String, (u32, Option<Vec<u8>>)>;

fn rights(tar: &[u8]) -> Rights {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let read = entries.map(|mut entry| {
        let mut records = entry.pax_extensions().unwrap().into_iter().flatten().map(Result::unwrap);
        let found = records.find(|record| record.key() == Ok("SCHILY.xattr.security.capability"));
        let value = found.map(|record| record.value_bytes().to_vec());
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        (path, (entry.header().mode().unwrap(), value))
    });
    read.collect()
}

#[test]
fn privileges_that_a_recipe_does_not_name_are_refused_with_package_path_and_what_to_write() {
    let bsd = vec![("LIBARCHIVE.xattr.security.capability", b"AQAAAgAEAAAAAAAAAAAAAAAAAAA".to_vec())];
    for (entry, has, line) in [
        (with_bits("0004755"), "has setuid", "{mode: '04755'}"),
        (with_bits("0002755"), "has setgid", "{mode: '02755'}"),
        (
            with_capabilities(&BIND),
            "has cap_net_bind_service=ep",
            "{capabilities: 'cap_net_bind_service=ep'}",
        ),
        (
            Raw { pax: bsd, ..Raw::default() },
            "has cap_net_bind_service=ep",
            "{capabilities: 'cap_net_bind_service=ep'}",
        ),
        (
            Raw { mode: "0006755", ..with_capabilities(&RAW) },
            "has setuid setgid cap_setpcap,cap_net_raw=ep",
            "{mode: '06755', capabilities: 'cap_setpcap,cap_net_raw=ep'}",
        ),
    ] {
        let workshop = workshop_with(&[entry]);
        let message = workshop.refused(&["build", "framework.yaml"], 2);
        for part in
            ["tarsstat.tgz: /usr/local/app/tars/tarsstat/bin/x", has, "framework.yaml does not say", line]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(message.contains(&format!("privileges: {{{X}: {{")), "{message}");
    }
    // Other attributes say how the packer's disk was labelled: they change nothing.
    let label = vec![("SCHILY.xattr.security.selinux", b"system_u:object_r:usr_t:s0\0".to_vec())];
    workshop_with(&[Raw { pax: label, ..Raw::default() }]).json(&["build", "framework.yaml"]);
}

#[test]
fn capabilities_that_no_layer_can_have_are_refused_by_name() {
    let mut of_namespace = BIND.to_vec();
    of_namespace[3] = 3;
    of_namespace.extend([0; 4]);
    let twice = vec![
        ("SCHILY.xattr.security.capability", BIND.to_vec()),
        ("LIBARCHIVE.xattr.security.capability", b"AQAAAgAgAAAAAAAAAAAAAAAAAAA".to_vec()),
    ];
    let bare = with_bits("0000755");
    let link = Raw {
        flag: b'1',
        name: b"tarsstat/y",
        target: b"tarsstat/x",
        content: b"",
        ..with_capabilities(&BIND)
    };
    for (entries, entry, why) in [
        (vec![with_capabilities(&of_namespace)], "x", "in one user namespace alone"),
        (vec![with_capabilities(&BIND[..12])], "x", "of a form that is not known"),
        (vec![Raw { pax: twice, ..Raw::default() }], "x", "twice, and not the same"),
        (
            vec![Raw { flag: b'5', name: b"tarsstat/d/", content: b"", ..with_capabilities(&BIND) }],
            "d",
            "and is no file",
        ),
        (vec![bare.clone(), link], "y", "has other setuid or setgid bits or capabilities"),
    ] {
        let message = workshop_with(&entries).refused(&["build", "framework.yaml"], 2);
        let entry = format!("tarsstat.tgz: entry `tarsstat/{entry}`");
        assert!(message.contains(&entry) && message.contains(why), "{message}");
    }
}

#[test]
fn what_the_recipe_keeps_is_in_the_layer_byte_for_byte_and_the_list_inspect_and_diff_tell_it() {
    let entry = Raw { mode: "0004755", ..with_capabilities(&RAW) };
    let workshop = workshop_with(std::slice::from_ref(&entry));
    keeping(
        &workshop,
        "{'tarsstat:bin/x': {mode: '04755', capabilities: 'cap_kill,cap_setpcap,cap_net_raw+ep'}}",
    );
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("is not what framework.yaml says in line 8: setuid cap_kill,"), "{message}");
    keeping(&workshop, "{'tarsstat:bin/x': {mode: '04755', capabilities: 'cap_kill+ep cap_net_raw=x'}}");
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("of e, i and p") && message.contains("framework.yaml\":8"), "{message}");

    let said = "cap_setpcap,cap_net_raw=ep";
    keeping(&workshop, &format!("{{'tarsstat:bin/x': {{mode: '04755', capabilities: '{said}'}}}}"));
    let built = workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    let image = layout::read(&workshop.path("out"), None).unwrap();
    let found = rights(&layer(&image, "tarsstat"));
    assert_eq!(found[&X[1..]], (0o4755, Some(RAW.to_vec())));
    assert_eq!(found["usr/local/app/tars/tarsstat/bin/tarsstat"], (0o755, None));

    // Same content, same digest: whoever wrote it, at what time, as which record; with a cache and without.
    let golden =
        built["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == "tarsstat").unwrap();
    assert_eq!(golden["diff_id"], "sha256:876e03719d38b73ff6f66cd99dbd17deff6bf3c05146bdfc3fc12cd29537904d");
    let recalled = workshop.json(&["build", "framework.yaml", "-o", "oci:again:1"]);
    assert_eq!(recalled["digest"], built["digest"]);
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let base64 = b"AQAAAgAhAAAAAAAAAAAAAAAAAAA=".to_vec();
    let both = vec![
        ("SCHILY.xattr.security.capability", RAW.to_vec()),
        ("LIBARCHIVE.xattr.security.capability", base64.clone()),
    ];
    for pax in [vec![("LIBARCHIVE.xattr.security.capability", base64)], both] {
        pack_with(
            &workshop,
            "packages/tarsstat.tgz",
            &[Raw { pax, mtime: b"14524770001", mode: "0004711", ..entry.clone() }],
        );
        assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], built["digest"]);
    }

    let inspected = workshop.json(&["inspect", "oci:out:1"]);
    let parts = inspected["parts"].as_array().unwrap();
    let told = parts.iter().find(|part| part["name"] == "tarsstat").unwrap();
    assert_eq!(told["privileges"], json!({X: format!("setuid {said}")}));
    workshop.json(&["inspect", "oci:out:1", "--sbom", "bill.json"]);
    let bill: Value = serde_json::from_slice(&fs::read(workshop.path("bill.json")).unwrap()).unwrap();
    let mut components = bill["components"].as_array().unwrap().iter();
    let stat = components.find(|component| component["name"] == "tarsstat").unwrap();
    let property = json!({"name": "tarsup:privileges", "value": format!("{X}: setuid {said}")});
    assert!(stat["properties"].as_array().unwrap().contains(&property), "{stat}");
    let text = String::from_utf8(workshop.run(&["inspect", "oci:out:1"]).stdout).unwrap();
    assert!(text.contains("\n  privileges\n") && text.contains(&format!("setuid {said}")), "{text}");

    // A package that has them no more: the line of the recipe is not true.
    pack_with(&workshop, "packages/tarsstat.tgz", &[with_bits("0000755")]);
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("the file there has no such privilege") && message.contains(":8"), "{message}");
    workshop.write("framework.yaml", RECIPE);
    workshop.json(&["build", "framework.yaml", "-o", "oci:bare:1"]);
    let diff = workshop.json(&["diff", "oci:out:1", "oci:bare:1"]);
    let file = &diff["changed"][0]["files"][0];
    assert_eq!((&file["path"], &file["privileges"]["from"]), (&json!(X), &json!(format!("setuid {said}"))));
    let text = String::from_utf8(workshop.run(&["diff", "oci:bare:1", "oci:out:1"]).stdout).unwrap();
    assert!(text.contains(&format!("privileges none -> setuid {said}")), "{text}");
}

#[test]
fn line_of_a_recipe_that_is_not_true_is_an_error() {
    let workshop =
        workshop_with(&[with_bits("0004755"), Raw { name: b"tarsstat/c", ..with_capabilities(&BIND) }]);
    let c = "tarsstat:bin/c: {capabilities: cap_net_bind_service=ep}";
    for (kept, why) in [
        ("/opt/x: {mode: '04755'}", "brings a file there"),
        ("tarsstat:bin/tarsstat: {mode: '04755'}", "has no such privilege"),
        ("tarsstat:bin/x: {mode: '04755', capabilities: cap_net_raw=ep}", "the file there has setuid"),
        ("tarsstat:bin/x: {mode: '06755'}", "is not what framework.yaml says in line 8: setuid setgid"),
        ("tarsstat:bin/x: {mode: '0755'}", "it says nothing that is kept"),
        ("tarsstat:bin/x: {}", "it says nothing that is kept"),
        ("tarsstat:bin/x: {mode: x}", "not a mode"),
        ("bin/x: {mode: '04755'}", "absolute path"),
        ("tarswhat:bin/x: {mode: '04755'}", "absolute path"),
        ("tarsstat:bin/x: {owner: 0}", "unknown field `owner`"),
    ] {
        let x = if kept.starts_with("tarsstat:bin/x") { "" } else { "tarsstat:bin/x: {mode: '04755'}, " };
        keeping(&workshop, &format!("{{{kept}, {x}{c}}}"));
        let message = workshop.refused(&["build", "framework.yaml"], 2);
        assert!(message.contains(why) && message.contains("framework.yaml"), "{kept}: {message}");
    }
    keeping(&workshop, &format!("{{tarsstat:bin/x: {{mode: '04755'}}, {X}: {{mode: '04755'}}, {c}}}"));
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("the same file is there twice"), "{message}");
    // The recipe may narrow who may run it.
    keeping(&workshop, &format!("{{tarsstat:bin/x: {{mode: '04710'}}, {c}}}"));
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    let image = layout::read(&workshop.path("out"), None).unwrap();
    assert_eq!(rights(&layer(&image, "tarsstat"))[&X[1..]], (0o4710, None));
}

/// How many layers there are, and what is in the last but one.
fn on_top(workshop: &Workshop, layout_folder: &str) -> (usize, Rights) {
    let image = layout::read(&workshop.path(layout_folder), None).unwrap();
    let top = &image.layers[image.layers.len() - 2];
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(top.source.open().unwrap()).read_to_end(&mut tar).unwrap();
    (image.layers.len(), rights(&tar))
}

#[test]
fn layers_on_top_of_a_predecessor_carry_privileges_and_a_change_of_them_alone_is_a_change() {
    let workshop = workshop_with(&[with_bits("0000755")]);
    workshop.json(&["build", "framework.yaml", "-o", "oci:one:1"]);
    let before = layout::read(&workshop.path("one"), None).unwrap().layers.len();
    let build = |out: &str, after: &str| {
        workshop.json(&["build", "framework.yaml", "--version", "3.0.17-1", "--after", after, "-o", out])
    };
    pack_with(&workshop, "packages/tarsstat.tgz", &[with_capabilities(&BIND)]);
    keeping(&workshop, "{tarsstat:bin/x: {capabilities: cap_net_bind_service=ep}}");
    build("oci:two:1", "oci:one:1");
    let (layers, top) = on_top(&workshop, "two");
    assert_eq!(layers, before + 1);
    let files: Vec<&String> = top.keys().filter(|path| path.contains("/bin/")).collect();
    assert_eq!(files, ["usr/local/app/tars/tarsstat/bin/", &X[1..]]);
    assert_eq!(top[&X[1..]], (0o755, Some(BIND.to_vec())));
    // And back: the layer without it lies on top of both.
    pack_with(&workshop, "packages/tarsstat.tgz", &[with_bits("0000755")]);
    workshop.write("framework.yaml", RECIPE);
    build("oci:three:1", "oci:two:1");
    let (layers, top) = on_top(&workshop, "three");
    assert_eq!((layers, &top[&X[1..]]), (before + 2, &(0o755, None)));

    // A patch: what the image has stays so, anything else needs the recipe.
    let patch = |out: &str, image: &str| {
        let arguments = ["build", "--patch", "tarsstat=new.tgz", "--version", "3.0.17-2", image, "-o", out];
        arguments.map(str::to_owned)
    };
    let with = |content: &'static [u8], value: &[u8]| Raw { content, ..with_capabilities(value) };
    pack_with(&workshop, "new.tgz", &[with(b"new", &BIND)]);
    workshop.json(&patch("oci:four:1", "oci:two:1").each_ref().map(String::as_str));
    assert_eq!(on_top(&workshop, "four").1[&X[1..]], (0o755, Some(BIND.to_vec())));
    let message = workshop.refused(&patch("oci:five:1", "oci:one:1").each_ref().map(String::as_str), 2);
    assert!(
        message.contains("new.tgz: /usr/local/app/tars/tarsstat/bin/x has cap_net_bind_service=ep"),
        "{message}"
    );
    assert!(message.contains("has not in oci:one:1"), "{message}");
    pack_with(&workshop, "new.tgz", &[with(b"new", &RAW)]);
    let message = workshop.refused(&patch("oci:five:1", "oci:two:1").each_ref().map(String::as_str), 2);
    assert!(message.contains("is not what the file has in oci:two:1: cap_net_bind_service=ep"), "{message}");
    pack_with(&workshop, "new.tgz", &[with_bits("0000755")]);
    let message = workshop.refused(&patch("oci:five:1", "oci:two:1").each_ref().map(String::as_str), 2);
    assert!(message.contains("lacks what the file has in oci:two:1: cap_net_bind_service=ep"), "{message}");
}

#[test]
fn diff_tells_privileges_of_what_came_and_went_with_a_whole_layer() {
    let workshop = Workshop::new();
    workshop.write("ping", "x");
    let recipe =
        |files: &str| format!("name: p\nversion: 1\nrole: plain\nbase: scratch\ninit: tars-init\n{files}");
    let files = "files: {ping: {path: /bin/ping, mode: '04755', capabilities: cap_net_raw=ep}}\n";
    for (file, files) in [("without", ""), ("with", files)] {
        workshop.write("p.yaml", &recipe(files));
        workshop.json(&["build", "p.yaml", "-o", &format!("oci:{file}:1")]);
    }
    let diff = workshop.json(&["diff", "oci:without:1", "oci:with:1"]);
    let told = json!([{"key": "/bin/ping", "from": null, "to": "setuid cap_net_raw=ep"}]);
    assert_eq!(diff["privileges"], told, "{diff}");
    let text = String::from_utf8(workshop.run(&["diff", "oci:with:1", "oci:without:1"]).stdout).unwrap();
    assert!(text.contains("- privileges of /bin/ping: setuid cap_net_raw=ep"), "{text}");
}

#[test]
fn files_of_the_host_keep_what_the_recipe_says_and_are_refused_otherwise() {
    let workshop = Workshop::new();
    workshop.write("ping", "x");
    fs::create_dir(workshop.path("tools")).unwrap();
    workshop.write("tools/ping", "x");
    for file in ["ping", "tools/ping"] {
        fs::set_permissions(workshop.path(file), fs::Permissions::from_mode(0o4755)).unwrap();
    }
    let recipe = |rest: &str| {
        workshop.write("p.yaml", &format!("name: p\nversion: 1\nrole: plain\nbase: scratch\n{rest}\n"));
    };
    let built = || {
        workshop.json(&["build", "p.yaml", "-o", "oci:out:1"]);
        let found = rights(&layer(&layout::read(&workshop.path("out"), None).unwrap(), "files"));
        fs::remove_dir_all(workshop.path("out")).unwrap();
        found
    };
    recipe("files: {ping: /bin/ping}");
    let message = workshop.refused(&["build", "p.yaml"], 2);
    assert!(message.contains("ping: /bin/ping has setuid") && message.contains("mode: '04755'"), "{message}");
    recipe("files: {ping: {path: /bin/ping, mode: '04755'}}");
    assert_eq!(built()["bin/ping"], (0o4755, None));
    recipe("files: {ping: /bin/ping}\nprivileges: {/bin/ping: {mode: '04711'}}");
    assert_eq!(built()["bin/ping"], (0o4711, None));
    recipe("files: {tools: /opt}");
    let message = workshop.refused(&["build", "p.yaml"], 2);
    assert!(message.contains("tools/ping: /opt/ping has setuid"), "{message}");
    recipe("files: {tools: /opt}\nprivileges: {/opt/ping: {mode: '04755'}}");
    assert_eq!(built()["opt/ping"], (0o4755, None));
    // A recipe gives capabilities as it gives modes: a checkout of a repository has none.
    recipe("files: {tools: {path: /opt, mode: '0755', capabilities: 'cap_net_raw+ep cap_kill+ep'}}");
    let mut both = BIND;
    (both[4], both[5]) = (32, 32);
    assert_eq!(built()["opt/ping"], (0o755, Some(both.to_vec())));

    if let Err(error) = setxattr(workshop.path("ping"), "security.capability", &BIND, XattrFlags::empty()) {
        eprintln!("not tested: a file of the host with capabilities, which only root may make: {error}");
        return;
    }
    // The write of an attribute takes no bit away.
    recipe("files: {ping: {path: /bin/ping, mode: '0755'}}");
    let message = workshop.refused(&["build", "p.yaml"], 2);
    assert!(message.contains("ping: /bin/ping has cap_net_bind_service=ep"), "{message}");
    recipe(
        "files: {ping: {path: /bin/ping, mode: '0755'}}\nprivileges: {/bin/ping: {capabilities: cap_net_bind_service=ep}}",
    );
    assert_eq!(built()["bin/ping"], (0o755, Some(BIND.to_vec())));
    // An upstream install tree, by the same rule.
    fs::create_dir_all(workshop.path("tree/framework/servers/tarsstat/bin")).unwrap();
    workshop.write("tree/framework/servers/tarsstat/bin/tarsstat", "#!/bin/sh\n");
    let program = workshop.path("tree/framework/servers/tarsstat/bin/tarsstat");
    setxattr(&program, "security.capability", &RAW, XattrFlags::empty()).unwrap();
    fs::remove_file(workshop.path("packages/tarsstat.tgz")).unwrap();
    let with_tree = RECIPE.replace("[packages/*.tgz]", "[packages/*.tgz, tree]");
    workshop.write("framework.yaml", &with_tree);
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("tree: /usr/local/app/tars/tarsstat/bin/tarsstat has cap_"), "{message}");
    let kept = "privileges: {tarsstat:bin/tarsstat: {capabilities: 'cap_setpcap,cap_net_raw=ep'}}";
    workshop.write("framework.yaml", &format!("{with_tree}{kept}\n"));
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    let found = rights(&layer(&layout::read(&workshop.path("out"), None).unwrap(), "tarsstat"));
    assert_eq!(found["usr/local/app/tars/tarsstat/bin/tarsstat"], (0o755, Some(RAW.to_vec())));
}

#[test]
fn privileges_of_tars_init_and_of_the_console_and_deploy_folders_are_asked_for_too() {
    let workshop = Workshop::new();
    fs::set_permissions(workshop.path("tars-init"), fs::Permissions::from_mode(0o4755)).unwrap();
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("tars-init: /usr/local/bin/tars-init has setuid"), "{message}");
    fs::set_permissions(workshop.path("tars-init"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(workshop.path("deploy/sql/db_tars.sql"), fs::Permissions::from_mode(0o2755)).unwrap();
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(
        message.contains("deploy: /usr/local/tars/cpp/deploy/framework/sql/db_tars.sql has setgid"),
        "{message}"
    );
}

#[test]
fn bundle_of_a_node_keeps_bits_and_refuses_capabilities_that_unpacking_loses() {
    let workshop = Workshop::new();
    let node = RECIPE.replace("tars/framework", "tars/node").replace("role: framework", "role: node");
    let write = |more: &[Raw<'_>], kept: &str| {
        // The node's package alone: what is below `util` comes along.
        let mut entries = more.to_vec();
        let program = crate::packages::program(tarsup::tars::Service::Node, "3.0.17");
        let program =
            Raw { name: b"tarsnode/bin/tarsnode", mode: "0000755", content: &program, ..Raw::default() };
        entries.push(program);
        pack(&workshop, "node.tgz", &entries);
        workshop.write(
            "node.yaml",
            &format!("{}privileges: {kept}\n", node.replace("packages/*.tgz", "node.tgz")),
        );
        workshop.json(&["build", "node.yaml", "-o", "oci:node:1"]);
    };
    let bundle = ["node", "bundle", "oci:node:1", "--registry", "172.25.0.3", "-o", "node-bundle.tgz"];
    let tool = |entry: Raw<'static>| Raw { name: b"tarsnode/util/x", ..entry };
    write(&[tool(with_bits("0004755"))], "{tarsnode:util/x: {mode: '04755'}}");
    workshop.json(&bundle);
    let mut tar = Vec::new();
    let file = fs::File::open(workshop.path("node-bundle.tgz")).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut tar).unwrap();
    assert_eq!(rights(&tar)["tars-node/root/usr/local/app/tars/tarsnode/util/x"].0, 0o4755);
    fs::remove_dir_all(workshop.path("node")).unwrap();
    write(&[tool(with_capabilities(&BIND))], "{tarsnode:util/x: {capabilities: cap_net_bind_service=ep}}");
    let message = workshop.refused(&bundle, 2);
    assert!(
        message.contains("/usr/local/app/tars/tarsnode/util/x of oci:node:1 has cap_net_bind_service=ep"),
        "{message}"
    );
}
