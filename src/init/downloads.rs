//! What nodes made the upstream way install from: an archive of each service below the web console, as upstream's start
//! makes them. In the image they would double every change that a host is sent.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::tars::Service;
use crate::tars::catalogue::UTIL_FOLDER;

use super::paths::{self, Paths, at};
use super::render;

/// A node's own comes first: it is what is asked for.
const FIRST: Service = Service::Node;
/// 2020-01-01T00:00:00Z, as in the image: the web console tells archives by their bytes, and records each new one.
const TIME: u64 = 1_577_836_800;
/// What tarsnode writes beside a program at each start, and what a crash leaves there: not the image's.
const NOT_OURS: [&str; 2] = ["tars_start.sh", "tars_start.sh.pid"];

/// Takes away those of another version, which a web package may carry. For the first start of a container.
pub fn discard(paths: &Paths) -> io::Result<()> {
    for place in Service::ALL.map(|service| archive(paths, service)) {
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&place, &error)),
            _ => {}
        }
    }
    Ok(())
}

/// Makes those that are not there yet, from the image's own files; returns how many.
pub fn make(paths: &Paths) -> io::Result<usize> {
    let folder = paths.downloads();
    fs::create_dir_all(&folder).map_err(|error| at(&folder, &error))?;
    let script = paths.install_script();
    if script.is_file() {
        let text = fs::read(&script).map_err(|error| at(&script, &error))?;
        let target = folder.join("install.sh");
        beside(&target, |file| file.write_all(&filled(paths, &text)))?;
    }
    let others = Service::ALL.into_iter().filter(|service| *service != FIRST);
    let missing = std::iter::once(FIRST).chain(others).filter(|service| !archive(paths, *service).is_file());
    let mut made = 0;
    for service in missing {
        let entries = entries(paths, service)?;
        beside(&archive(paths, service), |file| write(paths, &entries, file))?;
        made += 1;
    }
    Ok(made)
}

/// `files/<service>.tgz` of the web console.
fn archive(paths: &Paths, service: Service) -> PathBuf {
    paths.downloads().join(format!("{service}.tgz"))
}

/// What an archive holds, in the order of the names.
type Entries = BTreeMap<String, Source>;

/// Where the content of an entry comes from.
struct Source {
    file: PathBuf,
    /// Configuration and scripts: `TARS_PATH` is filled in, addresses stay for whoever installs it.
    is_template: bool,
}

/// Later folders win, as upstream copies one over the other: package, configuration, scripts.
fn entries(paths: &Paths, service: Service) -> io::Result<Entries> {
    let (own, conf) = (paths.service(service), paths.deploy("conf").join(service.name()));
    let packaged = paths.deploy("servers").join(service.name());
    let scripts = paths.deploy(UTIL_FOLDER).join(service.name());
    let mut entries = Entries::new();
    for (folder, below, is_template) in [
        (own.join("bin"), "bin", false),
        (own.join("util"), "util", true),
        (packaged.join("data"), "data", false),
        (conf, "", true),
        (scripts, "", true),
    ] {
        let inside = if below.is_empty() { service.to_string() } else { format!("{service}/{below}") };
        collect(&folder, &inside, is_template, &mut entries)?;
    }
    Ok(entries)
}

fn collect(folder: &Path, inside: &str, is_template: bool, entries: &mut Entries) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(|error| at(folder, &error))? {
        let file = entry.map_err(|error| at(folder, &error))?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let inside = format!("{inside}/{name}");
        if file.is_dir() {
            collect(&file, &inside, is_template, entries)?;
        } else if file.is_file() && !NOT_OURS.contains(&name.as_str()) && !name.starts_with("core.") {
            entries.insert(inside, Source { file, is_template });
        }
    }
    Ok(())
}

