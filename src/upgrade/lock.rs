//! The engine's lock on a deployment: a created container whose name is atomic, with the deploy's record inside.
//!
//! It says who works on the deployment, since when and what for; a lease in it is renewed while its owner lives. The
//! record of the deploy and the mark of its commit lie in it too, so that any machine can resume. A dead owner's lock is
//! renamed out of the way before a new one takes its name: whoever loses that race has changed nothing, and the record
//! is on the engine all the time.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::DeployId;
use super::body::{image_volumes, scratch_mounts};
use super::names::lock_name;
use super::owner::{Liveness, Owner};
use super::step::Plan;
use crate::deploy::observed::{LABEL_DEPLOYMENT, LABEL_LOCK};
use crate::engine::{CreateBody, Engine, EngineError, EngineImage, Result};
use crate::oci::Reference;

/// How long a lease holds after it was renewed, in seconds.
pub const LEASE_SECONDS: i64 = 60;
const SINCE: &str = "io.tarsup.lock.since";
const WHAT: &str = "io.tarsup.lock.what";

/// What a deploy leaves on the engine so that anybody can finish or undo it. No environment, no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format: 1.
    pub version: u32,
    /// The command, in words.
    pub what: String,
    /// The plan.
    pub plan: Plan,
    /// Service → image that the deployment file names after the commit.
    pub images: BTreeMap<String, Reference>,
}

/// Who holds, or held, a deployment.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The lock container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Who.
    pub owner: Owner,
    /// Since when, RFC 3339.
    pub since: String,
    /// The deploy.
    pub deploy: String,
    /// What for.
    pub what: String,
    /// When the lease was renewed, in seconds since the epoch.
    pub lease: Option<i64>,
}

/// What a lock container means from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its owner works, or may work.
    Held,
    /// Its owner is proven dead.
    Dead,
    /// Its owner cannot be looked at, and its lease has run out.
    RunOut,
}

impl Holder {
    /// What it means to `me` at `now`.
    pub fn standing(&self, me: &Owner, now: OffsetDateTime) -> Standing {
        match me.liveness_of(&self.owner) {
            Liveness::Alive => Standing::Held,
            Liveness::Dead => Standing::Dead,
            Liveness::Unknown => {
                let since =
                    || OffsetDateTime::parse(&self.since, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp);
                match self.lease.or_else(since) {
                    Some(renewed) if renewed + LEASE_SECONDS >= now.unix_timestamp() => Standing::Held,
                    _ => Standing::RunOut,
                }
            }
        }
    }
}

/// The lock containers of a deployment: the one that bears the name first, then those left by a takeover that was cut off.
pub async fn holders(engine: &dyn Engine, deployment: &str) -> Result<Vec<Holder>> {
    let labels = [format!("{LABEL_DEPLOYMENT}={deployment}"), LABEL_LOCK.to_owned()];
    let mut holders = Vec::new();
    for container in engine.list_containers(&labels).await? {
        let text = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
        let lease = read_file(engine, &container.id, "lease").await?;
        holders.push(Holder {
            owner: Owner::from_labels(&container.labels),
            since: text(SINCE),
            deploy: text(LABEL_LOCK),
            what: text(WHAT),
            lease: lease.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok()),
            id: container.id,
            name: container.name,
        });
    }
    let name = lock_name(deployment);
    holders.sort_by(|a, b| (a.name != name, &a.name).cmp(&(b.name != name, &b.name)));
    Ok(holders)
}

/// The record that lies in the locks of a deploy that was cut off, and whether it was committed.
pub async fn left_behind(engine: &dyn Engine, holders: &[Holder]) -> Result<(Option<Record>, bool)> {
    let (mut record, mut committed) = (None, false);
    for holder in holders {
        if record.is_none() {
            let bytes = read_file(engine, &holder.id, "record.json").await?;
            record = bytes.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        }
        committed |= read_file(engine, &holder.id, "committed").await?.is_some();
    }
    Ok((record, committed))
}

/// A lock that this process holds.
#[derive(Clone, Debug)]
pub struct Lock {
    id: String,
}

/// Who takes a lock, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Taking<'a> {
    /// The deployment.
    pub deployment: &'a str,
    /// The deploy.
    pub deploy: &'a DeployId,
    /// The command, in words.
    pub what: &'a str,
    /// Who.
    pub owner: &'a Owner,
    /// Now.
    pub now: OffsetDateTime,
    /// An image that is on the engine: a container needs one, and nothing is pulled.
    pub image: &'a EngineImage,
}

