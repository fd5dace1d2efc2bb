//! `tarsup build`: what is in an image, and that the same content gives the same digests.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use tarsup::oci::{Digest, Image};
use tarsup::tars::Service;
use tarsup::transport::layout;

use crate::packages::{Entry, Packer, RECIPE, Workshop, document, entries, program};

/// Golden: these change only with the encoder, the layout in the image, or the config's format; then say so in the
/// changelog, as every host is sent every layer again.
const GOLDEN_MANIFEST: &str = "sha256:73454965fea1e6634a806dadae8244f12cc26ddadfad531a3e3faa199d6f2929";
const GOLDEN_TARSSTAT: &str = "sha256:4ddfc4dc7a83b17dbf775079f120c8e812401cfa4490fdc7f455d451ba356e82";

fn layer<'a>(document: &'a Value, name: &str) -> &'a Value {
    let layers = document["layers"].as_array().unwrap();
    layers.iter().find(|layer| layer["name"] == name).unwrap_or_else(|| panic!("no layer {name}: {document}"))
}

fn names(document: &Value) -> Vec<&str> {
    document["layers"].as_array().unwrap().iter().map(|layer| layer["name"].as_str().unwrap()).collect()
}

/// Path → kind, mode and owner, link, content; of one layer.
fn contents(image: &Image, name: &str) -> BTreeMap<String, (char, u32, String, Vec<u8>)> {
    let index = image.layer_names().iter().position(|have| have == name).unwrap();
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(image.layers[index].source.open().unwrap())
        .read_to_end(&mut tar)
        .unwrap();
    assert_eq!(Digest::of(&tar), image.layers[index].diff_id, "the diff id is that of the tar");
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0), "{path}");
        let kind = char::from(header.entry_type().as_byte());
        assert!(found.insert(path, (kind, header.mode().unwrap(), link, content)).is_none(), "twice");
    }
    found
}

#[test]
fn build_of_known_packages_has_the_known_digests() {
    let document = Workshop::new().json(&["build", "framework.yaml"]);
    assert_eq!(layer(&document, "tarsstat")["digest"], GOLDEN_TARSSTAT);
    assert_eq!(document["digest"], GOLDEN_MANIFEST);
}

#[test]
fn build_puts_every_service_to_its_place() {
    let workshop = Workshop::new();
    let document = workshop.json(&["build", "framework.yaml", "-o", "oci:out:3.0.17"]);
    let mut expected: Vec<&str> = Service::ALL.iter().map(|service| service.name()).collect();
    expected.extend(["deploy", "tars-init", "contents"]);
    assert_eq!(names(&document), expected);

    let image = layout::read(&workshop.path("out"), Some("3.0.17")).unwrap();
    assert_eq!(image.digest().to_string(), document["digest"].as_str().unwrap());
    for service in Service::ALL {
        let layer = contents(&image, service.name());
        let path = format!("usr/local/app/tars/{service}/bin/{service}");
        assert_eq!(layer[&path], ('0', 0o755, String::new(), program(service, "3.0.17")));
        assert_eq!(layer["usr/local"].0, '5', "parents are in the layer, with modes of their own");
        assert_eq!(layer.len(), 7);
    }
    let init = contents(&image, "tars-init");
    let link = |path: &str| init[path].2.clone();
    assert_eq!(link("usr/local/app/tars/tarsnode/data"), "/data/tars/tarsnode-data");
    assert_eq!(link("usr/local/app/tars/app_log"), "/data/tars/app_log");
    assert_eq!(link("usr/local/app/tars/remote_app_log"), "/data/tars/remote_app_log");
    assert_eq!(link("usr/local/app/patchs"), "/data/tars/patchs");
    assert_eq!(init["usr/local/bin/tars-init"].1, 0o755);
    let deploy = contents(&image, "deploy");
    let sql = "usr/local/tars/cpp/deploy/framework/sql/db_tars.sql";
    assert_eq!(deploy[sql], ('0', 0o644, String::new(), b"CREATE TABLE t (a INT);\n".to_vec()));
}

