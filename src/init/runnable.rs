//! `tars-init runnable`: whether this image can run what is deployed in a node's volume, before the node is stopped for it.
//!
//! It runs in a container of the new image beside the node, which cannot write the node's volumes. What needs something that only
//! the container of before had (a library, an interpreter, a folder of its own layer) is found here, and not by a silence. Each
//! program is shown to the image's own loader, which lists what it needs and starts nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};

use crate::tars::PROTOCOL;
use crate::tars::registry::Server;

use super::deployed::Place;
use super::failure::{Code, Failure};
use super::paths::Paths;
use super::probe;
use super::services;

/// `PT_INTERP`
const PT_INTERP: u32 = 3;
/// How deep a program is searched for.
const DEEPEST: u32 = 8;

/// What is to run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    servers: Vec<Wanted>,
}

/// One server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    /// Such as `Demo.HelloServer`.
    server: String,
    base_path: String,
    exe_path: String,
    #[serde(rename = "type")]
    kind: String,
    /// It is started by a script of its own.
    scripted: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    protocol: u32,
    findings: Vec<Finding>,
}

/// A server that does not run here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    server: String,
    why: String,
}

/// Prints what does not run here.
pub fn run(paths: &Paths, order: &str) -> Result<(), Failure> {
    let order: Order = serde_json::from_str(order).map_err(|error| {
        Failure::new(Code::Environment, format!("the order is not understood: {error}."), "")
    })?;
    lead_into_volume(paths).map_err(|error| {
        Failure::new(Code::Configuration, format!("the way into the volume cannot be made: {error}."), "")
    })?;
    let image = Image { shell: "/bin/sh".into(), profile: "/etc/profile".into(), paths: paths.clone() };
    let findings = order
        .servers
        .iter()
        .filter_map(|wanted| Some(Finding { server: wanted.server.clone(), why: image.complaint(wanted)? }));
    probe::print(&Report { protocol: PROTOCOL, findings: findings.collect() }, true)
}

/// What a start makes: upstream's path to what is deployed, in this container's own layer.
fn lead_into_volume(paths: &Paths) -> io::Result<()> {
    let link = paths.tarsnode_data();
    match link.symlink_metadata() {
        Ok(found) if found.is_symlink() => return Ok(()),
        Ok(_) => fs::rename(&link, link.with_file_name("data.of-the-image"))?,
        Err(_) => {}
    }
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder)?;
    }
    symlink(paths.data().join("tarsnode-data"), link)
}

/// What of the image starts servers.
#[derive(Clone, Debug)]
struct Image {
    shell: PathBuf,
    profile: PathBuf,
    paths: Paths,
}

/// What a file is to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// An ELF program of 64 bits with the loader that it names; nothing where it is static.
    Elf(Option<String>),
    /// A script, with the words of its first line.
    Script(Vec<String>),
    /// Another one, which is not judged.
    Other,
}

impl Image {
    /// Why a server does not run in this image; nothing where nothing speaks against it.
    fn complaint(&self, wanted: &Wanted) -> Option<String> {
        // tarsnode starts every server by a script of the shell.
        for file in [&self.shell, &self.profile] {
            if !file.is_file() {
                return Some(format!(
                    "there is no {}, which tarsnode starts every server by",
                    file.display()
                ));
            }
        }
        let (application, name) = wanted.server.split_once('.')?;
        let place = Place::of(
            &Server {
                application: application.to_owned(),
                name: name.to_owned(),
                base_path: wanted.base_path.clone(),
                exe_path: wanted.exe_path.clone(),
                server_type: wanted.kind.to_lowercase(),
                ..Server::default()
            },
            &self.paths,
        );
        for folder in [&place.folder, &place.bin] {
            if !folder.is_dir() {
                return Some(format!("there is no folder {}", folder.display()));
            }
        }
        if wanted.scripted {
            return None;
        }
        let script = fs::read_to_string(place.script()).unwrap_or_default();
        let exports = exports(&script, &place);
        let interpreter = match wanted.kind.to_lowercase().as_str() {
            "tars_java" => Some("java"),
            "tars_nodejs" => Some("node"),
            "tars_php" => Some("php"),
            _ => None,
        };
        let word = started_by(&script)
            .unwrap_or_else(|| interpreter.map_or_else(|| place.file.display().to_string(), str::to_owned));
        let file = self.paths.inside(Path::new(&word));
        if word.starts_with('/') && file.is_file() {
            return self.unfit(&file, &exports);
        }
        match interpreter {
            // As tarsnode falls back where the file is gone.
            Some(name) => self.lacks(if word.starts_with('/') { name } else { &word }, &exports),
            None if word.starts_with('/') => match search(&place.bin, DEEPEST) {
                Some(file) => self.unfit(&file, &exports),
                None => Some(format!("there is no program {word}")),
            },
            None => self.lacks(&word, &exports),
        }
    }

