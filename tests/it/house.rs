//! The rules of the tree itself: who imports whom, how files open, how long they may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → what it may name of ours. ARCHITECTURE.md explains each line.
const MAY_IMPORT: [(&str, &[&str]); 21] = [
    ("diagnose", &[]),
    ("limits", &[]),
    ("secretive", &[]),
    ("paths", &["limits"]),
    ("tars", &["diagnose"]),
    ("oci", &["diagnose"]),
    ("tarball", &["limits"]),
    ("elf", &[]),
    ("contents", &["elf", "limits", "oci", "paths", "tarball"]),
    ("compare", &["contents", "diagnose", "elf", "limits", "oci", "paths", "secretive", "tarball", "tars"]),
    ("sbom", &["contents", "oci", "paths", "tars"]),
    ("engine", &["diagnose", "limits", "oci", "secretive"]),
    ("store", &["diagnose", "limits", "oci", "tars"]),
    ("build", &["contents", "diagnose", "elf", "limits", "oci", "paths", "store", "tarball", "tars", "yaml"]),
    ("transport", &["diagnose", "engine", "limits", "oci", "store", "tarball"]),
    ("yaml", &["diagnose", "limits", "secretive"]),
    ("deploy", &["diagnose", "engine", "limits", "oci", "secretive", "tars", "yaml"]),
    ("upgrade", &["deploy", "diagnose", "engine", "limits", "oci", "secretive", "tars"]),
    ("adopt", &["deploy", "diagnose", "engine", "oci", "secretive", "tars"]),
    ("init", &["diagnose", "tars"]),
    (
        "cli",
        &[
            "adopt",
            "build",
            "compare",
            "contents",
            "deploy",
            "diagnose",
            "engine",
            "limits",
            "oci",
            "sbom",
            "secretive",
            "store",
            "tars",
            "transport",
            "upgrade",
            "yaml",
        ],
    ),
];

/// Beyond this a file needs to be taken apart.
const LONGEST_FILE: usize = 600;

/// Files that may reach the value inside a `Secretive`, and what for. None of them puts it into a text that leaves, but for an
/// `env_file` or option file that only its owner reads, and the engine's own call.
const MAY_EXPOSE: [(&str, &str); 26] = [
    ("src/adopt/mod.rs", "whether a `REBUILD` is allowed"),
    ("src/adopt/role.rs", "`SLAVE` and what else tells a role"),
    ("src/cli/adopt.rs", "writes an `env_file` that only its owner reads"),
    ("src/cli/config.rs", "values of `mask::is_plain` and switches; all others are masked"),
    ("src/cli/node.rs", "`DOMAIN`, an address"),
    ("src/deploy/compose/error.rs", "takes values out of messages"),
    ("src/deploy/compose/files.rs", "`COMPOSE_FILE` and its kin"),
    ("src/deploy/compose/merge.rs", "names of a list, and `extra_hosts`"),
    ("src/deploy/compose/mod.rs", "the word of `drain`"),
    ("src/deploy/compose/paths.rs", "`HOME`, for `~`"),
    ("src/deploy/compose/service.rs", "whether a variable is the whole tag"),
    ("src/deploy/compose/value.rs", "every key but `environment`: images, ports, paths"),
    ("src/deploy/container.rs", "the create body, and paths of mounted files"),
    ("src/deploy/dotenv.rs", "a text with variables is made of values"),
    ("src/deploy/guard/error.rs", "switches of `REBUILD`; all others are masked"),
    ("src/deploy/guard/mod.rs", "whether `REBUILD` and `SLAVE` are allowed"),
    ("src/deploy/interpolate.rs", "a text with variables is made of values"),
    ("src/engine/environment.rs", "what the engine is given"),
    ("src/upgrade/backup/account.rs", "the option file, over a pipe"),
    ("src/upgrade/backup/inside.rs", "the option file, over a pipe"),
    ("src/upgrade/differ.rs", "whether a `REBUILD` is allowed"),
    ("src/upgrade/locators.rs", "`TARS_REGISTRY_ADDRESS`, addresses"),
    ("src/upgrade/mask.rs", "takes values out of what containers print"),
    ("src/upgrade/preflight/cluster.rs", "`DOMAIN`, an address"),
    ("src/upgrade/watch.rs", "`DOMAIN`, an address"),
    ("src/yaml/mod.rs", "keys, and numbers and texts as the file has them"),
];

