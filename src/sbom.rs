//! What an image is made of, part by part, and as a bill of materials (CycloneDX 1.5): what is visible, never what is covered.

use std::collections::BTreeMap;
use std::io;

use cyclonedx_bom::external_models::spdx::{SpdxExpression, SpdxIdentifier};
use cyclonedx_bom::models::component::Classification;
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{License, LicenseChoice, Licenses};
use cyclonedx_bom::models::property::{Properties, Property};
use cyclonedx_bom::models::tool::Tools;
use cyclonedx_bom::prelude::{Bom, Component, Components, DateTime, Metadata, Purl, SpecVersion};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::contents::debian;
use crate::contents::npm::{self, Module};
use crate::contents::summary::{self, Summaries, Summary, is_own_program};
use crate::contents::{Contents, Kind, Part};
use crate::oci::image::{BASE, VERSION_LABEL};
use crate::oci::{Config, Digest, Image};
use crate::paths::ImagePathBuf;
use crate::tars::Service;

/// What the annotations of an image in the local store begin with that say which package a layer was made of; the layer's name
/// follows. They are no part of the image, whose bytes depend on the packages' content alone.
pub const PACKED_ANNOTATION: &str = "io.tarsup.packed.";
/// The label of a patched service, before its name; the value begins with the package's digest.
pub const PATCH_LABEL: &str = "io.tarsup.patch.";
/// The variable that says which version of the framework is in an image.
const FRAMEWORK_VERSION: &str = "TARSUP_VERSION=";
/// What a package URL keeps as it is (purl-spec, "Character encoding").
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// A part of an image: a service, the console, the base, ...
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadePart {
    /// The name of its layers.
    pub name: String,
    /// Of a service, and of the web console: its version.
    pub version: Option<String>,
    /// Of a patched service: its package, the image that was patched, and what its program has compiled in.
    pub patched: Option<String>,
    /// The digest of the package that it was made of, where that is known.
    pub package: Option<Digest>,
    /// Its program.
    pub program: Option<Code>,
    /// What else of it is machine code.
    pub others: Vec<Code>,
    /// The npm packages that are installed in it, by folder.
    pub modules: BTreeMap<ImagePathBuf, Module>,
    /// Folders of npm packages of which nothing is known: their `package.json` makes no sense, or an older tarsup made the list.
    pub unread: Vec<String>,
    /// Bytes of the files that are visible; of a base nobody knows them.
    pub size: Option<u64>,
    /// Bytes of its layers, as stored; an engine does not tell them.
    pub compressed: Option<u64>,
    /// Bytes in its layers that later ones cover: dead weight.
    pub covered: u64,
    /// Path → what lets a program do more than who starts it; of a base nobody knows that.
    pub privileges: BTreeMap<String, String>,
    /// Its layers' content, the lowest first.
    pub layers: Vec<Digest>,
}

impl MadePart {
    /// Of a patched service: that no rule holds it against the others, and what its program has compiled in, where it tells.
    pub fn release(&self) -> Option<String> {
        let told = self.patched.as_ref()?.split_once(", ").map(|(_, told)| format!("it has {told}; "));
        let told = told.unwrap_or_default();
        Some(format!("{} is patched: {told}the rule of one release does not hold for it", self.name))
    }
}

/// A program or library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Where it lies, without leading slash.
    pub path: String,
    /// The digest of its bytes; none in a base.
    pub digest: Option<Digest>,
    /// The build id of GNU's linkers.
    pub build_id: Option<String>,
    /// The libraries that it is linked with.
    pub needed: Vec<String>,
    /// True for a library.
    pub is_library: bool,
}