    /// Why a program does not start here.
    fn unfit(&self, file: &Path, exports: &[String]) -> Option<String> {
        match kind(file).ok()? {
            Kind::Other | Kind::Elf(None) => None,
            Kind::Elf(Some(loader)) if !Path::new(&loader).exists() => {
                Some(format!("{} needs {loader}, which is not there", file.display()))
            }
            Kind::Elf(Some(loader)) => {
                let arguments = [loader.as_ref(), file.as_os_str()];
                let told = self.shell(exports, "exec \"$1\" --list \"$2\"", &arguments).ok()?;
                let missing = missing(&told, file);
                (!missing.is_empty()).then(|| format!("{}: {}", file.display(), missing.join(", ")))
            }
            Kind::Script(words) => match words.as_slice() {
                [env, name, ..] if env.ends_with("/env") && !name.starts_with('-') => {
                    self.lacks(name, exports)
                }
                [interpreter, ..] if !Path::new(interpreter).exists() => {
                    Some(format!("{} needs {interpreter}, which is not there", file.display()))
                }
                _ => None,
            },
        }
    }

    /// Where no program of this name is found by the search path that servers have.
    fn lacks(&self, name: &str, exports: &[String]) -> Option<String> {
        let found = self.shell(exports, "command -v \"$1\" >/dev/null", &[name.as_ref()]).ok()?;
        (!found.status.success()).then(|| format!("there is no program `{name}`"))
    }

    /// Runs a line with the environment that tarsnode's script makes.
    fn shell(&self, exports: &[String], line: &str, arguments: &[&std::ffi::OsStr]) -> io::Result<Output> {
        let profile = self.profile.display();
        let script = format!(". {profile} >/dev/null 2>&1\n{}\n{line}", exports.join("\n"));
        Command::new(&self.shell)
            .args(["-c", &script, "sh"])
            .args(arguments)
            .env("LD_LIBRARY_PATH", services::library_path_of_node(&self.paths))
            .stdin(Stdio::null())
            .output()
    }
}

/// The variables that tarsnode's script sets; of a server that it has never started, the usual one.
fn exports(script: &str, place: &Place) -> Vec<String> {
    let lines: Vec<String> =
        script.lines().filter(|line| line.starts_with("export ")).map(str::to_owned).collect();
    if lines.is_empty() {
        return vec![format!("export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:{}", place.bin.display())];
    }
    lines
}

/// The program that tarsnode's script starts: the first word behind what it prepares.
fn started_by(script: &str) -> Option<String> {
    let (_, rest) = script.split_once("\npid=0\n")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

/// The first executable below a folder whose name says that it is a server, as tarsnode searches for one that was renamed.
fn search(folder: &Path, depth: u32) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let is_it = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let can_run = |found: fs::Metadata| found.is_file() && found.permissions().mode() & 0o111 != 0;
        name.to_lowercase().contains("server") && path.metadata().is_ok_and(can_run)
    };
    if let Some(found) = entries.iter().find(is_it) {
        return Some(found.clone());
    }
    let mut folders = entries.iter().filter(|path| path.is_dir() && depth > 0);
    folders.find_map(|folder| search(folder, depth - 1))
}

