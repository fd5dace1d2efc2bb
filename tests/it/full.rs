//! A disk that is full, wherever it is: named, with exit 1; what was there is whole, and the same build with room goes on.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::beside;
use crate::packages::{RECIPE, Workshop};

/// In a file system of its own, which is gone afterwards: version 1 with room, version 2 with so many KiB more, then with room
/// again. What `tarsup` says each time lands beside it. A file that could not be taken whole is none of `$place`.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=100m none full || exit 99
tarsup=$1 output=$2 more=$3
run() { name=$1; shift; "$tarsup" "$@" --json > "$name.json" 2> "$name.txt"; echo $? > "$name.code"; }
run one build one.yaml $output
mount -o remount,size=$(( $(df --output=used -k full | tail -n 1) + more ))k full || exit 98
find full | sort > before
run two build two.yaml $output
run verified store verify
run first inspect "$4"
run second inspect "$5"
find full -name '.tarsup-*' -o -path '*/tmp/*' > left
mount -o remount,size=100m full || exit 98
run again build two.yaml $output
run whole store verify
run seen inspect "$5"
"#;

struct Ran<'w>(&'w Workshop);

impl Ran<'_> {
    fn code(&self, name: &str) -> String {
        fs::read_to_string(self.0.path(&format!("{name}.code"))).unwrap().trim().to_owned()
    }

    fn said(&self, name: &str) -> Value {
        let text = fs::read_to_string(self.0.path(&format!("{name}.json"))).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
    }

    /// What must go well.
    fn done(&self, name: &str) -> Value {
        let said = self.said(name);
        assert_eq!(self.code(name), "0", "{name}: {said}");
        said
    }
}

/// Nothing where the machine lets nobody mount.
fn ran(output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || said.contains("unshare:") {
        assert!(std::env::var_os("CI").is_none(), "no file system can be mounted here: {said}");
        beside::say(&format!("SKIPPED full_disk: no file system can be mounted here: {said}"));
        return false;
    }
    assert!(output.status.success(), "{said}");
    true
}

/// `place` is what lies on the full disk: `store`, `cache`, or an output. True where version 2 did not fit.
fn fills_up(place: &str, output: &str, images: [&str; 2], more: u32) -> Option<bool> {
    let workshop = Workshop::new();
    fs::create_dir(workshop.path("full")).unwrap();
    // What no compression makes smaller.
    let mut state = 7_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()
    });
    fs::write(workshop.path("big"), noise.take(25_000).flatten().collect::<Vec<u8>>()).unwrap();
    workshop.write("one.yaml", RECIPE);
    workshop.write("two.yaml", &(RECIPE.replace("3.0.17", "2") + "files: {big: /big}\n"));
    let mut command = Command::new("unshare");
    let tarsup = env!("CARGO_BIN_EXE_tarsup");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", tarsup, output, &more.to_string()])
        .args(images);
    let at = |name: &str| workshop.path(if place == name { "full/it" } else { name });
    command
        .current_dir(workshop.folder.path())
        .env("TARSUP_STORE", at("store"))
        .env("TARSUP_CACHE", at("cache"));
    for name in ["SOURCE_DATE_EPOCH", "TARSUP_THREADS", "DOCKER_HOST"] {
        command.env_remove(name);
    }
    if !ran(&command.output().unwrap()) {
        return None;
    }
    let ran = Ran(&workshop);
    let what = format!("{place} with {more} KiB more");
    let one = ran.done("one")["digest"].clone();
    let full = ran.code("two") != "0";
    if full {
        let error = &ran.said("two")["error"];
        let message = error["message"].as_str().unwrap();
        assert_eq!((ran.code("two").as_str(), &error["exit"]), ("1", &1.into()), "{what}: {error}");
        assert!(message.contains("full/") && message.contains("No space left"), "{what}: {error}");
        assert!(error["hint"].as_str().unwrap().contains("disk is full"), "{what}: {error}");
        if images[0] == images[1] {
            assert_eq!(ran.done("second")["digest"], one, "{what}: the name has what it had");
        } else {
            assert_eq!(ran.code("second"), "2", "{what}: no half image: {}", ran.said("second"));
        }
        assert_eq!(fs::read_to_string(workshop.path("left")).unwrap(), "", "{what}");
    }
    ran.done("verified");
    if images[0] != images[1] || full {
        assert_eq!(ran.done("first")["digest"], one, "{what}: what was there is there");
    }
    let again = ran.done("again");
    ran.done("whole");
    assert_eq!(ran.done("seen")["digest"], again["digest"], "{what}");
    assert_ne!(again["digest"], one);
    Some(full)
}

fn fills_up_at_any_moment(place: &str, output: &str, images: [&str; 2]) {
    let mut full = 0;
    for more in [0, 8, 60, 150, 230, 1000] {
        let Some(is_full) = fills_up(place, output, images, more) else { return };
        full += usize::from(is_full);
        assert!(!is_full || more < 1000, "{place}: {more} KiB are room enough");
    }
    assert!(full > 2, "{place}: it was full {full} times");
}

#[test]
fn full_store_is_named_and_keeps_its_images() {
    fills_up_at_any_moment("store", "", ["tars/framework:3.0.17", "tars/framework:2"]);
}

#[test]
fn full_cache_is_named_and_the_store_keeps_its_images() {
    fills_up_at_any_moment("cache", "", ["tars/framework:3.0.17", "tars/framework:2"]);
}

#[test]
fn full_disk_of_a_layout_is_named_and_leaves_what_it_had() {
    fills_up_at_any_moment("layout", "-ooci:full/out:2", ["oci:full/out:2", "oci:full/out:2"]);
}

#[test]
fn full_disk_of_an_archive_is_named_and_leaves_what_it_had() {
    fills_up_at_any_moment("archive", "-odocker-archive:full/out.tar", ["docker-archive:full/out.tar"; 2]);
}