/// The parts of an image, as their lowest layers lie, without the list itself. `layers`: diff ids with the bytes that are stored,
/// where they are known; `packages`: name of a part → its package.
pub fn parts(
    config: &Config,
    layers: &[(Digest, Option<u64>)],
    contents: &Contents,
    packages: &BTreeMap<String, Digest>,
) -> Vec<MadePart> {
    let place = |part: &Part| {
        let first = part.layers.first();
        layers.iter().position(|(diff_id, _)| Some(diff_id) == first)
    };
    let mut parts: Vec<(&String, &Part)> =
        contents.parts.iter().filter(|(_, part)| !part.entries.is_empty()).collect();
    parts.sort_by_key(|(_, part)| place(part));
    parts.into_iter().map(|(name, part)| made(layers, config, name, part, packages)).collect()
}

/// The same of an image whose list nobody has read, by what its history tells. Of its programs nothing but a build id is known.
/// `layers`: their names, and as above.
pub fn summarized(
    config: &Config,
    layers: &[(&str, Digest, Option<u64>)],
    summaries: &Summaries,
) -> Vec<MadePart> {
    let place = |name: &str| layers.iter().position(|(of, ..)| *of == name);
    let mut parts: Vec<(&String, &Summary)> = summaries.iter().collect();
    parts.sort_by_key(|(name, _)| place(name));
    let made = |(name, summary): (&String, &Summary)| {
        let own = layers.iter().filter(|(of, ..)| of == name);
        let (patched, version) = version(config, name);
        let version = version.or_else(|| summary.version.clone());
        let program = summary.build_id.clone().map(|id| Code { build_id: Some(id), ..Code::default() });
        MadePart {
            name: name.clone(),
            version,
            package: None,
            patched,
            program,
            others: Vec::new(),
            modules: BTreeMap::new(),
            unread: Vec::new(),
            size: summary.size,
            compressed: own.clone().map(|(_, _, size)| *size).sum(),
            covered: summary.covered,
            privileges: summary.privileges.clone(),
            layers: own.map(|(_, diff_id, _)| *diff_id).collect(),
        }
    };
    parts.into_iter().map(made).collect()
}

/// The image that was patched for a part, and the version that a service has.
fn version(config: &Config, name: &str) -> (Option<String>, Option<String>) {
    let labels = &config.config.labels;
    let patched = labels.get(&format!("{PATCH_LABEL}{name}")).cloned();
    let framework = config.config.env.iter().find_map(|variable| variable.strip_prefix(FRAMEWORK_VERSION));
    let own = labels.get(VERSION_LABEL).map(String::as_str);
    let version = if patched.is_some() { own } else { framework.or(own) };
    (patched, version.filter(|_| name.parse::<Service>().is_ok()).map(str::to_owned))
}

fn made(
    layers: &[(Digest, Option<u64>)],
    config: &Config,
    name: &str,
    part: &Part,
    packages: &BTreeMap<String, Digest>,
) -> MadePart {
    let (patched, version) = version(config, name);
    let of_patch = || patched.as_ref()?.split(' ').next()?.parse().ok();
    let is_base = name == BASE;
    let mut others = if is_base { Vec::new() } else { code(part) };
    let program = others.iter().position(|code| is_own_program(name, &code.path)).map(|at| others.remove(at));
    let modules = part.offers.iter().flat_map(|offers| &offers.modules);
    let own = part.offers.as_ref().and_then(|offers| npm::own(&offers.modules));
    let stored = layers.iter().filter(|(diff_id, _)| part.layers.contains(diff_id));
    MadePart {
        name: name.to_owned(),
        version: version.or_else(|| own.map(|own| own.version.clone())),
        modules: modules
            .filter(|(folder, _)| npm::is_installed(folder.path()))
            .map(|(folder, module)| (folder.clone(), module.clone()))
            .collect(),
        unread: if is_base { Vec::new() } else { unread(part) },
        package: of_patch().or_else(|| packages.get(name).copied()),
        patched,
        program,
        others,
        size: (!is_base).then(|| part.size()),
        compressed: stored.map(|(_, size)| *size).sum(),
        covered: part.covered,
        privileges: summary::privileges(part),
        layers: part.layers.clone(),
    }
}

