//! The desired state: a compose file with its `x-tars` roles, resolved into the Docker API's own words.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::container::Declaration;
use super::observed::{LABEL_SPEC, LABEL_TWIN};
use crate::diagnose::Place;
use crate::engine::{Container, Environment, RestartPolicy};
use crate::oci::{Digest, Reference};
use crate::secretive::Secretive;
use crate::tars::Role;

/// The deployment that the files declare.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The deployment's name: compose's project name, by compose's rules.
    pub deployment: String,
    /// The compose files, in the order in which they were merged.
    pub files: Vec<PathBuf>,
    /// The folder of the first file: `.tarsup/` and `tarsup.lock` lie here.
    pub directory: PathBuf,
    /// The services, in the order of declaration.
    pub services: Vec<Service>,
    /// The networks that the services use.
    pub networks: Vec<Resource>,
    /// The named volumes that the services use.
    pub volumes: Vec<Resource>,
    /// How to roll.
    pub policy: Policy,
    /// The account at the database for a deployment of nodes alone (`x-tars: {database: {env_file: FILE}}`): a master or
    /// slave has its own.
    pub database: Option<DatabaseAccount>,
    /// What compose would warn of, each a sentence: variables without a value and such.
    pub notes: Vec<String>,
}

/// `MYSQL_HOST` and its like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseAccount(pub Environment);

impl Desired {
    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Of these images, service → image, those that the files do not name already.
    pub fn images_to_rewrite(&self, images: &BTreeMap<String, Reference>) -> BTreeMap<String, Reference> {
        let differs = |name: &String, image: &Reference| {
            self.service(name).is_some_and(|service| service.image != *image)
        };
        let differing = images.iter().filter(|(name, image)| differs(name, image));
        differing.map(|(name, image)| (name.clone(), image.clone())).collect()
    }
}

/// One service: exactly one container.
#[derive(Clone, Debug)]
pub struct Service {
    /// The key under `services`.
    pub name: String,
    /// Where it is declared.
    pub place: Place,
    /// The container's name: `container_name`, or `<deployment>-<service>-1` as compose names it.
    pub container: String,
    /// What it is in the framework, where it is a part of it.
    pub role: Option<Role>,
    /// The image it runs.
    pub image: Reference,
    /// Where the image's tag is written.
    pub image_origin: ImageOrigin,
    /// Its container, complete but for the image's id and tarsup's own labels.
    pub declaration: Declaration,
    /// The restart policy once proven; also in `declaration`.
    pub restart: RestartPolicy,
    /// `stop_grace_period`; compose's default is 10 s.
    pub stop_grace: Duration,
    /// Services that must be started before it.
    pub depends_on: Vec<String>,
    /// `REBUILD` as the container would get it, and where that is written; `None` where it is not set.
    pub rebuild: Option<Setting>,
    /// The values of `DOMAIN`, `MYSQL_HOST` and such that hold white space: name and place.
    pub blanks: Vec<(String, Place)>,
    /// How the file puts it, where the create body cannot say it.
    pub written: Written,
}

/// The value of an environment variable, and where a person would change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The value as the container would get it.
    pub value: Secretive,
    /// The line that the value itself stands on: in a compose file, an `env_file` or `.env`.
    pub place: Place,
    /// How it gets from there into the container, where the line does not show it.
    pub through: Option<String>,
}

/// What the file says of a service beyond its create body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Where each of its keys stands; each mount as `volumes <target>`.
    pub keys: BTreeMap<String, Place>,
    /// `platform`, such as `linux/amd64`: what the image must be.
    pub platform: Option<String>,
    /// `image` as it is written, interpolated: `mysql` where the reference says `mysql:latest`.
    pub image: Option<String>,
    /// True where the variable of `.env` that the image comes from holds the tag alone.
    pub tag_alone: bool,
    /// `adopted` of `x-tars`: the id of the container that somebody else made and that is this service's.
    pub adopted: Option<String>,
    /// `hold` of `x-tars`: nothing but a command that names it touches its container.
    pub hold: bool,
}

/// The version of the rule that [`Service::spec`] follows. Whoever changes what a compose file is translated into, so that
/// the hash of an unchanged file changes, adds a version and keeps the rule of the one before: otherwise the next `up`
/// would replace every container for nothing.
const SPEC_VERSION: &str = "v1";

impl Service {
    /// The hash of what is declared beside the image.
    ///
    /// The image is compared by its id instead, so that another tag of the same image changes nothing.
    pub fn spec(&self) -> Digest {
        let mut body = self.declaration.render();
        body.0.remove("Image");
        let later: Vec<(&str, Value)> = self
            .declaration
            .joins_later()
            .map(|endpoint| (endpoint.network.as_str(), endpoint.settings()))
            .collect();
        if !later.is_empty() {
            body.0.insert("Connect".to_owned(), serde_json::json!(later));
        }
        body.spec_hash()
    }

    /// The same by the rule of labels without a version, as the first releases wrote them: so far it is one rule.
    fn spec_without_version(&self) -> Digest {
        self.spec()
    }

    /// What the label `io.tarsup.spec` of its containers says: `v1:sha256:…`.
    pub fn spec_label(&self) -> String {
        format!("{SPEC_VERSION}:{}", self.spec())
    }

