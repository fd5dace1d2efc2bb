//! Which node this is: the name that its volume knows it by, beside the one that it bears now. To the database a node with
//! another name is another node, and nothing that is deployed at the former one runs here.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::tars::{Role, conf};

use super::address;
use super::environment::{Environment, Naming};
use super::failure::{Code, Failure};
use super::paths::Paths;
use super::render;
use super::stamp::Stamp;
use super::start_log::StartLog;

/// The format.
const VERSION: u32 = 1;

/// What a start of ours leaves in a node's volume. A master's and a slave's name stands in the stamp of its database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: u32,
    address: String,
}

/// How the volume knows this node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// As our last start noted it.
    Noted(String),
    /// As the configuration of what is deployed has it, which tarsnode makes from the templates: upstream's volumes have
    /// nothing else. Several where some were not started since the name changed.
    Deployed(BTreeSet<String>),
}

impl Known {
    /// What the volume says; `None` where it is new.
    pub fn read(paths: &Paths) -> Option<Self> {
        let noted = || {
            let note: Note = serde_json::from_str(&fs::read_to_string(path(paths)).ok()?).ok()?;
            (note.version == VERSION).then_some(note.address)
        };
        if let Some(address) = Stamp::read(paths).map(|stamp| stamp.address).or_else(noted) {
            return Some(Self::Noted(address));
        }
        let deployed = deployed(paths);
        (!deployed.is_empty()).then_some(Self::Deployed(deployed))
    }

    /// All of its names.
    pub fn names(self) -> BTreeSet<String> {
        match self {
            Self::Noted(name) => BTreeSet::from([name]),
            Self::Deployed(names) => names,
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Noted(noted) => noted == name,
            Self::Deployed(names) => names.contains(name),
        }
    }
}

/// All names that this node has had, as the volume knows them.
pub fn names(paths: &Paths) -> BTreeSet<String> {
    let former = Stamp::read(paths).map(|stamp| stamp.former).unwrap_or_default();
    former.into_iter().chain(Known::read(paths).map(Known::names).unwrap_or_default()).collect()
}

/// Says that the name is another one than before. Refuses to choose where `INET` names another interface than the one that
/// upstream's node image goes by, and the volume has services which only the right name gives back.
pub fn judge(environment: &Environment, paths: &Paths, address: &str, log: &StartLog) -> Result<(), Failure> {
    let known = Known::read(paths);
    if environment.role == Role::Node
        && matches!(environment.naming, Naming::Interfaces(_))
        && let Some(upstreams) = address::of_upstreams_node()
    {
        choose(known.as_ref(), paths.has_deployments(), address, &upstreams)?;
    }
    if let Some(known) = known.filter(|known| !known.is(address)) {
        let whence = match known {
            Known::Noted(_) => "at the last start",
            Known::Deployed(_) => "as its services' configuration has it",
        };
        let names: Vec<String> = known.names().into_iter().collect();
        log.say(format!(
            "warning: this node was {} {whence} and is {address} now: to the database that is another node, and what is \
             deployed there does not run here. {}",
            names.join(" and "),
            way(environment.role, &names, address)
        ));
    }
    Ok(())
}

/// Upstream's node image goes by one interface, whatever `INET` says.
fn choose(known: Option<&Known>, has_services: bool, own: &str, upstreams: &str) -> Result<(), Failure> {
    let is_settled = own == upstreams || known.is_some_and(|known| known.is(own));
    let is_noted = matches!(known, Some(Known::Noted(_)));
    if is_settled || is_noted || !has_services {
        return Ok(());
    }
    Err(Failure::new(
        Code::Environment,
        format!(
            "INET names {own}, and upstream's node image, which goes by eth0, was {upstreams} here: the volume has services, and \
             only under the name that they were deployed at are they given back."
        ),
        format!(
            "Set DOMAIN to {upstreams} if this was a node of upstream's image, or to {own} if it is to be another node."
        ),
    ))
}

fn way(role: Role, former: &[String], address: &str) -> String {
    let [former] = former else {
        return "`readdress OLD NEW` moves the rows of one of them, --dry-run tells which".to_owned();
    };
    let place = match role {
        Role::Node => {
            format!("`tarsup readdress {former} {address}`, or tars-init with the same words in the master,")
        }
        _ => format!("`tars-init readdress {former} {address}`"),
    };
    format!("{place} moves its rows, --dry-run tells which")
}

/// Notes a node's name for its next start.
pub fn note(paths: &Paths, address: &str) -> std::io::Result<()> {
    let note = Note { version: VERSION, address: address.to_owned() };
    render::write(&path(paths), &serde_json::to_string(&note).unwrap_or_default())
}

fn path(paths: &Paths) -> PathBuf {
    paths.data().join(".tarsup-node.json")
}

/// `localip` of every configuration that tarsnode made.
fn deployed(paths: &Paths) -> BTreeSet<String> {
    let Ok(servers) = fs::read_dir(paths.data().join("tarsnode-data")) else { return BTreeSet::new() };
    let localip = |folder: PathBuf| {
        let conf = format!("{}.config.conf", folder.file_name()?.to_str()?);
        let whole = conf::parse(&fs::read_to_string(folder.join("conf").join(conf)).ok()?).ok()?;
        let name = whole.at(&["tars", "application", "server"])?.get("localip")?.trim();
        // Where a template was never filled in.
        (!name.is_empty() && !name.starts_with("${")).then(|| name.to_owned())
    };
    servers.filter_map(|server| localip(server.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deploy(paths: &Paths, server: &str, localip: &str) {
        let conf = paths.data().join(format!("tarsnode-data/{server}/conf/{server}.config.conf"));
        let text = format!(
            "<tars>\n<application>\n<server>\nlocalip = {localip}\n</server>\n</application>\n</tars>\n"
        );
        render::write(&conf, &text).unwrap();
    }

    #[test]
    fn name_is_that_of_the_note_and_else_that_of_what_is_deployed() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert_eq!(Known::read(&paths), None);
        deploy(&paths, "Shop.Cart", "172.25.0.5");
        deploy(&paths, "Shop.Old", "${localip}");
        deploy(&paths, "tars.tarslog", "172.25.0.4");
        let both = BTreeSet::from(["172.25.0.4".to_owned(), "172.25.0.5".to_owned()]);
        assert_eq!(Known::read(&paths), Some(Known::Deployed(both)));
        note(&paths, "172.25.0.9").unwrap();
        assert_eq!(Known::read(&paths), Some(Known::Noted("172.25.0.9".to_owned())));
    }

    #[test]
    fn interface_of_upstreams_is_a_question_where_the_volume_has_services_and_says_nothing_else() {
        let deployed =
            |names: &[&str]| Known::Deployed(names.iter().map(|name| (*name).to_owned()).collect());
        let refused = choose(Some(&deployed(&["172.25.0.5"])), true, "10.0.0.7", "172.25.0.5").unwrap_err();
        assert_eq!(refused.code, Code::Environment);
        for name in ["10.0.0.7", "172.25.0.5"] {
            assert!(refused.message.contains(name) && refused.hint.contains(name), "{refused:?}");
        }
        assert!(choose(None, true, "10.0.0.7", "172.25.0.5").is_err());
        for (known, has_services, own) in [
            (None, true, "172.25.0.5"),
            (None, false, "10.0.0.7"),
            (Some(deployed(&["10.0.0.7"])), true, "10.0.0.7"),
            (Some(Known::Noted("10.0.0.9".to_owned())), true, "10.0.0.7"),
        ] {
            assert!(choose(known.as_ref(), has_services, own, "172.25.0.5").is_ok(), "{known:?} {own}");
        }
    }
}
