//! A registry that is spoken to as the specification says, and ones that do not do what they should.

pub mod cold;
pub mod image;
mod login;
mod mirror;
mod platform;
pub mod stub;

use std::fs;
use std::io::Write as _;
use std::sync::Mutex;

use serde_json::json;
use tarsup::oci::Digest;

use image::{Bench, noise, refusal};
use stub::{Act, Stub};

const MIB: usize = 1 << 20;

/// Happens the first so many times.
fn first(times: usize) -> impl Fn() -> bool + Send + Sync {
    let left = Mutex::new(times);
    move || {
        let mut left = left.lock().unwrap();
        let happens = *left > 0;
        *left = left.saturating_sub(1);
        happens
    }
}

/// True for a request that brings a part of a layer, not the small config beside it.
fn brings_a_layer(asked: &stub::Asked) -> bool {
    let length = asked.header("content-length").and_then(|text| text.parse().ok());
    asked.is("PATCH", "/uploads/") && length.is_some_and(|length: usize| length >= MIB)
}

/// What a test looks at most: that the tag leads to the whole image.
fn assert_whole(stub: &Stub, bench: &Bench, repository: &str, tag: &str) {
    let kept = stub.kept.lock().unwrap();
    let manifest = kept.manifests.get(&(repository.to_owned(), tag.to_owned())).expect("the tag is there");
    assert_eq!(Digest::of(&manifest.1), bench.manifest);
    for digest in bench.layers.iter().chain([&bench.config]) {
        let blob = kept.blobs.get(&(repository.to_owned(), digest.to_string())).expect("the blob is there");
        assert!(*blob == bench.blob(digest), "{digest} has other bytes");
    }
}

#[test]
fn image_goes_to_a_registry_and_comes_back_as_it_was() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[MIB, 10, 1000]));
    let receipt = bench.json(&["copy", "oci:image:1", &stub.name("a/b:1")]);
    assert_eq!((&receipt["layers_sent"], &receipt["layers_skipped"]), (&3.into(), &0.into()));
    assert_eq!(receipt["digest"], bench.manifest.to_string());
    assert_whole(&stub, &bench, "a/b", "1");
    let again = bench.json(&["copy", "oci:image:1", &stub.name("a/b:2")]);
    assert_eq!((&again["layers_sent"], &again["layers_skipped"]), (&0.into(), &3.into()));
    assert!(again["bytes_sent"].as_u64().unwrap() < 2000, "{again}");
    bench.json(&["copy", &stub.name("a/b:2"), "oci:back:1"]);
    for digest in bench.layers.iter().chain([&bench.config, &bench.manifest]) {
        let back = fs::read(bench.path("back/blobs/sha256").join(digest.hex())).unwrap();
        assert!(back == bench.blob(digest), "{digest}");
    }
    let by_digest = stub.name(&format!("a/b@{}", bench.manifest));
    assert_eq!(bench.json(&["inspect", &by_digest])["digest"], bench.manifest.to_string());
    let diff = bench.json(&["diff", "oci:image:1", &stub.name("a/b:1")]);
    assert_eq!(diff["changed"], json!([]), "{diff}");
}

#[test]
fn blob_of_another_repository_is_mounted_and_sent_where_that_is_refused() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[MIB]));
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let receipt = bench.json(&["copy", &stub.name("a:1"), &stub.name("b:1")]);
    assert_eq!(receipt["layers_sent"], 0, "{receipt}");
    assert_whole(&stub, &bench, "b", "1");

    // 202: it is sent to the place that this answer names, and no other upload is begun.
    let stub = Stub::that(|_, _| None);
    stub.kept.lock().unwrap().mounts_nothing = true;
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let begun = stub.count("POST", "/uploads/");
    let receipt = bench.json(&["copy", &stub.name("a:1"), &stub.name("b:1")]);
    assert_eq!(receipt["layers_sent"], 1, "{receipt}");
    assert_eq!(stub.count("POST", "/uploads/"), 2 * begun);
    assert_whole(&stub, &bench, "b", "1");

    for status in [403, 404, 405] {
        let stub = Stub::that(move |asked, _| {
            asked.query.contains("mount=").then(|| Act::Answer(status, Vec::new(), Vec::new()))
        });
        bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
        let receipt = bench.json(&["copy", &stub.name("a:1"), &stub.name("b:1")]);
        assert_eq!(receipt["layers_sent"], 1, "{receipt}");
        assert_whole(&stub, &bench, "b", "1");
    }
}

