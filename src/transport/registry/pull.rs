//! Out of a registry: the manifest for a platform, the config, and layers that are proven as their bytes pass.

use std::io::{self, Read};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::header::{ACCEPT, CONTENT_RANGE, HeaderMap, RANGE};
use hyper::{Method, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::Registries;
use super::client::{Answer, Call, Scopes, Session, length};
use super::error::{RegistryError, Result};
use super::patience::{Pace, silence};
use crate::oci::{
    BlobSource, Config, Descriptor, Digest, HashingReader, Image, Layer, Manifest, Platform, Reference,
    manifest,
};

/// More than this is no manifest, config or index.
pub(super) const LARGEST: u64 = 16 << 20;
/// So many pieces of a layer may wait for whoever reads it.
const WAITING: usize = 8;
/// So many indexes may lie in each other.
const DEEPEST: usize = 3;

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// What reading a repository is, for a token.
pub(super) fn scopes(repository: &str) -> Scopes {
    vec![format!("repository:{repository}:pull")]
}

/// Where an image may be read.
#[derive(Clone)]
pub(super) struct Place {
    pub session: Arc<Session>,
    /// Its name there.
    pub reference: Reference,
}

/// What the first of these places tells that tells anything; the last one's error.
pub(super) async fn first<T, F>(places: Vec<Place>, ask: impl Fn(Place) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut places = places.into_iter().peekable();
    let mut at = places.next().expect("an image has a registry");
    while places.peek().is_some() {
        let host = at.session.host.clone();
        match ask(at).await {
            Ok(told) => return Ok(told),
            Err(error) => tracing::debug!(%error, host, "what the mirror lacks its registry may have"),
        }
        at = places.next().expect("there is one more");
    }
    ask(at).await
}

/// The digest of what this name stands for.
pub(super) async fn digest(place: Place) -> Result<Digest> {
    Ok(Digest::of(named(&place.session, &place.reference).await?))
}

/// What this name stands for: a manifest or an index.
async fn named(session: &Session, reference: &Reference) -> Result<Vec<u8>> {
    let wanted = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
    };
    let repository = &reference.repository;
    manifest(session, repository, &wanted, reference.digest, scopes(repository)).await
}

/// The image of this name, as it lies in one place. Its layers are read there, and in its `own` registry where that breaks.
pub(super) async fn image(
    place: Place,
    own: Place,
    platform: Platform,
    registries: Registries,
    handle: Handle,
) -> Result<Image> {
    let Place { session, reference } = &place;
    let repository = &reference.repository;
    let name = format!("docker://{reference}");
    let mut bytes = named(session, reference).await?;
    let mut depth = 0;
    while is_index(&bytes) {
        depth += 1;
        if depth > DEEPEST {
            return Err(session.malformed("an index", "it leads on and on"));
        }
        let chosen = manifest::for_platform(&bytes, &platform)
            .map_err(|why| no_image(&name, &bytes, &format!("its index cannot be read: {why}")))?;
        let chosen = chosen.map_err(|present| RegistryError::Platform {
            name: name.clone(),
            wanted: platform.to_string(),
            present,
        })?;
        bytes = self::manifest(
            session,
            repository,
            &chosen.digest.to_string(),
            Some(chosen.digest),
            scopes(repository),
        )
        .await?;
    }
    let read = Manifest::parse(&bytes)
        .map_err(|why| no_image(&name, &bytes, &format!("its manifest cannot be read: {why}")))?;
    let config = small_blob(session, repository, &read.config).await?;
    let parsed: Config = serde_json::from_slice(&config)
        .map_err(|error| no_image(&name, &bytes, &format!("its config cannot be read: {error}")))?;
    let (layers, named) = (read.layers.len(), parsed.rootfs.diff_ids.len());
    if layers != named {
        let why = format!("it has {layers} layers, and its config names {named}");
        return Err(session.malformed("a manifest", &why));
    }
    let layer = |(descriptor, diff_id): (Descriptor, Digest)| {
        let (digest, size) = (descriptor.digest, descriptor.size);
        let blob = RegistryBlob {
            _registries: registries.clone(),
            handle: handle.clone(),
            mirror: (!Arc::ptr_eq(session, &own.session))
                .then(|| Place { session: session.clone(), reference: reference.clone() }),
            own: own.clone(),
            digest,
            size,
        };
        Layer { diff_id, descriptor, source: Arc::new(blob) }
    };
    let layers = read.layers.into_iter().zip(parsed.rootfs.diff_ids).map(layer).collect();
    Ok(Image { manifest: bytes, config, layers })
}

