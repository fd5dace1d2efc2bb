//! `tarsup node bundle`: the archive of a node for a machine without Docker.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::packages::{RECIPE, Workshop};

/// Path → mode and text.
fn contents(archive: &Path) -> BTreeMap<String, (u32, String)> {
    let mut tar = tar::Archive::new(MultiGzDecoder::new(fs::File::open(archive).unwrap()));
    let entries = tar.entries().unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.header().entry_type().is_file());
    let read = files.map(|mut entry| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        (path, (entry.header().mode().unwrap(), String::from_utf8_lossy(&bytes).into_owned()))
    });
    read.collect()
}

fn workshop() -> Workshop {
    let workshop = Workshop::new();
    let recipe = RECIPE.replace("tars/framework", "tars/node").replace("role: framework", "role: node");
    workshop.write("node.yaml", &recipe);
    workshop.json(&["build", "node.yaml", "-o", "oci:node:1"]);
    workshop
}

#[test]
fn bundle_holds_the_node_of_the_image_and_a_script_and_is_the_same_each_time() {
    let workshop = workshop();
    let words = ["node", "bundle", "oci:node:1", "--registry", "172.25.0.3", "--registry", "fw2:17899"];
    let report = workshop.json(&[&words[..], &["-o", "node.tgz"]].concat());
    let list = "tcp -h 172.25.0.3 -p 17890:tcp -h fw2 -p 17899";
    assert_eq!((&report["version"], &report["registries"]), (&"3.0.17".into(), &list.into()));
    let found = contents(&workshop.path("node.tgz"));
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let deploy = "tars-node/root/usr/local/tars/cpp/deploy/framework/conf/tarsnode";
    assert_eq!(
        names,
        [
            "tars-node/install.sh",
            "tars-node/root/usr/local/app/tars/tarsnode/bin/tarsnode",
            "tars-node/root/usr/local/bin/tars-init",
            &format!("{deploy}/conf/tars.tarsnode.config.conf"),
            "tars-node/tars-node.env",
            "tars-node/tars-node.service",
        ]
    );
    assert_eq!(found["tars-node/root/usr/local/app/tars/tarsnode/bin/tarsnode"].0, 0o755);
    assert_eq!(
        found["tars-node/tars-node.env"].1,
        format!("TARSUP_VERSION=3.0.17\nTARS_REGISTRY_ADDRESS={list}\n")
    );

    let again = workshop.json(&[&words[..], &["-o", "again.tgz"]].concat());
    assert_eq!(again["digest"], report["digest"]);
    assert_eq!(fs::read(workshop.path("again.tgz")).unwrap(), fs::read(workshop.path("node.tgz")).unwrap());
}

#[test]
fn bundle_takes_its_registries_from_the_deployment() {
    let workshop = workshop();
    let service = |name: &str, image: &str, role: &str, place: &str| {
        format!("  {name}:\n    image: tars/{image}:3.0.17\n    {place}\n    x-tars: {{role: {role}}}\n")
    };
    let fixed = "networks: {default: {ipv4_address: 172.25.0.4}}";
    let compose = format!(
        "services:\n{}{}{}networks:\n  default:\n    ipam: {{config: [{{subnet: 172.25.0.0/16}}]}}\n",
        service("slave", "framework", "slave", fixed),
        service("framework", "framework", "master", "environment: {DOMAIN: fw.tars}"),
        service("node", "node", "node", "environment: {INET: eth0}"),
    );
    workshop.write("compose.yaml", &compose);
    let report = workshop.json(&["node", "bundle", "oci:node:1", "-o", "node.tgz"]);
    assert_eq!(report["registries"], "tcp -h fw.tars -p 17890:tcp -h 172.25.0.4 -p 17890");
}

#[test]
fn bundle_refuses_what_is_no_node_and_leaves_no_file() {
    let workshop = workshop();
    workshop.json(&["build", "framework.yaml", "-o", "oci:framework:1"]);
    for (words, said) in [
        (&["oci:framework:1", "--registry", "fw"][..], "is no image of a node"),
        (&["oci:node:1", "--registry", "fw;rm"], "is no HOST[:PORT]"),
        (&["oci:node:1", "--registry", "fw:0"], "is no HOST[:PORT]"),
    ] {
        let output = workshop.run(&[&["node", "bundle"], words, &["-o", "node.tgz"]].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
    assert!(!workshop.path("node.tgz").exists());
}
