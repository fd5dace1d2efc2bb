//! What an engine has of an image: asked from lists, the likeliest first, and begun while the image is still being made.

use std::collections::BTreeSet;

use futures_util::future::try_join;
use futures_util::{StreamExt as _, stream};

use crate::engine::{
    Engine, EngineError, EngineImage, EngineInfo, Greeting, ImageStore, ImageSummary, Result,
};
use crate::oci::image::chain_id;
use crate::oci::manifest::architecture;
use crate::oci::reference::is_tag;
use crate::oci::{Digest, Reference};

/// How many images an engine is asked for at once.
const TOGETHER: usize = 8;

/// What of an engine decides how it is sent an image, and what its answer proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How it stores images.
    pub store: ImageStore,
    /// True where it is spoken to through a socket of this machine.
    pub is_near: bool,
    /// Its version.
    pub version: String,
    /// Its machine, as images name it, where that is known.
    pub architecture: Option<String>,
}

impl From<EngineInfo> for Kind {
    fn from(info: EngineInfo) -> Self {
        Self {
            store: info.image_store,
            is_near: info.is_near,
            version: info.version,
            architecture: Some(info.architecture),
        }
    }
}

impl Kind {
    /// As an engine's first words and an image of its store tell, where they do: to be asked for more costs it more than all else
    /// that is asked before a load.
    fn told(Greeting { version, is_near }: Greeting, image: &EngineImage) -> Option<Self> {
        let (store, architecture) = (image.store()?, is_near.then(machine).flatten());
        // With containerd it is wanted afterwards: see `Wanted::unpacked`.
        let is_enough = store == ImageStore::Classic || architecture.is_some();
        is_enough.then_some(Self { store, is_near, version: version?, architecture })
    }
}

/// The architecture of this machine, where its kernel (Linux 6.1 and later) says that it is the one that this program is made for: an
/// emulator would show it another.
fn machine() -> Option<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/arch").ok()?;
    (kernel.trim_end() == std::env::consts::ARCH).then(|| architecture().to_owned())
}

/// What an engine tells before there is an image to send: what it is, and what it has of the image's repository.
#[derive(Clone, Debug)]
pub struct Ahead {
    /// The engine.
    pub kind: Kind,
    /// The images of the repository that were asked for.
    asked: Vec<EngineImage>,
    /// The others, where it was asked which there are.
    unasked: Option<Vec<String>>,
    /// It was asked for the very name, and has nothing under it.
    pub is_free: bool,
}

impl Ahead {
    /// Asks the engine. Where it has the image of the `likely` tag, that one is asked for, and the name itself: containerd's store works
    /// long on a list. Else of a repository with many images the first ones.
    ///
    /// # Errors
    /// The engine's.
    pub async fn of(engine: &dyn Engine, reference: &Reference, likely: Option<&str>) -> Result<Self> {
        if let Some(tag) = likely.filter(|tag| is_tag(tag)) {
            let (likely, own) = (reference.with_tag(tag).to_string(), reference.to_string());
            let (found, under) = try_join(engine.inspect_image(&likely), engine.inspect_image(&own)).await?;
            if let Some(found) = found {
                let kind = known_kind(engine, Kind::told(engine.greeting(), &found)).await?;
                return Ok(Self { kind, asked: vec![found], unasked: None, is_free: under.is_none() });
            }
        }
        let mut listed = list(engine, reference).await?;
        let rest = listed.split_off(listed.len().min(TOGETHER));
        let asked = ask(engine, listed, |_| false).await?;
        let kind = asked.first().and_then(|image| Kind::told(engine.greeting(), image));
        Ok(Self { kind: known_kind(engine, kind).await?, asked, unasked: Some(rest), is_free: false })
    }

    /// The layers of these diff ids, by index, that the engine need not be sent. Of its images those are asked first that may be of the same
    /// line, until one has all that its predecessor had; the others only where none of these has anything.
    ///
    /// # Errors
    /// The engine's.
    pub async fn layers(
        self,
        engine: &dyn Engine,
        (wanted, predecessor): (Vec<Digest>, Option<Digest>),
        reference: &Reference,
    ) -> Result<BTreeSet<usize>> {
        let store = self.kind.store;
        let is_whole = |found: &EngineImage| {
            found.diff_ids == wanted
                || predecessor.is_some_and(|chain| chain_id(&found.diff_ids) == Some(chain))
        };
        let Self { asked: mut images, unasked, .. } = self;
        let mut seen: BTreeSet<String> = images.iter().map(|image| image.id.clone()).collect();
        if !images.iter().any(is_whole) {
            let mut unasked = match unasked {
                Some(unasked) => unasked,
                None => list(engine, reference).await?,
            };
            unasked.retain(|id| !seen.contains(id));
            seen.extend(unasked.iter().cloned());
            images.extend(ask(engine, unasked, is_whole).await?);
        }
        if let Some(whole) = images.iter().find(|image| is_whole(image)) {
            return Ok(held_layers(store, &wanted, std::slice::from_ref(whole)));
        }
        let listed = known(engine.list_images().await)?;
        let (near, far): (Vec<ImageSummary>, Vec<ImageSummary>) = listed
            .into_iter()
            .filter(|one| !seen.contains(&one.id))
            .partition(|one| is_of_the_line(one, reference));
        for some in [near, far] {
            let ids = some.into_iter().map(|one| one.id).collect();
            images.extend(ask(engine, ids, is_whole).await?);
            if let Some(whole) = images.iter().find(|image| is_whole(image)) {
                return Ok(held_layers(store, &wanted, std::slice::from_ref(whole)));
            }
            let held = held_layers(store, &wanted, &images);
            if !held.is_empty() {
                return Ok(held);
            }
        }
        Ok(BTreeSet::new())
    }
}