impl Lock {
    /// Takes the lock; `None` where somebody has it.
    pub async fn take(engine: &dyn Engine, taking: &Taking<'_>) -> Result<Option<Self>> {
        let mut labels = taking.owner.labels();
        labels.insert(LABEL_DEPLOYMENT.to_owned(), taking.deployment.to_owned());
        labels.insert(LABEL_LOCK.to_owned(), taking.deploy.to_string());
        labels.insert(SINCE.to_owned(), since(taking.now));
        labels.insert(WHAT.to_owned(), taking.what.to_owned());
        let body = json!({
            "Image": taking.image.id,
            "Entrypoint": ["/tarsup-lock"],
            "Labels": labels,
            "HostConfig": {"NetworkMode": "none", "Mounts": scratch_mounts(&image_volumes(&taking.image.raw))},
        });
        let body = CreateBody(body.as_object().cloned().unwrap_or_default());
        match engine.create_container(&lock_name(taking.deployment), &body).await {
            Ok(id) => {
                let lock = Self { id };
                if let Err(error) = lock.renew(engine, taking.now).await {
                    // Nothing has been done under it: nobody has to resume.
                    let _ = lock.release(engine).await;
                    return Err(error);
                }
                Ok(Some(lock))
            }
            Err(EngineError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a dead owner's lock over, with its record and mark; `None` where somebody else was faster.
    pub async fn take_over(
        engine: &dyn Engine,
        holders: &[Holder],
        taking: &Taking<'_>,
    ) -> Result<Option<(Self, Option<Record>, bool)>> {
        let (record, committed) = left_behind(engine, holders).await?;
        let name = lock_name(taking.deployment);
        for holder in holders.iter().filter(|holder| holder.name == name) {
            let aside = format!("{name}.taken.{}", &holder.id[..holder.id.len().min(12)]);
            match engine.rename_container(&holder.id, &aside).await {
                Ok(()) => {}
                Err(EngineError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Some(lock) = Self::take(engine, taking).await? else { return Ok(None) };
        if let Some(record) = &record {
            lock.put_record(engine, record).await?;
        }
        if committed {
            lock.commit(engine).await?;
        }
        for holder in holders {
            match engine.remove_container(&holder.id).await {
                Ok(()) | Err(EngineError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some((lock, record, committed)))
    }

    /// Renews the lease.
    pub async fn renew(&self, engine: &dyn Engine, now: OffsetDateTime) -> Result<()> {
        self.put(engine, "lease", now.unix_timestamp().to_string().as_bytes()).await
    }

    /// Leaves the deploy's record on the engine.
    pub async fn put_record(&self, engine: &dyn Engine, record: &Record) -> Result<()> {
        self.put(engine, "record.json", &serde_json::to_vec(record).unwrap_or_default()).await
    }

    /// Marks the deploy as committed: from here on it is finished, not undone.
    pub async fn commit(&self, engine: &dyn Engine) -> Result<()> {
        self.put(engine, "committed", b"").await
    }

    /// Gives the deployment free.
    pub async fn release(&self, engine: &dyn Engine) -> Result<()> {
        match engine.remove_container(&self.id).await {
            Ok(()) | Err(EngineError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, engine: &dyn Engine, name: &str, bytes: &[u8]) -> Result<()> {
        let packed = || -> std::io::Result<Vec<u8>> {
            let mut tar = tar::Builder::new(Vec::new());
            let mut folder = tar::Header::new_ustar();
            folder.set_entry_type(tar::EntryType::Directory);
            folder.set_size(0);
            folder.set_mode(0o755);
            tar.append_data(&mut folder, "tarsup/", std::io::empty())?;
            let mut file = tar::Header::new_ustar();
            file.set_size(bytes.len() as u64);
            file.set_mode(0o600);
            tar.append_data(&mut file, format!("tarsup/{name}"), bytes)?;
            tar.into_inner()
        };
        let tar = packed().map_err(|error| EngineError::Configuration {
            what: format!("the lock's {name} cannot be packed: {error}"),
            hint: "this is a defect of tarsup".to_owned(),
        })?;
        engine.put_archive(&self.id, "/", tar).await
    }
}

/// To the second: it is for people.
fn since(now: OffsetDateTime) -> String {
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}

/// A file of a lock container; `None` where it, or the container, is not there.
async fn read_file(engine: &dyn Engine, id: &str, name: &str) -> Result<Option<Vec<u8>>> {
    let tar = match engine.get_archive(id, &format!("/tarsup/{name}")).await {
        Ok(Some(tar)) => tar,
        Ok(None) | Err(EngineError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut archive = tar::Archive::new(tar.as_slice());
    let entry = archive.entries().ok().and_then(|mut entries| entries.next()?.ok());
    Ok(entry.and_then(|mut entry| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).ok().map(|_| bytes)
    }))
}
