//! The engine's lock on a deployment: a named volume, and a created container that is the hand to write into it.
//!
//! Every create of a volume's name is answered with the labels of the first one: whoever reads its own nonce back holds
//! the lock. `docker system prune -f` leaves the volume and takes the hand, which is made again; the volume's absence, or
//! another nonce on it, ends the run. The volume holds the lease that is renewed while the owner lives, the record of the
//! deploy and the mark of its commit, so that any machine can resume.
//!
//! A dead owner's lock is taken over in three moves: a container whose name holds the dead nonce is created (the engine
//! lets one of several win), with the record inside; the volume, which nobody else may remove meanwhile, is replaced; the
//! record is put into the new one. It is the one volume that tarsup ever removes, by label and nonce.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::DeployId;
use super::names::{claim_name, lock_name};
use super::owner::{Liveness, Owner, booted_at};
use super::record::{DeployRecord, Found};
use crate::deploy::observed::{LABEL_DEPLOYMENT, LABEL_LOCK};
use crate::engine::{CreateBody, Engine, EngineError, Result};

/// How long a lease holds after it was renewed, in seconds.
pub const LEASE_SECONDS: i64 = 60;
/// How often the volume is tried to be removed that somebody uses.
const TRIES: usize = 10;
/// Before another try.
const PAUSE: Duration = Duration::from_millis(300);
const SINCE: &str = "io.tarsup.lock.since";
const WHAT: &str = "io.tarsup.lock.what";
const NONCE: &str = "io.tarsup.lock.nonce";
/// Where the hand mounts the volume; a claim has a folder of that name.
const FOLDER: &str = "/tarsup";

/// Who holds, or held, a deployment.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Who.
    pub owner: Owner,
    /// Since when, RFC 3339.
    pub since: String,
    /// The deploy.
    pub deploy: String,
    /// What for.
    pub what: String,
    /// When the lease was renewed, in seconds since the epoch; `None` where it cannot be read.
    pub lease: Option<i64>,
    /// What tells this taking from every other; empty on a volume that is not tarsup's.
    nonce: String,
    /// A takeover that was cut off: the container that holds its record.
    claim: Option<String>,
}

/// What a lock means from here.
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
    fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Self {
            owner: Owner::from_labels(labels),
            since: text(SINCE),
            deploy: text(LABEL_LOCK),
            what: text(WHAT),
            lease: None,
            nonce: text(NONCE),
            claim: None,
        }
    }

    /// What it means to `me` at `now`.
    pub fn standing(&self, me: &Owner, now: OffsetDateTime) -> Standing {
        let since = || OffsetDateTime::parse(&self.since, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp);
        let heard = self.lease.or_else(since);
        let has_run_out = heard.is_none_or(|heard| heard + LEASE_SECONDS < now.unix_timestamp());
        match me.liveness_of(&self.owner) {
            Liveness::Dead => Standing::Dead,
            // Not heard of since this machine was booted: no clone of it works on.
            Liveness::Rebooted if has_run_out && heard.zip(booted_at()).is_some_and(|(h, b)| h < b) => {
                Standing::Dead
            }
            Liveness::Rebooted | Liveness::Unknown if has_run_out => Standing::RunOut,
            Liveness::Alive | Liveness::Rebooted | Liveness::Unknown => Standing::Held,
        }
    }

    /// True where the volume of that name is none of tarsup's.
    pub fn is_foreign(&self) -> bool {
        self.nonce.is_empty()
    }

    /// `user@host (pid 7)`.
    pub fn named(&self) -> String {
        if self.owner.who.is_empty() {
            return "somebody".to_owned();
        }
        format!("{} (pid {})", self.owner.who, self.owner.pid)
    }
}