/// What a loader does not find: glibc's and musl's words.
fn missing(told: &Output, file: &Path) -> Vec<String> {
    const FAILED: &str = "error while loading shared libraries: ";
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    let own = format!("{}: ", file.display());
    let mut lines: Vec<String> = Vec::new();
    for line in out.lines().chain(err.lines()).map(str::trim) {
        let line = line.strip_prefix(&own).unwrap_or(line);
        let says_so =
            ["not found", "Error loading shared library", FAILED].iter().any(|word| line.contains(word));
        let line = line.strip_prefix(FAILED).unwrap_or(line).to_owned();
        if says_so && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.truncate(3);
    lines
}

/// Reads what a file is.
fn kind(file: &Path) -> io::Result<Kind> {
    let mut head = vec![0; 4096];
    let mut opened = File::open(file)?;
    let mut length = 0;
    while length < head.len() {
        match opened.read(&mut head[length..])? {
            0 => break,
            more => length += more,
        }
    }
    head.truncate(length);
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let words = String::from_utf8_lossy(line).split_whitespace().map(str::to_owned).collect();
        return Ok(Kind::Script(words));
    }
    // 64 bits, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(Kind::Other);
    }
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        bytes.iter().rev().try_fold(0_usize, |sum, byte| Some(sum.checked_mul(256)? + usize::from(*byte)))
    };
    let loader = || -> Option<String> {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count).find_map(|at| {
            let header = table.checked_add(size.checked_mul(at)?)?;
            if number(header, 4)? != PT_INTERP as usize {
                return None;
            }
            let (offset, length) = (number(header + 8, 8)?, number(header + 32, 8)?);
            let name = head.get(offset..offset.checked_add(length)?)?;
            Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
        })
    };
    Ok(Kind::Elf(loader()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::render;

    /// A volume with a C++ server, whose program is `program` of this machine after `change`.
    fn installed(change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, Image, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let bin = paths.data().join("tarsnode-data/Demo.HelloServer/bin");
        fs::create_dir_all(&bin).unwrap();
        lead_into_volume(&paths).unwrap();
        let mut program = fs::read("/bin/sh").unwrap();
        change(&mut program);
        let file = bin.join("HelloServer");
        write(&file, &program);
        let profile = root.path().join("profile");
        fs::write(&profile, "echo a profile may print\n").unwrap();
        (root, Image { shell: "/bin/sh".into(), profile, paths }, file)
    }

    fn write(file: &Path, bytes: &[u8]) {
        fs::write(file, bytes).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Replaces a text of the program by another one of the same length.
    fn replace(program: &mut [u8], from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let at: Vec<usize> = (0..program.len() - from.len())
            .filter(|at| program[*at..].starts_with(from.as_bytes()))
            .collect();
        assert!(!at.is_empty(), "{from}");
        for at in at {
            program[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }

    fn hello() -> Wanted {
        Wanted { server: "Demo.HelloServer".to_owned(), kind: "tars_cpp".to_owned(), ..Wanted::default() }
    }

    fn loader() -> String {
        match kind(Path::new("/bin/sh")).unwrap() {
            Kind::Elf(Some(loader)) => loader,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn program_with_all_that_it_needs_runs() {
        let (_root, image, _) = installed(|_| {});
        assert_eq!(image.complaint(&hello()), None);
    }

    #[test]
    fn loader_library_and_version_that_the_image_lacks_are_named() {
        let (_root, image, file) = installed(|program| {
            let loader = loader();
            replace(program, &loader, &loader.replace("ld-", "lx-"));
        });
        let why = image.complaint(&hello()).unwrap();
        let lacking = loader().replace("ld-", "lx-");
        assert_eq!(
            why.replace(&image_path(&image, &file), "F"),
            format!("F needs {lacking}, which is not there")
        );

        let (_root, image, _) = installed(|program| replace(program, "libc.so.6", "libx.so.6"));
        let why = image.complaint(&hello()).unwrap();
        assert!(why.contains("libx.so.6: cannot open"), "{why}");
        // Beside the program it is found, as tarsnode's script says.
        let (_root, image, file) = installed(|program| replace(program, "libc.so.6", "libx.so.6"));
        let libc = fs::read(library("libc.so.6")).unwrap();
        fs::write(file.with_file_name("libx.so.6"), libc).unwrap();
        let of = |why: Option<String>| why.filter(|why| why.contains("libx.so.6: cannot open"));
        assert_eq!(of(image.complaint(&hello())), None);

        let program = fs::read("/bin/sh").unwrap();
        let text = String::from_utf8_lossy(&program).into_owned();
        let at = text.find("GLIBC_2.").expect("a program of glibc's");
        let version: String =
            text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || "._".contains(*c)).collect();
        let other = version.replace("GLIBC_2", "GLIBC_9");
        let (_root, image, _) = installed(|program| replace(program, &version, &other));
        let why = image.complaint(&hello()).unwrap();
        assert!(why.contains("version `GLIBC_9.") && why.contains("not found"), "{why}");
    }

    fn image_path(image: &Image, file: &Path) -> String {
        let below = file.strip_prefix(image.paths.data().join("tarsnode-data")).unwrap();
        image.paths.tarsnode_data().join(below).display().to_string()
    }

    fn library(name: &str) -> PathBuf {
        let told = Command::new(loader()).args(["--list", "/bin/sh"]).output().unwrap();
        let text = String::from_utf8(told.stdout).unwrap();
        let line = text.lines().find(|line| line.contains(name)).unwrap().to_owned();
        line.split_whitespace().find(|word| word.starts_with('/')).unwrap().into()
    }

    #[test]
    fn folder_program_shell_and_profile_must_be_there() {
        let (_root, image, file) = installed(|_| {});
        let elsewhere = Wanted { base_path: "/srv/hello".to_owned(), ..hello() };
        assert!(image.complaint(&elsewhere).unwrap().ends_with("/srv/hello"));
        let absolute = Wanted { exe_path: "/opt/x/Hello".to_owned(), ..hello() };
        assert!(image.complaint(&absolute).unwrap().ends_with("/opt/x"));
        // tarsnode takes another one that is a server by its name.
        fs::rename(&file, file.with_file_name("OldServer")).unwrap();
        assert_eq!(image.complaint(&hello()), None);
        fs::remove_file(file.with_file_name("OldServer")).unwrap();
        assert!(image.complaint(&hello()).unwrap().starts_with("there is no program /"));
        assert_eq!(image.complaint(&Wanted { scripted: true, ..hello() }), None);

        for lacking in [
            Image { shell: "/nowhere/sh".into(), ..image.clone() },
            Image { profile: "/nowhere/profile".into(), ..image.clone() },
        ] {
            assert!(lacking.complaint(&hello()).unwrap().starts_with("there is no /nowhere/"));
        }
    }

    #[test]
    fn interpreters_are_found_as_servers_find_them() {
        let (_root, image, file) = installed(|_| {});
        let java = Wanted { kind: "tars_java".to_owned(), ..hello() };
        let named = |name: &str| format!("there is no program `{name}`");
        let script = |word: &str, exports: &str| {
            let text = format!(
                "#!/bin/sh\n. /etc/profile\n{exports}trap 'exit' SIGTERM SIGINT\npid=0\n\n{word} -x & pid=$!\n"
            );
            render::write(&file.with_file_name("tars_start.sh"), &text).unwrap();
        };
        script("java-of-nowhere", "");
        assert_eq!(image.complaint(&java), Some(named("java-of-nowhere")));
        let tools = file.with_file_name("tools");
        fs::create_dir(&tools).unwrap();
        write(&tools.join("java-of-nowhere"), b"#!/bin/sh\n");
        script("java-of-nowhere", &format!("export PATH=$PATH:{}\n", tools.display()));
        assert_eq!(image.complaint(&java), None);
        // A script with an interpreter that only the container of before had.
        write(&file, b"#!/only-there/sh\n");
        fs::remove_file(file.with_file_name("tars_start.sh")).unwrap();
        assert!(image.complaint(&hello()).unwrap().ends_with("needs /only-there/sh, which is not there"));
        write(&file, b"#!/usr/bin/env python-of-nowhere\n");
        assert_eq!(image.complaint(&hello()), Some(named("python-of-nowhere")));
    }
}
