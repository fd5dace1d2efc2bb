//! Trees become layers: taken from the cache or the predecessor where the content is known, made where it is not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::after::{self, Made, Predecessor};
use super::base::{self, BasePaths, Look, Rootfs};
use super::blob::{self, Chance, Hashed, hashed_key, known_blobs};
use super::compress::Compressors;
use super::gate;
use super::inputs::Reading;
use super::layer;
use super::machine;
use super::ontop::{self, Change, Why};
use super::pieces::{Piece, Workshop};
use super::same;
use super::standing;
use super::tree::{Content, Tree};
use super::{
    BaseInput, BuildError, Built, GateError, LayerInput, Origin, Packed, PreparedBuild, Watch, check, image,
    listing, prepare_with,
};
use crate::contents::summary::{Summaries, Summary};
use crate::contents::{self, Part};
use crate::oci::image::BASE;
use crate::oci::{Digest, Layer};
use crate::store::cache::LayerRecord;

impl PreparedBuild<'_> {
    /// Makes what is not known, and puts the image together. A rehearsal does the same: its layers are in the cache for the build
    /// that may follow.
    pub fn build(&self, watch: &dyn Watch) -> Result<Built, BuildError> {
        self.hints.keep()?;
        let compressors = Compressors::new(self.settings.threads);
        let (base, contents) = match &self.base {
            Some(BaseInput::Rootfs { rootfs, cached }) => {
                let (layer, contents) = self.pack_rootfs(rootfs, cached.as_deref(), &compressors)?;
                (vec![layer], contents)
            }
            Some(BaseInput::Image(image)) => standing::pack(image, self.settings, &compressors)?,
            None => (Vec::new(), BasePaths::default()),
        };
        let contents = &contents;
        let layers = {
            let _span = tracing::debug_span!("place", what = "files on the base").entered();
            self.placed(contents)?
        };
        let (mut warnings, mut refused) = self.gate(&layers, contents)?;
        let name = self.base.as_ref().map(BaseInput::name).unwrap_or_default();
        let doubts: Vec<String> =
            contents.doubts.iter().map(|doubt| format!("the base {name}: {doubt}")).collect();
        let doubted = gate::strict(&doubts, self.settings.strict, &self.recipe.file);
        refused.extend(self.settings.allow(doubted)?);
        warnings.extend(doubts);
        let on_base: Vec<Digest> = base.iter().map(|layer| layer.diff_id).collect();
        let stack = self.stack(&on_base, layers, contents);
        if stack.inputs().any(|input| self.must_be_read(input, contents)) {
            // The cache knew the package, but has lost the layer: read everything, and once only.
            let read = prepare_with(self.recipe, self.settings, self.key, (None, Reading::Everything))?;
            return read.build(watch);
        }
        let shop = Workshop::new(self.settings, contents, &compressors, watch);
        let (below, above);
        let (pieces, why) = match &stack {
            Stack::OnTop(made, changes) => {
                let (mut pieces, tops) = shop.on_top(made, changes)?;
                let parts = files_on_top(made, changes, &tops, &on_base, contents).map_err(unlisted)?;
                above = self.list(contents::LAYER, &parts, contents)?;
                pieces.push(shop.piece(&above, Chance::Slight)?);
                (pieces, None)
            }
            Stack::Canonical(layers, why) => {
                shop.tell(&base);
                let made = shop.pieces(&layers.iter().collect::<Vec<_>>(), Chance::Even)?;
                let diff_ids = made.iter().map(Piece::diff_id);
                let (files_below, files) =
                    parts(&on_base, layers.iter().zip(diff_ids), contents).map_err(unlisted)?;
                let (low, high): (Vec<Piece<'_>>, Vec<Piece<'_>>) =
                    made.into_iter().partition(|piece| files_below.contains_key(piece.told().0));
                let mut pieces: Vec<Piece<'_>> = base.into_iter().map(Piece::from).chain(low).collect();
                if !files_below.is_empty() {
                    below = self.list(contents::LAYER_BELOW, &files_below, contents)?;
                    pieces.push(shop.piece(&below, Chance::Even)?);
                }
                pieces.extend(high);
                let mut pieces = self.ordered(pieces, on_base.len(), why.as_ref());
                above = self.list(contents::LAYER, &files, contents)?;
                pieces.push(shop.piece(&above, Chance::Even)?);
                (pieces, why.as_ref())
            }
        };
        let built = self.assemble(&shop, &pieces, stack.summaries(!on_base.is_empty()), why)?;
        watch.image(&built.image, &built.layers);
        self.settings.cache.settle()?;
        let built = Built { warnings, refused, ..built };
        if built.refused.is_empty() {
            same::remember(self, &built);
        }
        Ok(built)
    }

    /// Refuses programs that this base cannot run; what else there is to say of them comes back, and in a rehearsal the
    /// refusals too.
    fn gate(
        &self,
        layers: &[LayerInput],
        base: &BasePaths,
    ) -> Result<(Vec<String>, Vec<GateError>), BuildError> {
        let _span = tracing::debug_span!("judge", what = "the programs").entered();
        // A console's modules choose among programs that they bring for every system.
        let judged = || layers.iter().filter(|layer| layer.name != "web");
        let world = gate::World {
            base,
            led: RefCell::default(),
            base_name: self.base.as_ref().map_or(gate::SCRATCH.to_owned(), BaseInput::name),
            parts: judged().map(|layer| (layer.name.as_str(), gate::Shown::Tree(&layer.tree))).collect(),
            library_path: self
                .recipe
                .plain
                .env
                .get("LD_LIBRARY_PATH")
                .map_or(Vec::new(), |value| gate::library_path(value)),
        };
        let programs: Vec<gate::Program<'_>> =
            judged().flat_map(|layer| gate::programs(&layer.name, &layer.tree)).collect();
        let waive: Vec<String> = self.recipe.waive.iter().chain(&self.settings.waive).cloned().collect();
        let verdict = gate::judge(&world, &programs, &waive)?;
        let (words, refused) = gate::refuse(verdict, &self.recipe.file, self.settings.strict);
        let refused = self.settings.allow(refused)?;
        Ok((words, self.refused.iter().cloned().chain(refused).collect()))
    }

    /// How the layers come to lie: on top of a predecessor, or in an order of their own.
    pub(super) fn stack(&self, base: &[Digest], layers: Vec<LayerInput>, contents: &BasePaths) -> Stack<'_> {
        let Some(predecessor) = &self.settings.predecessor else { return Stack::Canonical(layers, None) };
        let on_top = predecessor.that_stays(base).and_then(|made| {
            Ok((made, ontop::changes(&made.contents, &layers, contents, self.recipe.relayer)?))
        });
        match on_top {
            Ok((made, changes)) => Stack::OnTop(made, changes),
            Err(why) => Stack::Canonical(layers, Some(why)),
        }
    }

    /// `packed` is in canonical order. An engine tells the order of a predecessor, and nothing else of it.
    fn ordered<'p>(&self, packed: Vec<Piece<'p>>, base: usize, why: Option<&Why>) -> Vec<Piece<'p>> {
        let before = self.settings.predecessor.as_ref().map(|predecessor| predecessor.diff_ids.as_slice());
        let before = before
            .filter(|_| matches!(why, Some(Why::InEngine | Why::Raw | Why::Foreign)))
            .unwrap_or_default();
        let diff_ids: Vec<Digest> = packed.iter().map(Piece::diff_id).collect();
        let mut packed: Vec<Option<Piece<'p>>> = packed.into_iter().map(Some).collect();
        let order = after::order(&diff_ids, base, before);
        order.into_iter().filter_map(|index| packed[index].take()).collect()
    }

    /// The layers as they come to lie on this base, proven to fit each other.
    pub(super) fn placed(&self, contents: &BasePaths) -> Result<Vec<LayerInput>, BuildError> {
        let mut layers = Vec::new();
        for input in &self.layers {
            let tree = self.place(input, contents)?;
            // A console's modules bring programs for every machine, and choose.
            if input.name != "web" {
                machine::check(&input.name, &tree, &self.settings.platform.architecture, &self.recipe.file)?;
            }
            layers.push(LayerInput { name: input.name.clone(), what: input.what.clone(), tree });
        }
        let trees: Vec<&Tree> = layers.iter().map(|layer| &layer.tree).collect();
        check::node(self.recipe, self.base.as_ref().map(BaseInput::path), contents, &trees)?;
        let lists = self.list(contents::LAYER, &BTreeMap::new(), contents)?;
        let all = layers.iter().chain([&lists]).map(|layer| (layer.name.as_str(), &layer.tree));
        check::apart(all, &self.recipe.file)?;
        Ok(layers)
    }

    /// Where the files of a layer lie on this base.
    pub(super) fn place(&self, input: &LayerInput, contents: &BasePaths) -> Result<Tree, check::CheckError> {
        let base = self.base.as_ref().map_or(Path::new(""), BaseInput::path);
        check::on_base(&input.name, &input.tree, contents, base, &self.recipe.file)
    }

    /// A layer with these parts of the list; the place alone where there are none.
    pub(super) fn list(
        &self,
        name: &str,
        parts: &BTreeMap<String, Content>,
        contents: &BasePaths,
    ) -> Result<LayerInput, BuildError> {
        let tree = if parts.is_empty() { listing::place() } else { check::listed(parts, &self.recipe.file)? };
        let mut input = LayerInput { name: name.to_owned(), what: listing::purpose(parts), tree };
        input.tree = self.place(&input, contents)?;
        Ok(input)
    }

    /// True for a layer that must be made, of files that were not read.
    fn must_be_read(&self, input: &LayerInput, contents: &BasePaths) -> bool {
        let missing = || {
            let key = layer::key(&input.tree, &contents.folders);
            let cache = &self.settings.cache;
            let known = known_blobs(self.settings).and_then(|known| {
                let hashed: Hashed = cache.recall(&hashed_key(&key))?;
                known.layer(&hashed.diff_id)
            });
            known.is_none() && cache.find_proven::<()>(&key).is_none()
        };
        !input.tree.is_read() && missing()
    }

    fn pack_rootfs(
        &self,
        base: &Rootfs,
        found: Option<&LayerRecord<BasePaths>>,
        compressors: &Compressors,
    ) -> Result<(Packed, BasePaths), BuildError> {
        let cache = &self.settings.cache;
        let key = base.key();
        let packed = |diff_id, digest, size, content, origin, known| Packed {
            name: BASE.to_owned(),
            what: "root file system".to_owned(),
            diff_id,
            digest,
            size,
            content,
            origin,
            known,
        };
        let cached: Option<LayerRecord<BasePaths>> = found.cloned().and_then(|record| cache.proven(record));
        if let Some(known) = known_blobs(self.settings) {
            let noted = || cache.recall(&hashed_key(&key));
            let known_names = cached.as_ref().map(|record| (record.diff_id, record.extra.clone()));
            let (diff_id, mut contents) = if let Some(names) = known_names.or_else(noted) {
                names
            } else {
                let read = base::hash(base, Look::AtNames)?;
                cache.note(&hashed_key(&key), &read)?;
                read
            };
            if let Some(found) = known.layer(&diff_id) {
                if contents.offers.is_none() {
                    contents.offers = known.base_paths(&[diff_id]).and_then(|paths| paths.offers);
                }
                if contents.offers.is_none() {
                    let read = base::hash(base, Look::IntoLibraries)?;
                    cache.note(&hashed_key(&key), &read)?;
                    contents = read.1;
                }
                let near = blob::near(self.settings, found);
                let (digest, size) = (found.descriptor.digest, found.descriptor.size);
                return Ok((packed(diff_id, digest, size, None, Origin::Predecessor, Some(near)), contents));
            }
        }
        let origin = if cached.is_some() { Origin::Cache } else { Origin::Made };
        let record = match cached {
            Some(record) => record,
            None => base::pack(base, cache, compressors)?,
        };
        let content = Some(record.tar_size);
        let packed = packed(record.diff_id, record.digest, record.size, content, origin, None);
        Ok((packed, record.extra))
    }

    fn assemble(
        &self,
        shop: &Workshop<'_>,
        pieces: &[Piece<'_>],
        summaries: Summaries,
        why: Option<&Why>,
    ) -> Result<Built, BuildError> {
        let predecessor = self.settings.predecessor.as_ref();
        let parts = image::Parts {
            recipe: self.recipe,
            platform: &self.settings.platform,
            created: self.settings.created,
            layers: pieces.iter().map(Piece::told).collect(),
            summaries,
            base: self.base.as_ref().and_then(BaseInput::image),
        };
        let unmade = BuildError::compress("of the config");
        let config = image::config(&parts).map_err(|error| unmade(error.into()))?;
        let after = predecessor.and_then(Predecessor::chain_id);
        let layers = shop.finish(pieces, &config, after)?;
        let image = image::of_config(config, &layers, after, &self.settings.cache).map_err(unmade)?;
        let before = predecessor.map(|image| image.diff_ids.as_slice()).unwrap_or_default();
        let sent = layers.iter().zip(before).take_while(|(layer, before)| layer.diff_id == **before).count();
        let of_all = |bytes: fn(&Layer) -> u64| image.layers.iter().skip(sent).map(bytes).sum::<u64>();
        let (near, far) = (of_all(Layer::sent_as_tar), of_all(|layer| layer.descriptor.size));
        let note = why.map(|why| {
            format!(
                "{why}: the layers are in an order of their own; an engine with a classic store that has the predecessor is \
                 sent {} of them, {near} bytes as tars through its socket, {far} bytes over a network",
                layers.len() - sent
            )
        });
        Ok(Built { image, layers, packages: Vec::new(), note, warnings: Vec::new(), refused: Vec::new() })
    }
}