#[test]
fn build_writes_the_config_that_the_role_needs() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    let image = layout::read(&workshop.path("out"), None).unwrap();
    let config: Value = serde_json::from_slice(&image.config).unwrap();
    let run = &config["config"];
    assert_eq!(run["Entrypoint"], serde_json::json!(["/usr/local/bin/tars-init", "framework"]));
    assert!(run["Env"].as_array().unwrap().contains(&"TARSUP_VERSION=3.0.17".into()));
    assert_eq!(run["Volumes"], serde_json::json!({ "/data/tars": {} }));
    assert_eq!(run["Healthcheck"]["Test"], serde_json::json!(["CMD", "/usr/local/bin/tars-init", "health"]));
    assert_eq!(run["Healthcheck"]["Interval"], 10_000_000_000_u64);
    assert_eq!(run["StopSignal"], "SIGTERM");
    assert_eq!(run["Labels"]["org.opencontainers.image.version"], "3.0.17");
    for port in ["17890/tcp", "19385/tcp", "19386/tcp", "12000/tcp"] {
        assert!(run["ExposedPorts"].get(port).is_some(), "{port}");
    }
    assert_eq!(config["rootfs"]["type"], "layers");
    assert_eq!(config["history"].as_array().unwrap().len(), image.layers.len());
}

