//! An engine that is reached over TCP, another machine's as far as tarsup knows: it is sent compressed layers, whatever its store,
//! and a build sends it the image while the disk takes what was made.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tarsup::engine::{ConnectOptions, DockerEngine, Engine as _};
use tarsup::oci::Reference;
use tarsup::transport::Sink as _;
use tarsup::transport::archive::Archive;
use tarsup::transport::daemon::Daemon;
use tarsup::transport::held::Ahead;
use tempfile::TempDir;

use crate::daemon_copy::{copy, copy_as_said, image, read};
use crate::tiny;

/// A door on loopback before the engine of `DOCKER_HOST`.
struct Door {
    /// As `DOCKER_HOST` names it.
    host: String,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    /// No image goes through but for its beginning.
    holds_images: AtomicBool,
    /// How many were begun to be sent.
    images: AtomicUsize,
    /// A file that is made as soon as one is.
    begun: OnceLock<PathBuf>,
    /// So many seconds pass before a question goes through.
    thinks: AtomicU64,
}

impl Door {
    fn open() -> Self {
        let socket = std::env::var("DOCKER_HOST").unwrap().trim_start_matches("unix://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("tcp://{}", listener.local_addr().unwrap());
        let watch = Arc::<Watch>::default();
        let watched = Arc::clone(&watch);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let engine = UnixStream::connect(&socket).unwrap();
                let (mut from, mut to) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let watched = Arc::clone(&watched);
                thread::spawn(move || watched.pass(client, engine));
            }
        });
        Self { host, watch }
    }

    async fn engine(&self) -> DockerEngine {
        let options = ConnectOptions { host: Some(self.host.clone()), context: None };
        DockerEngine::connect(&options).await.unwrap()
    }
}

