//! Into a registry: the blobs that it lacks, several at once; then the manifest by its digest; then the name.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use tokio::sync::mpsc::UnboundedSender;

use super::client::{Call, Scopes, Session, length};
use super::error::{RegistryError, Result};
use super::upload::{Upload, kept_as_sent};
use super::{location, pull};
use crate::oci::{BlobSource, Digest, Image, Manifest, Reference};
use crate::transport::{Forecast, Receipt};

/// So many blobs are on their way at the same time.
const AT_ONCE: usize = 4;
/// So many other repositories are asked for a blob before it is sent.
const MOST_MOUNTS: usize = 2;

/// What is to be in a repository.
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
    pub source: Arc<dyn BlobSource>,
    /// Repositories of the same registry that may have it.
    pub elsewhere: Vec<String>,
}

/// A small blob in memory.
struct InMemory(Bytes);

impl BlobSource for InMemory {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.0.clone())))
    }
}

/// What writing a repository is, for a token, and reading others that a blob may be had from.
pub(super) fn scopes(repository: &str, from: Option<&str>) -> Scopes {
    let mut scopes = vec![format!("repository:{repository}:pull,push")];
    scopes.extend(from.map(|from| format!("repository:{from}:pull")));
    scopes
}

/// Writes the image under its name.
pub(super) async fn image(
    session: Arc<Session>,
    reference: &Reference,
    image: &Image,
    counter: &UnboundedSender<u64>,
) -> Result<Receipt> {
    let media_type = media_type(reference, image)?;
    let repository = reference.repository.as_str();
    let mut put: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut sending = stream::iter(blobs(&session, repository, image))
        .map(|blob| put_blob(&session, repository, blob, counter))
        .buffer_unordered(AT_ONCE);
    while let Some((digest, sent)) = sending.try_next().await? {
        put.extend(sent.map(|sent| (digest, sent)));
    }
    drop(sending);
    let receipt = receipt(reference, image, &put);
    let by_digest = image.digest().to_string();
    put_manifest(&session, repository, &by_digest, image, &media_type).await?;
    // What everybody else will read.
    let own = scopes(repository, None);
    let kept = pull::manifest(&session, repository, &by_digest, Some(image.digest()), own).await;
    kept.map_err(|error| RegistryError::NotKept {
        host: session.host.clone(),
        what: "the manifest".to_owned(),
        why: error.to_string(),
    })?;
    if let Some(tag) = &reference.tag {
        put_manifest(&session, repository, tag, image, &media_type).await?;
    }
    session.written.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.to_owned());
    Ok(receipt)
}

/// What [`image`] would send. A blob that another repository of the registry has counts as mounted, which is said.
pub(super) async fn forecast(session: &Session, reference: &Reference, image: &Image) -> Result<Forecast> {
    media_type(reference, image)?;
    let repository = reference.repository.as_str();
    let mut put: BTreeMap<Digest, u64> = BTreeMap::new();
    let (mut mounted, mut bytes_mounted) = (0_usize, 0);
    let mut asking = stream::iter(blobs(session, repository, image))
        .map(|blob| async move { Ok::<_, RegistryError>((found(session, repository, &blob).await?, blob)) })
        .buffer_unordered(AT_ONCE);
    while let Some((found, blob)) = asking.try_next().await? {
        match found {
            Found::There => {}
            Found::Elsewhere => {
                mounted += 1;
                bytes_mounted += blob.size;
            }
            Found::Nowhere => {
                put.insert(blob.digest, blob.size);
            }
        }
    }
    drop(asking);
    let coming = image.layers.iter().map(|layer| layer.descriptor.digest).chain([image.config_digest()]);
    let mut foreseen = session.foreseen.lock().unwrap_or_else(PoisonError::into_inner);
    foreseen.extend(coming.map(|digest| (repository.to_owned(), digest)));
    session.written.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.to_owned());
    let inexact = (mounted > 0).then(|| {
        format!(
            "blobs that another repository of {} has count as mounted: {mounted}, with {bytes_mounted} bytes; where it refuses that, they \
             are sent",
            session.host
        )
    });
    Ok(Forecast { receipt: receipt(reference, image, &put), inexact })
}

