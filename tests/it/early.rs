//! The image before its layers are compressed is the image that is built, and its tars are the layers.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Mutex;

use tarsup::build::after::Predecessor;
use tarsup::build::patch::{self, Patch};
use tarsup::build::recipe::{Overrides, Recipe};
use tarsup::build::{self, Built, Origin, Packed, Settings, Watch};
use tarsup::oci::{Digest, HashingReader, HashingWriter, Image, Platform, TarImage, TarLayer};
use tarsup::store::Cache;
use tarsup::tars::Service;
use tarsup::transport::tars;

use crate::packages::{Packer, Workshop};

/// Takes the image as soon as it is there, and counts the layers that were made before it.
#[derive(Default)]
struct Waiting {
    image: Mutex<Option<TarImage>>,
    made_before: Mutex<usize>,
}

impl Watch for Waiting {
    fn layer(&self, layer: &Packed) {
        if layer.origin == Origin::Made && self.image.lock().unwrap().is_none() {
            *self.made_before.lock().unwrap() += 1;
        }
    }

    fn wants_tars(&self) -> bool {
        true
    }

    fn tars(&self, image: TarImage) {
        *self.image.lock().unwrap() = Some(image);
    }
}

/// Who hears of a build, and its cache.
type Scene<'a> = (&'a dyn Watch, &'a str);

fn settings(workshop: &Workshop, before: Option<&Image>, cache: &str) -> Settings {
    Settings {
        rehearses: false,
        platform: Platform::linux("amd64"),
        created: None,
        threads: NonZeroUsize::new(2).unwrap(),
        cache: Cache::at(workshop.path(cache)),
        predecessor: before.map(|image| Predecessor::of(image, || ()).unwrap()),
        init: None,
        base: None,
        strict: false,
        waive: Vec::new(),
    }
}

fn build(workshop: &Workshop, before: Option<&Image>, (watch, cache): Scene<'_>) -> Built {
    let recipe = Recipe::read(&workshop.path("framework.yaml"), &Overrides::default()).unwrap();
    let settings = settings(workshop, before, cache);
    build::prepare(&recipe, &settings).unwrap().build(watch).unwrap()
}

