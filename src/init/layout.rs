//! Folders and links: upstream's places in the container lead into the one volume, whatever was there before.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::tars::Service;

use super::failure::{Code, Failure};
use super::paths::{Paths, at};
use super::start_log::StartLog;

/// The folders of the volume.
const VOLUME: [&str; 6] = ["app_log", "web_log", "demo_log", "patchs", "remote_app_log", "tarsnode-data"];

/// Makes the volume's folders and the links into it, and copies what packages carry into it where it is missing.
/// Running it again changes nothing.
pub fn prepare(paths: &Paths, services: &[Service], log: &StartLog) -> Result<(), Failure> {
    let outcome = || -> io::Result<()> {
        for folder in VOLUME {
            make_folder(&paths.data().join(folder), log)?;
        }
        make_folder(&paths.data().join("app_log/tars-init"), log)?;
        for service in services {
            for folder in ["conf", "util"] {
                make_folder(&paths.service(*service).join(folder), log)?;
            }
        }
        for (link, target) in links(paths) {
            make_link(&link, &target, log)?;
        }
        for service in services {
            let data = paths.service(*service).join("data");
            for source in [
                paths.deploy("servers").join(service.name()).join("data"),
                paths.deploy("conf").join(service.name()).join("data"),
            ] {
                if source.is_dir() {
                    copy_missing(&source, &data)?;
                }
            }
            make_folder(&data, log)?;
        }
        Ok(())
    };
    outcome().map_err(|error| {
        Failure::new(
            Code::Configuration,
            format!("the container's folders cannot be prepared: {error}."),
            format!("{} must be a writable volume that is not full.", paths.data().display()),
        )
    })
}

/// Link and target, in upstream's image.
fn links(paths: &Paths) -> Vec<(PathBuf, PathBuf)> {
    let data = paths.data();
    let mut links = vec![
        (paths.tars().join("app_log"), data.join("app_log")),
        (paths.tars().join("remote_app_log"), data.join("remote_app_log")),
        (paths.tars().join("tarsnode/data"), data.join("tarsnode-data")),
        (paths.patchs(), data.join("patchs")),
    ];
    if paths.web().is_dir() {
        links.push((paths.web().join("log"), data.join("web_log")));
    }
    if paths.web().join("demo").is_dir() {
        links.push((paths.web().join("demo/log"), data.join("demo_log")));
    }
    links
}

/// A folder must be where a file lies: the file is put aside, not lost.
fn make_folder(path: &Path, log: &StartLog) -> io::Result<()> {
    if !path.is_dir() {
        if path.symlink_metadata().is_ok() {
            put_aside(path, log)?;
        }
        fs::create_dir_all(path).map_err(|error| at(path, &error))?;
    }
    Ok(())
}

fn make_link(link: &Path, target: &Path, log: &StartLog) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|seen| seen == target) {
        return Ok(());
    }
    match link.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            let moved = merge(link, target)?;
            if moved > 0 {
                log.say(format!("moved {moved} entries of {} into the volume", link.display()));
            }
            if fs::remove_dir(link).is_err() {
                // What the volume has already is newer than what the image had.
                put_aside(link, log)?;
            }
        }
        Ok(found) if found.is_symlink() => fs::remove_file(link).map_err(|error| at(link, &error))?,
        Ok(_) => put_aside(link, log)?,
        Err(_) => {}
    }
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
    }
    symlink(target, link).map_err(|error| at(link, &error))
}

fn put_aside(path: &Path, log: &StartLog) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut number = 1;
    let mut aside = path.with_file_name(format!("{name}.aside-1"));
    while aside.symlink_metadata().is_ok() {
        number += 1;
        aside = path.with_file_name(format!("{name}.aside-{number}"));
    }
    log.say(format!(
        "{} is in the way of upstream's layout: put aside as {}",
        path.display(),
        aside.display()
    ));
    match fs::rename(path, &aside) {
        // A folder of a lower layer cannot be renamed on some file systems.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_missing(path, &aside)?;
            fs::remove_dir_all(path).map_err(|error| at(path, &error))
        }
        moved => moved.map_err(|error| at(path, &error)),
    }
}