/// How the layers of an image come to lie.
pub(super) enum Stack<'a> {
    /// The layers of a predecessor, and what changed on top.
    OnTop(&'a Made, Vec<Change>),
    /// Base, web, services; and why, where there is a predecessor.
    Canonical(Vec<LayerInput>, Option<Why>),
}

impl Stack<'_> {
    /// What has to be made, or found.
    pub(super) fn inputs(&self) -> Box<dyn Iterator<Item = &LayerInput> + '_> {
        match self {
            Self::OnTop(_, changes) => Box::new(changes.iter().filter_map(|change| change.layer.as_ref())),
            Self::Canonical(layers, _) => Box::new(layers.iter()),
        }
    }

    /// What the image's history tells of its parts.
    fn summaries(&self, has_base: bool) -> Summaries {
        let base = has_base.then(|| (BASE.to_owned(), Summary::default()));
        let parts: Summaries = match self {
            Self::OnTop(_, changes) => ontop::summaries(changes),
            Self::Canonical(layers, _) => layers.iter().map(listing::summary).collect(),
        };
        parts.into_iter().chain(base).collect()
    }
}

/// The parts of the list of an image whose changes lie on top, without those that the list below has; `tops` are the
/// layers of the changes that have one.
pub(super) fn parts_on_top(
    made: &Made,
    changes: &[Change],
    tops: &[Digest],
    base: &[Digest],
    contents: &BasePaths,
) -> BTreeMap<String, Part> {
    let mut tops = tops.iter();
    let base = base_part(base, contents);
    let after = changes.iter().map(|change| {
        let mut part = change.part.clone();
        part.layers.extend(change.layer.as_ref().and_then(|_| tops.next()));
        (change.name.clone(), part)
    });
    let before = &made.contents;
    let is_below =
        |name: &String, part: &Part| before.below.contains(name) && before.parts.get(name) == Some(part);
    base.into_iter().chain(after).filter(|(name, part)| !is_below(name, part)).collect()
}