#[test]
fn build_is_the_same_whatever_the_packer_did_and_wherever_it_runs() {
    let first = Workshop::new();
    let expected = first.json(&["build", "framework.yaml"])["digest"].clone();

    let second = Workshop::new();
    let packer =
        Packer { mtime: 1_600_000_001, owner: 1234, backwards: true, gzip: (1_700_000_099, 1), umask: 0o077 };
    second.pack_all(packer, "3.0.17");
    for path in ["deploy/sql/db_tars.sql", "tars-init", "deploy/conf/tarslog/conf/tars.tarslog.config.conf"] {
        fs::set_permissions(second.path(path), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let recipe = second.path("framework.yaml");
    let mut command = second.command(&["build", recipe.to_str().unwrap(), "--json"]);
    command.current_dir("/").env("TZ", "Asia/Shanghai").env("LC_ALL", "C").env("TARSUP_THREADS", "7");
    assert_eq!(document(&command.output().unwrap())["digest"], expected);

    // One package a service instead of the bundle: the same content.
    let third = Workshop::new();
    fs::remove_file(third.path("packages/framework.tgz")).unwrap();
    for service in Service::ALL {
        third.pack(Packer::default(), service, "3.0.17");
    }
    let mut command = third.command(&["build", "framework.yaml", "--json"]);
    assert_eq!(document(&command.env("TARSUP_THREADS", "1").output().unwrap())["digest"], expected);
}

#[test]
fn build_moves_one_layer_when_one_service_changes() {
    let workshop = Workshop::new();
    let before = workshop.json(&["build", "framework.yaml"]);
    // All packages are other files now; one has other content.
    workshop.pack_all(Packer { mtime: 1_700_050_000, ..Packer::default() }, "3.0.17");
    workshop.pack(Packer::default(), Service::Property, "3.0.18");
    let after = workshop.json(&["build", "framework.yaml", "--version", "3.0.18"]);
    for name in names(&before) {
        let (old, new) = (layer(&before, name), layer(&after, name));
        let stays = !["tarsproperty", "contents"].contains(&name);
        assert_eq!(old["diff_id"] == new["diff_id"], stays, "{name}");
        assert_eq!(new["cached"], stays, "{name}");
    }
    assert_eq!(names(&before), names(&after), "without --after the order is canonical");
    assert_eq!(after["image"], "tars/framework:3.0.18");
}

#[test]
fn build_after_a_predecessor_leaves_its_layers_and_puts_what_changed_on_top() {
    let workshop = Workshop::new();
    let before = workshop.json(&["build", "framework.yaml"]);
    let mut expected = names(&before);
    let mut last = "3.0.17";
    for version in ["3.0.18", "3.0.19"] {
        workshop.pack(Packer::default(), Service::Property, version);
        let after = format!("tars/framework:{last}");
        let command = ["build", "framework.yaml", "--version", version, "--after", &after];
        let plan = workshop.json(&[&command[..], &["--plan"]].concat());
        let built = workshop.json(&command);
        expected.pop();
        expected.extend(["tarsproperty", "contents"]);
        assert_eq!(names(&built), expected, "each of the predecessor's layers is where it was");
        assert_eq!(names(&plan), expected, "and the plan says so");
        assert_eq!(
            workshop.json(&command)["digest"],
            built["digest"],
            "same inputs and predecessor, same digest"
        );
        let diff = workshop.json(&["diff", &after, &format!("tars/framework:{version}")]);
        assert_eq!(diff["classic"]["layers"], 2, "the service and the list: {diff}");
        assert_eq!(
            diff["changed"].as_array().unwrap().len(),
            1,
            "what is covered is nobody's business: {diff}"
        );
        let files = diff["changed"][0]["files"].as_array().unwrap();
        let path = "/usr/local/app/tars/tarsproperty/bin/tarsproperty";
        assert_eq!((files.len(), &files[0]["path"]), (1, &path.into()));
        let key = "Labels.org.opencontainers.image.version";
        assert!(diff["config"].as_array().unwrap().iter().any(|change| change["key"] == key), "{diff}");
        last = version;
    }
    // Nothing changed but the version: no layer is made.
    let same =
        workshop.json(&["build", "framework.yaml", "--version", "4", "--after", "tars/framework:3.0.19"]);
    assert_eq!(names(&same), expected);
    assert!(same["layers"].as_array().unwrap().iter().all(|layer| layer["cached"] == true), "{same}");

    // A third program beneath is more than a fifth: the order is canonical again, and that is said with its price.
    workshop.pack(Packer::default(), Service::Stat, "3.0.20");
    let command =
        ["build", "framework.yaml", "--version", "3.0.20", "--after", "tars/framework:3.0.19", "--json"];
    let output = workshop.run(&command);
    assert_eq!(names(&document(&output)), names(&before));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("% of what lies above the base would be covered") && said.contains("is sent 9 of them"),
        "{said}"
    );
    workshop.write(
        "wide.yaml",
        &(fs::read_to_string(workshop.path("framework.yaml")).unwrap() + "relayer: {share: 90}\n"),
    );
    let command = ["build", "wide.yaml", "--version", "3.0.20", "--after", "tars/framework:3.0.19"];
    assert_eq!(names(&workshop.json(&command)).len(), expected.len() + 1);
    let fresh = workshop.json(&["build", "framework.yaml", "--version", "3.0.20"]);
    let ids = |built: &Value| -> Vec<Value> {
        built["layers"].as_array().unwrap().iter().map(|layer| layer["diff_id"].clone()).collect()
    };
    assert_eq!(ids(&document(&output)), ids(&fresh));
    let command =
        ["build", "framework.yaml", "--version", "5", "--after", "tars/framework:3.0.18", "--relayer"];
    assert_eq!(ids(&workshop.json(&command)), ids(&fresh));
}

#[test]
fn no_more_layers_lie_on_top_than_the_recipe_lets() {
    let workshop = Workshop::new();
    let recipe = fs::read_to_string(workshop.path("framework.yaml")).unwrap();
    workshop.write("framework.yaml", &(recipe + "relayer: {share: 90, layers: 2}\n"));
    let first = workshop.json(&["build", "framework.yaml", "--version", "1"]);
    let mut before = names(&first);
    for (version, service) in [(2, Service::Stat), (3, Service::Log), (4, Service::Property)] {
        let after = format!("tars/framework:{}", version - 1);
        workshop.pack(Packer::default(), service, &format!("3.1.{version}"));
        let (version, is_canonical) = (version.to_string(), version == 4);
        let command = ["build", "framework.yaml", "--version", &version, "--after", &after, "--json"];
        let output = workshop.run(&command);
        let built = document(&output);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.contains("3 layers would lie on top"), is_canonical, "{version}: {said}");
        if is_canonical {
            assert_eq!(names(&built), names(&first));
        } else {
            before.insert(before.len() - 1, service.name());
            assert_eq!(names(&built), before);
        }
    }
    // What was put into order may be built upon once more.
    workshop.pack(Packer::default(), Service::Stat, "3.1.5");
    let next = workshop.json(&["build", "framework.yaml", "--version", "5", "--after", "tars/framework:4"]);
    assert_eq!(names(&next).len(), names(&first).len() + 1);
}

