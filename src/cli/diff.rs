//! `tarsup diff`: what differs between two images, service by service, file by file, and what of each.

use std::fmt::{Display, Write as _};

use clap::Args;

use super::image::{bytes, read_asked};
use super::inspect::annotated;
use super::options::{ImageOptions, PlatformOptions};
use super::places::Places;
use super::{Outcome, Ui};
use crate::compare::{
    self, Change, Details, Diff, FileChange, Names, Packages, Packing, TableState, ValueChange,
};
use crate::diagnose::Exit;
use crate::oci::Image;
use crate::sbom::PATCH_LABEL;
use crate::store;
use crate::transport::{ImageName, TransportError};

/// So many lines of one list are shown; the document of `--json` has all.
const SHOWN: usize = 12;
/// Longer values are cut, in characters.
const LONGEST: usize = 160;

/// Show what differs between two images, and what a host that has the first would be sent
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The first image: NAME:VERSION of the local store, oci:DIR[:TAG], docker-archive:FILE, docker-daemon:REF or docker://REF
    from: String,

    /// The second image
    to: String,

    #[command(flatten)]
    platform: PlatformOptions,

    #[command(flatten)]
    places: ImageOptions,
}

/// Compares two images.
pub fn compare(args: &DiffArgs, ui: &Ui) -> Outcome {
    let (from, to): (ImageName, ImageName) = (args.from.parse()?, args.to.parse()?);
    let places = Places::new(&args.places);
    let (old, new) =
        (read_asked(&from, &args.platform, &places, ui)?, read_asked(&to, &args.platform, &places, ui)?);
    let packages = [(&from, &old), (&to, &new)].map(|(name, image)| packages(name, image));
    let diff = compare::diff(&old, &new, [&packages[0], &packages[1]])
        .map_err(|source| TransportError::Read { name: format!("{from} or {to}"), source }.at_its_source())?;
    ui.result(&text(&from, &to, &diff));
    ui.json(&diff);
    Ok(Exit::Done)
}

/// The packages that an image was made of: as the local store has noted beside it, and as it says itself of what was patched. What
/// the cache knows of a layer is not asked: that is who made it last here, not who made this image.
fn packages(name: &ImageName, image: &Image) -> Packages {
    let mut packages = Packages::new();
    let (digest, own) = (image.digest(), name.to_string());
    let known = store::local().and_then(|store| store.list()).unwrap_or_default();
    let mut known: Vec<_> = known.into_iter().filter(|(_, descriptor)| descriptor.digest == digest).collect();
    // Of two names of one image, the one that was asked for has the last word.
    known.sort_by_key(|(name, _)| name.as_deref() == Some(&own));
    for (_, descriptor) in known {
        packages.extend(annotated(&descriptor.annotations));
    }
    let labels = image.parsed_config().map(|config| config.config.labels).unwrap_or_default();
    packages.extend(labels.iter().filter_map(|(key, value)| {
        Some((key.strip_prefix(PATCH_LABEL)?.to_owned(), value.split(' ').next()?.parse().ok()?))
    }));
    packages
}

fn text(from: &ImageName, to: &ImageName, diff: &Diff) -> String {
    let mut text = format!("{from} -> {to}");
    let same: u64 = diff.same.iter().map(|layer| layer.size).sum();
    let _ = write!(text, "\n  = {} the same, {}", layers(diff.same.len()), bytes(same));
    for Packing { name, package, .. } in &diff.packing {
        let what = match package {
            Some(_) => "another package",
            None => "other layers",
        };
        let _ = write!(text, "\n  = {name:<18} {what}, the same files: differs in packing only");
        list(&mut text, 6, package.iter().map(|change| one("package", change)).collect());
    }
    for layer in &diff.changed {
        let _ = write!(text, "\n  ~ {:<18} {} -> {}", layer.name, bytes(layer.from), bytes(layer.to));
        for file in &layer.files {
            tell_file(&mut text, file);
        }
        let packages: Vec<String> =
            layer.packages.iter().map(|change| value("Debian package ", change)).collect();
        list(&mut text, 6, packages);
    }
    for (sign, layers) in [('+', &diff.added), ('-', &diff.removed)] {
        for layer in layers {
            let _ = write!(text, "\n  {sign} {:<18} {}", layer.name, bytes(layer.size));
        }
    }
    let privileged = diff.privileges.iter().map(|change| value("privileges of ", change));
    list(&mut text, 2, privileged.collect());
    tell_config(&mut text, &diff.config);
    let _ = write!(
        text,
        "\nan engine that has the first is sent {}: {} as tars through its socket, {} over a network (with containerd's store {}: {})",
        layers(diff.classic.layers),
        bytes(diff.classic_near.bytes),
        bytes(diff.classic.bytes),
        layers(diff.containerd.layers),
        bytes(diff.containerd.bytes)
    );
    text
}

fn layers(count: usize) -> String {
    format!("{count} {}", if count == 1 { "layer" } else { "layers" })
}