#[test]
fn modules_import_only_what_the_house_allows() {
    let mut broken = Vec::new();
    for (path, code) in sources() {
        let Some(module) = module_of(&path) else { continue };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            panic!("{}: module `{module}` is not in the table of tests/it/house.rs", path.display())
        };
        for import in imports(&code) {
            if import != module && !allowed.contains(&import.as_str()) {
                broken.push(format!("{}: `{module}` imports `{import}`", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn values_of_environments_are_exposed_only_where_the_house_allows() {
    let exposes = |code: &str| {
        let lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        lines.into_iter().any(|line| line.contains(".expose()") || line.contains("::expose"))
    };
    let mut found: BTreeSet<String> = sources()
        .into_iter()
        .filter(|(path, code)| !path.ends_with("secretive.rs") && exposes(code))
        .map(|(path, _)| path.to_string_lossy().into_owned())
        .collect();
    for (file, why) in MAY_EXPOSE {
        assert!(
            !why.is_empty() && found.remove(file),
            "{file} exposes nothing any more: take it off the list"
        );
    }
    assert!(found.is_empty(), "these expose values, and are not on the list: {found:?}");
    // No text is made of one without that: neither derived nor written by hand.
    let code =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/secretive.rs")).expect("a file");
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    for way in ["Serialize", "Deref", "AsRef", "Borrow", "for String", "for Box<str>", "pub value"] {
        let found = code.lines().find(|line| !line.trim_start().starts_with("//") && line.contains(way));
        assert_eq!(found, None, "a way around `expose`");
    }
}

#[test]
fn files_of_init_import_each_other_in_one_direction() {
    let own: Vec<(String, BTreeSet<String>)> = sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("src/init") && !path.ends_with("mod.rs"))
        .map(|(path, code)| {
            (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), siblings(&code))
        })
        .collect();
    // Takes away what imports nothing that is left, until nothing is left: what stays imports itself in a circle.
    let mut left = own;
    loop {
        let names: BTreeSet<String> = left.iter().map(|(name, _)| name.clone()).collect();
        let before = left.len();
        left.retain(|(_, imports)| imports.iter().any(|import| names.contains(import)));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "a circle: {left:?}");
}

/// The files beside it that a file names, as `super::x`.
fn siblings(code: &str) -> BTreeSet<String> {
    let lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    lines
        .flat_map(|line| {
            line.match_indices("super::").map(|(at, marker)| line[at + marker.len()..].to_owned())
        })
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn deciding_modules_know_the_engine_only_as_a_trait() {
    for (path, code) in sources() {
        if matches!(module_of(&path).as_deref(), Some("deploy" | "upgrade")) {
            for concrete in ["engine::docker", "bollard::"] {
                assert!(!code.contains(concrete), "{} names {concrete}", path.display());
            }
        }
    }
}

#[test]
fn files_open_with_a_sentence_and_stay_short() {
    for (path, code) in sources() {
        assert!(code.starts_with("//! "), "{} does not open with a `//!` sentence", path.display());
        let lines = code.lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines, {LONGEST_FILE} are the most", path.display());
    }
}

#[test]
fn no_module_is_a_drawer_for_odds_and_ends() {
    for (path, _) in sources() {
        for part in path.iter().map(|part| part.to_string_lossy()) {
            let stem = part.trim_end_matches(".rs");
            assert!(!matches!(stem, "util" | "utils" | "common" | "helpers" | "misc"), "{}", path.display());
        }
    }
}

#[test]
fn fuzz_targets_are_listed_told_of_and_begun_from_something() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect(path);
    let (listed, told) = (read("fuzz/Cargo.toml"), read("docs/limits.md"));
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root.join(folder)).expect(folder).map(|entry| entry.expect("an entry"));
        entries.map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned()).collect()
    };
    let targets = names("fuzz/fuzz_targets");
    assert!(targets.len() >= 9, "{targets:?}");
    assert_eq!(targets, names("fuzz/corpus"));
    for target in &targets {
        let code = read(&format!("fuzz/fuzz_targets/{target}.rs"));
        assert!(code.starts_with("//! "), "{target} does not open with a `//!` sentence");
        assert!(listed.contains(&format!("name = \"{target}\"\n")), "fuzz/Cargo.toml does not list {target}");
        assert!(told.contains(&format!("`{target}`")), "docs/limits.md does not tell of {target}");
        let seeds = fs::read_dir(root.join("fuzz/corpus").join(target)).expect("a folder");
        let sizes: Vec<u64> =
            seeds.map(|seed| seed.expect("an entry").metadata().expect("a file").len()).collect();
        assert!(
            !sizes.is_empty() && sizes.iter().sum::<u64>() < 64 << 10,
            "the corpus of {target}: {sizes:?}"
        );
    }
}

/// Every source file below `src`, without its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).expect("src is readable").map(|entry| entry.expect("an entry").path())
        {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let code = fs::read_to_string(&entry).expect("a source file is text");
                let code = code.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
                found.push((entry.strip_prefix(root).expect("below the root").to_owned(), code));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn page_of_the_benches_has_what_each_of_them_wrote() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/performance.md")).expect("the page is there");
    let mut parts = 0;
    for entry in fs::read_dir(root.join("benches")).expect("the benches are there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let part = fs::read_to_string(&path).expect("a part is text");
            assert!(page.contains(part.trim_end()), "{}: `sh benches/page.sh --write`", path.display());
            parts += 1;
        }
    }
    assert!(parts > 4, "{parts}");
}

/// The module below `src` that a file belongs to; `None` for the crate's root and its binaries.
fn module_of(path: &Path) -> Option<String> {
    let mut parts = path.iter().skip(1).map(|part| part.to_string_lossy().into_owned());
    let first = parts.next()?;
    let module = first.strip_suffix(".rs").unwrap_or(&first).to_owned();
    (!matches!(module.as_str(), "lib" | "bin")).then_some(module)
}

/// The modules of ours that code names, as `crate::x` or in `use crate::{x, y::z}`.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for line in code.lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
        for (at, marker) in line.match_indices("crate::") {
            found.insert(word(&line[at + marker.len()..]));
        }
    }
    for (at, marker) in code.match_indices("use crate::{") {
        let mut depth = 0;
        let mut start = true;
        for (offset, c) in code[at + marker.len()..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && c.is_alphabetic() => {
                    found.insert(word(&code[at + marker.len() + offset..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    found.remove("");
    found
}