/// What the name stands for, which is no image, or a damaged one.
fn no_image(name: &str, bytes: &[u8], why: &str) -> RegistryError {
    let (what, hint) = match manifest::instead(bytes) {
        Some(instead) => (instead.what, instead.hint),
        None => (
            why.to_owned(),
            "the registry is damaged, or somebody is in between: get the image from elsewhere",
        ),
    };
    RegistryError::NoImage { name: name.to_owned(), what, hint }
}

/// True for an index, OCI's or docker's, whatever the registry calls it.
fn is_index(bytes: &[u8]) -> bool {
    let document: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    document.is_some_and(|document| document.get("manifests").is_some() && document.get("layers").is_none())
}

/// A manifest or an index, proven where its digest is known.
pub(super) async fn manifest(
    session: &Session,
    repository: &str,
    tag: &str,
    digest: Option<Digest>,
    scopes: Scopes,
) -> Result<Vec<u8>> {
    let call = Call {
        method: Method::GET,
        uri: session.at(&format!("/v2/{repository}/manifests/{tag}")).await?,
        headers: vec![(ACCEPT, ACCEPTED.to_owned())],
        body: Bytes::new(),
        scopes,
        act: format!("read {repository}:{tag}"),
    };
    let answer = session.call(&call).await?;
    if answer.status() == StatusCode::NOT_FOUND {
        let what = match digest {
            Some(digest) => format!("image {repository}@{digest}"),
            None => format!("image {repository}:{tag}"),
        };
        return Err(RegistryError::Absent { host: session.host.clone(), what, said: String::new() });
    }
    if answer.status() != StatusCode::OK {
        return Err(session.refusal(answer, &call.act).await);
    }
    let named = content_digest(answer.headers());
    let bytes = session.whole(answer, LARGEST, "a manifest").await?;
    let found = Digest::of(&bytes);
    match digest.or(named) {
        Some(wanted) if wanted != found => {
            Err(RegistryError::WrongBytes { host: session.host.clone(), wanted, found })
        }
        _ => Ok(bytes),
    }
}

/// What an answer says of its digest, in a form that is known here.
pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.trim().parse().ok()
}

fn blob_call(repository: &str, digest: &Digest, uri: hyper::Uri) -> Call {
    Call {
        method: Method::GET,
        uri,
        headers: Vec::new(),
        body: Bytes::new(),
        scopes: scopes(repository),
        act: format!("read the blob {} of {repository}", digest.short()),
    }
}

/// A small blob, whole, and proven.
async fn small_blob(session: &Session, repository: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let wanted = descriptor.digest;
    if descriptor.size > LARGEST {
        return Err(session.malformed("a manifest", "its config is said to have more than 16 MiB"));
    }
    let uri = session.at(&format!("/v2/{repository}/blobs/{wanted}")).await?;
    let call = blob_call(repository, &wanted, uri);
    let answer = session.call(&call).await?;
    if answer.status() != StatusCode::OK {
        return Err(session.refusal(answer, &call.act).await);
    }
    let bytes = session.whole(answer, descriptor.size, "a config").await?;
    let found = Digest::of(&bytes);
    if found == wanted {
        Ok(bytes)
    } else {
        Err(RegistryError::WrongBytes { host: session.host.clone(), wanted, found })
    }
}

/// A layer of a registry. Each opening sends for it anew.
struct RegistryBlob {
    /// Keeps the runtime of the connections.
    _registries: Registries,
    handle: Handle,
    /// Where it is read first.
    mirror: Option<Place>,
    /// The registry that the image was named in.
    own: Place,
    digest: Digest,
    size: u64,
}

impl BlobSource for RegistryBlob {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let (pieces, receiver) = mpsc::channel();
        let room = Arc::new(Semaphore::new(WAITING));
        let (mirror, own, blob) = (self.mirror.clone(), self.own.clone(), (self.digest, self.size));
        let sender = Sender { pieces, room: room.clone() };
        self.handle.spawn(async move {
            let mut at = 0;
            if let Some(mirror) = mirror {
                match download(&mirror, blob, &mut at, &sender).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(%error, at, "what the mirror does not send its registry may");
                    }
                }
            }
            if let Err(error) = download(&own, blob, &mut at, &sender).await {
                let _ = sender.pieces.send(Err(error));
            }
        });
        let pieces = Pieces { receiver, room, piece: Bytes::new() };
        Ok(Box::new(Proving {
            host: self.mirror.as_ref().unwrap_or(&self.own).session.host.clone(),
            wanted: (self.digest, self.size),
            pieces: Some(HashingReader::new(pieces)),
        }))
    }

    fn registry(&self) -> Option<(&str, &str)> {
        Some((&self.own.session.host, &self.own.reference.repository))
    }
}