/// What differs in the config, by what it is.
fn tell_config(text: &mut String, changes: &[ValueChange]) {
    const TOLD: [(&str, &str); 4] = [
        ("Env.", "environment "),
        ("ExposedPorts.", "port "),
        ("Volumes.", "volume "),
        ("Labels.", "label "),
    ];
    for (prefix, word) in TOLD {
        for change in changes {
            let Some(key) = change.key.strip_prefix(prefix) else { continue };
            let line = match prefix {
                "ExposedPorts." | "Volumes." => {
                    format!("{} {word}{key}", if change.from.is_none() { '+' } else { '-' })
                }
                _ => value(word, &ValueChange { key: key.to_owned(), ..change.clone() }),
            };
            let _ = write!(text, "\n  {line}");
        }
    }
    let is_told = |key: &str| TOLD.iter().any(|(prefix, _)| key.starts_with(prefix));
    for change in changes.iter().filter(|change| !is_told(&change.key)) {
        let _ = write!(text, "\n  {}", value("config ", change));
    }
}

fn tell_file(text: &mut String, file: &FileChange) {
    let FileChange { path, kind, from, to, details } = file;
    let kind = kind.word();
    let _ = match (from, to) {
        (None, Some(size)) => write!(text, "\n      + {kind} {path}  {}", bytes(*size)),
        (Some(size), None) => write!(text, "\n      - {kind} {path}  {}", bytes(*size)),
        (from, to) => {
            let (from, to) = (from.unwrap_or(0), to.unwrap_or(0));
            write!(text, "\n      ~ {kind} {path}  {} -> {}", bytes(from), bytes(to))
        }
    };
    if let Some(details) = details {
        tell(text, details);
    }
}

fn tell(text: &mut String, details: &Details) {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(details.was.map(|was| format!("it was a {}", was.word())));
    let changes = [
        ("mode", &details.mode),
        ("privileges", &details.privileges),
        ("owner", &details.owner),
        ("link to", &details.target),
        ("build id", &details.build_id),
    ];
    for (what, change) in changes {
        lines.extend(change.as_ref().map(|change| one(what, change)));
    }
    lines.extend(details.replaces.as_ref().map(|path| format!("in the place of {path}")));
    lines.extend(names("linked with", &details.needed));
    lines.extend(details.soname.as_ref().map(|change| one("ABI break: its name is", change)));
    let gone = [&details.exports, &details.symbols].map(|names| &names.removed);
    if details.abi_break && details.soname.is_none() && gone.iter().all(|names| names.is_empty()) {
        lines.push("ABI break: the library is gone".to_owned());
    }
    for names in gone.into_iter().filter(|names| !names.is_empty()) {
        lines.push(format!("ABI break: exports no more {}", few(names)));
    }
    for Names { added, .. } in [&details.exports, &details.symbols] {
        lines.extend((!added.is_empty()).then(|| format!("exports + {}", few(added))));
    }
    list(text, 10, lines);
    list(text, 10, details.keys.iter().map(|change| value("", change)).collect());
    for table in &details.tables {
        let (sign, what) = match table.change {
            TableState::Created => ('+', ""),
            TableState::Gone => ('-', ""),
            TableState::Changed => ('~', ":"),
        };
        let _ = write!(text, "\n          {sign} table {}{what}", table.table);
        list(text, 14, table.columns.iter().map(|change| value("", change)).collect());
    }
    let signed = |sign: char, names: &[String]| -> Vec<String> {
        names.iter().map(|name| format!("{sign} {}", cut(name))).collect()
    };
    list(
        text,
        10,
        [signed('+', &details.statements.added), signed('-', &details.statements.removed)].concat(),
    );
    list(text, 10, details.note.iter().cloned().collect());
}

/// Lines, as many as one reads.
fn list(text: &mut String, indent: usize, lines: Vec<String>) {
    let more = lines.len().saturating_sub(SHOWN);
    for line in lines.into_iter().take(SHOWN) {
        let _ = write!(text, "\n{:indent$}{line}", "");
    }
    if more > 0 {
        let _ = write!(text, "\n{:indent$}and {more} more (--json has all)", "");
    }
}

fn one(what: &str, Change { from, to }: &Change) -> String {
    let shown = |value: &Option<String>| value.as_deref().map_or_else(|| "none".to_owned(), cut);
    format!("{what} {} -> {}", shown(from), shown(to))
}

/// `+ KEY: VALUE`, `- KEY: VALUE`, `~ KEY: VALUE -> VALUE`.
fn value(word: &str, ValueChange { key, from, to }: &ValueChange) -> String {
    let key = cut(key);
    let with = |value: &str| if value.is_empty() { String::new() } else { format!(": {}", cut(value)) };
    match (from, to) {
        (None, Some(to)) => format!("+ {word}{key}{}", with(to)),
        (Some(from), None) => format!("- {word}{key}{}", with(from)),
        (from, to) => {
            let shown = |value: &Option<String>| match value.as_deref() {
                None | Some("") => "(empty)".to_owned(),
                Some(value) => cut(value),
            };
            format!("~ {word}{key}: {} -> {}", shown(from), shown(to))
        }
    }
}

fn names(what: &str, Names { added, removed }: &Names) -> Option<String> {
    let signed = |sign: char, names: &[String]| (!names.is_empty()).then(|| format!("{sign} {}", few(names)));
    let parts: Vec<String> = [signed('+', added), signed('-', removed)].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("{what} {}", parts.join(" ")))
}

fn few(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(cut).collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn cut(text: impl Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
