//! `docker://`: images of registries (distribution-spec 1.1), read and written without an engine.
//!
//! What was compared before this was written, and what is carried out how: docs/registry.md.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use super::{Forecast, Progress, Receipt, Result, Sink, Source, TransportError};
use crate::oci::{Digest, Image, Platform, Reference};

mod challenge;
mod client;
mod credentials;
pub mod error;
mod location;
mod mirror;
mod patience;
mod pull;
mod push;
mod trust;
mod upload;

pub use error::RegistryError;
pub use mirror::Mirror;

use client::Session;

/// The registries that a command speaks to: connections, tokens and what was found out of each are kept until it ends.
#[derive(Clone, Default)]
pub struct Registries(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Registries that need not speak TLS.
    insecure: Vec<String>,
    mirrors: Vec<Mirror>,
    /// Connections outlive the call that opened them: all of them belong here.
    runtime: Mutex<Option<Runtime>>,
    /// By host; a mirror is waited for less long than the same host by its own name.
    sessions: Mutex<BTreeMap<(String, bool), Arc<Session>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // Never waits: this may happen on a thread that must not.
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Registries {
    /// Registries, of which these (`HOST` or `HOST:PORT`), and those of this machine, may be spoken to without TLS; and mirrors.
    pub fn new(insecure: &[String], mirrors: &[Mirror]) -> Self {
        Self(Arc::new(Shared {
            insecure: insecure.to_vec(),
            mirrors: mirrors.to_vec(),
            runtime: Mutex::default(),
            sessions: Mutex::default(),
        }))
    }

    /// An image of a registry, whether it is there or not.
    pub fn image(&self, reference: &Reference) -> RegistryImage {
        self.image_for(reference, Platform::of_machine())
    }

    /// The same for this platform, where there is one for several.
    pub fn image_for(&self, reference: &Reference, platform: Platform) -> RegistryImage {
        let (registries, reference) = (self.clone(), reference.clone());
        RegistryImage { registries, reference, platform }
    }

    fn session(&self, registry: &str) -> Result<Arc<Session>> {
        self.session_of(registry, false)
    }

    fn session_of(&self, registry: &str, is_mirror: bool) -> Result<Arc<Session>> {
        let mut sessions = self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (registry.to_owned(), is_mirror);
        if let Some(session) = sessions.get(&key) {
            return Ok(session.clone());
        }
        let session = Arc::new(Session::new(registry, self.may_be_plain(registry), is_mirror)?);
        sessions.insert(key, session.clone());
        Ok(session)
    }

    /// Where an image is read: at its mirrors, and then in its own registry.
    fn places(&self, reference: &Reference) -> Result<Vec<pull::Place>> {
        let mirrored =
            self.0.mirrors.iter().filter_map(|mirror| mirror.of(reference)).map(|there| (there, true));
        let places = mirrored.chain([(reference.clone(), false)]);
        let place = |(reference, is_mirror): (Reference, bool)| {
            Ok(pull::Place { session: self.session_of(&reference.registry, is_mirror)?, reference })
        };
        places.map(place).collect()
    }

    /// As docker has it: a registry of this machine, or one that was named.
    fn may_be_plain(&self, registry: &str) -> bool {
        let host = host(registry);
        let is_near = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        is_near || self.0.insecure.iter().any(|named| named == registry || named == host)
    }

    fn handle(&self) -> Result<tokio::runtime::Handle> {
        let mut runtime = self.0.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let made = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let made = made.map_err(|source| TransportError::Io {
            act: "start the runtime for",
            path: "registry calls".into(),
            source,
        })?;
        let handle = made.handle().clone();
        *runtime = Some(made);
        Ok(handle)
    }

    /// Carries out a future where the connections live.
    async fn run<T, F>(&self, future: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = error::Result<T>> + Send + 'static,
    {
        let done = self.handle()?.spawn(future).await;
        let failed = |error| TransportError::Read {
            name: "from a registry".to_owned(),
            source: io::Error::other(error),
        };
        Ok(done.map_err(failed)??)
    }
}

/// The host without its port, and without the brackets of an IPv6 address.
fn host(registry: &str) -> &str {
    match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => registry.rsplit_once(':').map_or(registry, |(host, _)| host),
    }
}

/// An image of a registry, by name.
pub struct RegistryImage {
    registries: Registries,
    reference: Reference,
    platform: Platform,
}

impl RegistryImage {
    /// The digest of what the name stands for: a manifest, or an index of several.
    pub async fn digest(&self) -> Result<Digest> {
        let places = self.registries.places(&self.reference)?;
        self.registries.run(async move { pull::first(places, pull::digest).await }).await
    }
}

#[async_trait]
impl Source for RegistryImage {
    /// Manifest and config are read; the layers when they are opened.
    async fn get(&self) -> Result<Image> {
        let places = self.registries.places(&self.reference)?;
        let (registries, platform) = (self.registries.clone(), self.platform.clone());
        let handle = self.registries.handle()?;
        let own = places[places.len() - 1].clone();
        let read =
            move |at| pull::image(at, own.clone(), platform.clone(), registries.clone(), handle.clone());
        self.registries.run(pull::first(places, read)).await
    }
}

#[async_trait]
impl Sink for RegistryImage {
    async fn put(&self, image: &Image, progress: &dyn Progress) -> Result<Receipt> {
        let session = self.registries.session(&self.reference.registry)?;
        let (reference, image) = (self.reference.clone(), image.clone());
        let (counter, mut progressed) = mpsc::unbounded_channel();
        let pushed =
            self.registries.run(async move { push::image(session, &reference, &image, &counter).await });
        let mut pushed = std::pin::pin!(pushed);
        loop {
            tokio::select! {
                receipt = &mut pushed => return receipt,
                Some(bytes) = progressed.recv() => progress.advance(bytes),
            }
        }
    }

    async fn forecast(&self, image: &Image) -> Result<Forecast> {
        let session = self.registries.session(&self.reference.registry)?;
        let (reference, image) = (self.reference.clone(), image.clone());
        self.registries.run(async move { push::forecast(&session, &reference, &image).await }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_what_is_named_may_be_spoken_to_without_tls() {
        let registries = Registries::new(&["a".to_owned(), "b:5000".to_owned()], &[]);
        for (registry, wanted) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("a", true),
            ("a:1", true),
            ("b:5000", true),
            ("b", false),
            ("b:1", false),
            ("localhost.evil", false),
            ("10.0.0.1:5000", false),
            ("docker.io", false),
        ] {
            assert_eq!(registries.may_be_plain(registry), wanted, "{registry}");
        }
    }
}