#[test]
fn registry_that_is_busy_is_asked_again_when_it_says() {
    let busy = first(2);
    let stub = Stub::that(move |asked, _| {
        let wait = vec![("Retry-After", "1".to_owned())];
        (brings_a_layer(asked) && busy()).then(|| Act::Answer(429, wait, Vec::new()))
    });
    let bench = Bench::new(&[MIB]);
    let began = std::time::Instant::now();
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    assert!(began.elapsed().as_secs() >= 1, "it did not wait");
    assert_whole(&stub, &bench, "a", "1");

    let busy = first(3);
    let stub = Stub::that(move |asked, _| {
        (asked.method == "HEAD" && busy()).then(|| Act::Answer(503, Vec::new(), Vec::new()))
    });
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    assert_whole(&stub, &bench, "a", "1");

    // A day is too long, and is said.
    let stub = Stub::that(|asked, _| {
        let wait = vec![("Retry-After", "86400".to_owned())];
        asked.is("GET", "/manifests/").then(|| Act::Answer(429, wait, Vec::new()))
    });
    let message = bench.refused(&["inspect", &stub.name("a:1")], 1);
    assert!(message.contains("429") && message.contains("try again later"), "{message}");
}

#[test]
fn upload_goes_on_where_the_registry_is_when_a_connection_breaks() {
    let breaks = first(1);
    let stub =
        Stub::that(move |asked, _| (brings_a_layer(asked) && breaks()).then_some(Act::TakeThenEnd(3 * MIB)));
    let bench = Bench::new(&[4 * MIB]);
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    assert_whole(&stub, &bench, "a", "1");
    let taken = stub.kept.lock().unwrap().taken;
    assert!(taken < 5 * MIB, "{taken} bytes: what was there already was sent again");
}

#[test]
fn upload_is_begun_anew_where_the_registry_has_forgotten_it() {
    let (breaks, forgets) = (first(1), first(1));
    let stub = Stub::that(move |asked, _| {
        if brings_a_layer(asked) && breaks() {
            return Some(Act::TakeThenEnd(MIB));
        }
        (asked.is("GET", "/uploads/") && forgets()).then(|| Act::Answer(404, Vec::new(), Vec::new()))
    });
    let bench = Bench::new(&[2 * MIB]);
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    assert_whole(&stub, &bench, "a", "1");
}

#[test]
fn registry_that_is_elsewhere_than_was_thought_says_where() {
    let wrong = first(1);
    let stub = Stub::that(move |asked, _| {
        let range = vec![("Range", "0-0".to_owned())];
        (brings_a_layer(asked) && wrong()).then(|| Act::Answer(416, range, Vec::new()))
    });
    let bench = Bench::new(&[MIB]);
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    assert_whole(&stub, &bench, "a", "1");
}

#[test]
fn download_goes_on_where_a_connection_broke() {
    let (breaks, bench) = (first(1), Bench::new(&[4 * MIB]));
    let layer = bench.layers[0].to_string();
    let stub =
        Stub::that(move |asked, _| (asked.is("GET", &layer) && breaks()).then_some(Act::CutAnswer(3 * MIB)));
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    bench.json(&["copy", &stub.name("a:1"), "oci:back:1"]);
    let kept = stub.kept.lock().unwrap();
    let ranges: Vec<_> = kept.asked.iter().filter_map(|asked| asked.header("range")).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    let back = fs::read(bench.path("back/blobs/sha256").join(bench.layers[0].hex())).unwrap();
    assert!(back == bench.blob(&bench.layers[0]));
}

