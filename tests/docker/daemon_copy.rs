//! Images into a real engine: only what it lacks is sent, and a container of the image has every file.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use tarsup::engine::{CreateBody, DockerEngine, Engine as _, ImageStore};
use tarsup::oci::{Digest, Image, Layer};
use tarsup::transport::archive::Archive;
use tarsup::transport::daemon::Daemon;
use tarsup::transport::layout::LayoutImage;
use tarsup::transport::{Progress, Receipt, Sink as _, Source as _, TransportError};

use crate::tiny;

/// An image of the actor and a layer for each name, which holds a file of that name. A test's own name is in all of
/// them, because what one test loads another finds.
pub fn image(test: &str, names: &[&str]) -> Image {
    tiny::image(&layers(test, names), &[&format!("TEST={test}")])
}

fn layers<'a>(test: &str, names: &[&'a str]) -> Vec<Vec<(&'a str, Vec<u8>)>> {
    let mut layers = vec![tiny::actor_layer()];
    layers[0].push(("test", tiny::noise(test, 512 << 10)));
    layers.extend(names.iter().map(|name| {
        let content = format!("{test}-{name}");
        vec![(&name[..1], content.clone().into_bytes()), ("blob", tiny::noise(&content, 512 << 10))]
    }));
    layers
}

pub async fn copy(engine: &DockerEngine, image: &Image, name: &str) -> Receipt {
    let daemon = Daemon::new(Arc::new(engine.clone()), name.parse().unwrap());
    daemon.put(image, &()).await.unwrap()
}

/// The same, and the dry run before it has said so.
pub async fn copy_as_said(engine: &DockerEngine, image: &Image, name: &str) -> Receipt {
    let daemon = Daemon::new(Arc::new(engine.clone()), name.parse().unwrap());
    let said = daemon.forecast(image).await.unwrap().receipt;
    assert_eq!(daemon.put(image, &()).await.unwrap(), said, "{name}");
    said
}

/// What a container of the image reads from its files.
pub async fn read(engine: &DockerEngine, image: &str, files: &[&str]) -> String {
    let name = image.replace(':', "-");
    tiny::remove_container(&name).await;
    let command: Vec<&str> = ["cat"].iter().chain(files).copied().collect();
    let body = json!({"Image": image, "Cmd": command});
    let body = CreateBody(body.as_object().unwrap().clone());
    let id = engine.create_container(&name, &body).await.unwrap();
    engine.start_container(&id).await.unwrap();
    assert_eq!(engine.wait_container(&id).await.unwrap(), 0, "{}", engine.logs(&id, 10).await.unwrap());
    let said = engine.logs(&id, 100).await.unwrap();
    engine.remove_container(&id).await.unwrap();
    said
}

#[tokio::test]
async fn successor_sends_the_changed_layer_alone() {
    let engine = tiny::engine().await;
    for name in ["copy-next:1", "copy-next:2", "copy-next:same"] {
        tiny::remove_image(name).await;
    }
    let first = image("next", &["a1", "b1", "c1"]);
    let sent = copy_as_said(&engine, &first, "copy-next:1").await;
    assert_eq!((sent.layers_sent, sent.layers_skipped, sent.digest), (4, 0, first.digest()));
    let whole: u64 = first.layers.iter().map(|layer| layer.descriptor.size).sum();
    assert!(sent.bytes_sent > whole, "{sent:?}");

    let second = image("next", &["a1", "b1", "c2"]);
    let sent = copy_as_said(&engine, &second, "copy-next:2").await;
    assert_eq!((sent.layers_sent, sent.layers_skipped), (1, 3));
    let spared: u64 = second.layers[..3].iter().map(|layer| layer.descriptor.size).sum();
    assert_eq!(sent.bytes_skipped, spared);
    let changed = second.layers[3].descriptor.size;
    assert!(sent.bytes_sent < changed + 16 * 1024, "{sent:?}, the layer has {changed}");
    assert_eq!(read(&engine, "copy-next:2", &["/a", "/b", "/c"]).await, "next-a1next-b1next-c2");

    for name in ["copy-next:2", "copy-next:same"] {
        let again = copy_as_said(&engine, &second, name).await;
        assert_eq!((again.bytes_sent, again.layers_sent, again.layers_skipped), (0, 0, 4), "{name}");
        let found = engine.inspect_image(name).await.unwrap().unwrap();
        assert_eq!(found.diff_ids, second.diff_ids());
    }
}

#[tokio::test]
async fn change_in_the_middle_sends_what_follows_it_to_a_classic_store() {
    let engine = tiny::engine().await;
    for name in ["copy-order:1", "copy-order:2"] {
        tiny::remove_image(name).await;
    }
    copy_as_said(&engine, &image("order", &["a1", "b1", "c1"]), "copy-order:1").await;
    let sent = copy_as_said(&engine, &image("order", &["a2", "b1", "c1"]), "copy-order:2").await;
    let expected = match engine.info().await.unwrap().image_store {
        ImageStore::Classic => (3, 1),
        ImageStore::Containerd => (1, 3),
    };
    assert_eq!((sent.layers_sent, sent.layers_skipped), expected);
    assert_eq!(read(&engine, "copy-order:2", &["/a", "/b", "/c"]).await, "order-a2order-b1order-c1");
}