#[test]
fn build_reads_the_installers_layout_and_an_installed_tree() {
    let workshop = Workshop::new();
    let expected = workshop.json(&["build", "framework.yaml"]);
    // `<service>/{bin,conf,util}`, with `./` in front as GNU tar writes it.
    let stat = program(Service::Stat, "3.0.17");
    Packer::default().write(
        &workshop.path("packages/tarsstat.tgz"),
        vec![Entry::Folder("./".to_owned()), Entry::File("./tarsstat/bin/tarsstat".to_owned(), stat, true)],
    );
    assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], expected["digest"]);

    for service in Service::ALL {
        let bin = workshop.path(&format!("installed/framework/servers/{service}/bin"));
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join(service.name()), program(service, "3.0.17")).unwrap();
    }
    fs::write(workshop.path("installed/FRAMEWORK_VERSION.txt"), "3.0.17").unwrap();
    let installed = workshop.json(&["build", "framework.yaml", "--packages", "installed"]);
    assert_eq!(installed["digest"], expected["digest"]);
}

#[test]
fn build_keeps_a_services_data_out_of_the_volumes_place() {
    let workshop = Workshop::new();
    let mut node = entries(Service::Node, "3.0.17");
    node.push(Entry::File("tarsnode/data/lib/README".to_owned(), b"x".to_vec(), false));
    node.push(Entry::Link("tarsnode/bin/node".to_owned(), "tarsnode".to_owned()));
    Packer::default().write(&workshop.path("node.tgz"), node);
    workshop
        .write("node.yaml", &RECIPE.replace("role: framework", "role: node").replace("packages/*", "node"));
    workshop.json(&["build", "node.yaml", "-o", "oci:out:1"]);
    let image = layout::read(&workshop.path("out"), None).unwrap();
    let layer = contents(&image, "tarsnode");
    assert!(layer.contains_key("usr/local/tars/cpp/deploy/framework/servers/tarsnode/data/lib/README"));
    assert_eq!(layer["usr/local/app/tars/tarsnode/bin/node"].2, "tarsnode");
    let config = image.parsed_config().unwrap();
    assert_eq!(config.config.entrypoint, ["/usr/local/bin/tars-init", "node"]);
    assert_eq!(config.config.exposed_ports.len(), 2);
}

#[test]
fn node_brings_what_business_services_run_on() {
    let workshop = Workshop::new();
    fs::create_dir_all(workshop.path("jdk/bin")).unwrap();
    workshop.write("jdk/bin/java", "#!/bin/sh\n");
    workshop.write("java.sh", "PATH=$PATH:/opt/jdk/bin\n");
    let recipe = RECIPE.replace("role: framework", "role: node");
    workshop.write(
        "node.yaml",
        &format!(
            "{recipe}files: {{jdk: /opt/jdk, jdk/bin/java: {{path: /usr/bin/java, mode: '0755'}}, java.sh: /etc/profile.d/java.sh}}\n\
             env: {{JAVA_HOME: /opt/jdk}}\n"
        ),
    );
    let built = workshop.json(&["build", "node.yaml", "-o", "oci:out:1"]);
    assert_eq!(names(&built), ["tarsnode", "files", "deploy", "tars-init", "contents"]);
    let image = layout::read(&workshop.path("out"), None).unwrap();
    let files = contents(&image, "files");
    assert_eq!(files["usr/bin/java"].1, 0o755);
    assert_eq!(files["opt/jdk/bin/java"].3, b"#!/bin/sh\n");
    assert_eq!(files["etc/profile.d/java.sh"].3, b"PATH=$PATH:/opt/jdk/bin\n");
    let config = image.parsed_config().unwrap().config;
    assert!(config.env.contains(&"JAVA_HOME=/opt/jdk".to_owned()), "{:?}", config.env);
    assert_eq!(config.entrypoint, ["/usr/local/bin/tars-init", "node"], "the role stays what it is");
}