/// The pieces of a layer, as they come.
struct Pieces {
    receiver: mpsc::Receiver<Result<Bytes>>,
    room: Arc<Semaphore>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.piece.is_empty() {
            match self.receiver.recv() {
                Ok(Ok(piece)) => {
                    self.room.add_permits(1);
                    self.piece = piece;
                }
                Ok(Err(error)) => return Err(io::Error::other(error)),
                Err(mpsc::RecvError) => return Ok(0),
            }
        }
        let taken = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Ends with an error where the bytes were not those that the digest says.
struct Proving {
    host: String,
    wanted: (Digest, u64),
    pieces: Option<HashingReader<Pieces>>,
}

impl Read for Proving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pieces) = &mut self.pieces else { return Ok(0) };
        let read = pieces.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        let (found, _) = self.pieces.take().map_or(self.wanted, HashingReader::finish);
        if found == self.wanted.0 {
            return Ok(0);
        }
        let wanted = self.wanted.0;
        Err(io::Error::other(RegistryError::WrongBytes { host: self.host.clone(), wanted, found }))
    }
}

/// Where the pieces of a layer go: no more of them than have room.
struct Sender {
    pieces: mpsc::Sender<Result<Bytes>>,
    room: Arc<Semaphore>,
}

impl Sender {
    /// False where nobody reads any more.
    async fn send(&self, piece: Bytes) -> bool {
        match self.room.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return false,
        }
        self.pieces.send(Ok(piece)).is_ok()
    }
}

/// Brings exactly the bytes of a blob from the place `at` on, and goes on where it was when a connection breaks.
async fn download(
    Place { session, reference }: &Place,
    (digest, size): (Digest, u64),
    at: &mut u64,
    to: &Sender,
) -> Result<()> {
    let repository = &reference.repository;
    let uri = session.at(&format!("/v2/{repository}/blobs/{digest}")).await?;
    let mut call = blob_call(repository, &digest, uri);
    let mut patience = session.patience();
    loop {
        if *at > 0 {
            call.headers = vec![(RANGE, format!("bytes={at}-"))];
        }
        let answer = session.call(&call).await?;
        let begins = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if *at > 0 => match begin(answer.headers()) {
                Some(begin) if begin <= *at => begin,
                _ => {
                    return Err(
                        session.malformed("a part of a layer", "it is another part than was asked for")
                    );
                }
            },
            _ => return Err(session.refusal(answer, &call.act).await),
        };
        if length(answer.headers()).is_some_and(|length| begins.checked_add(length) != Some(size)) {
            return Err(session.malformed("a layer", &format!("it has not the {size} bytes of the manifest")));
        }
        match pass(session, answer, *at - begins, at, size, to, &call.act).await? {
            Ended::Whole | Ended::Unread => return Ok(()),
            Ended::Broken(error) => patience.wait(None, error).await?,
        }
    }
}

/// How a connection ended.
enum Ended {
    Whole,
    Unread,
    Broken(RegistryError),
}

/// Passes on what one answer brings, without its first bytes, which were there already.
async fn pass(
    session: &Session,
    answer: Answer,
    mut known: u64,
    at: &mut u64,
    size: u64,
    to: &Sender,
    act: &str,
) -> Result<Ended> {
    let mut body = answer.into_body();
    let mut pace = Pace::default();
    while *at < size {
        let began = Instant::now();
        let frame = match tokio::time::timeout(silence(), body.frame()).await {
            Err(_) => return Ok(Ended::Broken(session.silent(act))),
            Ok(None) => {
                let why = format!("it ended after {at} of {size} bytes");
                return Ok(Ended::Broken(RegistryError::Lost {
                    host: session.host.clone(),
                    act: act.to_owned(),
                    why,
                }));
            }
            Ok(Some(Err(error))) => return Ok(Ended::Broken(session.broken(act, &error))),
            Ok(Some(Ok(frame))) => frame,
        };
        let data = frame.into_data();
        if !pace.holds(began.elapsed(), data.as_ref().map_or(0, Bytes::len)) {
            return Ok(Ended::Broken(session.silent(act)));
        }
        let Ok(mut data) = data else { continue };
        let skip = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
        data.advance(skip);
        known -= skip as u64;
        if data.is_empty() {
            continue;
        }
        *at += data.len() as u64;
        if *at > size {
            return Err(session.malformed("a layer", &format!("more than the {size} bytes of the manifest")));
        }
        if !to.send(data).await {
            return Ok(Ended::Unread);
        }
    }
    Ok(Ended::Whole)
}

/// Where the bytes of an answer begin.
fn begin(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
