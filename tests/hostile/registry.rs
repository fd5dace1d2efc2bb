//! A registry, and its server of tokens, that answers nonsense to each request that tarsup makes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::attack::{Attack, End, SECRET, all_hold};
use crate::builds;
use crate::engine::{Nonsense, QUICK, SLOW, say};
use crate::packages::Workshop;
use crate::stub::{Act, Asked, Kept, Stub};

/// Commands that ask a registry: each sends other requests. `IMAGE` is what the registry has, `NEW` what it has not.
const COMMANDS: [&[&str]; 4] = [
    &["copy", "IMAGE", "oci:back:1"],
    &["copy", "tars/framework:3.0.17", "NEW"],
    &["inspect", "IMAGE"],
    &["diff", "tars/framework:3.0.17", "IMAGE"],
];

/// The method and the kind of the path: without digests, names of uploads and tags.
fn class(asked: &Asked) -> String {
    let kinds = ["/blobs/uploads/", "/blobs/sha256:", "/manifests/", "/token"];
    let kind = kinds.into_iter().find(|kind| asked.path.contains(kind));
    format!("{} {}", asked.method, kind.unwrap_or(&asked.path))
}

/// True where a wrong answer may be an excuse, for which the same is asked again: that takes seconds.
fn is_waited_for(kind: Nonsense) -> bool {
    SLOW.contains(&kind)
        || matches!(kind, Nonsense::Failure | Nonsense::Cut | Nonsense::Headers | Nonsense::Noise)
}

/// The registry asks for a token, and the token's server for a password.
fn tokens(asked: &Asked) -> Option<Act> {
    let host = asked.header("host").unwrap_or_default();
    if asked.path == "/token" {
        return Some(Act::Answer(200, Vec::new(), br#"{"token": "of-the-tests"}"#.to_vec()));
    }
    let is_known = asked.header("authorization") == Some("Bearer of-the-tests");
    let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"tests\"");
    (!is_known).then(|| Act::Answer(401, vec![("WWW-Authenticate", challenge)], Vec::new()))
}

/// A registry with the image, whose requests of one class get nonsense from now on; all classes are taken down.
fn registry(
    image: &Arc<Mutex<Kept>>,
    wrong: Option<(String, Nonsense)>,
) -> (Stub, Arc<Mutex<BTreeSet<String>>>) {
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let noted = seen.clone();
    let stub = Stub::that(move |asked, _| {
        noted.lock().unwrap().insert(class(asked));
        match &wrong {
            Some((of, kind)) if *of == class(asked) => {
                let kind = *kind;
                Some(Act::Odd(Box::new(move |stream| drop(say(kind, stream)))))
            }
            _ => tokens(asked),
        }
    });
    let image = image.lock().unwrap();
    let mut kept = stub.kept.lock().unwrap();
    (kept.blobs, kept.manifests) = (image.blobs.clone(), image.manifests.clone());
    drop(kept);
    (stub, seen)
}

fn attack(
    command: &[&str],
    image: &Arc<Mutex<Kept>>,
    wrong: Option<(String, Nonsense)>,
) -> (Attack, Arc<Mutex<BTreeSet<String>>>) {
    let name = format!("{}: {wrong:?}", command.join(" "));
    let (stub, seen) = registry(image, wrong);
    let (there, new) = (stub.name("a/b:1"), stub.name("a/new:1"));
    let words: Vec<String> =
        command.iter().map(|word| word.replace("IMAGE", &there).replace("NEW", &new)).collect();
    let folder = if command.concat().contains("framework") {
        let workshop = Workshop::new();
        workshop.json(&["build", "framework.yaml"]);
        workshop.folder
    } else {
        TempDir::new().unwrap()
    };
    builds::write(folder.path(), &there);
    fs::create_dir(folder.path().join(".docker")).unwrap();
    let mut login = fs::File::create(folder.path().join(".docker/config.json")).unwrap();
    // base64 of `user:` and the secret.
    let auth = "dXNlcjpodW50ZXIyLU1BUks=";
    write!(login, "{{\"auths\": {{\"127.0.0.1:{}\": {{\"auth\": \"{auth}\"}}}}}}", stub.port).unwrap();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let attack = Attack::new(name, folder, &words).with("TARSUP_REGISTRY_SILENCE", "1");
    (Attack { end: End::Either, ..attack }.within(200), seen)
}

#[test]
fn nonsense_of_a_registry_is_a_sentence() {
    assert_eq!(SECRET, "hunter2-MARK", "the login above holds it");
    // What the registry has: brought there by a copy.
    let honest = Stub::honest();
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    workshop.json(&["copy", "tars/framework:3.0.17", &honest.name("a/b:1")]);
    let mut attacks = Vec::new();
    let mut waited_for = BTreeSet::new();
    for command in COMMANDS.into_iter().chain(builds::drawn(0, 1)) {
        let (sane, seen) = attack(command, &honest.kept, None);
        sane.run();
        let seen = seen.lock().unwrap().clone();
        assert!(seen.len() >= 3, "{command:?} asks {seen:?}");
        for class in seen {
            let is_first = waited_for.insert(class.clone());
            for kind in QUICK.into_iter().chain(SLOW).filter(|kind| is_first || !is_waited_for(*kind)) {
                attacks.push(attack(command, &honest.kept, Some((class.clone(), kind))).0);
            }
        }
    }
    all_hold("registries", 120, attacks);
}