fn write(paths: &Paths, entries: &Entries, to: &mut impl Write) -> io::Result<()> {
    let gzip = GzBuilder::new().write(to, Compression::fast());
    let mut tar = Builder::new(gzip);
    let mut folder = String::new();
    for (name, source) in entries {
        for (end, _) in name.match_indices('/') {
            let above = &name[..=end];
            if !folder.starts_with(above) {
                above.clone_into(&mut folder);
                tar.append_data(&mut header(EntryType::Directory, 0o755, 0), above, io::empty())?;
            }
        }
        let mut file = File::open(&source.file).map_err(|error| at(&source.file, &error))?;
        let metadata = file.metadata()?;
        let may_run = metadata.permissions().mode() & 0o100 != 0;
        let is_script = Path::new(name).extension().is_some_and(|extension| extension == "sh");
        let mode = if may_run || is_script { 0o755 } else { 0o644 };
        if source.is_template {
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            let text = filled(paths, &text);
            tar.append_data(&mut header(EntryType::Regular, mode, text.len() as u64), name, text.as_slice())?;
        } else {
            let size = metadata.len();
            // A file that grows meanwhile ends where the header says.
            tar.append_data(&mut header(EntryType::Regular, mode, size), name, file.take(size))?;
        }
    }
    tar.into_inner()?.finish()?.flush()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(size);
    header
}

/// `TARS_PATH` alone: `localip.tars.com` and `registryAddress` are the installer's.
fn filled(paths: &Paths, text: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(text) {
        Ok(text) => text.replace("TARS_PATH", &paths::text(&paths.tars())).into_bytes(),
        Err(_) => text.to_vec(),
    }
}

/// A reader of `target` sees the old file, the whole new one, or none. The name beside it is none that the console serves
/// as an archive.
fn beside(target: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let part = render::name_beside(target);
    let outcome = || -> io::Result<()> {
        let mut writer = BufWriter::new(File::create(&part)?);
        fill(&mut writer)?;
        writer.into_inner()?.sync_all()?;
        fs::rename(&part, target)
    };
    outcome().map_err(|error| {
        let _ = fs::remove_file(&part);
        at(target, &error)
    })
}

#[cfg(test)]
mod tests {
    use flate2::read::GzDecoder;

    use super::*;

    fn image() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        for service in Service::ALL {
            render::write(&paths.program(service), &format!("program of {service}")).unwrap();
            let conf = paths.deploy("conf").join(service.name()).join("conf/x.conf");
            render::write(&conf, "path=TARS_PATH\nlocator=registryAddress\nlocalip=localip.tars.com\n")
                .unwrap();
        }
        render::write(&paths.deploy(UTIL_FOLDER).join("tarsnode/util/start.sh"), "sh TARS_PATH/x").unwrap();
        render::write(&paths.deploy("conf").join("tarsnode/data/lib/README.md"), "lib").unwrap();
        (root, paths)
    }

    fn contents(paths: &Paths, service: Service) -> BTreeMap<String, (u32, String)> {
        let mut tar = tar::Archive::new(GzDecoder::new(File::open(archive(paths, service)).unwrap()));
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            (name, (entry.header().mode().unwrap(), text))
        });
        entries.collect()
    }

    #[test]
    fn archive_holds_program_configuration_and_scripts_with_addresses_left_open() {
        let (_root, paths) = image();
        fs::write(paths.service(Service::Node).join("bin/tars_start.sh"), "generated").unwrap();
        assert_eq!(make(&paths).unwrap(), 11);
        let node = contents(&paths, Service::Node);
        let names: Vec<&str> = node.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "tarsnode/",
                "tarsnode/bin/",
                "tarsnode/bin/tarsnode",
                "tarsnode/conf/",
                "tarsnode/conf/x.conf",
                "tarsnode/data/",
                "tarsnode/data/lib/",
                "tarsnode/data/lib/README.md",
                "tarsnode/util/",
                "tarsnode/util/start.sh"
            ]
        );
        let tars = paths::text(&paths.tars());
        assert_eq!(node["tarsnode/util/start.sh"], (0o755, format!("sh {tars}/x")));
        assert_eq!(
            node["tarsnode/conf/x.conf"].1,
            format!("path={tars}\nlocator=registryAddress\nlocalip=localip.tars.com\n")
        );
    }

    #[test]
    fn what_is_there_stays_and_the_same_files_give_the_same_bytes() {
        let (_root, paths) = image();
        make(&paths).unwrap();
        let first = fs::read(archive(&paths, Service::Stat)).unwrap();
        assert_eq!(make(&paths).unwrap(), 0, "a second start makes none");
        discard(&paths).unwrap();
        assert_eq!(make(&paths).unwrap(), 11);
        assert_eq!(fs::read(archive(&paths, Service::Stat)).unwrap(), first);
        let left: Vec<_> =
            fs::read_dir(paths.downloads()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), 11, "nothing half-made lies beside them: {left:?}");
    }
}