/// Who holds a deployment; `None` where it is free. Makes nothing: where the hand is gone the lease is not known.
pub async fn holder(engine: &dyn Engine, deployment: &str) -> Result<Option<Holder>> {
    let name = lock_name(deployment);
    if let Some(labels) = engine.inspect_volume(&name).await? {
        let mut holder = Holder::from_labels(&labels);
        holder.lease = lease(read_file(engine, &name, "lease").await?);
        return Ok(Some(holder));
    }
    // Cut off between the removal of the dead owner's volume and the creation of its own.
    let labels = [format!("{LABEL_DEPLOYMENT}={deployment}"), LABEL_LOCK.to_owned()];
    let claims = engine.list_containers(&labels).await?;
    let claim = claims.iter().find(|container| container.name.starts_with(&claim_name(deployment, "")));
    Ok(claim.map(|claim| Holder { claim: Some(claim.id.clone()), ..Holder::from_labels(&claim.labels) }))
}

fn lease(bytes: Option<Vec<u8>>) -> Option<i64> {
    String::from_utf8(bytes?).ok()?.trim().parse().ok()
}

/// What lies in a lock.
#[derive(Clone, Debug)]
pub struct LockContents {
    /// The record.
    pub record: Found<DeployRecord>,
    /// True where the deploy was committed.
    pub committed: bool,
    bytes: Option<Vec<u8>>,
}

/// The image that a hand is created from; it never starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandImage {
    /// The image's id.
    pub id: String,
    /// The paths that it declares as volumes: memory is mounted there, as the engine would leave an anonymous volume.
    pub volumes: Vec<String>,
}

/// Reads what lies in `holder`'s lock, by a hand that is made where there is none and an image is given for it.
pub async fn contents(
    engine: &dyn Engine,
    deployment: &str,
    holder: &Holder,
    image: Option<&HandImage>,
) -> Result<LockContents> {
    let source = match (&holder.claim, image) {
        (Some(claim), _) => claim.clone(),
        (None, None) => lock_name(deployment),
        (None, Some(image)) => {
            make_hand(engine, deployment, &BTreeMap::new(), image).await?;
            lock_name(deployment)
        }
    };
    let bytes = read_file(engine, &source, "record.json").await?;
    let committed = read_file(engine, &source, "committed").await?.is_some();
    Ok(LockContents { record: DeployRecord::read(bytes.as_deref()), committed, bytes })
}

/// The lease of a lock, by a hand that is made where there is none.
pub async fn heard_of(
    engine: &dyn Engine,
    deployment: &str,
    holder: &Holder,
    image: &HandImage,
) -> Result<Option<i64>> {
    if holder.claim.is_some() {
        return Ok(None);
    }
    make_hand(engine, deployment, &BTreeMap::new(), image).await?;
    Ok(lease(read_file(engine, &lock_name(deployment), "lease").await?))
}

/// Whether a lock is still its holder's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is.
    Own,
    /// Its volume is gone.
    Gone,
    /// Somebody else has taken the deployment.
    Taken(String),
}

/// A lock that this process holds.
#[derive(Debug)]
pub struct Lock {
    deployment: String,
    labels: BTreeMap<String, String>,
    nonce: String,
    image: Mutex<Option<HandImage>>,
    /// Held while something is written into it, and while it is given free; true from then on.
    released: tokio::sync::Mutex<bool>,
}

/// Who takes a lock, and what for.
#[derive(Clone, Debug)]
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
    /// What the hand is created from; an engine without images gets it later, by [`Lock::use_image`].
    pub image: Option<HandImage>,
}

impl Lock {
    fn new(taking: &Taking<'_>) -> Self {
        let nonce = nonce();
        let mut labels = taking.owner.labels();
        labels.insert(LABEL_DEPLOYMENT.to_owned(), taking.deployment.to_owned());
        labels.insert(LABEL_LOCK.to_owned(), taking.deploy.to_string());
        labels.insert(SINCE.to_owned(), since(taking.now));
        labels.insert(WHAT.to_owned(), taking.what.to_owned());
        labels.insert(NONCE.to_owned(), nonce.clone());
        let image = Mutex::new(taking.image.clone());
        let released = tokio::sync::Mutex::new(false);
        Self { deployment: taking.deployment.to_owned(), labels, nonce, image, released }
    }

    fn name(&self) -> String {
        lock_name(&self.deployment)
    }

