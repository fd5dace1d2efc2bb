//! `docker-daemon:`: images into an engine, only the layers that it lacks, and out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::archive::Archive;
use super::held::{Ahead, Kind};
use super::tars::{self, TarArchive};
use super::{Forecast, Progress, Receipt, Result, Sink, Source, TransportError, saved};
use crate::engine::{ByteStream, CreateBody, Engine, EngineError, EngineImage, ImageStore};
use crate::oci::{Digest, Image, Reference, TarImage};

/// How much of the archive is sent at once.
const PIECE: usize = 256 * 1024;
/// How many pieces may wait for the engine: what an image of any size takes of memory.
const WAITING: usize = 4;

/// What an engine's answer to a load begins with where it has the image, and where it could not unpack it (moby,
/// daemon/containerd/image_exporter.go).
const LOADED: &str = "Loaded image";
const NOT_UNPACKED: &str = "Error unpacking image";
/// The first of docker's major versions that says so of containerd's store, as far as was tried.
const SAYS_SO: u32 = 26;

/// An image of an engine, by name.
pub struct Daemon {
    engine: Arc<dyn Engine>,
    reference: Reference,
    /// What the engine told before, to be used once.
    ahead: Mutex<Option<Ahead>>,
    /// What it is to have was made a moment ago.
    is_new: bool,
}

impl Daemon {
    /// The image of this name in this engine, whether it is there or not.
    pub fn new(engine: Arc<dyn Engine>, reference: Reference) -> Self {
        Self { engine, reference, ahead: Mutex::default(), is_new: false }
    }

    /// The same, where the engine was asked a moment ago. What changed there since costs more bytes, or one load more.
    #[must_use]
    pub fn knowing(self, ahead: Option<Ahead>) -> Self {
        Self { ahead: Mutex::new(ahead), ..self }
    }

    /// The same for an image of which a layer was made a moment ago: the engine is not asked whether it has it under another name.
    #[must_use]
    pub fn of_new(self) -> Self {
        Self { is_new: true, ..self }
    }

    /// What the engine has of the repository.
    async fn ahead(&self) -> Result<Ahead> {
        let known = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        match known {
            Some(known) => Ok(known),
            None => Ok(Ahead::of(self.engine.as_ref(), &self.reference, None).await?),
        }
    }

    fn tag(&self) -> Result<String> {
        self.reference.tag.clone().ok_or_else(|| TransportError::Name {
            text: format!("docker-daemon:{}", self.reference),
            why: "an engine takes an image under a tag, not a digest".to_owned(),
        })
    }

    /// What the reference leads to, where that is this very image.
    async fn holds(&self, name: &str, wanted: &Wanted<'_>) -> Result<Option<EngineImage>> {
        let found = self.engine.inspect_image(name).await?;
        Ok(found.filter(|found| wanted.is(found)))
    }