#[test]
fn blobs_go_side_by_side() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[8 * MIB, 8 * MIB, 8 * MIB, 8 * MIB]));
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let kept = stub.kept.lock().unwrap();
    let begun = kept.asked.iter().take_while(|asked| !asked.is("PUT", "/uploads/"));
    assert!(begun.filter(|asked| asked.is("POST", "/uploads/")).count() > 1, "one after the other");
}

#[test]
fn layers_come_side_by_side_and_the_first_that_fails_is_named() {
    let bench = Bench::new(&[MIB, MIB, MIB]);
    let layers: Vec<String> = bench.layers.iter().map(|layer| format!("/blobs/{layer}")).collect();
    // The first layer is answered once the second one is asked for.
    let (first, second) = (layers[0].clone(), layers[1].clone());
    let (asked, waits) = std::sync::mpsc::channel();
    let waits = std::sync::Arc::new(Mutex::new(waits));
    let bytes = bench.blob(&bench.layers[0]);
    let stub = Stub::that(move |request, _| {
        if request.is("GET", &second) {
            let _ = asked.send(());
        }
        let (waits, bytes) = (waits.clone(), bytes.clone());
        request.is("GET", &first).then(|| {
            Act::Odd(Box::new(move |out| {
                let came = waits.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
                let status = if came.is_ok() { "200 OK" } else { "404 One after the other" };
                let _ = write!(out, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", bytes.len());
                let _ = out.write_all(&bytes);
            }))
        })
    });
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let copied = bench.json(&["copy", &stub.name("a:1"), "oci:back:1"]);
    assert_eq!(copied["layers_sent"], 3);

    let lies = layers[1].clone();
    let stub = Stub::that(move |request, _| {
        request.is("GET", &lies).then(|| Act::Answer(200, Vec::new(), noise(7, MIB)))
    });
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let message = bench.refused(&["copy", &stub.name("a:1"), "oci:other:1"], 2);
    assert!(message.contains("other bytes"), "{message}");
    assert!(!bench.path("other/index.json").exists());
}

#[test]
fn tag_is_not_there_before_all_of_the_image_is() {
    let bench = Bench::new(&[1000, 2000, 3000]);
    let last = bench.layers[2].to_string();
    let stub = Stub::that(move |asked, _| {
        (asked.method == "PUT" && asked.query.contains(&last))
            .then(|| Act::Answer(500, Vec::new(), Vec::new()))
    });
    let message = bench.refused(&["copy", "oci:image:1", &stub.name("a:1")], 1);
    assert!(message.contains("500"), "{message}");
    assert_eq!(stub.count("PUT", "/manifests/"), 0);
}

#[test]
fn bytes_that_are_other_ones_are_refused_and_nothing_shows() {
    let bench = Bench::new(&[MIB]);
    let (layer, config) = (bench.layers[0].to_string(), bench.config.to_string());
    for (part, length) in
        [(layer.clone(), MIB), (config, bench.blob(&bench.config).len()), ("/manifests/1".to_owned(), 100)]
    {
        let stub = Stub::that(move |asked, _| {
            let headers = vec![("Docker-Content-Digest", Digest::of("x").to_string())];
            asked.is("GET", &part).then(|| Act::Answer(200, headers, noise(99, length)))
        });
        bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
        let message = bench.refused(&["copy", &stub.name("a:1"), "oci:back:1"], 2);
        assert!(message.contains("other bytes"), "{message}");
        assert!(!bench.path("back/index.json").exists());
    }
    // A layer that is longer or shorter than the manifest says.
    for length in [MIB - 1, MIB + 1] {
        let part = layer.clone();
        let stub = Stub::that(move |asked, _| {
            asked.is("GET", &part).then(|| Act::Answer(200, Vec::new(), noise(1, length)))
        });
        bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
        let message = bench.refused(&["copy", &stub.name("a:1"), "oci:back:1"], 2);
        assert!(message.contains("bytes of the manifest"), "{message}");
    }
}

#[test]
fn damaged_layer_never_reaches_a_registry() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[MIB, 10]));
    fs::write(bench.path("image/blobs/sha256").join(bench.layers[0].hex()), noise(7, MIB)).unwrap();
    let message = bench.refused(&["copy", "oci:image:1", &stub.name("a:1")], 2);
    assert!(message.contains("its bytes are other ones"), "{message}");
    assert_eq!((stub.count("PUT", "/manifests/"), stub.kept.lock().unwrap().blobs.len() < 3), (0, true));
}