/// Where a registry has a blob.
enum Found {
    /// In the repository.
    There,
    /// In another one, from which it may be mounted.
    Elsewhere,
    /// It would have to be sent.
    Nowhere,
}

async fn found(session: &Session, repository: &str, blob: &Blob) -> Result<Found> {
    let foreseen = |repository: &str| {
        let foreseen = session.foreseen.lock().unwrap_or_else(PoisonError::into_inner);
        foreseen.contains(&(repository.to_owned(), blob.digest))
    };
    if foreseen(repository) || has(session, repository, &blob.digest, blob.size).await? {
        return Ok(Found::There);
    }
    for from in &blob.elsewhere {
        let scopes = scopes(repository, Some(from));
        // One that may not be asked gives nothing either.
        if foreseen(from)
            || asked(session, from, &blob.digest, blob.size, scopes).await.is_ok_and(|is_there| is_there)
        {
            return Ok(Found::Elsewhere);
        }
    }
    Ok(Found::Nowhere)
}

/// The media type of the manifest; an image that cannot be kept under this name is refused.
fn media_type(reference: &Reference, image: &Image) -> Result<String> {
    let name = |why: &str| RegistryError::Name { name: reference.to_string(), why: why.to_owned() };
    if reference.digest.is_some_and(|digest| digest != image.digest()) {
        return Err(name(&format!("the image has the digest {}", image.digest())));
    }
    match Manifest::parse(&image.manifest) {
        Ok(manifest) => Ok(manifest.media_type.to_string()),
        Err(why) => Err(name(&format!("its manifest cannot be read: {why}"))),
    }
}

/// What is said where these blobs were sent, each with the bytes that it took. The manifest goes by its digest, and again
/// by its tag.
fn receipt(reference: &Reference, image: &Image, put: &BTreeMap<Digest, u64>) -> Receipt {
    let manifests = 1 + u64::from(reference.tag.is_some());
    let mut receipt = Receipt {
        digest: image.digest(),
        bytes_sent: put.values().sum::<u64>() + manifests * image.manifest.len() as u64,
        layers_sent: 0,
        layers_skipped: 0,
        bytes_skipped: 0,
    };
    for layer in &image.layers {
        if put.contains_key(&layer.descriptor.digest) {
            receipt.layers_sent += 1;
        } else {
            receipt.layers_skipped += 1;
            receipt.bytes_skipped += layer.descriptor.size;
        }
    }
    receipt
}

/// Layers and config, each once.
fn blobs(session: &Session, repository: &str, image: &Image) -> Vec<Blob> {
    let written = session.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let others = |source: Option<(&str, &str)>| {
        let here =
            source.filter(|(host, _)| *host == session.host).map(|(_, repository)| repository.to_owned());
        let mut others: Vec<String> = here.into_iter().chain(written.iter().cloned()).collect();
        others.dedup();
        others.retain(|other| other != repository);
        others.truncate(MOST_MOUNTS);
        others
    };
    let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
    for layer in &image.layers {
        let (digest, size) = (layer.descriptor.digest, layer.descriptor.size);
        let elsewhere = others(layer.source.registry());
        blobs.insert(digest, Blob { digest, size, source: layer.source.clone(), elsewhere });
    }
    let (digest, size) = (image.config_digest(), image.config.len() as u64);
    let elsewhere = others(image.layers.iter().find_map(|layer| layer.source.registry()));
    let source = Arc::new(InMemory(Bytes::from(image.config.clone())));
    blobs.insert(digest, Blob { digest, size, source, elsewhere });
    // The largest first: then none of them is left alone at the end.
    let mut blobs: Vec<Blob> = blobs.into_values().collect();
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    blobs
}