    /// Sends the layers that `skipped` does not name, and proves that the engine has the image afterwards.
    async fn load(
        &self,
        wanted: &Wanted<'_>,
        (kind, skipped): (&Kind, &BTreeSet<usize>),
        sent: &mut u64,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (pieces, mut receiver) = mpsc::channel(WAITING);
        let (counter, mut progressed) = mpsc::unbounded_channel();
        let (sending, reference, left_out) = (wanted.sent(kind), self.reference.clone(), skipped.clone());
        let writer = tokio::task::spawn_blocking(move || {
            let mut out = Pieces { out: pieces, piece: BytesMut::new() };
            let includes = |index: usize| !left_out.contains(&index);
            let written = sending.write((&reference, &includes), &mut out, &Counter(counter));
            if written.is_err() {
                // A body that merely ends would look whole to the engine.
                let _ = out.out.blocking_send(Err(io::Error::other("the image cannot be read")));
            }
            written
        });
        let body: ByteStream = Box::pin(stream::poll_fn(move |context| receiver.poll_recv(context)));
        let mut load = self.engine.load_image(body);
        let answer = loop {
            tokio::select! {
                answer = &mut load => break answer,
                Some(bytes) = progressed.recv() => {
                    *sent += bytes;
                    progress.advance(bytes);
                }
            }
        };
        drop(load);
        let written = writer.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        while let Ok(bytes) = progressed.try_recv() {
            *sent += bytes;
            progress.advance(bytes);
        }
        let said = match (answer, written) {
            // An engine that has all it needs may not read the tar's last zeros; one that failed reads no further.
            (answer, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => answer?,
            (_, Err(source)) => {
                return Err(TransportError::Read { name: self.reference.to_string(), source });
            }
            (answer, Ok(_)) => answer?,
        };
        self.prove(wanted, kind, &said).await
    }

    /// A load may fail without saying so: the image is asked for, and where the store takes half of one and the engine does
    /// not tell, mounted.
    async fn prove(&self, wanted: &Wanted<'_>, kind: &Kind, said: &[String]) -> Result<()> {
        let name = self.reference.to_string();
        let not_loaded = |why: String| TransportError::NotLoaded { name: name.clone(), why };
        let unpacked = wanted.unpacked(kind, said);
        if matches!(unpacked, Some(Ok(()))) && said.contains(&format!("{LOADED}: {name}")) {
            // It keeps blobs by their digests, and says this of an image whose blobs it has all read and unpacked.
            return Ok(());
        }
        let found = match self.engine.inspect_image(&name).await? {
            None => return Err(not_loaded("it is not there afterwards".to_owned())),
            Some(found) if !wanted.is(&found) => {
                return Err(not_loaded(format!("the name leads to {}, another image", found.id)));
            }
            Some(found) => found,
        };
        match unpacked {
            Some(Err(why)) => Err(not_loaded(why)),
            Some(Ok(())) => Ok(()),
            None => self.prove_whole(&found, &name, kind.store).await,
        }
    }

    /// Proves that a container can be made of an image that is there.
    async fn prove_whole(&self, found: &EngineImage, name: &str, store: ImageStore) -> Result<()> {
        if store == ImageStore::Classic {
            // It shows an image only when it has every layer.
            return Ok(());
        }
        match self.mount(found, name).await {
            Err(error @ (EngineError::Unreachable { .. } | EngineError::Lost { .. })) => Err(error.into()),
            Err(error) => {
                Err(TransportError::NotLoaded { name: self.reference.to_string(), why: error.to_string() })
            }
            Ok(()) => Ok(()),
        }
    }

    /// containerd's store takes an image whose blobs are missing; only a container of it needs them. This one is never
    /// started.
    async fn mount(&self, found: &EngineImage, name: &str) -> crate::engine::Result<()> {
        // Otherwise the image's volumes would be made, and stay.
        let volumes = found.raw.pointer("/Config/Volumes").and_then(Value::as_object);
        let tmpfs: BTreeMap<&String, &str> =
            volumes.into_iter().flatten().map(|(path, _)| (path, "")).collect();
        let body = json!({
            "Image": name, "Cmd": ["none"],
            "HostConfig": {"NetworkMode": "none", "Tmpfs": tmpfs},
        });
        let body = CreateBody(body.as_object().cloned().unwrap_or_default());
        let container = format!("tarsup-load-{}", Digest::of(&found.id).short());
        let id = match self.engine.create_container(&container, &body).await {
            // What a run left that was killed right here, or what another load of the same image does right now.
            Err(EngineError::Conflict { .. }) => {
                gone(self.engine.remove_container(&container).await)?;
                match self.engine.create_container(&container, &body).await {
                    // The other one's create proves the image as well.
                    Err(EngineError::Conflict { .. }) => return Ok(()),
                    created => created?,
                }
            }
            created => created?,
        };
        gone(self.engine.remove_container(&id).await)
    }

    /// True where an engine that did not take a pruned archive may take the whole one.
    async fn is_worth_another_try(&self, error: &TransportError) -> bool {
        match error {
            TransportError::NotLoaded { .. } | TransportError::Engine(EngineError::Answered { .. }) => true,
            // An engine that refuses early closes the connection while it is being sent to.
            TransportError::Engine(EngineError::Lost { .. }) => self.engine.info().await.is_ok(),
            _ => false,
        }
    }
}

#[async_trait]
impl Source for Daemon {
    /// The image is spooled to a temporary file without a name, which goes with the last of its layers.
    async fn get(&self) -> Result<Image> {
        let name = self.reference.to_string();
        let mut tar = match self.engine.save_image(&name).await {
            Ok(tar) => tar,
            Err(EngineError::NotFound { .. }) => {
                return Err(TransportError::Absent {
                    name: format!("docker-daemon:{name}"),
                    hint: "`tarsup images` lists what the engine holds".to_owned(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let unwritable =
            |source| TransportError::Unkept { image: format!("docker-daemon:{name}").into(), source };
        let mut file = tokio::fs::File::from_std(tempfile::tempfile().map_err(unwritable)?);
        while let Some(piece) = tar.next().await {
            let piece = piece.map_err(|source| TransportError::Read { name: name.clone(), source })?;
            file.write_all(&piece).await.map_err(unwritable)?;
        }
        file.flush().await.map_err(unwritable)?;
        let file = file.into_std().await;
        let reference = self.reference.tag.is_some().then(|| self.reference.clone());
        let from = format!("docker-daemon:{name}");
        let read = tokio::task::spawn_blocking(move || {
            saved::read(saved::Archived::spool(&from, file), reference.as_ref())
        });
        read.await.unwrap_or_else(|panic| Err(TransportError::Read { name, source: io::Error::other(panic) }))
    }
}

/// What an engine tells before it is sent an image.
struct Known {
    ahead: Ahead,
    /// The image where it is there, and the first name that leads to it.
    found: Option<(String, EngineImage)>,
}

/// What became of an image in an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The layers, by index, that it was not sent.
    skipped: BTreeSet<usize>,
    /// Bytes of the archive.
    sent: u64,
}

impl Loaded {
    /// What is said of it, now that the image has a manifest.
    pub fn receipt(&self, image: &Image) -> Receipt {
        without(image, &self.skipped, self.sent)
    }
}

impl Daemon {
    /// Sends an image whose layers are not compressed yet, to an engine that [`takes_tars`].
    ///
    /// # Errors
    /// As [`Sink::put`].
    pub async fn put_tars(&self, image: TarImage, progress: &dyn Progress) -> Result<Loaded> {
        let image = tars::inflated(image);
        let wanted = Wanted::Tars(&image);
        let known = self.known(&wanted).await?;
        self.place(&wanted, known, progress).await
    }

    /// What the engine has of the image's repository, and the names by which it knows the very image.
    async fn known(&self, wanted: &Wanted<'_>) -> Result<Known> {
        self.tag()?;
        let ahead = self.ahead().await?;
        let own = (!ahead.is_free).then(|| self.reference.to_string());
        let id = (!self.is_new).then(|| wanted.id_in(ahead.kind.store)).flatten();
        let names = [own, id];
        let names: Vec<String> = names.into_iter().flatten().collect();
        let found = try_join_all(names.iter().map(|name| self.holds(name, wanted))).await?;
        let found = names.into_iter().zip(found).find_map(|(name, found)| Some((name, found?)));
        Ok(Known { ahead, found })
    }

    /// Sees that the engine has the image under its name.
    async fn place(
        &self,
        wanted: &Wanted<'_>,
        Known { ahead, found }: Known,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        let tag = self.tag()?;
        let kind = ahead.kind.clone();
        let mut loaded = Loaded { skipped: (0..wanted.diff_ids().len()).collect(), sent: 0 };
        let mut skipped = None;
        if let Some((name, found)) = found {
            // An earlier run may have been killed after it sent the image without a layer, and before it proved it.
            match self.prove_whole(&found, &name, kind.store).await {
                Ok(()) => {
                    if name != self.reference.to_string() {
                        self.engine.tag_image(&name, &self.reference.familiar_name(), &tag).await?;
                    }
                    return Ok(loaded);
                }
                Err(error @ TransportError::NotLoaded { .. }) => {
                    tracing::warn!(image = %self.reference, %error, "the engine has the image, but not all of it: sending all");
                    skipped = Some(BTreeSet::new());
                }
                Err(error) => return Err(error),
            }
        }
        loaded.skipped = match skipped {
            Some(none) => none,
            None => ahead.layers(self.engine.as_ref(), wanted.line(), &self.reference).await?,
        };
        let mut answer = self.load(wanted, (&kind, &loaded.skipped), &mut loaded.sent, progress).await;
        if let Err(error) = &answer
            && !loaded.skipped.is_empty()
            && self.is_worth_another_try(error).await
        {
            tracing::info!(image = %self.reference, %error, "the engine lacks more layers than it seemed: sending all");
            loaded.skipped.clear();
            answer = self.load(wanted, (&kind, &loaded.skipped), &mut loaded.sent, progress).await;
        }
        answer.map(|()| loaded)
    }
}

#[async_trait]
impl Sink for Daemon {
    async fn put(&self, image: &Image, progress: &dyn Progress) -> Result<Receipt> {
        let wanted = Wanted::Stored(image);
        let known = self.known(&wanted).await?;
        Ok(self.place(&wanted, known, progress).await?.receipt(image))
    }

    /// By what the engine lists. containerd's store tells of no layer whether it has it compressed as it is here, and of no image
    /// whether it is whole: `put` proves both.
    async fn forecast(&self, image: &Image) -> Result<Forecast> {
        let wanted = Wanted::Stored(image);
        let Known { ahead, found } = self.known(&wanted).await?;
        let guessed = |guess: &str| {
            (ahead.kind.store == ImageStore::Containerd)
                .then(|| format!("the engine keeps images in containerd's store, and {guess}"))
        };
        if found.is_some() {
            let inexact =
                guessed("does not tell whether it has all of this one; where it has not, all of it is sent");
            return Ok(Forecast { receipt: Receipt::of_nothing(image), inexact });
        }
        let sending = wanted.sent(&ahead.kind);
        let guess = guessed(
            "tells what its layers hold, not how they are compressed; where another program compressed one that it has, all are sent",
        );
        let skipped = ahead.layers(self.engine.as_ref(), wanted.line(), &self.reference).await?;
        let includes = |index: usize| !skipped.contains(&index);
        let size = sending.size((&self.reference, &includes));
        let size =
            size.map_err(|source| TransportError::Read { name: self.reference.to_string(), source })?;
        let inexact = guess.filter(|_| !skipped.is_empty());
        Ok(Forecast { receipt: without(image, &skipped, size), inexact })
    }
}

/// True for an engine that keeps layers as tars, with no network in between that compressed ones would spare.
pub fn takes_tars(kind: &Kind) -> bool {
    kind.store == ImageStore::Classic && kind.is_near
}

/// An image that an engine is to have.
enum Wanted<'i> {
    /// Whole, with its manifest.
    Stored(&'i Image),
    /// Of which there is no manifest yet.
    Tars(&'i TarImage),
}

impl Wanted<'_> {
    /// What an engine may know it by, besides its name.
    fn ids(&self) -> Vec<String> {
        match self {
            Self::Stored(image) => vec![image.config_digest().to_string(), image.digest().to_string()],
            Self::Tars(image) => vec![image.config_digest().to_string()],
        }
    }

    /// What an engine with this store calls it. Each question that leads nowhere costs one with containerd a look at all its images.
    fn id_in(&self, store: ImageStore) -> Option<String> {
        match (self, store) {
            (Self::Stored(image), ImageStore::Containerd) => Some(image.digest().to_string()),
            (Self::Stored(image), ImageStore::Classic) => Some(image.config_digest().to_string()),
            (Self::Tars(image), ImageStore::Classic) => Some(image.config_digest().to_string()),
            (Self::Tars(_), ImageStore::Containerd) => None,
        }
    }

    fn diff_ids(&self) -> Vec<Digest> {
        match self {
            Self::Stored(image) => image.diff_ids(),
            Self::Tars(image) => image.diff_ids(),
        }
    }

    /// Its layers, and the chain id of the image whose order of layers it keeps.
    fn line(&self) -> (Vec<Digest>, Option<Digest>) {
        let after = match self {
            Self::Stored(image) => image.after(),
            Self::Tars(image) => image.after,
        };
        (self.diff_ids(), after)
    }

    /// Identity across stores is content: the config (or, with containerd, the manifest) and the diff ids.
    fn is(&self, found: &EngineImage) -> bool {
        self.ids().contains(&found.id) && found.diff_ids == self.diff_ids()
    }

    /// What this engine is sent of it.
    fn sent(&self, kind: &Kind) -> Sent {
        match self {
            Self::Tars(image) => Sent::Tars((*image).clone()),
            Self::Stored(image) if takes_tars(kind) => Sent::Tars(tars::of(image)),
            Self::Stored(image) => Sent::Stored((*image).clone()),
        }
    }

    /// What an engine with containerd's store says of the image that it was just sent: it unpacks what is for its own kind of machine,
    /// and then a container can be made of it, or it says why not. `None` where nothing follows from what it says.
    fn unpacked(&self, kind: &Kind, said: &[String]) -> Option<std::result::Result<(), String>> {
        let Self::Stored(image) = self else { return None };
        let major: u32 = kind.version.split('.').next()?.parse().ok()?;
        if kind.store != ImageStore::Containerd || major < SAYS_SO {
            return None;
        }
        if let Some(failed) = said.iter().find(|line| line.starts_with(NOT_UNPACKED)) {
            return Some(Err(failed.clone()));
        }
        let config = image.parsed_config().ok()?;
        let is_for_it = config.os == "linux"
            && kind.architecture.as_ref() == Some(&config.architecture)
            && config.variant.is_none();
        (is_for_it && said.iter().any(|line| line.starts_with(LOADED))).then_some(Ok(()))
    }
}

/// An image in the form in which an engine takes it.
enum Sent {
    /// As it is stored: an OCI layout too.
    Stored(Image),
    /// As tars.
    Tars(TarImage),
}

/// The name of an image, and which of its layers go into an archive.
type Named<'a> = (&'a Reference, &'a (dyn Fn(usize) -> bool + Sync));

impl Sent {
    fn write(
        &self,
        (reference, includes): Named<'_>,
        out: &mut dyn Write,
        progress: &dyn Progress,
    ) -> io::Result<u64> {
        match self {
            Self::Stored(image) => Archive { image, reference, includes }.write(out, progress),
            Self::Tars(image) => TarArchive { image, reference, includes }.write(out, progress),
        }
    }

    fn size(&self, (reference, includes): Named<'_>) -> io::Result<u64> {
        match self {
            Self::Stored(image) => Archive { image, reference, includes }.size(),
            Self::Tars(image) => TarArchive { image, reference, includes }.size(),
        }
    }
}

/// What is said of an archive without these layers.
fn without(image: &Image, skipped: &BTreeSet<usize>, bytes_sent: u64) -> Receipt {
    Receipt {
        digest: image.digest(),
        bytes_sent,
        layers_sent: image.layers.len() - skipped.len(),
        layers_skipped: skipped.len(),
        bytes_skipped: skipped.iter().map(|index| image.layers[*index].descriptor.size).sum(),
    }
}

/// A writer whose bytes become the pieces of a request's body. It waits while the engine is slower.
struct Pieces {
    out: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        self.out.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Carries progress out of the thread that writes.
struct Counter(mpsc::UnboundedSender<u64>);

impl Progress for Counter {
    fn advance(&self, bytes: u64) {
        // Nobody listens any more once the call has ended.
        let _ = self.0.send(bytes);
    }
}

/// A removal: that nothing is there is what was wanted, and so is that somebody else is removing it.
fn gone(removed: crate::engine::Result<()>) -> crate::engine::Result<()> {
    match removed {
        Err(EngineError::NotFound { .. }) => Ok(()),
        Err(EngineError::Conflict { message, .. }) if message.contains("already in progress") => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_removes_is_gone() {
        let conflict = |message: &str| {
            gone(Err(EngineError::Conflict { call: "remove x".to_owned(), message: message.to_owned() }))
        };
        assert!(conflict("removal of container x is already in progress").is_ok());
        assert!(conflict("you cannot remove a running container").is_err());
        assert!(
            gone(Err(EngineError::NotFound { call: "remove x".to_owned(), message: String::new() })).is_ok()
        );
    }

    #[test]
    fn store_of_containerd_is_believed_that_it_unpacked_an_image_for_its_own_machine() {
        let image = |architecture: &str| {
            let config = json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
            Image { manifest: Vec::new(), config: config.to_string().into_bytes(), layers: Vec::new() }
        };
        let judged = |store, version: &str, architecture: &str, said: &[&str]| {
            let kind = Kind {
                store,
                is_near: true,
                version: version.to_owned(),
                architecture: Some("amd64".to_owned()),
            };
            let said: Vec<String> = said.iter().map(|line| (*line).to_owned()).collect();
            Wanted::Stored(&image(architecture)).unpacked(&kind, &said).map(|proven| proven.is_ok())
        };
        let (loaded, failed) = ("Loaded image: x:1", "Error unpacking image x:1: not found");
        let new =
            |architecture, said: &[&str]| judged(ImageStore::Containerd, "26.1.5+dfsg1", architecture, said);
        assert_eq!(new("amd64", &[loaded]), Some(true));
        assert_eq!(new("amd64", &[loaded, failed]), Some(false));
        assert_eq!(new("amd64", &[]), None, "it says nothing");
        assert_eq!(new("arm64", &[loaded]), None, "it unpacks nothing for other machines");
        assert_eq!(judged(ImageStore::Containerd, "25.0.1", "amd64", &[loaded]), None);
        assert_eq!(judged(ImageStore::Classic, "26.1.5", "amd64", &[loaded]), None);
    }
}