/// Builds twice, each time with an empty cache: watched, and not.
fn both(caches: [&str; 2], make: impl Fn(Scene<'_>) -> Built) -> (Built, TarImage) {
    let waiting = Waiting::default();
    let watched = make((&waiting, caches[0]));
    assert_eq!(*waiting.made_before.lock().unwrap(), 0, "nothing is compressed before the image is there");
    let unwatched = make((&(), caches[1]));
    assert_eq!(watched.image.manifest, unwatched.image.manifest);
    assert_eq!(watched.image.config, unwatched.image.config);
    let image = waiting.image.into_inner().unwrap().unwrap();
    (watched, image)
}

/// The early image has the config and the tars of the finished one; how many of its layers are tars.
fn assert_same(built: &Built, early: &TarImage) -> usize {
    assert_eq!(early.config, built.image.config);
    assert_eq!((early.diff_ids(), early.after), (built.image.diff_ids(), built.image.after()));
    let is_tar = |layer: &&TarLayer| matches!(layer, TarLayer::Tar { .. });
    let tars_before = early.layers.iter().filter(is_tar).count();
    for layer in &tars::inflated(early.clone()).layers {
        let TarLayer::Tar { diff_id, size, source } = layer else { panic!("what was stored inflates") };
        let mut tar = HashingWriter::new(io::sink());
        source.write_to(&mut tar).unwrap();
        let (_, found, length) = tar.finish();
        assert_eq!((found, length), (*diff_id, *size));
    }
    tars_before
}

#[test]
fn image_before_its_layers_are_compressed_is_the_one_that_is_built() {
    let workshop = Workshop::new();
    let (first, early) = both(["first", "other"], |scene| build(&workshop, None, scene));
    assert_eq!(assert_same(&first, &early), first.layers.len(), "all of it was to be made");

    // All of it is in the cache: nothing is read, and what is stored there inflates to the same.
    let (again, early) = {
        let waiting = Waiting::default();
        let again = build(&workshop, None, (&waiting, "first"));
        (again, waiting.image.into_inner().unwrap().unwrap())
    };
    assert!(assert_same(&again, &early) < again.layers.len());

    workshop.pack(Packer::default(), Service::Stat, "3.0.18");
    let (next, early) = both(["next", "more"], |scene| build(&workshop, Some(&first.image), scene));
    assert_eq!(next.layers.len(), first.layers.len() + 1, "on top");
    assert_eq!(assert_same(&next, &early), 2, "the change, and the list");
}

/// Reads the image as soon as it is told, as an engine would that is sent it.
struct Reading {
    /// What the cache writes once its blobs are on the disk.
    settled: PathBuf,
    /// The digest of the manifest.
    read: Mutex<Option<Digest>>,
}

impl Watch for Reading {
    fn image(&self, image: &Image, _: &[Packed]) {
        assert!(!self.settled.exists(), "nobody waits for the disk");
        for layer in &image.layers {
            let mut blob = HashingReader::new(layer.source.open().unwrap());
            io::copy(&mut blob, &mut io::sink()).unwrap();
            assert_eq!(blob.finish(), (layer.descriptor.digest, layer.descriptor.size));
        }
        *self.read.lock().unwrap() = Some(image.digest());
    }
}

#[test]
fn whole_image_is_told_before_the_disk_has_it() {
    let workshop = Workshop::new();
    let reading = Reading { settled: workshop.path("first/proven.json"), read: Mutex::default() };
    let built = build(&workshop, None, (&reading, "first"));
    assert_eq!(reading.read.into_inner().unwrap(), Some(built.image.digest()));
    assert!(reading.settled.exists(), "and then waited for");
}

#[test]
fn change_that_goes_back_to_a_layer_of_the_predecessor_is_that_layer() {
    let workshop = Workshop::new();
    let recipe = fs::read_to_string(workshop.path("framework.yaml")).unwrap();
    workshop.write("framework.yaml", &(recipe + "relayer: {share: 90}\n"));
    let packed = |version: &str, before: Option<&Built>, cache: &str| {
        workshop.pack(Packer::default(), Service::Stat, version);
        build(&workshop, before.map(|built| &built.image), (&(), cache))
    };
    let first = packed("3.0.17", None, "first");
    let there = packed("3.0.18", Some(&first), "second");
    let back = packed("3.0.17", Some(&there), "third");
    let top = |built: &Built| built.layers[built.layers.len() - 2].clone();
    let below = first.layers.iter().find(|layer| layer.name == top(&back).name).unwrap();
    assert_eq!(top(&there).origin, Origin::Made);
    assert_eq!((top(&back).origin, top(&back).digest), (Origin::Predecessor, below.digest));
    assert_eq!(back.layers.len(), first.layers.len() + 2, "it lies on top once more");
}

#[test]
fn patched_image_before_its_layers_are_compressed_is_the_one_that_is_made() {
    let workshop = Workshop::new();
    let first = build(&workshop, None, (&(), "first"));
    workshop.pack(Packer::default(), Service::Stat, "3.0.18");
    let before = Predecessor::of(&first.image, || ()).unwrap();
    let (next, early) = both(["next", "more"], |(watch, cache)| {
        let patch = Patch {
            name: "tars/framework:3.0.17".to_owned(),
            image: &first.image,
            before: &before,
            services: [(Service::Stat, workshop.path("packages/tarsstat.tgz"))].into(),
            version: "3.0.17-1".to_owned(),
            on_read: &|_| (),
        };
        patch::patch(&patch, &settings(&workshop, Some(&first.image), cache), watch).unwrap()
    });
    assert_eq!(assert_same(&next, &early), 2, "the change, and the list");
}
