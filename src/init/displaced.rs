//! `tarsup.t_displaced`: which versions the rows of a node named before a new container's image took over.
//!
//! What somebody published lies in a container's own layer. A container that takes over brings the image's programs, and
//! its rows say so; where it fails, the one before it starts again with what was published, whose number nobody knows
//! any more but the row that was overwritten. So it is kept here before it is.

use std::fs;
use std::io;

use crate::tars::Service;

use super::database::{DatabaseError, Session};
use super::history::{self, RecordTable};
use super::paths::Paths;
use super::render;

/// What tells this container from those before and after it at the same address, which may be of the same image.
pub fn container_id(paths: &Paths) -> io::Result<String> {
    let mark = paths.container_mark();
    if let Ok(id) = fs::read_to_string(&mark) {
        return Ok(id);
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
    render::write(&mark, &id)?;
    Ok(id)
}

/// A container at a node's address.
#[derive(Clone, Copy, Debug)]
pub struct Occupant<'a> {
    /// The node's address, the key of its rows.
    pub address: &'a str,
    /// See [`container_id`].
    pub container: &'a str,
}

/// Keeps what a new container is about to overwrite by its image's version. Not within a transaction: the table that may
/// be made would end it.
pub fn keep(session: &mut Session, new: Occupant<'_>, version: &str) -> Result<(), DatabaseError> {
    let query = "SELECT COALESCE(server_name, ''), COALESCE(tars_version, ''), patch_version FROM db_tars.t_server_conf \
                 WHERE application = 'tars' AND node_name = ? AND patch_version <> ?";
    let rows: Vec<(String, String, String)> =
        session.rows("reading the versions of the node", query, (new.address, version))?;
    if !rows.is_empty() && !make(session)? {
        return Ok(());
    }
    for (service, tars_version, patch_version) in rows {
        session.run_with(
            "keeping the versions of the node",
            "REPLACE INTO tarsup.t_displaced (node_name, server_name, by_version, by_container, tars_version, \
             patch_version, kept_at) VALUES (?, ?, ?, ?, ?, ?, NOW())",
            (new.address, service, version, new.container, tars_version, patch_version),
        )?;
    }
    if is_kept(session)? {
        // Rows that named this version before are this container's from now on.
        session.run_with(
            "keeping the versions of the node",
            "UPDATE tarsup.t_displaced SET by_container = ? WHERE node_name = ? AND by_version = ?",
            (new.container, new.address, version),
        )?;
    }
    Ok(())
}

/// Gives the services that were published in this container the versions back that they had before another one took over.
/// A row that names anything but what that one wrote is somebody's own.
pub fn give_back(
    session: &mut Session,
    returned: Occupant<'_>,
    published: impl Iterator<Item = Service>,
) -> Result<(), DatabaseError> {
    if !is_kept(session)? {
        return Ok(());
    }
    let act = "naming the version that was published";
    for service in published {
        let query = "SELECT COALESCE(patch_version, '') FROM db_tars.t_server_conf \
                     WHERE application = 'tars' AND server_name = ? AND node_name = ?";
        let named: Vec<String> = session.rows(act, query, (service.name(), returned.address))?;
        let Some(named) = named.first() else { continue };
        let query = "SELECT tars_version, patch_version FROM tarsup.t_displaced \
                     WHERE node_name = ? AND server_name = ? AND by_version = ? AND by_container <> ?";
        let kept: Vec<(String, String)> =
            session.rows(act, query, (returned.address, service.name(), named, returned.container))?;
        let Some((tars_version, patch_version)) = kept.first() else { continue };
        session.run_with(
            act,
            "UPDATE db_tars.t_server_conf SET tars_version = ?, patch_version = ? \
             WHERE application = 'tars' AND server_name = ? AND node_name = ?",
            (tars_version, patch_version, service.name(), returned.address),
        )?;
        let gone =
            "DELETE FROM tarsup.t_displaced WHERE node_name = ? AND server_name = ? AND by_version = ?";
        session.run_with(act, gone, (returned.address, service.name(), named))?;
    }
    Ok(())
}

/// What is kept of a node goes with it to its new address; the caller's transaction holds it.
pub fn readdress(session: &mut Session, old: &str, new: &str) -> Result<(), DatabaseError> {
    if !is_kept(session)? {
        return Ok(());
    }
    let act = "moving the versions of the node";
    session.run_with(act, "DELETE FROM tarsup.t_displaced WHERE node_name = ?", (new,))?;
    session.run_with(act, "UPDATE tarsup.t_displaced SET node_name = ? WHERE node_name = ?", (new, old))
}

fn is_kept(session: &mut Session) -> Result<bool, DatabaseError> {
    history::has(session, "t_displaced")
}

/// False where the account may not make it: then nothing is kept, as of installations and templates.
fn make(session: &mut Session) -> Result<bool, DatabaseError> {
    if is_kept(session)? {
        return Ok(true);
    }
    let definition = "(node_name VARCHAR(128) NOT NULL, server_name VARCHAR(128) NOT NULL, by_version VARCHAR(128) NOT NULL, \
                      by_container VARCHAR(64) NOT NULL, tars_version VARCHAR(128) NOT NULL, \
                      patch_version VARCHAR(128) NOT NULL, kept_at DATETIME NOT NULL, \
                      PRIMARY KEY (node_name, server_name, by_version)) ENGINE=InnoDB DEFAULT CHARSET=utf8 \
                      COMMENT='what the rows of a node named before a container of this version took over'";
    Ok(history::make(session, "t_displaced", definition, "versions", None)? == RecordTable::Made)
}