#[test]
fn build_of_a_node_from_the_bundle_takes_tarsnode_alone_and_says_so() {
    let workshop = Workshop::new();
    workshop.write("node.yaml", &RECIPE.replace("role: framework", "role: node"));
    let output = workshop.run(&["build", "node.yaml", "--json"]);
    assert_eq!(names(&document(&output)), ["tarsnode", "deploy", "tars-init", "contents"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("role node leaves out tarsAdminRegistry"), "{stderr}");
}

#[test]
fn build_warns_of_a_package_that_is_much_older_than_the_others() {
    let workshop = Workshop::new();
    workshop.pack(Packer { mtime: 1_600_000_000, ..Packer::default() }, Service::Log, "3.0.17");
    let output = workshop.run(&["build", "framework.yaml"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("tarslog was built 1157 days before"), "{stderr}");
    assert_eq!(stderr.matches("warning").count(), 1, "{stderr}");

    // Half an hour is one build; three are not, and all are named in one sentence.
    let earlier = |seconds| Packer { mtime: Packer::default().mtime - seconds, ..Packer::default() };
    workshop.pack(earlier(1800), Service::Log, "3.0.17");
    let strict = ["build", "framework.yaml", "--strict"];
    assert!(workshop.run(&strict).status.success());
    workshop.pack(earlier(3 * 3600 + 1), Service::Stat, "3.0.17");
    let message = workshop.refused(&strict, 3);
    assert!(message.contains("tarsstat was built 3 hours before the newest of the services"), "{message}");
    workshop.pack(earlier(50 * 3600), Service::Log, "3.0.17");
    let message = workshop.refused(&strict, 3);
    assert!(
        message.contains("tarsstat, tarslog were built 3 hours to 2 days before the newest of the services;"),
        "{message}"
    );
}

#[test]
fn build_takes_the_date_of_the_config_alone_from_source_date_epoch() {
    let workshop = Workshop::new();
    let before = workshop.json(&["build", "framework.yaml"]);
    let mut command = workshop.command(&["build", "framework.yaml", "--json"]);
    let after = document(&command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap());
    assert_eq!(before["layers"][0]["digest"], after["layers"][0]["digest"]);
    assert_ne!(before["config_digest"], after["config_digest"]);
    let shown = workshop.json(&["inspect", "tars/framework:3.0.17"]);
    assert_eq!(shown["created"], "2023-11-14T22:13:20Z");
}

#[test]
fn plan_writes_to_its_cache_alone_and_tells_what_is_there() {
    let workshop = Workshop::new();
    let listing = || -> Vec<String> {
        workshop.listing().into_iter().filter(|path| !path.starts_with("cache")).collect()
    };
    let before = listing();
    let plan = workshop.json(&["build", "framework.yaml", "--plan"]);
    assert_eq!(listing(), before);
    assert!(plan["layers"].as_array().unwrap().iter().all(|layer| layer["cached"] == false), "{plan}");
    let plan = workshop.json(&["build", "framework.yaml", "--plan"]);
    assert!(plan["layers"].as_array().unwrap().iter().all(|layer| layer["cached"] == true), "{plan}");
}

#[test]
fn plain_image_holds_what_its_recipe_says() {
    let workshop = Workshop::new();
    workshop.write("my.cnf", "[mysqld]\n");
    workshop.write(
        "database.yaml",
        "name: tars/database\nversion: 3.10\nrole: plain\nbase: scratch\nentrypoint: [/start]\ncmd: mysqld\n\
         env: {TZ: UTC, N: 1}\nuser: mysql\nworkdir: /var\nports: [3306, 53/udp]\nvolumes: [/var/lib/mysql]\n\
         stop_signal: SIGTERM\nhealthcheck: {test: mysqladmin ping, interval: 1m30s, start_period: 1m, start_interval: 2s, retries: 5}\n\
         files:\n  my.cnf: /etc/mysql/my.cnf\n  tars-init: {path: /start, mode: 0755}\n",
    );
    let built = workshop.json(&["build", "database.yaml", "-o", "oci:out"]);
    assert_eq!(
        built["image"], "tars/database:3.10",
        "a version is a text, also where it looks like a number"
    );
    let image = layout::read(&workshop.path("out"), Some("3.10")).unwrap();
    let files = contents(&image, "files");
    assert_eq!(files["start"].1, 0o755);
    assert_eq!(files["etc/mysql/my.cnf"].3, b"[mysqld]\n");
    let run: Value = serde_json::from_slice::<Value>(&image.config).unwrap()["config"].clone();
    assert_eq!(run["Cmd"], serde_json::json!(["/bin/sh", "-c", "mysqld"]));
    assert_eq!(run["ExposedPorts"], serde_json::json!({ "3306/tcp": {}, "53/udp": {} }));
    assert_eq!(run["Healthcheck"]["Interval"], 90_000_000_000_u64);
    assert_eq!(run["Healthcheck"]["StartInterval"], 2_000_000_000_u64);
    assert_eq!(run["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "mysqladmin ping"]));
    assert!(run["Env"].as_array().unwrap().contains(&"N=1".into()));
}

#[test]
fn base_is_the_first_layer_byte_for_byte_and_its_folders_keep_their_modes() {
    let workshop = Workshop::new();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, gid, kind) in [
        ("./", 0o755, 0, tar::EntryType::Directory),
        ("./usr/", 0o755, 0, tar::EntryType::Directory),
        ("./usr/local/", 0o2775, 50, tar::EntryType::Directory),
        ("./dev/", 0o755, 0, tar::EntryType::Directory),
        ("./dev/null", 0o666, 0, tar::EntryType::Char),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(gid);
        header.set_mtime(1_234_567_890);
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, &[][..]).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    fs::write(workshop.path("base.tar"), &tar).unwrap();
    workshop.write("framework.yaml", &RECIPE.replace("base: scratch", "base: rootfs:base.tar"));
    let built = workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    assert_eq!(built["layers"][0]["name"], "base");
    assert_eq!(built["layers"][0]["diff_id"], Digest::of(&tar).to_string());
    let image = layout::read(&workshop.path("out"), None).unwrap();
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(image.layers[2].source.open().unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let local = archive.entries().unwrap().map(Result::unwrap).find(|e| e.path_bytes().ends_with(b"local/"));
    let local = local.unwrap().header().clone();
    assert_eq!((local.mode().unwrap(), local.gid().unwrap()), (0o2775, 50));
    let again = workshop.json(&["build", "framework.yaml"]);
    assert_eq!(again["layers"][0]["cached"], true);
    assert_eq!(again["digest"], built["digest"]);
}

#[test]
fn web_is_the_first_layer_with_its_logs_in_the_volume() {
    let workshop = Workshop::new();
    let file = |name: &str, executable| Entry::File(name.to_owned(), b"x".to_vec(), executable);
    let modules = Entry::Link("web/node_modules/.bin/www".to_owned(), "../../bin/www".to_owned());
    let web =
        vec![Entry::Folder("web/".to_owned()), file("web/package.json", false), file("web/bin/www", true)];
    Packer::default().write(&workshop.path("web.tgz"), web.into_iter().chain([modules]).collect());
    workshop.write("framework.yaml", &format!("{RECIPE}web: web.tgz\nfiles: {{tars-init: /usr/bin/node}}\n"));
    let built = workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    assert_eq!(names(&built)[0], "web");
    let image = layout::read(&workshop.path("out"), None).unwrap();
    let web = contents(&image, "web");
    assert_eq!(web["usr/local/app/web/bin/www"].1, 0o755);
    assert_eq!(web["usr/local/app/web/node_modules/.bin/www"].2, "../../bin/www");
    assert_eq!(web["usr/local/app/web/log"].2, "/data/tars/web_log");
    assert!(image.parsed_config().unwrap().config.exposed_ports.contains("3000/tcp"));

    // Packed without the folder around it: the same layer.
    let flat = vec![file("package.json", false), file("bin/www", true)];
    let link = Entry::Link("node_modules/.bin/www".to_owned(), "../../bin/www".to_owned());
    Packer::default().write(&workshop.path("web.tgz"), flat.into_iter().chain([link]).collect());
    assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], built["digest"]);
}

#[test]
fn web_folder_is_the_same_layer_as_its_package_and_is_read_again_once_it_changes() {
    let workshop = Workshop::new();
    let file = |name: &str, executable| Entry::File(name.to_owned(), name.as_bytes().to_vec(), executable);
    let link = |name: &str, to: &str| Entry::Link(name.to_owned(), to.to_owned());
    let entries = vec![
        Entry::Folder("web/".to_owned()),
        Entry::Folder("web/files/".to_owned()),
        file("web/package.json", false),
        file("web/bin/www", true),
        file("web/sql/db_base.sql", false),
        file("web/node_modules/ä/index.js", false),
        link("web/node_modules/.bin/www", "../../bin/www"),
    ];
    Packer::default().write(&workshop.path("web.tgz"), entries);
    let unpack = |into: &str| {
        let mut tar = std::process::Command::new("tar");
        fs::create_dir_all(workshop.path(into)).unwrap();
        let tar = tar.args(["-xzf", "web.tgz", "-C", into]).current_dir(workshop.folder.path()).status();
        assert!(tar.unwrap().success());
    };
    let build = |web: &str| {
        let recipe = format!("{RECIPE}web: {web}\nfiles: {{tars-init: /usr/bin/node}}\n");
        workshop.write("framework.yaml", &recipe);
        workshop.json(&["build", "framework.yaml"])
    };
    let packed = build("web.tgz");
    unpack(".");
    unpack("around");
    // Who made the folder, and when, does not show.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(workshop.path("web/bin/www"), private).unwrap();
    for folder in ["web", "around", "web/"] {
        let image = build(folder);
        assert_eq!(image["digest"], packed["digest"], "{folder}");
        assert_eq!(image["layers"][0]["cached"], true, "{folder}");
    }
    // Once its files are old enough to be told by their times, nothing is read, and every change is seen.
    let is_noted = || {
        let notes = fs::read_dir(workshop.path("cache/notes")).unwrap().map(|note| note.unwrap().path());
        notes.into_iter().any(|note| fs::read_to_string(note).is_ok_and(|text| text.contains("\"warnings\"")))
    };
    while !is_noted() {
        assert_eq!(build("web")["digest"], packed["digest"]);
    }
    assert_eq!(build("web")["digest"], packed["digest"]);
    workshop.write("web/node_modules/ä/index.js", "other");
    let changed = build("web");
    assert_ne!(changed["layers"][0]["diff_id"], packed["layers"][0]["diff_id"]);
    workshop.write("web/node_modules/ä/index.js", "web/node_modules/ä/index.js");
    assert_eq!(build("web")["digest"], packed["digest"]);
    fs::remove_dir(workshop.path("web/files")).unwrap();
    assert_ne!(build("web")["digest"], packed["digest"]);

    // What has no place in a package has none in a folder.
    std::os::unix::fs::symlink("/etc/passwd", workshop.path("web/passwd")).unwrap();
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(
        message.contains("entry `passwd` is a link to `/etc/passwd`, which leaves the package"),
        "{message}"
    );
    fs::remove_file(workshop.path("web/passwd")).unwrap();
    fs::remove_dir_all(workshop.path("web/node_modules")).unwrap();
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("web: there is no `node_modules` in it"), "{message}");
}

#[test]
fn build_takes_what_nodes_are_installed_from_and_says_when_it_is_not_there() {
    let workshop = Workshop::new();
    let file = |name: &str| Entry::File(name.to_owned(), b"x".to_vec(), true);
    let web = vec![file("web/bin/www"), file("web/node_modules/koa/package.json")];
    Packer::default().write(&workshop.path("web.tgz"), web);
    fs::create_dir_all(workshop.path("tree/tools")).unwrap();
    fs::rename(workshop.path("deploy"), workshop.path("tree/framework")).unwrap();
    let recipe = RECIPE.replace("deploy: deploy", "deploy: tree/framework");
    workshop.write("framework.yaml", &format!("{recipe}web: web.tgz\nfiles: {{tars-init: /usr/bin/node}}\n"));
    workshop.write("node.yaml", &recipe.replace("role: framework", "role: node"));
    let doubt = "nodes made the upstream way cannot install from it";
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said(&workshop.run(&["build", "framework.yaml"])).contains(doubt));

    fs::create_dir_all(workshop.path("tree/framework/util-linux/tarsnode/util")).unwrap();
    workshop.write("tree/framework/util-linux/tarsnode/util/start.sh", "TARS_PATH/tarsnode/bin/tarsnode &");
    workshop.write("tree/tools/install.sh", "wget $1/files/tarsnode.tgz");
    let built = workshop.run(&["build", "framework.yaml", "-o", "oci:out:1"]);
    assert!(!said(&built).contains(doubt), "{}", said(&built));
    workshop.json(&["build", "node.yaml", "-o", "oci:node:1"]);

    let deploy = |image: &str| contents(&layout::read(&workshop.path(image), None).unwrap(), "deploy");
    let (framework, node) = (deploy("out"), deploy("node"));
    for path in ["framework/util-linux/tarsnode/util/start.sh", "tools/install.sh"] {
        let path = format!("usr/local/tars/cpp/deploy/{path}");
        assert!(framework.contains_key(&path), "{path} is in the image that has the console");
        assert!(!node.contains_key(&path), "{path} is nothing for a node");
    }
}
