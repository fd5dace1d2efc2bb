//! A small image in an OCI layout, made by hand, and `tarsup` with a home of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tarsup::oci::Digest;
use tempfile::TempDir;

/// A folder with the layout `oci:image:1`, and a home.
pub struct Bench {
    pub folder: TempDir,
    /// Manifest, config and layers, by what they are.
    pub manifest: Digest,
    pub config: Digest,
    pub layers: Vec<Digest>,
}

/// Bytes that nothing makes smaller.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

impl Bench {
    /// An image with layers of these sizes.
    pub fn new(sizes: &[usize]) -> Self {
        let folder = TempDir::new().unwrap();
        let blobs = folder.path().join("image/blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            fs::write(blobs.join(digest.hex()), bytes).unwrap();
            digest
        };
        let layers: Vec<Digest> =
            sizes.iter().zip(1..).map(|(size, seed)| put(&noise(seed, *size))).collect();
        let config =
            json!({"architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z", "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers}, "history": []})
            .to_string();
        let config_digest = put(config.as_bytes());
        let named: Vec<Value> = layers
            .iter()
            .zip(sizes)
            .map(|(digest, size)| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size}))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
            "layers": named})
        .to_string();
        let digest = put(manifest.as_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest, "size": manifest.len(), "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
        fs::write(folder.path().join("image/index.json"), index.to_string()).unwrap();
        fs::write(folder.path().join("image/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder, manifest: digest, config: config_digest, layers }
    }

    /// A path in the folder.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The bytes of a blob of the image.
    pub fn blob(&self, digest: &Digest) -> Vec<u8> {
        fs::read(self.path("image/blobs/sha256").join(digest.hex())).unwrap()
    }

    /// `tarsup` with nobody's logins but those below `home`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TARSUP_STORE", self.path("store"))
            .env("TARSUP_CACHE", self.path("cache"))
            .env("HOME", self.path("home"))
            .env("DOCKER_CONFIG", self.path("home/.docker"))
            .env("XDG_CONFIG_HOME", self.path("home/.config"))
            .env_remove("DOCKER_HOST")
            .env_remove("TARSUP_INSECURE_REGISTRIES")
            .env_remove("TARSUP_REGISTRY_MIRRORS");
        command
    }

    /// What docker would have written at a login.
    pub fn logins(&self, config: &Value) {
        fs::create_dir_all(self.path("home/.docker")).unwrap();
        fs::write(self.path("home/.docker/config.json"), config.to_string()).unwrap();
    }

    /// Runs it with `--json`, which must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        document(&self.command(arguments).arg("--json").output().unwrap())
    }

    /// Runs it with `--json`, which must end with this code: message and hint.
    pub fn refused(&self, arguments: &[&str], exit: i32) -> String {
        refusal(&self.command(arguments).arg("--json").output().unwrap(), exit)
    }
}

/// The document that a successful command printed.
pub fn document(output: &Output) -> Value {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Message and hint of an error.
pub fn refusal(output: &Output, exit: i32) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{stdout}\n{stderr}");
    let document: Value = serde_json::from_str(&stdout).unwrap();
    let hint = document["error"]["hint"].as_str().unwrap_or_default();
    assert!(!hint.is_empty(), "no hint: {document}");
    format!("{} | {hint}", document["error"]["message"].as_str().unwrap())
}