/// The npm packages of a part that its list says nothing of.
fn unread(part: &Part) -> Vec<String> {
    let known = |folder: &str| part.offers.as_ref().is_some_and(|offers| offers.modules.contains_key(folder));
    let manifests =
        part.entries.keys().filter_map(|path| Some(npm::installed(path.path())?.as_str().to_owned()));
    manifests.filter(|folder| !known(folder)).collect()
}

/// What of a part is machine code, by path.
fn code(part: &Part) -> Vec<Code> {
    let Some(offers) = &part.offers else { return Vec::new() };
    let code = |path: &str, build_id: &Option<String>, needed: &[String], is_library| Code {
        path: path.to_owned(),
        digest: part.entries.get(path).and_then(|entry| entry.digest),
        build_id: build_id.clone(),
        needed: needed.to_vec(),
        is_library,
    };
    let programs = offers.programs.iter();
    let programs = programs.map(|(path, program)| code(path, &program.build_id, &program.needed, false));
    let libraries = offers.libraries.iter();
    let libraries = libraries.map(|(path, elf)| code(path, &elf.build_id, &elf.needed, true));
    let mut all: Vec<Code> = programs.chain(libraries).collect();
    all.sort_by(|one, other| one.path.cmp(&other.path));
    all
}

/// Writes the bill: the same image, the same bytes, whenever and wherever. It has no serial number, and the image's date.
///
/// # Errors
/// A document that cannot be written as JSON.
pub fn write(
    out: &mut Vec<u8>,
    image: &Image,
    contents: &Contents,
    packages: &BTreeMap<String, Digest>,
) -> io::Result<()> {
    let layers: Vec<(Digest, Option<u64>)> =
        image.layers.iter().map(|layer| (layer.diff_id, Some(layer.descriptor.size))).collect();
    let parts = parts(&image.parsed_config().unwrap_or_default(), &layers, contents, packages);
    let base = contents.parts.get(BASE);
    let mut bill = Bill { base, vendor: "debian", components: Vec::new(), dependencies: BTreeMap::new() };
    // What a derivative calls its versions tells whose they are: no list says it.
    if bill.packages().values().any(|version| version.contains("ubuntu")) {
        bill.vendor = "ubuntu";
    }
    let own: BTreeMap<&str, String> = parts
        .iter()
        .flat_map(|part| part.others.iter().filter(|code| code.is_library))
        .map(|code| (file_name(&code.path), file_reference(&code.path)))
        .collect();
    for part in parts.iter().filter(|part| part.name != BASE) {
        bill.add(part, &own);
    }
    bill.add_packages();
    let metadata = metadata(image);
    let root = IMAGE.to_owned();
    let all = bill.components.iter().filter_map(|component| component.bom_ref.clone()).collect();
    bill.dependencies.insert(root, all);
    let dependency = |(dependency_ref, dependencies)| Dependency { dependency_ref, dependencies };
    let bom = Bom {
        version: 1,
        serial_number: None,
        metadata: Some(metadata),
        components: Some(Components(bill.components)),
        services: None,
        external_references: None,
        dependencies: Some(Dependencies(bill.dependencies.into_iter().map(dependency).collect())),
        compositions: None,
        properties: None,
        vulnerabilities: None,
        signature: None,
        annotations: None,
        formulation: None,
        spec_version: SpecVersion::V1_5,
    };
    bom.output_as_json_v1_5(out).map_err(io::Error::other)?;
    out.push(b'\n');
    Ok(())
}

/// What the image itself is called in its bill.
const IMAGE: &str = "image";