#[test]
fn registry_that_kept_something_else_is_found_out() {
    let bench = Bench::new(&[1000]);
    let other = || vec![("Docker-Content-Digest", Digest::of("x").to_string())];
    let stub = Stub::that(move |asked, _| {
        asked.is("PUT", "/manifests/").then(|| Act::Answer(201, other(), Vec::new()))
    });
    let message = bench.refused(&["copy", "oci:image:1", &stub.name("a:1")], 1);
    assert!(message.contains("did not keep the manifest"), "{message}");
    // It says nothing, and gives out another one.
    let stub = Stub::that(|asked, _| {
        asked.is("GET", "/manifests/sha256:").then(|| Act::Answer(200, Vec::new(), b"{}".to_vec()))
    });
    let message = bench.refused(&["copy", "oci:image:1", &stub.name("a:1")], 1);
    assert!(message.contains("did not keep the manifest"), "{message}");
    assert_eq!(stub.count("PUT", "/manifests/1"), 0, "the tag is last");
}

#[test]
fn nothing_is_read_without_an_end() {
    let bench = Bench::new(&[1000]);
    let (layer, config) = (bench.layers[0].to_string(), bench.config.to_string());
    for (part, wanted) in [
        ("/manifests/1", "a manifest that is not what it should be: more than 16777216 bytes"),
        (config.as_str(), "a config that is not what it should be: more than"),
        (layer.as_str(), "more than the 1000 bytes of the manifest"),
    ] {
        let meant = part.to_owned();
        let stub = Stub::that(move |asked, _| asked.is("GET", &meant).then_some(Act::Endless));
        bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
        let message = bench.refused(&["copy", &stub.name("a:1"), "oci:back:1"], 2);
        assert!(message.contains(wanted), "{part}: {message}");
    }
}

#[test]
fn nothing_is_waited_for_without_an_end() {
    let bench = Bench::new(&[1000]);
    let layer = bench.layers[0].to_string();
    for part in ["/manifests/1", &layer] {
        let meant = part.to_owned();
        let stub = Stub::that(move |asked, _| asked.is("GET", &meant).then_some(Act::Silent));
        bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
        let mut command = bench.command(&["copy", &stub.name("a:1"), "oci:back:1", "--json"]);
        let message = refusal(&command.env("TARSUP_REGISTRY_SILENCE", "1").output().unwrap(), 1);
        assert!(message.contains("said nothing for 1 s"), "{message}");
    }
}

#[test]
fn layer_that_drips_is_as_good_as_none() {
    let bench = Bench::new(&[1000]);
    let layer = bench.layers[0].to_string();
    // As long as it should be, and a byte now and then: something moves all the time, and it would take for ever.
    let stub = Stub::that(move |asked, kept| {
        let of_layer = kept.blobs.iter().find(|((_, digest), _)| *digest == layer);
        let blob = of_layer.map(|(_, blob)| blob.clone()).filter(|_| asked.is("GET", &layer))?;
        Some(Act::Odd(Box::new(move |stream| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", blob.len());
            let _ = stream.write_all(head.as_bytes());
            // It ends where the other side has had enough.
            let _ = blob.iter().try_for_each(|byte| {
                std::thread::sleep(std::time::Duration::from_millis(30));
                stream.write_all(&[*byte])
            });
        })))
    });
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let mut command = bench.command(&["copy", &stub.name("a:1"), "oci:back:1", "--json"]);
    let message = refusal(&command.env("TARSUP_REGISTRY_SILENCE", "1").output().unwrap(), 1);
    assert!(message.contains("said nothing for 1 s"), "{message}");
    bench.refused(&["inspect", "oci:back:1"], 2);
}

