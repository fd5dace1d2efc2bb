//! `--registry-mirror`: what is read is asked for there first; what it lacks, breaks or refuses comes from the registry itself.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use super::image::{Bench, document, noise};
use super::stub::{Act, Asked, Kept, Stub};
use super::{MIB, first};
use crate::packages::Workshop;

/// An image in its registry and, where it `lies_there`, below `hub/` in a mirror.
struct Pair {
    bench: Bench,
    own: Stub,
    mirror: Stub,
}

impl Pair {
    fn new(mirror: Stub, lies_there: bool) -> Self {
        let (bench, own) = (Bench::new(&[4 * MIB, 10]), Stub::honest());
        bench.json(&["copy", "oci:image:1", &own.name("a/b:1")]);
        if lies_there {
            let copied = own.kept.lock().unwrap();
            let mut kept = mirror.kept.lock().unwrap();
            let there = |(repository, name): &(String, String)| (format!("hub/{repository}"), name.clone());
            kept.blobs.extend(copied.blobs.iter().map(|(at, blob)| (there(at), blob.clone())));
            kept.manifests
                .extend(copied.manifests.iter().map(|(at, manifest)| (there(at), manifest.clone())));
        }
        own.kept.lock().unwrap().asked.clear();
        Self { bench, own, mirror }
    }

    fn option(&self) -> String {
        format!("127.0.0.1:{}=127.0.0.1:{}/hub", self.own.port, self.mirror.port)
    }

    /// Reads the image, which must be whole; how often the registry itself was asked for anything of it.
    fn read(&self) -> usize {
        let _ = fs::remove_dir_all(self.bench.path("back"));
        let option = self.option();
        self.bench.json(&["copy", "--registry-mirror", &option, &self.own.name("a/b:1"), "oci:back:1"]);
        for digest in self.bench.layers.iter().chain([&self.bench.config, &self.bench.manifest]) {
            let back = fs::read(self.bench.path("back/blobs/sha256").join(digest.hex())).unwrap();
            assert!(back == self.bench.blob(digest), "{digest}");
        }
        self.own.count("GET", "/a/b/")
    }
}

#[test]
fn what_the_mirror_has_is_not_asked_of_its_registry() {
    let pair = Pair::new(Stub::honest(), true);
    assert_eq!(pair.read(), 0);
    assert!(pair.own.kept.lock().unwrap().asked.is_empty(), "nobody asked it at all");
    // What is written goes to the registry alone.
    let given = pair.mirror.kept.lock().unwrap().asked.len();
    let option = pair.option();
    pair.bench.json(&["copy", "oci:image:1", &pair.own.name("c:1"), "--registry-mirror", &option]);
    assert!(pair.own.count("PUT", "/c/") > 0);
    let asked = pair.mirror.kept.lock().unwrap().asked.len();
    assert_eq!(asked, given, "the mirror is not written to");
}

#[test]
fn what_the_mirror_lacks_or_refuses_comes_from_the_registry() {
    let says = |status: u16| Stub::that(move |_, _| Some(Act::Answer(status, Vec::new(), Vec::new())));
    for mirror in [Stub::honest(), says(403), says(404), says(500), says(503)] {
        assert!(Pair::new(mirror, false).read() > 0);
    }
    // One that wants a login has nobody's: the registry's own is not shown to it.
    let wants = |asked: &Asked, _: &mut Kept| {
        assert!(asked.header("authorization").is_none());
        let challenge = vec![("WWW-Authenticate", "Basic realm=\"a mirror\"".to_owned())];
        Some(Act::Answer(401, challenge, Vec::new()))
    };
    let pair = Pair::new(Stub::that(wants), true);
    let own = format!("127.0.0.1:{}", pair.own.port);
    pair.bench.logins(&json!({"auths": {own: {"auth": "dXNlcjpodW50ZXIyLXNlY3JldA=="}}}));
    assert!(pair.read() > 0);
    // One that is not there.
    let mut pair = Pair::new(Stub::honest(), false);
    pair.mirror.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(pair.read() > 0);
}

#[test]
fn layer_that_breaks_off_at_the_mirror_goes_on_from_the_registry() {
    let cuts = |asked: &Asked, _: &mut Kept| {
        let is_layer = asked.is("GET", "/blobs/") && asked.header("range").is_none();
        is_layer.then_some(Act::CutAnswer(3 * MIB))
    };
    // It breaks off, and is then gone.
    let breaks = first(1);
    let pair = Pair::new(
        Stub::that(move |asked, kept| {
            let large =
                kept.blobs.values().any(|blob| blob.len() > 3 * MIB && asked.path.contains(&digest(blob)));
            match cuts(asked, kept) {
                Some(act) if large && breaks() => Some(act),
                _ if large => Some(Act::Answer(404, Vec::new(), Vec::new())),
                _ => None,
            }
        }),
        true,
    );
    pair.read();
    let kept = pair.own.kept.lock().unwrap();
    let ranges: Vec<_> = kept.asked.iter().filter_map(|asked| asked.header("range")).collect();
    assert_eq!(ranges, [format!("bytes={}-", 3 * MIB)], "what came is not sent again");
}

fn digest(blob: &[u8]) -> String {
    tarsup::oci::Digest::of(blob).to_string()
}

#[test]
fn mirror_that_lies_is_found_out() {
    let pair = Pair::new(Stub::honest(), true);
    for blob in pair.mirror.kept.lock().unwrap().blobs.values_mut().filter(|blob| blob.len() > MIB) {
        *blob = noise(99, blob.len());
    }
    let (option, name) = (pair.option(), pair.own.name("a/b:1"));
    let message = pair.bench.refused(&["copy", "--registry-mirror", &option, &name, "oci:back:1"], 2);
    let host = format!("127.0.0.1:{}", pair.mirror.port);
    assert!(message.contains(&host) && message.contains("other bytes"), "{message}");
    assert!(!pair.bench.path("back/index.json").exists(), "no name is left");
}