/// Sees to it that the repository has a blob; how many bytes that took, `None` where none.
async fn put_blob(
    session: &Arc<Session>,
    repository: &str,
    blob: Blob,
    counter: &UnboundedSender<u64>,
) -> Result<(Digest, Option<u64>)> {
    let (digest, size) = (blob.digest, blob.size);
    let skipped = || {
        let _ = counter.send(size);
        Ok((digest, None))
    };
    if has(session, repository, &digest, size).await? {
        return skipped();
    }
    let mut begun = None;
    for from in &blob.elsewhere {
        match mount(session, repository, &digest, from).await {
            Mounted::There if has(session, repository, &digest, size).await? => return skipped(),
            Mounted::Begun(at) => {
                begun = Some(at);
                break;
            }
            Mounted::There | Mounted::Refused => {}
        }
    }
    let sent = Upload::new(session, repository, blob, counter).run(begun).await?;
    Ok((digest, Some(sent)))
}

/// True where the repository has the blob, in its size.
pub(super) async fn has(session: &Session, repository: &str, digest: &Digest, size: u64) -> Result<bool> {
    asked(session, repository, digest, size, scopes(repository, None)).await
}

async fn asked(
    session: &Session,
    repository: &str,
    digest: &Digest,
    size: u64,
    scopes: Scopes,
) -> Result<bool> {
    let call = Call {
        method: Method::HEAD,
        uri: session.at(&format!("/v2/{repository}/blobs/{digest}")).await?,
        headers: Vec::new(),
        body: Bytes::new(),
        scopes,
        act: format!("write to {repository}"),
    };
    let answer = session.call(&call).await?;
    match answer.status() {
        StatusCode::OK => Ok(length(answer.headers()).is_none_or(|length| length == size)),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(session.refusal(answer, &call.act).await),
    }
}

/// What became of asking for a blob of another repository.
enum Mounted {
    There,
    /// It is to be sent, to here.
    Begun(hyper::Uri),
    Refused,
}

/// A registry that does not do it, or not for this repository, is sent the blob.
async fn mount(session: &Session, repository: &str, digest: &Digest, from: &str) -> Mounted {
    let begin = async {
        let uri = session.at(&format!("/v2/{repository}/blobs/uploads/")).await?;
        let query = [("mount", digest.to_string()), ("from", from.to_owned())];
        let query = query.each_ref().map(|(key, value)| (*key, value.as_str()));
        let uri = location::with_query(&uri, &query);
        let call = Call {
            method: Method::POST,
            uri: uri.ok_or_else(|| session.malformed("its name", "no address"))?,
            headers: vec![(hyper::header::CONTENT_LENGTH, "0".to_owned())],
            body: Bytes::new(),
            scopes: scopes(repository, Some(from)),
            act: format!("take a blob of {from} into {repository}"),
        };
        let answer = session.call(&call).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(Mounted::There),
            StatusCode::ACCEPTED => Ok(Mounted::Begun(session.location(&call.uri, answer.headers())?)),
            _ => Err(session.refusal(answer, &call.act).await),
        }
    };
    begin.await.unwrap_or_else(|error| {
        tracing::debug!(%error, "not mounted");
        Mounted::Refused
    })
}

async fn put_manifest(
    session: &Session,
    repository: &str,
    tag: &str,
    image: &Image,
    media_type: &str,
) -> Result<()> {
    let call = Call {
        method: Method::PUT,
        uri: session.at(&format!("/v2/{repository}/manifests/{tag}")).await?,
        headers: vec![(CONTENT_TYPE, media_type.to_owned())],
        body: Bytes::from(image.manifest.clone()),
        scopes: scopes(repository, None),
        act: format!("write the manifest of {repository}:{tag}"),
    };
    let answer = session.call(&call).await?;
    if !matches!(answer.status(), StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED) {
        return Err(session.refusal(answer, &call.act).await);
    }
    kept_as_sent(session, answer.headers(), &image.digest(), "the manifest")
}