fn metadata(image: &Image) -> Metadata {
    let config = image.parsed_config().unwrap_or_default();
    let label = |name: &str| config.config.labels.get(name).cloned();
    let name = label("org.opencontainers.image.title").unwrap_or_else(|| IMAGE.to_owned());
    let last = name.rsplit('/').next().unwrap_or(&name);
    let url = format!("pkg:oci/{}@{}", encoded(last), encoded(&image.digest().to_string()));
    let mut root = component(Classification::Container, &name, IMAGE.to_owned());
    root.version = label(VERSION_LABEL).map(|version| version.as_str().into());
    root.hashes = hashes(Some(image.digest()));
    root.purl = url.parse::<Purl>().ok();
    root.properties = properties([
        ("platform", format!("{}/{}", config.os, config.architecture)),
        ("config-digest", image.config_digest().to_string()),
    ]);
    let mut tool = component(Classification::Application, env!("CARGO_PKG_NAME"), "tool".to_owned());
    tool.version = Some(env!("CARGO_PKG_VERSION").into());
    Metadata {
        timestamp: DateTime::try_from(config.created).ok(),
        tools: Some(Tools::Object { services: None, components: Some(Components(vec![tool])) }),
        component: Some(root),
        ..Metadata::default()
    }
}

/// A bill that is being made.
struct Bill<'c> {
    base: Option<&'c Part>,
    /// Whose the base's packages are.
    vendor: &'static str,
    components: Vec<Component>,
    dependencies: BTreeMap<String, Vec<String>>,
}

impl Bill<'_> {
    /// A part of ours with the code in it. `own`: name of a library of ours → its reference.
    fn add(&mut self, part: &MadePart, own: &BTreeMap<&str, String>) {
        let kind = if part.program.is_some() || part.version.is_some() {
            Classification::Application
        } else {
            Classification::File
        };
        let reference = format!("part:{}", part.name);
        let mut made = component(kind, &part.name, reference.clone());
        made.version = part.version.as_deref().map(Into::into);
        made.hashes = hashes(part.program.as_ref().and_then(|program| program.digest));
        let mut told: Vec<(&str, String)> = Vec::new();
        told.extend(part.package.map(|package| ("package", package.to_string())));
        told.extend(part.patched.clone().map(|patched| ("patched", patched)));
        told.extend(part.program.iter().flat_map(of_code));
        told.extend(part.layers.iter().map(|layer| ("layer", layer.to_string())));
        told.extend(part.privileges.iter().map(|(path, has)| ("privileges", format!("{path}: {has}"))));
        told.extend(part.unread.iter().map(|folder| ("npm-unread", format!("/{folder}"))));
        made.properties = properties(told);
        let nested = part.others.iter().map(|code| {
            let kind = if code.is_library { Classification::Library } else { Classification::Application };
            let mut nested = component(kind, file_name(&code.path), file_reference(&code.path));
            nested.hashes = hashes(code.digest);
            nested.properties = properties(of_code(code));
            nested
        });
        let nested: Vec<Component> = nested.chain(part.modules.iter().map(installed)).collect();
        made.components = (!nested.is_empty()).then_some(Components(nested));
        self.components.push(made);
        let asked = part.program.iter().map(|program| (reference.clone(), program));
        let asked = asked.chain(part.others.iter().map(|code| (file_reference(&code.path), code)));
        for (reference, code) in asked {
            let given: Vec<String> = code
                .needed
                .iter()
                .filter_map(|name| own.get(name.as_str()).cloned().or_else(|| self.of_base(name)))
                .collect();
            self.dependencies.insert(reference, given);
        }
    }

    /// The reference of a library of the base, which becomes a component of its own.
    fn of_base(&mut self, name: &str) -> Option<String> {
        let base = self.base?;
        let libraries = &base.offers.as_ref()?.libraries;
        let is_named = |path: &str| file_name(path) == name;
        let by_link = || {
            let links = base.entries.iter().filter(|(_, entry)| entry.kind == Kind::Link);
            links.filter(|(path, _)| is_named(path)).find_map(|(path, entry)| {
                let (folder, _) = path.rsplit_once('/')?;
                let target = format!("{folder}/{}", entry.target);
                libraries.get_key_value(target.as_str()).map(|(path, _)| path.clone())
            })
        };
        let path = libraries.keys().find(|path| is_named(path)).cloned().or_else(by_link)?;
        let reference = file_reference(&path);
        if !self.components.iter().any(|known| known.bom_ref.as_ref() == Some(&reference)) {
            let mut library = component(Classification::Library, name, reference.clone());
            library.properties = properties([("path", format!("/{path}")), ("layer", BASE.to_owned())]);
            self.components.push(library);
            let package = debian::installed(name, self.packages()).filter(|_| debian::is_packaged(&path));
            let of_package = package.map(|(name, version)| self.package_url(name, version));
            self.dependencies.insert(reference.clone(), of_package.into_iter().collect());
        }
        Some(reference)
    }

    /// The packages of the base, as dpkg has them installed: name → version.
    fn packages(&self) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        self.base.and_then(|base| base.offers.as_ref()).map_or(NONE, |offers| &offers.packages)
    }

    /// The URL of such a package.
    fn package_url(&self, name: &str, version: &str) -> String {
        format!("pkg:deb/{}/{}@{}", self.vendor, encoded(name), encoded(version))
    }

    /// A component for each package of the base.
    fn add_packages(&mut self) {
        let made = |(name, version): (&String, &String)| {
            let url = self.package_url(name, version);
            let mut package = component(Classification::Library, name, url.clone());
            package.version = Some(version.as_str().into());
            package.purl = url.parse::<Purl>().ok();
            package
        };
        let packages: Vec<Component> = self.packages().iter().map(made).collect();
        self.components.extend(packages);
    }
}