impl Watch {
    /// What one connection asks, up to its end.
    fn pass(&self, mut client: TcpStream, mut engine: UnixStream) {
        let (mut piece, mut holds) = (vec![0; 1 << 16], false);
        while let Ok(read @ 1..) = client.read(&mut piece) {
            if holds {
                continue;
            }
            if piece[..read].starts_with(b"POST ")
                && piece[..read.min(100)].windows(12).any(|at| at == b"/images/load")
            {
                self.images.fetch_add(1, Ordering::SeqCst);
                self.begun.get().map(fs::File::create);
                holds = self.holds_images.load(Ordering::SeqCst);
            }
            if piece[..read].starts_with(b"GET ") {
                thread::sleep(Duration::from_secs(self.thinks.load(Ordering::SeqCst)));
            }
            if engine.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        let _ = engine.shutdown(Shutdown::Write);
    }
}

#[tokio::test]
async fn engine_over_tcp_is_sent_gzipped_layers_and_of_a_successor_the_changed_one_alone() {
    let engine = Door::open().engine().await;
    assert!(!engine.info().await.unwrap().is_near);
    for name in ["far-next:1", "far-next:2"] {
        tiny::remove_image(name).await;
    }
    let first = image("far", &["a1", "b1", "c1"]);
    let sent = copy_as_said(&engine, &first, "far-next:1").await;
    assert_eq!((sent.layers_sent, sent.layers_skipped), (4, 0));
    assert_eq!(read(&engine, "far-next:1", &["/a", "/b", "/c"]).await, "far-a1far-b1far-c1");

    let second = image("far", &["a1", "b1", "c2"]);
    let sent = copy_as_said(&engine, &second, "far-next:2").await;
    assert_eq!((sent.layers_sent, sent.layers_skipped), (1, 3));
    // No other archive has this size: one of tars has neither a layout nor a manifest.
    let pruned =
        Archive { image: &second, reference: &"far-next:2".parse().unwrap(), includes: &|index| index == 3 };
    assert_eq!(sent.bytes_sent, pruned.size().unwrap());
    assert_eq!(read(&engine, "far-next:2", &["/a", "/b", "/c"]).await, "far-a1far-b1far-c2");
}

#[tokio::test]
async fn engine_that_has_no_more_what_it_told_of_is_sent_all_of_it() {
    let (near, far) = (tiny::engine().await, Door::open().engine().await);
    for engine in [near, far] {
        tiny::remove_image("far-stale:2").await;
        copy(&engine, &image("stale", &["a1", "b1"]), "far-stale:1").await;
        let reference: Reference = "far-stale:2".parse().unwrap();
        let ahead = Ahead::of(&engine, &reference, None).await.unwrap();
        tiny::remove_image("far-stale:1").await;
        let next = image("stale", &["a1", "b1", "c1"]);
        let daemon = Daemon::new(Arc::new(engine.clone()), reference).knowing(Some(ahead));
        let sent = daemon.put(&next, &()).await.unwrap();
        assert_eq!((sent.layers_sent, sent.layers_skipped), (4, 0));
        let of_the_first_load = next.layers[3].descriptor.size;
        assert!(
            sent.bytes_sent > next.layers_size() + of_the_first_load,
            "it was believed, and sent one: {sent:?}"
        );
        assert_eq!(read(&engine, "far-stale:2", &["/a", "/b", "/c"]).await, "stale-a1stale-b1stale-c1");
    }
}

/// Runs its further arguments on a disk that finds when it must write that it is full, and that once a file is there: each `fsync` waits for
/// the first argument, and fails (seccomp_unotify(2)).
const NO_SPACE: &str = r#"
use POSIX ":sys_wait_h";
my ($fsync, $prctl, $seccomp) = `uname -m` =~ /aarch64/ ? (82, 167, 277) : (74, 157, 317);
my $filter = pack "(S C C L)*", 0x20, 0, 0, 0,  0x15, 0, 1, $fsync,  0x06, 0, 0, 0x7fc00000,  0x06, 0, 0, 0x7fff0000;
my $program = pack "S x6 P", 4, $filter;
my $go = shift;
syscall($prctl, 38, 1, 0, 0, 0);
(my $asked = syscall($seccomp, 1, 8, $program)) > 0 or die "no seccomp: $!";
my $child = fork // die $!;
if (!$child) { exec { $ARGV[0] } @ARGV or die $! }
open my $asks, "+<&=", $asked or die $!;
until (waitpid($child, WNOHANG)) {
    vec(my $ready = "", $asked, 1) = 1;
    next unless select($ready, undef, undef, 0.02) > 0;
    my $call = "\0" x 80;
    ioctl($asks, 0xc0502100, $call) or next;
    for (1 .. 3000) { last if -e $go; select(undef, undef, undef, 0.01) }
    my $answer = pack "a8 q l L", $call, 0, -28, 0;
    ioctl($asks, 0xc0182101, $answer);
}
exit($? >> 8);
"#;

/// A folder with the recipes `small.yaml` and `large.yaml`, and a store and a cache.
struct Bench(TempDir);

impl Bench {
    /// Of an image of this name.
    fn of(name: &str) -> Self {
        let bench = Self(TempDir::new().unwrap());
        let (_, actor) = tiny::actor_layer().swap_remove(0);
        fs::write(bench.path("actor"), actor).unwrap();
        fs::set_permissions(bench.path("actor"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(bench.path("ours"), "of ours\n").unwrap();
        fs::write(bench.path("noise"), tiny::noise(name, 8 << 20)).unwrap();
        for (recipe, more) in [("small", ""), ("large", ", actor: /actor, noise: /data/noise")] {
            let text = format!(
                "name: {name}\nversion: {recipe}\nrole: plain\nbase: scratch\nfiles: {{ours: /data/ours{more}}}\nentrypoint: [/actor]\n"
            );
            fs::write(bench.path(&format!("{recipe}.yaml")), text).unwrap();
        }
        bench
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// A program with the engine behind the door.
    fn run<W: AsRef<OsStr>>(&self, door: &Door, program: &str, words: &[W]) -> Output {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.0.path()).env("DOCKER_HOST", &door.host);
        command
            .env("TARSUP_STORE", self.path("store"))
            .env("TARSUP_CACHE", self.path("cache"))
            .output()
            .unwrap()
    }
}

const TARSUP: &str = env!("CARGO_BIN_EXE_tarsup");

/// Into the engine, and into the store.
fn build(name: &str) -> Vec<String> {
    let words = format!("build large.yaml --json -o docker-daemon:{name}:large -o {name}:large");
    words.split(' ').map(str::to_owned).collect()
}

fn document(output: &Output, exit: i32) -> Value {
    let (said, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{said}\n{words}");
    serde_json::from_str(&said).unwrap()
}

/// Whether the engine has told what it is when the image is whole, or thinks longer.
#[tokio::test]
async fn disk_that_does_not_take_what_an_engine_is_being_sent_is_told_and_the_engine_has_nothing_of_it() {
    for seconds in [0, 2] {
        is_sent_to_while_the_disk_has_no_room(seconds).await;
    }
}

async fn is_sent_to_while_the_disk_has_no_room(seconds: u64) {
    let (engine, door, bench) = (tiny::engine().await, Door::open(), Bench::of("far-sync"));
    tiny::remove_image("far-sync:large").await;
    door.watch.holds_images.store(true, Ordering::SeqCst);
    door.watch.thinks.store(seconds, Ordering::SeqCst);
    let build = build("far-sync");
    door.watch.begun.set(bench.path("begun")).unwrap();
    let words: Vec<&str> =
        ["-e", NO_SPACE, "begun", TARSUP].into_iter().chain(build.iter().map(String::as_str)).collect();
    let ended = bench.run(&door, "perl", &words);
    let error = &document(&ended, 1)["error"];
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("cache/blobs/sha256") && message.contains("No space left on device"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("disk is full"), "{error}");
    assert_eq!(door.watch.images.load(Ordering::SeqCst), 1, "it was being sent meanwhile");
    assert!(engine.inspect_image("far-sync:large").await.unwrap().is_none());
    assert!(!bench.path("store").exists(), "what the cache has not goes nowhere");

    // With room it goes on.
    door.watch.holds_images.store(false, Ordering::SeqCst);
    door.watch.thinks.store(0, Ordering::SeqCst);
    let made = document(&bench.run(&door, TARSUP, &build), 0);
    assert!(made["layers"].as_array().unwrap().iter().all(|layer| layer["cached"] == true), "{made}");
    assert_eq!(read(&engine, "far-sync:large", &["/data/ours"]).await, "of ours\n");
    document(&bench.run(&door, TARSUP, &["store", "verify", "--json"]), 0);
    tiny::remove_image("far-sync:large").await;
}

#[tokio::test]
async fn store_that_is_full_is_told_and_the_engine_has_the_image_all_the_same() {
    const SCRIPT: &str = r#"
        mkdir store && mount -t tmpfs -o size=1m none store || exit 99
        tarsup=$1; shift
        "$tarsup" build small.yaml >/dev/null || exit 98
        "$tarsup" "$@"; code=$?
        "$tarsup" store verify >/dev/null || exit 97
        "$tarsup" inspect far-store:small >/dev/null || exit 96
        "$tarsup" inspect far-store:large >/dev/null && exit 95
        exit $code
    "#;
    let (engine, door, bench) = (tiny::engine().await, Door::open(), Bench::of("far-store"));
    tiny::remove_image("far-store:large").await;
    let build = build("far-store");
    let words =
        ["--mount", "sh", "-c", SCRIPT, "sh", TARSUP].into_iter().chain(build.iter().map(String::as_str));
    let words: Vec<&str> = words.collect();
    let error = document(&bench.run(&door, "unshare", &words), 1);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("store/") && message.contains("No space left on device"), "{error}");
    assert_eq!(door.watch.images.load(Ordering::SeqCst), 1);
    assert_eq!(read(&engine, "far-store:large", &["/data/ours"]).await, "of ours\n");

    let made = document(&bench.run(&door, TARSUP, &build), 0);
    assert_eq!(
        (&made["outputs"][0]["bytes_sent"], &made["outputs"][1]["layers_sent"]),
        (&0.into(), &2.into()),
        "{made}"
    );
    tiny::remove_image("far-store:large").await;
}
