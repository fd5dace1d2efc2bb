//! A build of which nothing changed: the image comes from a note, and no input is read.
//!
//! An input is the same where all that its files' `stat` says is as it was, as with the hints. What stands on a predecessor or
//! on another image is not noted: it is read for other reasons.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::compress::ENCODER;
use super::hints::identity;
use super::recipe::{Base, Recipe};
use super::{Built, Origin, Packed, PreparedBuild, Settings, UsedPackage, image, init_of, skeleton, version};
use crate::limits::{self, Limit};
use crate::oci::{Digest, HashingWriter};

/// What is remembered of an image.
#[derive(Serialize, Deserialize)]
struct Noted {
    config: String,
    layers: Vec<NotedLayer>,
    packages: Vec<UsedPackage>,
    /// Those of the inputs, and those of the gate.
    warnings: (Vec<String>, Vec<String>),
}

#[derive(Serialize, Deserialize)]
struct NotedLayer {
    name: String,
    what: String,
    diff_id: Digest,
    digest: Digest,
    size: u64,
    content: Option<u64>,
}

/// The image that was made of the inputs with this [`key`], with what there was to say of them; `None` where there is none, or
/// where one of its layers is gone.
pub fn recall(key: Digest, settings: &Settings) -> Option<(Vec<String>, Built)> {
    let noted: Noted = settings.cache.recall(&key)?;
    let layer = |layer: NotedLayer| {
        let NotedLayer { name, what, diff_id, digest, size, content } = layer;
        let is_here = settings.cache.holds(&digest, size);
        let origin = Origin::Cache;
        is_here.then_some(Packed { name, what, diff_id, digest, size, content, origin, known: None })
    };
    let layers = noted.layers.into_iter().map(layer).collect::<Option<Vec<Packed>>>()?;
    let image = image::of_config(noted.config.into_bytes(), &layers, None, &settings.cache).ok()?;
    let (inputs, warnings) = noted.warnings;
    Some((
        inputs,
        Built { image, layers, packages: noted.packages, note: None, warnings, refused: Vec::new() },
    ))
}

/// Remembers an image under the key that its inputs had before they were read, where they have it still. It is a hint: that it
/// cannot be written is no failure.
pub fn remember(prepared: &PreparedBuild<'_>, built: &Built) {
    remember_at(prepared.key, prepared, built, SystemTime::now());
}

fn remember_at(before: Option<Digest>, prepared: &PreparedBuild<'_>, built: &Built, now: SystemTime) {
    let PreparedBuild { recipe, settings, packages, warnings, .. } = prepared;
    let Some(key) = before.filter(|before| key_at(recipe, settings, now) == Some(*before)) else { return };
    let Ok(config) = String::from_utf8(built.image.config.clone()) else { return };
    let layer = |layer: &Packed| NotedLayer {
        name: layer.name.clone(),
        what: layer.what.clone(),
        diff_id: layer.diff_id,
        digest: layer.digest,
        size: layer.size,
        content: layer.content,
    };
    let noted = Noted {
        config,
        layers: built.layers.iter().map(layer).collect(),
        packages: packages.clone(),
        warnings: (warnings.clone(), built.warnings.clone()),
    };
    if let Err(error) = settings.cache.note(&key, &noted) {
        tracing::debug!(%error, "the image is not noted");
    }
}

/// Everything that decides an image; `None` where that is not known without reading, as with a file that changed a moment ago.
pub fn key(recipe: &Recipe, settings: &Settings) -> Option<Digest> {
    key_at(recipe, settings, SystemTime::now())
}

