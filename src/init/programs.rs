//! Which programs of the container are still the image's own: the web console publishes by replacing a program in the
//! container's layer, and what was published bears a version that is not the image's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::tars::Service;

use super::paths::Paths;
use super::render;

/// How long nobody interferes with a service whose files have changed.
const HANDS_OFF: Duration = Duration::from_mins(1);

/// Notes at the container's first start what the image's programs look like.
pub fn note(paths: &Paths, services: &[Service]) -> io::Result<()> {
    let lines: Vec<String> = services
        .iter()
        .filter_map(|service| Some(format!("{service} {}\n", look(paths, *service)?)))
        .collect();
    render::write(&paths.programs_mark(), &lines.concat())
}

/// At a later start, the services whose program nobody has replaced. None of them where nothing was noted.
pub fn unchanged(paths: &Paths, services: &[Service]) -> BTreeSet<Service> {
    let noted = fs::read_to_string(paths.programs_mark()).unwrap_or_default();
    services
        .iter()
        .copied()
        .filter(|service| {
            look(paths, *service)
                .is_some_and(|now| noted.lines().any(|line| line == format!("{service} {now}")))
        })
        .collect()
}

/// The services whose program somebody has replaced since the first start; none where nothing was noted then.
pub fn replaced(paths: &Paths, services: &[Service]) -> BTreeSet<Service> {
    if !paths.programs_mark().is_file() {
        return BTreeSet::new();
    }
    let unchanged = unchanged(paths, services);
    services.iter().copied().filter(|service| !unchanged.contains(service)).collect()
}

/// True where a file below the service's `bin` has changed since then, less than a minute ago: somebody is publishing,
/// which stops the service, copies, and starts it by itself. What tarsnode writes there at each start does not count, and
/// neither does a folder, which changes with it.
pub fn is_being_replaced(paths: &Paths, service: Service, since: SystemTime) -> bool {
    let lately = SystemTime::now().checked_sub(HANDS_OFF).unwrap_or(since).max(since);
    has_changed_below(&paths.service(service).join("bin"), lately)
}

/// The same for what is deployed, whenever this container was started.
pub fn has_changed_lately(folder: &Path) -> bool {
    SystemTime::now().checked_sub(HANDS_OFF).is_some_and(|since| has_changed_below(folder, since))
}

fn has_changed_below(folder: &Path, since: SystemTime) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let Ok(found) = entry.metadata() else { return false };
        if found.is_dir() {
            return has_changed_below(&entry.path(), since);
        }
        // Not the time of the content: an archive brings that along.
        let changed = Duration::new(
            found.ctime().try_into().unwrap_or_default(),
            found.ctime_nsec().try_into().unwrap_or_default(),
        );
        let is_tarsnodes =
            ["tars_start.sh", "tars_start.sh.pid"].iter().any(|name| entry.file_name() == *name);
        !is_tarsnodes && SystemTime::UNIX_EPOCH + changed > since
    })
}

/// Size and time of change. Not the inode: an overlay may give another one at each mount.
fn look(paths: &Paths, service: Service) -> Option<String> {
    let found = fs::metadata(paths.program(service)).ok()?;
    Some(format!("{} {}.{:09}", found.len(), found.mtime(), found.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_was_replaced_is_no_more_the_images_own() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let services = [Service::Stat, Service::Config];
        for service in services {
            render::write(&paths.program(service), "image").unwrap();
        }
        assert!(unchanged(&paths, &services).is_empty(), "nothing was noted");
        assert!(replaced(&paths, &services).is_empty(), "nothing was noted");
        note(&paths, &services).unwrap();
        assert_eq!(unchanged(&paths, &services), BTreeSet::from(services));
        render::write(&paths.program(Service::Stat), "published").unwrap();
        assert_eq!(unchanged(&paths, &services), BTreeSet::from([Service::Config]));
        assert_eq!(replaced(&paths, &services), BTreeSet::from([Service::Stat]));
    }
}