/// What an engine is: told already, or asked for.
async fn known_kind(engine: &dyn Engine, told: Option<Kind>) -> Result<Kind> {
    match told {
        Some(kind) => Ok(kind),
        None => engine.info().await.map(Kind::from),
    }
}

/// The ids of the repository's images.
async fn list(engine: &dyn Engine, reference: &Reference) -> Result<Vec<String>> {
    let listed = known(engine.list_images_of(&reference.familiar_name()).await)?;
    Ok(listed.into_iter().map(|one| one.id).collect())
}

/// containerd's store lists no image while it has one whose blobs are missing, or that is being removed: then nothing is known
/// to be there, and all is sent.
fn known(listed: Result<Vec<ImageSummary>>) -> Result<Vec<ImageSummary>> {
    match listed {
        Err(EngineError::NotFound { .. }) => Ok(Vec::new()),
        listed => listed,
    }
}

/// The images of these ids, up to the first that is `enough`. What went away in between is left out.
async fn ask(
    engine: &dyn Engine,
    ids: Vec<String>,
    enough: impl Fn(&EngineImage) -> bool,
) -> Result<Vec<EngineImage>> {
    let mut answers =
        stream::iter(ids).map(|id| async move { engine.inspect_image(&id).await }).buffer_unordered(TOGETHER);
    let mut images = Vec::new();
    while let Some(found) = answers.next().await {
        let Some(found) = found? else { continue };
        let ends = enough(&found);
        images.push(found);
        if ends {
            break;
        }
    }
    Ok(images)
}

/// True for an image that may have layers of this one: of its repository, or made by tarsup, or upon such an image.
fn is_of_the_line(listed: &ImageSummary, reference: &Reference) -> bool {
    let same = |tag: &String| tag.parse::<Reference>().is_ok_and(|tag| tag.same_repository(reference));
    listed.tags.iter().any(same) || listed.labels.keys().any(|label| label.starts_with("io.tarsup."))
}

/// The layers, by index, that an engine with these images need not be sent.
///
/// A classic store looks layers up by chain: what counts is the longest common beginning with any one image. containerd
/// looks them up by compressed digest, which the engine does not tell; but equal content was compressed by the same
/// encoder if tarsup built it, and a wrong guess costs one full load. (Where the guess is wrong and the engine has the
/// same layers unpacked, under the same chain, it runs the image all the same, and only cannot `docker save` it.)
fn held_layers(store: ImageStore, wanted: &[Digest], images: &[EngineImage]) -> BTreeSet<usize> {
    match store {
        ImageStore::Classic => {
            let common = |image: &EngineImage| {
                image.diff_ids.iter().zip(wanted).take_while(|(held, wanted)| held == wanted).count()
            };
            (0..images.iter().map(common).max().unwrap_or_default()).collect()
        }
        ImageStore::Containerd => {
            let held: BTreeSet<Digest> =
                images.iter().flat_map(|image| image.diff_ids.iter().copied()).collect();
            (0..wanted.len()).filter(|index| held.contains(&wanted[*index])).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(layers: &[&str]) -> EngineImage {
        EngineImage { diff_ids: digests(layers), ..EngineImage::default() }
    }

    fn digests(layers: &[&str]) -> Vec<Digest> {
        layers.iter().map(Digest::of).collect()
    }

    #[test]
    fn engine_is_asked_for_what_its_image_does_not_tell() {
        let told = |is_near, version: Option<&str>, raw: serde_json::Value| {
            let greeting = Greeting { version: version.map(str::to_owned), is_near };
            Kind::told(greeting, &EngineImage { id: "sha256:a".to_owned(), raw, ..EngineImage::default() })
                .map(|kind| kind.store)
        };
        let of = |driver: &str, digests: &[&str]| serde_json::json!({"GraphDriver": {"Name": driver}, "RepoDigests": digests});
        // What was pulled has a manifest's digest, and is called by that of its config.
        let pulled = of("overlay2", &["tars/framework@sha256:b"]);
        assert_eq!(told(true, Some("20.10.24"), pulled.clone()), Some(ImageStore::Classic));
        assert_eq!(told(false, Some("20.10.24"), pulled.clone()), Some(ImageStore::Classic));
        assert_eq!(told(true, None, pulled), None, "no version");
        assert_eq!(told(true, Some("26.1.5"), of("btrfs", &[])), None, "both have such a driver");
        let kept = of("overlayfs", &["tars/framework@sha256:a"]);
        assert_eq!(told(false, Some("26.1.5"), kept.clone()), None, "its machine is not this one");
        assert_eq!(told(true, None, kept), None, "no version");
    }

    #[test]
    fn classic_store_skips_the_longest_beginning_and_containerd_whatever_it_has() {
        let images = [holding(&["a", "b", "c"]), holding(&["a", "x"]), holding(&["d"])];
        for (wanted, classic, containerd) in [
            (&["a", "b", "n"][..], &[0, 1][..], &[0, 1][..]),
            (&["a", "n", "c", "d"], &[0], &[0, 2, 3]),
            (&["n", "a"], &[], &[1]),
            (&["a", "x"], &[0, 1], &[0, 1]),
        ] {
            let held = |store| held_layers(store, &digests(wanted), &images).into_iter().collect::<Vec<_>>();
            assert_eq!(held(ImageStore::Classic), classic, "{wanted:?}");
            assert_eq!(held(ImageStore::Containerd), containerd, "{wanted:?}");
        }
        assert!(held_layers(ImageStore::Classic, &digests(&["a"]), &[]).is_empty());
    }
}