    /// Takes the lock; `None` where somebody has it.
    pub async fn take(engine: &dyn Engine, taking: &Taking<'_>) -> Result<Option<Self>> {
        let lock = Self::new(taking);
        Ok(lock.create(engine, taking.now).await?.then_some(lock))
    }

    async fn create(&self, engine: &dyn Engine, now: OffsetDateTime) -> Result<bool> {
        let body = json!({"Name": self.name(), "Labels": self.labels});
        let answered = match engine.create_volume(&body).await {
            Ok(labels) => labels,
            // Whether it was made is told by its nonce.
            Err(error @ EngineError::Lost { .. }) => match engine.inspect_volume(&self.name()).await {
                Ok(Some(labels)) => labels,
                _ => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if answered.get(NONCE) != Some(&self.nonce) {
            return Ok(false);
        }
        if self.has_image()
            && let Err(error) = self.renew(engine, now).await
        {
            // Nothing has been done under it: nobody has to resume.
            let _ = self.release(engine).await;
            return Err(error);
        }
        Ok(true)
    }

    /// Takes the lock of `holder` over, with what lies in it; `None` where somebody else was faster.
    pub async fn take_over(
        engine: &dyn Engine,
        holder: &Holder,
        taking: &Taking<'_>,
    ) -> Result<Option<(Self, LockContents)>> {
        let Some(image) = taking.image.clone() else {
            return Err(EngineError::Configuration {
                what: "the engine has no image: the record of the deploy cannot be read without one"
                    .to_owned(),
                hint: "load any image, then try again".to_owned(),
            });
        };
        let found = contents(engine, taking.deployment, holder, Some(&image)).await?;
        let lock = Self::new(taking);
        if let Some(claim) = &holder.claim {
            // Left by a takeover that was cut off: whoever renames it first goes on with it.
            let aside = format!("{}.{}", claim_name(taking.deployment, "again"), lock.nonce);
            match engine.rename_container(claim, &aside).await {
                Ok(()) => {}
                Err(EngineError::NotFound { .. } | EngineError::Conflict { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Some(claim) = lock.claim(engine, &holder.nonce, taking, &image).await? else { return Ok(None) };
        if let Some(bytes) = &found.bytes {
            put(engine, &claim, "/", "tarsup/record.json", bytes).await?;
        }
        if found.committed {
            put(engine, &claim, "/", "tarsup/committed", b"").await?;
        }
        let taken = lock.replace(engine, holder, taking.now, &found).await;
        // The claim has done its work, or had none.
        remove_hand(engine, &claim).await?;
        if let Some(old) = holder.claim.as_ref().filter(|_| matches!(taken, Ok(true))) {
            remove_hand(engine, old).await?;
        }
        Ok(taken?.then_some((lock, found)))
    }

    /// Creates the container whose name one of several takers gets. One that was left by a takeover that was cut off before it
    /// had changed anything is put aside.
    async fn claim(
        &self,
        engine: &dyn Engine,
        nonce: &str,
        taking: &Taking<'_>,
        image: &HandImage,
    ) -> Result<Option<String>> {
        let name = claim_name(&self.deployment, nonce);
        let body = hand_body(&self.labels, image, None);
        match engine.create_container(&name, &body).await {
            Ok(id) => return Ok(Some(id)),
            Err(EngineError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        if let Some(found) = engine.inspect_container(&name).await? {
            let other = Holder::from_labels(&found.labels);
            if other.standing(taking.owner, taking.now) == Standing::Held {
                return Ok(None);
            }
            let aside = format!("{}.{}", claim_name(&self.deployment, "again"), self.nonce);
            match engine.rename_container(&found.id, &aside).await {
                Ok(()) => {}
                Err(EngineError::NotFound { .. } | EngineError::Conflict { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        match engine.create_container(&name, &body).await {
            Ok(id) => Ok(Some(id)),
            Err(EngineError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The dead owner's volume goes, this one's comes, with the same contents.
    async fn replace(
        &self,
        engine: &dyn Engine,
        holder: &Holder,
        now: OffsetDateTime,
        found: &LockContents,
    ) -> Result<bool> {
        if holder.claim.is_none() && !remove_volume(engine, &self.deployment, &holder.nonce).await? {
            return Ok(false);
        }
        if !self.create(engine, now).await? {
            return Ok(false);
        }
        if let Some(bytes) = &found.bytes {
            self.put(engine, "record.json", bytes).await?;
        }
        if found.committed {
            self.commit(engine).await?;
        }
        Ok(true)
    }

    fn has_image(&self) -> bool {
        self.image.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Gives the hand an image, where the engine had none before.
    pub fn use_image(&self, image: HandImage) {
        self.image.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(image);
    }

    /// Whether it is still this process's own.
    pub async fn hold(&self, engine: &dyn Engine) -> Result<Hold> {
        let Some(labels) = engine.inspect_volume(&self.name()).await? else { return Ok(Hold::Gone) };
        if labels.get(NONCE) == Some(&self.nonce) {
            return Ok(Hold::Own);
        }
        Ok(Hold::Taken(Holder::from_labels(&labels).named()))
    }

    /// Renews the lease.
    pub async fn renew(&self, engine: &dyn Engine, now: OffsetDateTime) -> Result<()> {
        self.put(engine, "lease", now.unix_timestamp().to_string().as_bytes()).await
    }

    /// Leaves the deploy's record on the engine.
    pub async fn put_record(&self, engine: &dyn Engine, record: &DeployRecord) -> Result<()> {
        self.put(engine, "record.json", &serde_json::to_vec(record).unwrap_or_default()).await
    }

    /// Marks the deploy as committed: from here on it is finished, not undone.
    pub async fn commit(&self, engine: &dyn Engine) -> Result<()> {
        self.put(engine, "committed", b"").await
    }

    /// Gives the deployment free. What is not this process's own any more is left alone.
    pub async fn release(&self, engine: &dyn Engine) -> Result<()> {
        // A renewal under way comes to its end first, and none begins any more: it would make the hand again, and with it the volume.
        let mut released = self.released.lock().await;
        if self.hold(engine).await? != Hold::Own {
            return Ok(());
        }
        *released = true;
        // Left by takeovers that were cut off.
        let labels = [format!("{LABEL_DEPLOYMENT}={}", self.deployment), LABEL_LOCK.to_owned()];
        let claims = claim_name(&self.deployment, "");
        for claim in engine.list_containers(&labels).await? {
            if claim.name.starts_with(&claims) {
                remove_hand(engine, &claim.id).await?;
            }
        }
        for _ in 0..TRIES {
            remove_hand(engine, &self.name()).await?;
            if remove_volume(engine, &self.deployment, &self.nonce).await?
                || self.hold(engine).await? != Hold::Own
            {
                return Ok(());
            }
            // Somebody reads in it, or the engine has not let go of it yet.
            tokio::time::sleep(PAUSE).await;
        }
        Err(EngineError::Conflict {
            call: format!("remove the volume {}", self.name()),
            message: "it is in use".to_owned(),
        })
    }

    /// Writes a file into the volume; the hand is made again where it is gone.
    async fn put(&self, engine: &dyn Engine, name: &str, bytes: &[u8]) -> Result<()> {
        let released = self.released.lock().await;
        if *released {
            return Ok(());
        }
        let hand = self.name();
        match put(engine, &hand, FOLDER, name, bytes).await {
            Err(EngineError::NotFound { .. }) => {}
            other => return other,
        }
        let image = self.image.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(image) = image else { return Ok(()) };
        // To create a container that mounts it would make the volume anew, without its labels.
        if self.hold(engine).await? != Hold::Own {
            return Err(EngineError::NotFound {
                call: format!("write {name} into the lock"),
                message: "the volume is gone, or somebody else's".to_owned(),
            });
        }
        make_hand(engine, &self.deployment, &self.labels, &image).await?;
        put(engine, &hand, FOLDER, name, bytes).await
    }
}

/// Removes the lock's volume if it bears this nonce; true where it is gone by that.
async fn remove_volume(engine: &dyn Engine, deployment: &str, nonce: &str) -> Result<bool> {
    let name = lock_name(deployment);
    match engine.inspect_volume(&name).await? {
        None => return Ok(true),
        // What bears no nonce is nobody's lock.
        Some(_) if nonce.is_empty() => return Ok(false),
        Some(labels) if labels.get(NONCE).map_or("", String::as_str) != nonce => return Ok(false),
        Some(_) => {}
    }
    remove_hand(engine, &name).await?;
    match engine.remove_volume(&name).await {
        Ok(()) | Err(EngineError::NotFound { .. }) => Ok(true),
        Err(EngineError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn remove_hand(engine: &dyn Engine, hand: &str) -> Result<()> {
    match engine.remove_container(hand).await {
        Ok(()) | Err(EngineError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The created container that mounts the volume; one that is there is as good.
async fn make_hand(
    engine: &dyn Engine,
    deployment: &str,
    labels: &BTreeMap<String, String>,
    image: &HandImage,
) -> Result<()> {
    let name = lock_name(deployment);
    let mut labels = labels.clone();
    labels.entry(LABEL_DEPLOYMENT.to_owned()).or_insert_with(|| deployment.to_owned());
    labels.entry(LABEL_LOCK.to_owned()).or_default();
    match engine.create_container(&name, &hand_body(&labels, image, Some(&name))).await {
        Ok(_) | Err(EngineError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn hand_body(labels: &BTreeMap<String, String>, image: &HandImage, volume: Option<&str>) -> CreateBody {
    let scratch = image.volumes.iter().map(|path| json!({"Type": "tmpfs", "Target": path}));
    // A create that comes late, when the volume is gone already, makes it again: with these labels it is a lock like any
    // other, whose owner is dead, and not a volume of nobody's that stands in the way.
    let options = json!({"Labels": labels});
    let volume = volume
        .map(|name| json!({"Type": "volume", "Source": name, "Target": FOLDER, "VolumeOptions": options}));
    let mounts: Vec<Value> = scratch.chain(volume).collect();
    let body = json!({
        "Image": image.id,
        "Entrypoint": ["/tarsup-lock"],
        "Labels": labels,
        "HostConfig": {"NetworkMode": "none", "Mounts": mounts},
    });
    CreateBody(body.as_object().cloned().unwrap_or_default())
}

/// Puts one small file below `path` of a container that was only created.
async fn put(engine: &dyn Engine, container: &str, path: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let packed = || -> std::io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        if let Some((folder, _)) = name.rsplit_once('/') {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            header.set_mode(0o755);
            tar.append_data(&mut header, format!("{folder}/"), std::io::empty())?;
        }
        let mut file = tar::Header::new_ustar();
        file.set_size(bytes.len() as u64);
        file.set_mode(0o600);
        tar.append_data(&mut file, name, bytes)?;
        tar.into_inner()
    };
    let tar = packed().map_err(|error| EngineError::Configuration {
        what: format!("the lock's {name} cannot be packed: {error}"),
        hint: "this is a defect of tarsup".to_owned(),
    })?;
    engine.put_archive(container, path, tar).await
}

/// To the second: it is for people.
fn since(now: OffsetDateTime) -> String {
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}

/// 128 bits that the operating system's random numbers are behind (the keys of the standard library's hash maps).
fn nonce() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

/// A file of a lock; `None` where it, or the container, is not there.
async fn read_file(engine: &dyn Engine, container: &str, name: &str) -> Result<Option<Vec<u8>>> {
    let tar = match engine.get_archive(container, &format!("{FOLDER}/{name}")).await {
        Ok(Some(tar)) => tar,
        Ok(None) | Err(EngineError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut archive = tar::Archive::new(tar.as_slice());
    let entry = archive.entries().ok().and_then(|mut entries| entries.next()?.ok());
    // A file that arrives cut off is there all the same: empty, it reads as damaged, not as absent.
    Ok(Some(entry.map_or_else(Vec::new, |mut entry| {
        let mut bytes = Vec::new();
        let _ = entry.read_to_end(&mut bytes);
        bytes
    })))
}