#[tokio::test]
async fn layers_that_were_compressed_otherwise_are_sent_where_the_store_needs_them() {
    let engine = tiny::engine().await;
    for name in ["copy-guess:1", "copy-guess:2"] {
        tiny::remove_image(name).await;
    }
    copy(&engine, &image("guess", &["a1", "b1"]), "copy-guess:1").await;
    let layers = layers("guess", &["b1", "a1"]);
    let other = tiny::compressed_image(&layers, &["TEST=guess"], flate2::Compression::best());
    let sent = copy(&engine, &other, "copy-guess:2").await;
    // A wrong guess costs a second load, and the image is whole all the same.
    let expected = match engine.info().await.unwrap().image_store {
        ImageStore::Classic => (2, 1),
        ImageStore::Containerd => (3, 0),
    };
    assert_eq!((sent.layers_sent, sent.layers_skipped), expected);
    assert_eq!(read(&engine, "copy-guess:2", &["/a", "/b"]).await, "guess-a1guess-b1");
}

/// What a run leaves that is killed between a load without a layer and its proof.
async fn load_without(engine: &DockerEngine, image: &Image, name: &str, missing: usize) {
    let reference = name.parse().unwrap();
    let mut tar = Vec::new();
    Archive { image, reference: &reference, includes: &|index| index != missing }
        .write(&mut tar, &())
        .unwrap();
    let body = futures_util::stream::once(async move { Ok(Bytes::from(tar)) });
    // A classic store has nothing of it then, one of containerd's half of it: neither goes well.
    assert!(engine.load_image(Box::pin(body)).await.is_err());
    let is_there = engine.inspect_image(name).await.unwrap().is_some();
    assert_eq!(is_there, engine.info().await.unwrap().image_store == ImageStore::Containerd, "{name}");
}

#[tokio::test]
async fn image_that_a_killed_run_left_without_a_layer_is_proven_and_sent_whole() {
    let engine = tiny::engine().await;
    for name in ["copy-killed:1", "copy-killed:2", "copy-killed:again"] {
        tiny::remove_image(name).await;
    }
    let whole = image("killed", &["a1", "b1"]);
    for name in ["copy-killed:1", "copy-killed:again"] {
        // By its name, and by its id under another name.
        load_without(&engine, &whole, "copy-killed:1", 1).await;
        copy(&engine, &whole, name).await;
        assert_eq!(read(&engine, name, &["/a", "/b"]).await, "killed-a1killed-b1", "{name}");
        for name in ["copy-killed:1", "copy-killed:again"] {
            tiny::remove_image(name).await;
        }
    }
    let again = copy(&engine, &whole, "copy-killed:2").await;
    assert_eq!(again.layers_sent + again.layers_skipped, 3);
    let sent = copy(&engine, &whole, "copy-killed:2").await;
    assert_eq!((sent.bytes_sent, sent.layers_skipped), (0, 3), "what is proven is not sent again");
}

