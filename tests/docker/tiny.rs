//! Tiny images from the words of `oci`, so that engine tests need neither the builder nor a registry.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use flate2::Compression;
use serde_json::json;
use tarsup::engine::{ConnectOptions, DockerEngine, Engine as _};
use tarsup::oci::{BlobSource, Descriptor, Digest, Image, Layer, MediaType, Reference};
use tarsup::transport::Sink as _;
use tarsup::transport::daemon::Daemon;

/// The engine that `DOCKER_HOST` names. Without one these tests fail, rather than pass by doing nothing.
pub async fn engine() -> DockerEngine {
    let host = std::env::var("DOCKER_HOST")
        .expect("DOCKER_HOST must name an engine: sh tests/engine.sh run NAME -- cargo test ...");
    let options = ConnectOptions { host: Some(host), context: None };
    DockerEngine::connect(&options).await.expect("the engine of DOCKER_HOST answers")
}

fn bollard() -> bollard::Docker {
    bollard::Docker::connect_with_host(&std::env::var("DOCKER_HOST").expect("DOCKER_HOST is set"))
        .expect("DOCKER_HOST is an address")
}

/// Removes what an earlier run left, running or not: tarsup itself never forces a removal.
pub async fn remove_container(name: &str) {
    let options = bollard::query_parameters::RemoveContainerOptionsBuilder::new().force(true).build();
    let _ = bollard().remove_container(name, Some(options)).await;
}

/// Removes a network that an earlier run left.
pub async fn remove_network(name: &str) {
    let _ = bollard().remove_network(name).await;
}

/// Removes an image, so that the engine does not hold it.
pub async fn remove_image(name: &str) {
    let options = bollard::query_parameters::RemoveImageOptionsBuilder::new().force(true).build();
    let _ = bollard().remove_image(name, Some(options), None).await;
}

/// Loads an image with the program of `actor.rs`, and an empty `/data`; its reference.
pub async fn actor_image(engine: &DockerEngine, name: &str) -> Reference {
    let reference: Reference = format!("{name}:1").parse().expect("a reference");
    if engine.inspect_image(&reference.to_string()).await.expect("the engine answers").is_none() {
        let daemon = Daemon::new(Arc::new(engine.clone()), reference.clone());
        daemon.put(&image(&[actor_layer()], &[]), &()).await.expect("the image loads");
    }
    reference
}

/// The same as another image of that name: with one more file, so that its id is another one.
pub async fn other_actor_image(engine: &DockerEngine, name: &str, tag: &str) -> Reference {
    let reference: Reference = format!("{name}:{tag}").parse().expect("a reference");
    if engine.inspect_image(&reference.to_string()).await.expect("the engine answers").is_none() {
        let daemon = Daemon::new(Arc::new(engine.clone()), reference.clone());
        let mut layer = actor_layer();
        layer.push(("version", tag.as_bytes().to_vec()));
        daemon.put(&image(&[layer], &[]), &()).await.expect("the image loads");
    }
    reference
}

/// Removes a container and every one that was named after it.
pub async fn remove_containers_of(name: &str) {
    let engine = engine().await;
    for container in engine.list_containers(&[]).await.expect("the engine answers") {
        if container.name == name || container.name.starts_with(&format!("{name}.")) {
            remove_container(&container.id).await;
        }
    }
}

/// The layer with the program and `/data`.
pub fn actor_layer() -> Vec<(&'static str, Vec<u8>)> {
    vec![("actor", std::fs::read(actor()).expect("it was just built")), ("data/", Vec::new())]
}

/// The static program, compiled once a run.
fn actor() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (built, out) = (folder.join(format!("actor-{}", std::process::id())), folder.join("actor"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docker/actor.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = Command::new(rustc)
            .args([
                "--edition",
                "2024",
                "-O",
                "-C",
                "target-feature=+crt-static",
                "-C",
                "strip=symbols",
                "-o",
            ])
            .arg(&built)
            .arg(source)
            .status();
        assert!(status.expect("rustc runs").success(), "tests/docker/actor.rs does not compile");
        std::fs::rename(&built, &out).expect("both lie in one folder");
        out
    })
}

struct Bytes(Vec<u8>);

impl BlobSource for Bytes {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }
}

/// Bytes that no compressor makes smaller, different for each name.
pub fn noise(name: &str, size: usize) -> Vec<u8> {
    let mut state =
        name.bytes().fold(0x9e37_79b9_u64, |state, byte| state.wrapping_mul(31) + u64::from(byte));
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(size / 8).flatten().collect()
}

/// A blob whose bytes end too soon.
pub struct Cut;

impl BlobSource for Cut {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(vec![0; 300 * 1024])))
    }
}

/// An image whose layers hold these files; a name that ends with `/` is a directory.
pub fn image(layers: &[Vec<(&str, Vec<u8>)>], env: &[&str]) -> Image {
    compressed_image(layers, env, Compression::fast())
}

/// The same, its layers compressed otherwise: other digests, the same diff ids.
pub fn compressed_image(layers: &[Vec<(&str, Vec<u8>)>], env: &[&str], level: Compression) -> Image {
    image_of(layers.iter().map(|files| layer(files, level)).collect(), env)
}

/// An image whose layers are these tars.
pub fn image_of_tars(tars: &[Vec<u8>]) -> Image {
    image_of(tars.iter().map(|tar| packed(tar, Compression::fast())).collect(), &[])
}

fn image_of(layers: Vec<Layer>, env: &[&str]) -> Image {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    // PID 1 ignores signals that it has no handler for: only SIGKILL stops it at once.
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": ["/actor"], "Env": env, "StopSignal": "SIGKILL"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest,
        "config": {"mediaType": MediaType::ImageConfig, "digest": Digest::of(&config), "size": config.len()},
        "layers": layers.iter().map(|layer| &layer.descriptor).collect::<Vec<_>>(),
    });
    Image { manifest: manifest.to_string().into_bytes(), config, layers }
}

fn layer(files: &[(&str, Vec<u8>)], level: Compression) -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        let kind = if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_slice()).expect("memory takes it");
    }
    packed(&builder.into_inner().expect("memory takes it"), level)
}

fn packed(tar: &[u8], level: Compression) -> Layer {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    io::Write::write_all(&mut gzip, tar).expect("memory takes it");
    let blob = gzip.finish().expect("memory takes it");
    let descriptor = Descriptor {
        media_type: MediaType::ImageLayerGzip,
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        annotations: BTreeMap::new(),
    };
    Layer { diff_id: Digest::of(tar), descriptor, source: Arc::new(Bytes(blob)) }
}
