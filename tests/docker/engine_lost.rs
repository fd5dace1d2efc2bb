//! An engine that is killed in the middle of a load: a clear error, nothing half-loaded, and a retry that works.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tarsup::diagnose::Diagnose as _;
use tarsup::engine::{ConnectOptions, DockerEngine, Engine as _, EngineError};
use tarsup::oci::BlobSource;
use tarsup::transport::daemon::Daemon;
use tarsup::transport::{Sink as _, TransportError};

use crate::tiny;

/// An engine of this test's own, because it gets killed.
struct Private(&'static str);

impl Private {
    fn tell(&self, what: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine.sh");
        let status = Command::new("sh").args([script, what, self.0]).status().unwrap();
        assert!(status.success(), "engine.sh {what} {}", self.0);
    }

    /// A file of its state.
    fn path(&self, below: &str) -> PathBuf {
        let folder = std::env::var("TARSUP_TEST_DIR").unwrap_or_else(|_| "/var/tmp/tarsup-test".to_owned());
        Path::new(&folder).join(self.0).join(below)
    }

    async fn connect(&self) -> DockerEngine {
        let host = Some(format!("unix://{}", self.path("docker.sock").display()));
        DockerEngine::connect(&ConnectOptions { host, context: None }).await.unwrap()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.tell("stop");
    }
}

/// A blob in whose middle the engine is killed, the first time that it is read so far.
struct Deadly {
    inner: Arc<dyn BlobSource>,
    engine: Arc<Private>,
    killed: Arc<AtomicBool>,
}

impl BlobSource for Deadly {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let (engine, killed) = (self.engine.clone(), self.killed.clone());
        let (first, rest) = (self.inner.open()?.take(2 << 20), {
            let mut rest = self.inner.open()?;
            io::copy(&mut rest.by_ref().take(2 << 20), &mut io::sink())?;
            rest
        });
        let kill = Moment(Some(Box::new(move || {
            if !killed.swap(true, Ordering::SeqCst) {
                engine.tell("kill");
            }
        })));
        Ok(Box::new(first.chain(kill).chain(rest)))
    }
}

/// A reader of nothing that acts when it is reached.
struct Moment(Option<Box<dyn FnOnce() + Send>>);

impl Read for Moment {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if let Some(act) = self.0.take() {
            act();
        }
        Ok(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_killed_during_a_load_is_lost_and_a_retry_works() {
    let private = Arc::new(Private("lost"));
    private.tell("start");
    let engine = private.connect().await;
    let mut image = tiny::image(&[tiny::actor_layer(), vec![("blob", tiny::noise("lost", 8 << 20))]], &[]);
    let inner = image.layers[1].source.clone();
    image.layers[1].source =
        Arc::new(Deadly { inner, engine: private.clone(), killed: Arc::new(AtomicBool::new(false)) });

    let daemon = Daemon::new(Arc::new(engine.clone()), "copy-lost:1".parse().unwrap());
    let error = daemon.put(&image, &()).await.unwrap_err();
    assert!(matches!(error, TransportError::Engine(EngineError::Lost { .. })), "{error:?}");
    assert!(error.to_string().contains("went away during `load`"), "{error}");
    assert!(error.hint().is_some());
    let gone = engine.inspect_image("copy-lost:1").await;
    assert!(matches!(gone, Err(EngineError::Unreachable { .. })), "{gone:?}");

    private.tell("start");
    assert!(engine.inspect_image("copy-lost:1").await.unwrap().is_none());
    let sent = daemon.put(&image, &()).await.unwrap();
    assert_eq!(sent.layers_sent, 2);
    assert_eq!(engine.inspect_image("copy-lost:1").await.unwrap().unwrap().diff_ids, image.diff_ids());
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_killed_starts_again_whatever_its_pid_files_say() {
    let private = Private("stale");
    private.tell("start");
    let stale = private.path("exec/containerd/containerd.pid");
    assert!(stale.exists(), "{}: the file that the engine itself would trip over", stale.display());
    private.tell("kill");
    // A number that is alive again in every new pid namespace.
    std::fs::write(&stale, "1").unwrap();

    private.tell("start");

    assert!(private.connect().await.inspect_image("none:1").await.unwrap().is_none());
}