#[tokio::test]
async fn copy_that_is_killed_as_the_image_appears_is_made_good_by_the_next() {
    let engine = tiny::engine().await;
    let folder = tempfile::tempdir().unwrap();
    // The engine has the layers' content, compressed otherwise: a containerd store is sent too little at first.
    let held = image("kill9", &["a1", "b1"]);
    let other =
        tiny::compressed_image(&layers("kill9", &["b1", "a1"]), &["TEST=kill9"], flate2::Compression::best());
    LayoutImage::new(folder.path(), Some("1")).put(&other, &()).await.unwrap();
    let source = format!("oci:{}:1", folder.path().display());
    for _ in 0..5 {
        for name in ["copy-kill9:held", "copy-kill9:1"] {
            tiny::remove_image(name).await;
        }
        copy(&engine, &held, "copy-kill9:held").await;
        let mut child = Command::new(env!("CARGO_BIN_EXE_tarsup"))
            .args(["copy", &source, "docker-daemon:copy-kill9:1"])
            .env("TARSUP_CACHE", folder.path().join("cache"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while engine.inspect_image("copy-kill9:1").await.unwrap().is_none()
            && child.try_wait().unwrap().is_none()
        {
            tokio::task::yield_now().await;
        }
        let _ = child.kill();
        child.wait().unwrap();
        copy(&engine, &other, "copy-kill9:1").await;
        assert_eq!(read(&engine, "copy-kill9:1", &["/a", "/b"]).await, "kill9-a1kill9-b1");
    }
}

#[tokio::test]
async fn progress_counts_every_byte_that_is_sent() {
    struct Sum(Mutex<u64>);
    impl Progress for Sum {
        fn advance(&self, bytes: u64) {
            *self.0.lock().unwrap() += bytes;
        }
    }
    let engine = tiny::engine().await;
    tiny::remove_image("copy-progress:1").await;
    let daemon = Daemon::new(Arc::new(engine), "copy-progress:1".parse().unwrap());
    let sum = Sum(Mutex::new(0));
    let sent = daemon.put(&image("progress", &["a1"]), &sum).await.unwrap();
    assert_eq!(*sum.0.lock().unwrap(), sent.bytes_sent);
}

#[tokio::test]
async fn name_of_another_image_is_taken_over() {
    let engine = tiny::engine().await;
    copy(&engine, &image("over", &["a1"]), "copy-over:1").await;
    let other = image("over", &["a2"]);
    copy(&engine, &other, "copy-over:1").await;
    assert_eq!(engine.inspect_image("copy-over:1").await.unwrap().unwrap().diff_ids, other.diff_ids());
    assert_eq!(read(&engine, "copy-over:1", &["/a"]).await, "over-a2");
}

#[tokio::test]
async fn image_read_from_the_engine_is_the_one_that_went_in() {
    let engine = tiny::engine().await;
    let loaded = image("read", &["a1", "b1"]);
    copy(&engine, &loaded, "copy-read:1").await;
    let daemon = |name: &str| Daemon::new(Arc::new(engine.clone()), name.parse().unwrap());
    let read = daemon("copy-read:1").get().await.unwrap();
    assert_eq!(read.config, loaded.config);
    assert_eq!(read.diff_ids(), loaded.diff_ids());
    for (layer, original) in read.layers.iter().zip(&loaded.layers) {
        assert_eq!(plain(layer), plain(original));
    }
    // What came out is an image like any other: a copy of it under another name is not sent.
    let sent = copy(&engine, &read, "copy-read:2").await;
    assert_eq!((sent.bytes_sent, sent.layers_skipped), (0, 3));
    let absent = daemon("copy-read:absent").get().await.unwrap_err();
    assert!(matches!(absent, TransportError::Absent { .. }), "{absent}");
}

/// A layer's tar.
fn plain(layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    layer.source.open().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(Digest::of(&bytes), layer.descriptor.digest);
    if layer.descriptor.digest == layer.diff_id {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn archive_that_a_build_wrote_is_loaded_by_docker_and_runs() {
    let engine = tiny::engine().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |below: &str| folder.path().join(below);
    let (_, actor) = tiny::actor_layer().swap_remove(0);
    fs::write(path("actor"), actor).unwrap();
    fs::set_permissions(path("actor"), fs::Permissions::from_mode(0o755)).unwrap();
    let recipe = "name: copy-file\nversion: 1\nrole: plain\nbase: scratch\nfiles: {actor: /actor, ours: /data/ours}\n\
                  entrypoint: [/actor]\n";
    fs::write(path("plain.yaml"), recipe).unwrap();
    let run = |program: &str, words: &[&str]| -> String {
        let places =
            ["store", "cache"].map(|below| (format!("TARSUP_{}", below.to_uppercase()), path(below)));
        let output =
            Command::new(program).args(words).current_dir(folder.path()).envs(places).output().unwrap();
        let (said, words) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}\n{words}");
        said.into_owned()
    };
    // The second one lies on top of the first: layers of another archive are no part of it.
    for (version, after) in [("1", &[][..]), ("2", &["--after", "oci:out:1"])] {
        let name = format!("copy-file:{version}");
        // Whatever the engine has of it would be passed over in the archive.
        for name in ["copy-file:1", "copy-file:2"] {
            tiny::remove_image(name).await;
        }
        fs::write(path("ours"), format!("of {version}\n")).unwrap();
        let layout = format!("oci:out:{version}");
        let build = [
            "build",
            "plain.yaml",
            "--json",
            "--version",
            version,
            "-o",
            "docker-archive:x.tar",
            "-o",
            &layout,
        ];
        let made = run(env!("CARGO_BIN_EXE_tarsup"), &[&build[..], after].concat());
        let made: Value = serde_json::from_str(&made).unwrap();
        let said = run("docker", &["load", "-i", "x.tar"]);
        assert_eq!(said.trim(), format!("Loaded image: {name}"));
        assert_eq!(read(&engine, &name, &["/data/ours"]).await, format!("of {version}\n"));
        // It is that image, and not one that the engine made of it.
        let found = engine.inspect_image(&name).await.unwrap().unwrap();
        let id = match engine.info().await.unwrap().image_store {
            ImageStore::Classic => &made["config_digest"],
            ImageStore::Containerd => &made["digest"],
        };
        assert_eq!(found.id, id.as_str().unwrap());
    }
}

#[tokio::test]
async fn unreadable_layer_fails_and_leaves_no_image() {
    let engine = tiny::engine().await;
    tiny::remove_image("copy-broken:1").await;
    let mut broken = image("broken", &["a1"]);
    broken.layers[1].source = Arc::new(tiny::Cut);
    let daemon = Daemon::new(Arc::new(engine.clone()), "copy-broken:1".parse().unwrap());
    let error = daemon.put(&broken, &()).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot read the image copy-broken:1"), "{error}");
    assert!(engine.inspect_image("copy-broken:1").await.unwrap().is_none());
}