#[test]
fn what_names_no_mirror_is_a_mistake_of_the_command_line() {
    let bench = Bench::new(&[10]);
    let output =
        bench.command(&["inspect", "oci:image:1", "--registry-mirror", "mirror.example.com"]).output();
    let output = output.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && words.contains("write REGISTRY=MIRROR"), "{words}");
}

/// No host of that name has to be there: what its mirror has is read.
#[test]
fn mirrors_are_named_in_the_environment_as_well() {
    let pair = Pair::new(Stub::honest(), true);
    let mirrors = format!("other.invalid=127.0.0.1:1,registry.invalid=127.0.0.1:{}/hub", pair.mirror.port);
    let mut command = pair.bench.command(&["inspect", "docker://registry.invalid/a/b:1", "--json"]);
    let read = document(&command.env("TARSUP_REGISTRY_MIRRORS", &mirrors).output().unwrap());
    assert_eq!(read["digest"], pair.bench.manifest.to_string());
    // An option is instead of them.
    let mut command = pair.bench.command(&["inspect", &pair.own.name("a/b:1"), "--json"]);
    let own = format!("127.0.0.1:{}=127.0.0.1:1", pair.own.port);
    document(
        &command
            .args(["--registry-mirror", &pair.option()])
            .env("TARSUP_REGISTRY_MIRRORS", own)
            .output()
            .unwrap(),
    );
    assert_eq!(pair.own.count("GET", "/a/b/"), 0);
    let mut command = pair.bench.command(&["inspect", "oci:image:1", "--json"]);
    let output = command.env("TARSUP_REGISTRY_MIRRORS", "registry.invalid").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn base_of_a_build_comes_from_the_mirror() {
    let (own, mirror, workshop) = (Stub::honest(), Stub::honest(), Workshop::new());
    workshop.json(&["build", "framework.yaml", "-o", &mirror.name("hub/tars/base:1")]);
    let base = own.name("tars/base:1");
    let plain = format!(
        "name: x/plain\nversion: 1\nrole: plain\nbase: {base}\nfiles: {{tars-init: /opt/file}}\nentrypoint: [/opt/file]\n"
    );
    workshop.write("plain.yaml", &plain);
    let option = format!("127.0.0.1:{}=127.0.0.1:{}/hub", own.port, mirror.port);
    let built = workshop.json(&["build", "plain.yaml", "--registry-mirror", &option, "-o", "oci:out:1"]);
    assert!(own.kept.lock().unwrap().asked.is_empty(), "{:?}", own.kept.lock().unwrap().asked);
    // The lock names the registry, not the mirror: whoever has none builds the same.
    let lock = fs::read_to_string(workshop.path("tarsup.lock")).unwrap();
    assert!(lock.contains(&base) && !lock.contains(&mirror.port.to_string()), "{lock}");
    let mut command = workshop.command(&["build", "plain.yaml", "--locked", "-o", "oci:out:2", "--json"]);
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let again = document(&command.env("TARSUP_REGISTRY_MIRRORS", &option).output().unwrap());
    assert_eq!((&again["digest"], own.kept.lock().unwrap().asked.len()), (&built["digest"], 0));
}

/// Some end the connection where TLS begins, with what they were sent read or not, and some answer in the clear.
#[test]
fn option_for_a_registry_without_tls_is_named_however_it_turns_tls_down() {
    let bench = Bench::new(&[10]);
    let in_the_clear = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    let turns: [(&str, bool, &'static [u8]); 3] = [
        ("it ends the connection where TLS begins", false, b""),
        ("it ends the connection where TLS begins", true, b""),
        ("it does not speak TLS", true, in_the_clear),
    ];
    for (said, reads, answer) in turns {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let image = format!("docker://0.0.0.0:{}/a:1", listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            for peer in listener.incoming() {
                let mut peer = peer.unwrap();
                let _ = if reads { peer.read(&mut [0; 4096]) } else { Ok(0) };
                let _ = peer.write_all(answer);
            }
        });
        let message = bench.refused(&["inspect", &image], 1);
        assert!(message.contains(said) && message.contains("--insecure-registry"), "{message}");
    }
    let message = bench.refused(&["inspect", "docker://0.0.0.0:1/a:1"], 1);
    assert!(message.contains("see that it runs") && !message.contains("--insecure"), "{message}");
}

/// 0.0.0.0 leads to this machine, and is not one of its names.
#[test]
fn registry_that_is_not_of_this_machine_may_do_without_tls_where_it_is_named() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[10]));
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let (host, asked) = (format!("0.0.0.0:{}", stub.port), || stub.count("GET", "/manifests/"));
    let image = format!("docker://{host}/a:1");
    let before = asked();
    bench.refused(&["inspect", &image], 1);
    for others in ["0.0.0.0:1", "127.0.0.1", "0.0.0"] {
        bench.refused(&["inspect", &image, "--insecure-registry", others], 1);
    }
    assert_eq!(asked(), before, "nothing is asked in the clear");
    for named in [&host, "0.0.0.0"] {
        bench.json(&["inspect", &image, "--insecure-registry", named]);
        let mut command = bench.command(&["inspect", &image, "--json"]);
        let several = format!("other.invalid,{named}");
        document(&command.env("TARSUP_INSECURE_REGISTRIES", several).output().unwrap());
    }
    assert_eq!(asked(), before + 4);
}