    /// True for the container that `adopted` names: it bears no labels of ours, and what it was asked for is compared itself.
    ///
    /// A twin of that one is the same.
    pub fn has_adopted(&self, container: &Container) -> bool {
        let of = container.labels.get(LABEL_TWIN).unwrap_or(&container.id);
        self.written.adopted.as_deref() == Some(of) && !container.labels.contains_key(LABEL_SPEC)
    }

    /// Whether a label `io.tarsup.spec` is of this declaration, by the rule of the release that wrote it; `None` where this
    /// release does not know the rule.
    pub fn has_spec(&self, label: &str) -> Option<bool> {
        match label.split_once(':') {
            Some((SPEC_VERSION, digest)) => Some(digest == self.spec().to_string()),
            Some(("sha256", _)) => Some(label == self.spec_without_version().to_string()),
            _ => None,
        }
    }
}

/// Where the tag of an image is written, so that a commit can rewrite it and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageOrigin {
    /// In the compose file itself: the line of `image:`.
    File(Place),
    /// In a variable of the `.env` file: its name and line.
    DotEnv {
        /// The variable.
        variable: String,
        /// The line in `.env`.
        place: Place,
    },
    /// In a variable of the shell, or built from several: cannot be rewritten.
    Elsewhere {
        /// The line of `image:`.
        place: Place,
        /// Why it cannot be rewritten, for the person who must do it.
        why: String,
    },
}

/// A network or a volume. Its `Debug` does not show the body: variables may have been written into it.
#[derive(Clone, PartialEq)]
pub struct Resource {
    /// The key in the file.
    pub key: String,
    /// The name on the engine.
    pub name: String,
    /// True where it must exist already.
    pub external: bool,
    /// The create body, in the API's own words.
    pub body: Value,
    /// Where it is declared.
    pub place: Place,
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Resource");
        shown.field("key", &self.key).field("name", &self.name).field("external", &self.external);
        shown.field("place", &self.place).finish_non_exhaustive()
    }
}

/// The rollout's policy: the top-level `x-tars`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many nodes are swapped at a time at most (`batch`); by default those that share no service go side by side.
    pub batch: Option<usize>,
    /// How long a container may take until it is healthy (`gate_timeout`).
    pub gate_timeout: Duration,
    /// How long it must stay healthy then (`dwell`).
    pub dwell: Duration,
    /// How long what served there before may take to serve again, once the container is healthy (`services_timeout`).
    pub services_timeout: Duration,
    /// Whether what serves elsewhere too is taken out of what registries hand out before its container is stopped (`drain`).
    pub drain: DrainPolicy,
    /// How long until every client has asked the registries again (`client_refresh`).
    pub client_refresh: Duration,
    /// How long it is waited for who still calls what is drained, counted from the same moment (`drain_timeout`).
    pub drain_timeout: Duration,
    /// True where nothing is stopped that is still called then (`--strict-drain`).
    pub drains_strictly: bool,
    /// True where nothing may go silent because it is served nowhere else (`--no-gaps`).
    pub refuses_gaps: bool,
    /// How long a publish, and what another host has drained, is waited for (`--wait`); by default not at all.
    pub wait: Duration,
    /// Servers whose publish is no work any more, whatever the database says (`--accept-publish`).
    pub ended_publishes: Vec<String>,
    /// How many parked predecessors of a service are kept (`keep_parked`).
    pub keep_parked: usize,
    /// How many versions of an image are kept (`keep_images`).
    pub keep_images: usize,
    /// How the database is saved before it is migrated (`backup`).
    pub backup: BackupPolicy,
}

/// What becomes of clients before a container is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainPolicy {
    /// They are sent elsewhere first, where there is an elsewhere.
    #[default]
    Auto,
    /// They find out by themselves.
    Off,
}

/// How backups of the database are made, and where they are kept: `backup` of the top-level `x-tars`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPolicy {
    /// The folder that they are kept in (`to`); by default `.tarsup/backups` beside the file.
    pub to: Option<PathBuf>,
    /// The image with the server's tool, for where no container of the deployment has it (`image`).
    pub image: Option<Reference>,
    /// How many are kept (`keep`).
    pub keep: usize,
    /// Statistics and properties too, which may be huge and are made anew (`statistics`).
    pub statistics: bool,
    /// In which container. No key: it is found out, or said with `--no-backup`.
    pub way: BackupWay,
}

/// In which container a backup is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupWay {
    /// The database's own, where the deployment declares one, else [`Self::Image`].
    #[default]
    Container,
    /// One of its own, of the image that the policy names.
    Image,
    /// In none: the operator says that there is another backup.
    None,
}

impl Default for BackupPolicy {
    fn default() -> Self {
        Self { to: None, image: None, keep: 5, statistics: false, way: BackupWay::Container }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            batch: None,
            gate_timeout: Duration::from_mins(2),
            dwell: Duration::from_secs(5),
            services_timeout: Duration::from_mins(1),
            drain: DrainPolicy::Auto,
            client_refresh: Duration::from_secs(65),
            drain_timeout: Duration::from_secs(95),
            drains_strictly: false,
            refuses_gaps: false,
            wait: Duration::ZERO,
            ended_publishes: Vec::new(),
            keep_parked: 2,
            keep_images: 3,
            backup: BackupPolicy::default(),
        }
    }
}