fn key_at(recipe: &Recipe, settings: &Settings, now: SystemTime) -> Option<Digest> {
    let is_alone = settings.predecessor.is_none() && !matches!(recipe.base, Base::Image(_));
    if !is_alone {
        return None;
    }
    let Settings { platform, created, strict, waive, .. } = settings;
    let mut text = Text::new(io::sink());
    let _ = writeln!(text, "tarsup image 3 of {}\n{ENCODER}", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(
        text,
        "{recipe:?}\n{platform} {created:?} {strict} {waive:?}\n{:?}",
        limits::all().map(Limit::value)
    );
    let mut inputs: Vec<PathBuf> = recipe.packages.iter().chain(&recipe.web).cloned().collect();
    if let Base::Rootfs(path) = &recipe.base {
        inputs.push(path.clone());
    }
    inputs.extend(init_of(recipe, settings).ok()?);
    inputs.extend(recipe.deploy.iter().flat_map(|folder| skeleton::inputs_of_deploy(folder)));
    inputs.extend(version::files_of(recipe));
    inputs.extend(recipe.plain.files.iter().map(|placed| placed.from.clone()));
    // Another tarsup may make something else of them.
    inputs.push(std::env::current_exe().ok()?);
    inputs.iter().try_for_each(|input| told(input, &mut text, now).ok().flatten())?;
    Some(text.finish().1)
}

/// A text that is only hashed: of a folder with a hundred thousand files it is long.
pub(super) type Text = HashingWriter<io::Sink>;

/// What is at a path, a link followed, and below it, links as they are; `None` for what is too young to be told by its times.
pub(super) fn told(path: &Path, text: &mut Text, now: SystemTime) -> io::Result<Option<()>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => below(path, text, now),
        Ok(metadata) => Ok(identity(&metadata, now).map(|is| line(path, &is.to_string(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            line(path, "is not there", text);
            Ok(Some(()))
        }
        Err(error) => Err(error),
    }
}

fn below(folder: &Path, text: &mut Text, now: SystemTime) -> io::Result<Option<()>> {
    // The names alone: there may be a hundred thousand.
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_boxed_os_str()));
    let mut names = names.collect::<io::Result<Vec<Box<OsStr>>>>()?;
    names.sort();
    line(folder, &format!("has {}", names.len()), text);
    for name in names {
        let path = folder.join(&*name);
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            if below(&path, text, now)?.is_none() {
                return Ok(None);
            }
        } else {
            let Some(identity) = identity(&metadata, now) else { return Ok(None) };
            line(&path, &identity.to_string(), text);
        }
    }
    Ok(Some(()))
}

/// The length comes first: a name may hold anything.
fn line(path: &Path, is: &str, text: &mut Text) {
    let name = path.as_os_str().as_bytes();
    let _ = writeln!(text, "{} {} {is}", name.len(), name.escape_ascii());
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::super::recipe::Overrides;
    use super::*;
    use crate::oci::Platform;
    use crate::store::Cache;

    const RECIPE: &str = "name: x/plain\nversion: 1\nrole: plain\nbase: scratch\n\
        files: {files: /opt/files, one: /opt/one}\nentrypoint: [/opt/one]\n";

    fn settings(cache: &Path) -> Settings {
        Settings {
            platform: Platform::linux("amd64"),
            created: None,
            threads: NonZeroUsize::MIN,
            cache: Cache::at(cache),
            rehearses: false,
            predecessor: None,
            init: None,
            base: None,
            strict: false,
            waive: Vec::new(),
        }
    }

    #[test]
    fn image_comes_back_while_every_input_is_as_it_was_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("files/below")).unwrap();
        for name in ["files/below/a", "files/b", "one"] {
            fs::write(path(name), name).unwrap();
        }
        std::os::unix::fs::symlink("b", path("files/link")).unwrap();
        let recipe = |text: &str| {
            fs::write(path("recipe.yaml"), text).unwrap();
            Recipe::read(&path("recipe.yaml"), &Overrides::default()).unwrap()
        };
        let (plain, settings) = (recipe(RECIPE), settings(&path("cache")));
        let later = SystemTime::now() + Duration::from_mins(1);
        let at = |recipe: &Recipe| Some(recall(key_at(recipe, &settings, later)?, &settings)?.1);
        let build = || {
            let prepared = super::super::prepare(&plain, &settings).unwrap();
            assert_eq!(prepared.key, None, "the files are too young");
            let built = prepared.build(&()).unwrap();
            assert!(at(&plain).is_none(), "nothing was noted of young files");
            remember_at(key_at(&plain, &settings, later), &prepared, &built, later);
            let again = at(&plain).unwrap();
            assert_eq!(again.image.digest(), built.image.digest());
            assert!(again.layers.iter().all(Packed::is_cached));
        };
        build();

        assert!(at(&recipe(&RECIPE.replace("version: 1", "version: 2"))).is_none());
        assert!(at(&recipe(&RECIPE.replace("/opt/files", "/opt/other"))).is_none());
        let changes: [(&str, &dyn Fn()); 5] = [
            ("a file", &|| fs::write(path("files/below/a"), "other").unwrap()),
            ("a new file", &|| fs::write(path("files/below/c"), "c").unwrap()),
            ("one file less", &|| fs::remove_file(path("files/b")).unwrap()),
            ("a link", &|| {
                fs::remove_file(path("files/link")).unwrap();
                std::os::unix::fs::symlink("below", path("files/link")).unwrap();
            }),
            ("a mode", &|| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs::set_permissions(path("one"), mode).unwrap();
            }),
        ];
        for (what, change) in changes {
            change();
            assert!(at(&plain).is_none(), "{what}");
            build();
        }
        fs::remove_dir_all(path("cache/blobs")).unwrap();
        assert!(at(&plain).is_none(), "its layers are gone");
    }
}