#[test]
fn tags_and_repositories_that_are_not_there_are_named() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[10]));
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let message = bench.refused(&["inspect", &stub.name("a:2")], 2);
    assert!(message.contains("has no image a:2"), "{message}");
    let message = bench.refused(&["inspect", "docker://127.0.0.1:1/a:2"], 1);
    assert!(message.contains("no registry answers at 127.0.0.1:1"), "{message}");
    let message = bench.refused(&["inspect", "docker://nobody.invalid/a:2"], 2);
    assert!(message.contains("there is no host nobody.invalid"), "{message}");
    let digest = Digest::of("x");
    let message = bench.refused(&["copy", "oci:image:1", &stub.name(&format!("a@{digest}"))], 2);
    assert!(message.contains("cannot be written"), "{message}");
    for (status, method, said) in [
        (403, "POST", r#"{"errors":[{"code":"DENIED","message":"quota exceeded: 10 of 10 GB"}]}"#),
        // As a proxy says it, to what is too large for it, and a disk that is full.
        (413, "PATCH", "<html>413 Request Entity Too Large</html>"),
        (507, "PUT", r#"{"errors":[{"code":"UNKNOWN","message":"no space left"}]}"#),
    ] {
        let full = Stub::that(move |asked, _| {
            asked.is(method, "/uploads/").then(|| Act::Answer(status, Vec::new(), said.as_bytes().to_vec()))
        });
        let message = bench.refused(&["copy", "oci:image:1", &full.name("a:1")], 1);
        assert!(
            message.contains("does not take this") && message.contains("make room"),
            "{status}: {message}"
        );
        assert_eq!(full.count("PUT", "/manifests/"), 0, "{status}");
    }
}

#[test]
fn build_writes_to_several_registries_and_repositories_at_once() {
    let (stub, workshop) = (Stub::honest(), crate::packages::Workshop::new());
    let (one, two) = (stub.name("tars/framework:1"), stub.name("mirror/framework:1"));
    let built = workshop.json(&["build", "framework.yaml", "-o", &one, "-o", "oci:out:1", "-o", &two]);
    let outputs = built["outputs"].as_array().unwrap();
    let layers = built["layers"].as_array().unwrap().len();
    assert_eq!(
        (&outputs[0]["layers_sent"], &outputs[2]["layers_sent"]),
        (&layers.into(), &0.into()),
        "{built}"
    );
    for name in [one.as_str(), &two, "oci:out:1"] {
        assert_eq!(workshop.json(&["inspect", name])["digest"], built["digest"]);
    }
    // The next one, from a machine that has nothing: what did not change is not sent.
    std::fs::remove_dir_all(workshop.path("cache")).unwrap();
    workshop.pack(crate::packages::Packer::default(), tarsup::tars::Service::Stat, "3.0.18");
    let next =
        workshop.json(&["build", "framework.yaml", "--after", &one, "-o", &stub.name("tars/framework:2")]);
    assert_eq!(next["outputs"][0]["layers_sent"], 2, "the service and the list: {next}");
}

#[test]
fn index_is_followed_to_what_fits_and_no_further() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[10]));
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let put = |tag: &str, bytes: String| {
        let digest = Digest::of(&bytes);
        let mut kept = stub.kept.lock().unwrap();
        for tag in [tag.to_owned(), digest.to_string()] {
            kept.manifests.insert(("a".to_owned(), tag), ("x/y".to_owned(), bytes.clone().into_bytes()));
        }
        (digest, bytes.len())
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = |digest: Digest, size: usize, kind: &str| {
        json!({"schemaVersion": 2, "manifests": [{"mediaType": kind, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": "sparc"}}]})
        .to_string()
    };
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let mut at = put("index", index(bench.manifest, 1, manifest));
    assert_eq!(bench.json(&["inspect", &stub.name("a:index")])["digest"], bench.manifest.to_string());
    for _ in 0..4 {
        at = put("deep", index(at.0, at.1, kind));
    }
    let message = bench.refused(&["inspect", &stub.name("a:deep")], 2);
    assert!(message.contains("leads on and on"), "{message}");
    let layer =
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": bench.layers[0], "size": 10});
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": bench.config,
        "size": bench.blob(&bench.config).len()});
    put("lies", json!({"schemaVersion": 2, "config": config, "layers": [layer, layer]}).to_string());
    let message = bench.refused(&["inspect", &stub.name("a:lies")], 2);
    assert!(message.contains("it has 2 layers, and its config names 1"), "{message}");
    for text in ["", "[]", "{}", r#"{"manifests": 7}"#] {
        put("odd", text.to_owned());
        let message = bench.refused(&["inspect", &stub.name("a:odd")], 2);
        assert!(message.contains("a:odd is no image: its "), "{text}: {message}");
    }
}

#[test]
fn what_is_no_registry_or_no_image_is_said_with_its_name() {
    let bench = Bench::new(&[10]);
    for status in [404, 405, 302] {
        let server = Stub::that(move |_, _| {
            let headers = vec![("Location", "/login".to_owned()), ("Content-Type", "text/html".to_owned())];
            Some(Act::Answer(status, headers, b"<html>nothing here</html>".to_vec()))
        });
        for arguments in [
            ["inspect", &server.name("a:1"), ""].as_slice().split_last().unwrap().1,
            &["copy", "oci:image:1", &server.name("a:1")],
        ] {
            let message = bench.refused(arguments, 2);
            let words = format!("127.0.0.1:{} is no registry: it answers {status}", server.port);
            assert!(message.contains(&words) && message.contains("how host and port are spelt"), "{message}");
        }
    }
    let config = |kind: &str| json!({ "mediaType": kind, "digest": bench.config, "size": bench.blob(&bench.config).len() });
    let helm = json!({ "schemaVersion": 2, "config": { "mediaType": "application/vnd.cncf.helm.config.v1+json",
        "digest": Digest::of("{}"), "size": 2 }, "layers": [] });
    let signature = json!({ "schemaVersion": 2, "artifactType": "application/x.signature",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of("{}"), "size": 2 }, "layers": [] });
    let old = json!({ "mediaType": "application/vnd.oci.artifact.manifest.v1+json", "artifactType": "x/sbom", "blobs": [] });
    let schema1 = json!({ "schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [], "history": [], "signatures": [] });
    let other = json!({ "schemaVersion": 2, "config": config("application/vnd.oci.image.config.v1+json") });
    for (answer, what, hint) in [
        ("<!DOCTYPE html>\n<title>Sign in</title>".to_owned(), "a web page stands", "the page of a login"),
        ("nothing".to_owned(), "its manifest is no JSON", "see that a registry answers there"),
        (schema1.to_string(), "its manifest is of schema 1", "skopeo copy"),
        (helm.to_string(), "it is an artifact of the type application/vnd.cncf.helm", "name an image"),
        (signature.to_string(), "it is an artifact of the type application/x.signature", "name an image"),
        (old.to_string(), "it is an artifact of the type x/sbom", "name an image"),
        (
            other.to_string(),
            "its manifest cannot be read: missing field `layers`",
            "get the image from elsewhere",
        ),
    ] {
        let stub = Stub::that(move |asked, _| {
            let body = if asked.path.contains("/manifests/") { answer.clone() } else { "{}".to_owned() };
            (asked.method == "GET" && asked.path != "/v2/")
                .then(|| Act::Answer(200, Vec::new(), body.into_bytes()))
        });
        let name = stub.name("a:1");
        for arguments in [&["inspect", &name][..], &["copy", &name, "oci:back:1"]] {
            let message = bench.refused(arguments, 2);
            assert!(message.contains(&format!("{name} is no image: {what}")), "{message}");
            assert!(message.contains(hint), "{message}");
        }
    }
}