/// Moves what `to` lacks out of `from`; returns how many entries.
fn merge(from: &Path, to: &Path) -> io::Result<usize> {
    let mut moved = 0;
    for entry in fs::read_dir(from).map_err(|error| at(from, &error))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if target.symlink_metadata().is_ok() {
            continue;
        }
        let source = entry.path();
        if fs::rename(&source, &target).is_err() {
            // The volume is another file system.
            copy_missing(&source, &target)?;
            if source.is_dir() {
                fs::remove_dir_all(&source)?;
            } else {
                fs::remove_file(&source)?;
            }
        }
        moved += 1;
    }
    Ok(moved)
}

/// Copies what `to` lacks, folders, files and links; what is there stays as it is.
fn copy_missing(from: &Path, to: &Path) -> io::Result<()> {
    let found = from.symlink_metadata().map_err(|error| at(from, &error))?;
    if found.is_symlink() {
        if to.symlink_metadata().is_err() {
            symlink(fs::read_link(from)?, to).map_err(|error| at(to, &error))?;
        }
    } else if found.is_dir() {
        fs::create_dir_all(to).map_err(|error| at(to, &error))?;
        for entry in fs::read_dir(from).map_err(|error| at(from, &error))? {
            let entry = entry?;
            copy_missing(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if to.symlink_metadata().is_err() {
        let beside =
            to.with_file_name(format!(".{}.tars-init", to.file_name().unwrap_or_default().to_string_lossy()));
        fs::copy(from, &beside).map_err(|error| at(&beside, &error))?;
        fs::rename(&beside, to).map_err(|error| at(to, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        (root, paths)
    }

    fn run(paths: &Paths) {
        prepare(paths, &Service::ALL, &StartLog::quiet()).unwrap();
    }

    #[test]
    fn links_lead_into_the_volume_and_a_second_run_changes_nothing() {
        let (_root, paths) = prepared();
        run(&paths);
        fs::write(paths.tars().join("tarsnode/data/kept"), "x").unwrap();
        run(&paths);
        assert_eq!(fs::read_link(paths.patchs()).unwrap(), paths.data().join("patchs"));
        assert_eq!(fs::read_link(paths.tars().join("app_log")).unwrap(), paths.data().join("app_log"));
        assert_eq!(fs::read_to_string(paths.data().join("tarsnode-data/kept")).unwrap(), "x");
    }

    #[test]
    fn folder_in_a_links_place_is_merged_and_the_volumes_file_wins() {
        let (_root, paths) = prepared();
        let old = paths.tars().join("app_log");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("only-here"), "image").unwrap();
        fs::write(old.join("both"), "image").unwrap();
        fs::create_dir_all(paths.data().join("app_log")).unwrap();
        fs::write(paths.data().join("app_log/both"), "volume").unwrap();
        run(&paths);
        assert_eq!(fs::read_to_string(old.join("only-here")).unwrap(), "image");
        assert_eq!(fs::read_to_string(old.join("both")).unwrap(), "volume");
        assert_eq!(fs::read_to_string(paths.tars().join("app_log.aside-1/both")).unwrap(), "image");
    }

    #[test]
    fn file_in_a_folders_place_is_put_aside() {
        let (_root, paths) = prepared();
        fs::create_dir_all(paths.data()).unwrap();
        fs::write(paths.data().join("tarsnode-data"), "a file").unwrap();
        run(&paths);
        assert!(paths.data().join("tarsnode-data").is_dir());
        assert_eq!(fs::read_to_string(paths.data().join("tarsnode-data.aside-1")).unwrap(), "a file");
    }

    #[test]
    fn packaged_data_is_copied_where_it_is_missing() {
        let (_root, paths) = prepared();
        let packaged = paths.deploy("servers").join("tarsnode/data/lib");
        fs::create_dir_all(&packaged).unwrap();
        fs::write(packaged.join("a.so"), "new").unwrap();
        fs::write(packaged.join("b.so"), "new").unwrap();
        fs::create_dir_all(paths.data().join("tarsnode-data/lib")).unwrap();
        fs::write(paths.data().join("tarsnode-data/lib/a.so"), "mine").unwrap();
        run(&paths);
        let lib = paths.tars().join("tarsnode/data/lib");
        assert_eq!(fs::read_to_string(lib.join("a.so")).unwrap(), "mine");
        assert_eq!(fs::read_to_string(lib.join("b.so")).unwrap(), "new");
    }
}
