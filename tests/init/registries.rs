//! A node that is told where the web console is, and finds its registries by it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::container::Container;

/// The frame with which a real registry answers tars_ping.
const PONG: &[u8] = b"\x00\x00\x00\x10\x10\x01\x2c\x30\x01\x4c\x5c\x6d\x00\x0c\x78\x0c";

/// Listens until it is dropped, and gives everybody who says something the same answer.
struct Answering {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

impl Answering {
    fn with(answer: Vec<u8>, at: impl ToSocketAddrs) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (over, port) = (Arc::new(AtomicBool::new(false)), listener.local_addr().unwrap().port());
        let told = Arc::clone(&over);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                let Ok((mut client, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                client.set_nonblocking(false).unwrap();
                client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                if client.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    let _ = client.write_all(&answer);
                }
            }
        });
        Self { over, thread: Some(thread), port }
    }

    fn registry(address: &str) -> Self {
        Self::with(PONG.to_vec(), (address, 17890))
    }

    /// A console that answers as upstream's does, where its database names these registries.
    fn console(address: &str, registries: &str) -> Self {
        let script = format!("#!/bin/bash\nsed -i \"s/registryAddress/{registries}/g\" x.conf\n");
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", script.len());
        Self::with((head + &script).into_bytes(), (address, 0))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn node(host: &str, port: u16) -> Container {
    let mut node = Container::node("127.0.0.1");
    node.unset("TARS_REGISTRY_ADDRESS").set("WEB_HOST", format!("http://{host}:{port}"));
    node
}

fn locator(node: &Container) -> String {
    let conf = fs::read_to_string(node.path("usr/local/app/tars/tarsnode/conf/tars.tarsnode.config.conf"));
    let conf = conf.unwrap();
    conf.lines().find_map(|line| line.trim().strip_prefix("locator=").map(str::to_owned)).unwrap()
}

#[test]
fn node_takes_the_registries_that_the_console_knows_then_what_the_volume_remembers() {
    let mut node = node("127.0.0.1", 1);
    let (dead, living) = (format!("{}0", node.address), node.address.clone());
    let registries = format!("tcp -h {dead} -p 17890:tcp -h {living} -p 17890");
    let console = Answering::console(&living, &registries);
    node.set("WEB_HOST", format!("http://{living}:{}", console.port));
    let _registry = Answering::registry(&living);
    let log = node.run_once();
    assert!(log.contains("registries as the web console at http://"), "{log}");
    assert_eq!(locator(&node), format!("tars.tarsregistry.QueryObj@{registries}"));

    // A container made anew has nothing but its volume.
    drop(console);
    fs::remove_dir_all(node.path("usr/local/app/tars/tarsnode/conf")).unwrap();
    let cache = format!("<cache>\n  <tars.tarsregistry.QueryObj@{registries}>\n  </x>\n</cache>\n");
    fs::write(node.path("data/tars/tarsnode-data/tarsnode.tarsdat"), cache).unwrap();
    let log = node.run_once();
    assert!(log.contains("registries as the volume remembers them"), "{log}");
    assert!(log.contains("nothing listens"), "it says why: {log}");
    assert_eq!(locator(&node), format!("tars.tarsregistry.QueryObj@{registries}"));
}

#[test]
fn node_without_a_console_guesses_last_and_says_so() {
    let mut node = node("127.0.0.1", 1);
    let address = node.address.clone();
    node.set("WEB_HOST", format!("http://{address}:1"));
    let _registry = Answering::registry(&address);
    let log = node.run_once();
    assert!(log.contains("registries guessed from WEB_HOST"), "{log}");
    assert_eq!(locator(&node), format!("tars.tarsregistry.QueryObj@tcp -h {address} -p 17890"));
}

#[test]
fn node_that_nobody_answers_says_what_it_waits_for_and_can_be_stopped() {
    let mut node = node("127.0.0.1", 1);
    let address = node.address.clone();
    node.set("WEB_HOST", format!("http://{address}:1"));
    node.start();
    node.await_words("tarsnode waits for a registry, none answers yet: the web console at");
    assert!(node.processes("tarsnode").is_empty());
    assert_eq!(node.call(&["health"]).status.code(), Some(1));
    assert_eq!(node.stop().code(), Some(0), "{}", node.log());

    // A console whose registries are all gone is no answer.
    let console = Answering::console(&address, &format!("tcp -h {address} -p 17890"));
    node.set("WEB_HOST", format!("http://{address}:{}", console.port));
    node.start();
    node.await_words("and none answers");
    let _registry = Answering::registry(&address);
    node.await_words("healthy: 1 services");
    assert!(node.log().contains("registries as the web console"), "{}", node.log());
}