/// The part of a base of these layers, where there is one.
fn base_part(base: &[Digest], contents: &BasePaths) -> Option<(String, Part)> {
    (!base.is_empty()).then(|| (BASE.to_owned(), listing::base_part(contents, base)))
}

/// Their files.
pub(super) fn files_on_top(
    made: &Made,
    changes: &[Change],
    tops: &[Digest],
    base: &[Digest],
    contents: &BasePaths,
) -> io::Result<BTreeMap<String, Content>> {
    let parts = parts_on_top(made, changes, tops, base, contents).into_iter();
    parts.map(|(name, part)| Ok((name, listing::rendered_part(&part)?))).collect()
}

/// A list that cannot be kept.
pub(super) fn unlisted(source: io::Error) -> BuildError {
    BuildError::compress(contents::LAYER)(source)
}

/// The files of the parts of the list: those of what lies low, and the others.
pub(super) fn parts<'l>(
    base: &[Digest],
    layers: impl Iterator<Item = (&'l LayerInput, Digest)>,
    contents: &BasePaths,
) -> io::Result<(BTreeMap<String, Content>, BTreeMap<String, Content>)> {
    let (mut below, mut above) = (BTreeMap::new(), BTreeMap::new());
    let mut add = |name: &str, file: Content| {
        let parts = if listing::BELOW.contains(&name) { &mut below } else { &mut above };
        parts.insert(name.to_owned(), file);
    };
    if !base.is_empty() {
        add(BASE, listing::rendered_base(contents, base)?);
    }
    for (input, diff_id) in layers {
        add(&input.name, listing::rendered(&input.tree, &contents.folders, diff_id)?);
    }
    Ok((below, above))
}
