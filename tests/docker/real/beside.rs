//! A server of run type `container` with the real tarsnode: what it starts beside the node goes on, and is its own again. In
//! tests/long.sh; `e2e::beside` has more of it with a stand-in.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use super::hello;
use super::stage::{PATCHED, PREFIX, RELEASE, stage};
use crate::e2e::beside::{Beside, life, mount_socket, socket};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;

/// tarsnode makes privileged containers, and an engine inside a container may not start such: on the way to the engine that word alone is
/// taken out of what it asks for.
struct Unprivileged {
    folder: tempfile::TempDir,
}

impl Unprivileged {
    fn start() -> Self {
        let proxy = Self { folder: tempfile::tempdir().unwrap() };
        let listener = UnixListener::bind(proxy.socket()).unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, engine) = (client.unwrap(), UnixStream::connect(socket()).unwrap());
                let (asks, told) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
                thread::spawn(move || hand_on(asks, engine));
                thread::spawn(move || hand_on(told, client));
            }
        });
        proxy
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }
}

fn hand_on(mut from: UnixStream, mut to: UnixStream) {
    let mut bytes = [0; 16_384];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let (word, none) = (b"\"Privileged\":true", b"\"Privileged\":null");
        if let Some(at) = bytes[..read].windows(word.len()).position(|here| here == word) {
            bytes[at..at + none.len()].copy_from_slice(none);
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn real_tarsnode_finds_what_it_started_beside_it_whatever_is_done_to_the_node() {
    if std::env::var_os("TARSUP_EVERY").is_none() {
        return;
    }
    let Some(stage) = stage("real_tarsnode_finds_what_it_started_beside_it") else { return };
    let beside = Beside("Demo.HelloServer");
    let deployment = &Deployment::of(stage, RELEASE, "real-beside", 111, &["database", "framework", "node"]);
    deployment.edit("compose.yaml", "drain: off", "drain: off, keep_images: 1");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    hello::deploy(deployment, &[("node", 5)]);
    let image = format!("{PREFIX}/node:{RELEASE}");
    let inspected = succeed(Command::new("docker").args(["image", "inspect", "-f", "{{.Id}}", &image]));
    let id = String::from_utf8(inspected.stdout).unwrap().trim().to_owned();
    // It runs on the network of the host, which has an address on the deployment's.
    let of_node = deployment.inspect("node")["NetworkSettings"]["Networks"][deployment.network()].clone();
    let gateway = of_node["Gateway"].as_str().unwrap();
    let host: u8 = gateway.rsplit('.').next().unwrap().parse().unwrap();
    // What the console writes for it. An image that is there by this id is not pulled.
    for statement in [
        "INSERT INTO db_tars.t_docker_registry (id, registry) VALUES (1, 'registry.invalid')",
        &format!(
            "INSERT INTO db_tars.t_base_image (id, image, registryId, sha) VALUES (1, '{image}', 1, '{id}')"
        ),
        "UPDATE db_tars.t_server_conf SET run_type = 'container', base_image_id = 1 WHERE server_name = 'HelloServer'",
        &format!(
            "UPDATE db_tars.t_adapter_conf SET endpoint = 'tcp -h {} -t 60000 -p 9001' WHERE server_name = 'HelloServer'",
            deployment.address(host)
        ),
    ] {
        deployment.query(statement);
    }
    let engine = Unprivileged::start();
    mount_socket(deployment, engine.socket().to_str().unwrap(), beside.0, PATCHED);
    beside.wait();
    let answers = || hello::call(deployment, Some(host)).code == 0;
    wait_for("it to answer", answers);
    assert_eq!(beside.inspect()["Config"]["Image"], image.as_str());

    beside.goes_on(deployment, PATCHED);
    assert!(answers());
    // The tarsnode of the new container takes it for its own: it says its process, as the engine numbers it.
    let pid = beside.inspect()["State"]["Pid"].clone();
    let row = "SELECT CONCAT(present_state, ' ', process_id) FROM db_tars.t_server_conf WHERE server_name = 'HelloServer'";
    wait_for("tarsnode to take it for its own", || deployment.query(row).trim() == format!("active {pid}"));

    // And it can start it again.
    let before = life(&beside.inspect());
    succeed(Command::new("docker").args(["kill", beside.0]));
    wait_for("tarsnode to start it again", || {
        let now = beside.inspect();
        now["State"]["Running"] == true && life(&now) != before
    });
    wait_for("it to answer again", answers);
}