/// An npm package: its scope is its group, as CycloneDX's own tool for npm has it, and its name the rest.
fn installed((folder, module): (&ImagePathBuf, &Module)) -> Component {
    let (scope, name) = match module.name.split_once('/') {
        Some((scope, name)) if scope.starts_with('@') => (Some(scope), name),
        _ => (None, module.name.as_str()),
    };
    // npm's names count as lower case in a URL (purl-spec, type npm).
    let names = scope.into_iter().chain([name]).map(|part| encoded(&part.to_lowercase()));
    let url = format!("pkg:npm/{}@{}", names.collect::<Vec<_>>().join("/"), encoded(&module.version));
    let mut package = component(Classification::Library, name, format!("npm:/{}", &**folder));
    package.group = scope.map(Into::into);
    package.version = Some(module.version.as_str().into());
    package.purl = url.parse::<Purl>().ok();
    package.licenses = module.license.as_deref().map(|license| Licenses(vec![licence(license)]));
    package.properties = properties([("path", format!("/{}", &**folder))]);
    package
}

/// A licence by its SPDX identifier, as an SPDX expression, or else by the name that it is given.
fn licence(written: &str) -> LicenseChoice {
    if SpdxIdentifier::try_from(written.to_owned()).is_ok() {
        return LicenseChoice::License(License::license_id(written));
    }
    match SpdxExpression::try_from(written.to_owned()) {
        Ok(expression) => LicenseChoice::Expression(expression),
        Err(_) => LicenseChoice::license(written),
    }
}

fn component(kind: Classification, name: &str, reference: String) -> Component {
    Component { version: None, ..Component::new(kind, name, "", Some(reference)) }
}

/// What is told of machine code.
fn of_code(code: &Code) -> Vec<(&'static str, String)> {
    let path = ("path", format!("/{}", code.path));
    let build_id = code.build_id.clone().map(|id| ("build-id", id));
    let needed = code.needed.iter().map(|name| ("needed", name.clone()));
    std::iter::once(path).chain(build_id).chain(needed).collect()
}

fn properties<'n>(told: impl IntoIterator<Item = (&'n str, String)>) -> Option<Properties> {
    let property = |(name, value): (&str, String)| Property::new(format!("tarsup:{name}"), &value);
    let properties: Vec<Property> = told.into_iter().map(property).collect();
    (!properties.is_empty()).then_some(Properties(properties))
}

fn hashes(digest: Option<Digest>) -> Option<Hashes> {
    digest.map(|digest| Hashes(vec![Hash { alg: HashAlgorithm::SHA_256, content: HashValue(digest.hex()) }]))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn file_reference(path: &str) -> String {
    format!("file:/{path}")
}
