//! A plan and its steps: what will be done, in which order, and why.
//!
//! A step never carries an environment. It names the service and the hash of the create body; the executor takes the
//! body from the desired state and asserts the hash. So a plan can be shown, journaled and left in the lock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DeployId, Intent};
use crate::engine::RestartPolicy;
use crate::oci::{Digest, Reference};
use crate::tars::Role;

/// What will be done. Made by [`super::plan::plan`] or [`super::unwind::unwind`]; carried out by [`super::run`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The deploy.
    pub id: DeployId,
    /// The deployment.
    pub deployment: String,
    /// What was asked for.
    pub intent: Intent,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What is left alone although it differs, and what a person ought to know before saying yes.
    pub notes: Vec<String>,
    /// What a person must have said yes to: asked on a terminal, answered by `--yes`, refused without either.
    #[serde(default)]
    pub questions: Vec<String>,
    /// The services that the steps touch, in the order in which they are touched.
    pub touched: Vec<Touched>,
}

/// One step: exactly one effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The service, where it is about one.
    pub service: Option<String>,
    /// Why, as a sentence without its full stop. Names of variables, never their values.
    pub cause: String,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What a step does.
///
/// Containers are named, not numbered: a name is the engine's own atomic lock, and what a step leaves can be told from
/// names, labels and states alone. Each variant says what must hold before (pre), what holds after (post), and what
/// [`super::unwind`] does about it (undo).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Action {
    /// Loads an image from the local store. Pre: the engine lacks it. Post: it has it. Undo: nothing; an image is no harm.
    Load {
        /// The image.
        image: Reference,
        /// The id that it will have; `None` where the engine tells it only then.
        image_id: Option<String>,
    },
    /// Creates a network. Pre: none of that name. Undo: nothing; it stays for the next try.
    Network {
        /// Its name.
        name: String,
    },
    /// Creates a named volume. Pre: none of that name. Undo: never.
    Volume {
        /// Its name.
        name: String,
    },
    /// Creates a container with restart policy `no`. Pre: the name is free, the image is there. Post: `created`. Undo: removed if
    /// it never started, else parked as failed.
    Create {
        /// The container's name.
        name: String,
        /// The image it is created from.
        image: Reference,
        /// The id that this reference must lead to; `None` where it is loaded first.
        image_id: Option<String>,
        /// The hash of the create body.
        spec: Digest,
        /// What it runs.
        purpose: Purpose,
        /// The id of the container that it replaces.
        predecessor: Option<String>,
        /// The image of that one.
        from: Option<String>,
        /// Anonymous volumes of the predecessor that it goes on with, as `volume:path`.
        volumes: Vec<String>,
        /// What it is made as, where that is not what the file declares. `spec` is its hash then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        twin: Option<TwinOf>,
    },
    /// Gives an image that the engine has without this name its name again. Pre: nothing has the name. Undo: nothing.
    Tag {
        /// Its id.
        image_id: String,
        /// The name.
        image: Reference,
    },
    /// Takes a name of ours off an image that is held no longer. Pre: no container needs it. Undo: none; comes after the commit.
    Release {
        /// The name.
        image: String,
    },
    /// Connects a created container to one more network. Pre: not connected. Undo: goes with the container.
    Connect {
        /// The container.
        container: String,
        /// The network.
        network: String,
        /// What the container is made as, where that is not what the file declares.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        twin: Option<TwinOf>,
    },
    /// Changes a restart policy. Undo: the policy that the record or the label names.
    SetRestart {
        /// The container.
        container: String,
        /// The policy before.
        from: RestartPolicy,
        /// The policy after.
        to: RestartPolicy,
    },
    /// Stops a container, killing it after the grace period. Pre: it runs. Post: `exited`. Undo: started again.
    Stop {
        /// The container.
        container: String,
        /// The grace period.
        grace: Duration,
    },
    /// Renames a container. Pre: `to` is free. Undo: renamed back.
    Rename {
        /// The container.
        container: String,
        /// Its new name.
        to: String,
    },
    /// Starts a container. Pre: its addresses and host ports are free. Post: `running`. Undo: stopped.
    Start {
        /// The container.
        container: String,
    },
    /// Waits until a container is proven. Changes nothing.
    Gate {
        /// The container.
        container: String,
        /// What is asked of it.
        role: Option<Role>,
        /// How long it may take until it is healthy.
        timeout: Duration,
        /// How long it must stay healthy then.
        dwell: Duration,
    },
    /// Takes the servers of containers that are about to be stopped out of what registries hand out, where they serve elsewhere
    /// too, and waits until clients know. Post: recorded in the database. Undo: given back, at the end of the deploy.
    Drain {
        /// The containers, by the names under which they serve.
        containers: Vec<String>,
        /// How long until every client has asked again.
        client_refresh: Duration,
        /// How long it is waited for who still calls, counted from the same moment.
        #[serde(default)]
        drain_timeout: Duration,
        /// Fails where somebody still calls then: nothing is stopped.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_strict: bool,
    },
    /// Drains what comes next while others are swapped, as far as it serves beside both: its clients have had their time when it
    /// is its turn. Waits for registries alone. Post: recorded in the database. Undo: given back, at the end of the deploy.
    DrainAhead {
        /// The containers, by the names under which they serve.
        containers: Vec<String>,
        /// Those that are swapped meanwhile: nothing in them is in anybody's place.
        besides: Vec<String>,
    },
    /// Gives back what was drained of these containers. Pre: they are proven. Undo: nothing.
    Undrain {
        /// The containers.
        containers: Vec<String>,
    },
    /// Sees that a container that was not touched is as well as it was: it answers, and is registered. Changes nothing.
    Look {
        /// The container.
        container: String,
        /// What is asked of it.
        role: Option<Role>,
        /// How long it may take until it is.
        timeout: Duration,
    },
    /// Runs a container to its end, for what it does outside of containers. Pre: created. Post: exited with 0, its effect on
    /// the record. Undo: the effect's inverse.
    Task {
        /// The container.
        container: String,
        /// What it does.
        #[serde(flatten)]
        task: Task,
    },
    /// Saves the database to this machine, with the tool in this container, or in one of this image. Pre: it runs. Changes
    /// nothing there. Undo: nothing; the file stays.
    Backup {
        /// The container that has the tool.
        container: Option<String>,
        /// The image of which one is made, where none has it.
        image: Option<Reference>,
    },
    /// Has a container that is about to be stopped keep what the web console of the one that comes back may drop. On a way
    /// back alone, which must not hang on it: what fails is a warning. Undo: nothing; it stays in the schema `tarsup`.
    KeepColumns {
        /// The container.
        container: String,
        /// The image of the one that comes back.
        to: String,
    },
    /// Puts back what the deploy's migration brought into templates, and nobody has edited since. On a way back alone, which must
    /// not hang on it: what fails is a warning. Undo: nothing.
    TakeBack {
        /// The container of before that does it.
        container: Option<String>,
        /// The image of which one is made beside the deployment, where none of before has a tars-init.
        image: Option<Reference>,
    },
    /// Waits until a stop that may be under way has ended, or has turned out not to be. Changes nothing.
    Settle {
        /// The container.
        container: String,
        /// How long a stop takes at the most.
        within: Duration,
    },
    /// Takes the name of a container whose create may be under way, so that it is there for certain. Undo: removed.
    Claim {
        /// The name.
        name: String,
    },
    /// Writes the last lines of a container's logs into `.tarsup/`. Changes nothing on the engine.
    SaveLogs {
        /// The container.
        container: String,
    },
    /// Removes a container of ours that does not run; never its volumes. Undo: none, so it is one that never started, or
    /// comes after the commit.
    Remove {
        /// The container.
        container: String,
    },
}

/// Whose twin a container is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TwinOf {
    /// That of a container which was parked under this name, and is gone: as `.tarsup/parked/` has it.
    Kept(String),
    /// That of the container with this id, without what it must not come back with: [`super::adopted::twin`].
    Container(String),
}

/// What is done outside of containers. Each has a result, which comes back as a document, and an inverse
/// ([`super::record::Inverse`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Brings the database's schema and templates forward, by adding only.
    Migrate {
        /// The image before.
        from: String,
        /// The image that brings the schema forward.
        to: String,
        /// The older versions that may run on the database afterwards: it is told to write that down first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        way_back: Vec<String>,
    },
    /// Copies what the web console of an image without tars-init may drop.
    #[serde(rename = "keep-columns")]
    Keep {
        /// The image that leaves, which does it.
        from: String,
        /// The image that comes back.
        to: String,
    },
    /// Takes out what concerns all nodes, once all have moved.
    Finish {
        /// The image that knows what that is.
        image: String,
    },
}

/// What a created container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The service.
    Serve,
    /// `tars-init migrate`, once.
    Migrate,
    /// `tars-init migrate --finish`, once.
    Finish,
    /// `tars-init keep-columns --all`, once.
    #[serde(rename = "keep-columns")]
    Keep,
}

impl Purpose {
    /// True where it runs beside the service, to its end.
    pub fn is_one_off(self) -> bool {
        self != Self::Serve
    }
}

/// What a service was before the deploy touched it, so that it can be that again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// The service.
    pub service: String,
    /// The name that its container serves under.
    pub container: String,
    /// Its role.
    pub role: Option<Role>,
    /// The container that was there before; `None` where there was none.
    pub before: Option<Before>,
    /// What becomes of it.
    pub after: After,
    /// How long its container gets to stop.
    pub grace: Duration,
}

/// The container of a service before a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// True where it ran.
    pub running: bool,
    /// Its restart policy.
    pub restart: RestartPolicy,
    /// When it had been started, as the engine says it; empty where the record does not tell.
    #[serde(default)]
    pub started_at: String,
    /// Its twin, by name, where it is never to be started again itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// What a deploy puts in the place of what was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "after", rename_all = "kebab-case")]
pub enum After {
    /// A container that the deploy makes: told by its label.
    Made,
    /// A container that was parked.
    Parked {
        /// Its id.
        id: String,
        /// The name under which it was parked.
        name: String,
    },
    /// The same container.
    Same,
}

impl Plan {
    /// True where there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The older versions that may run on what the plan's migration leaves.
    pub fn way_back(&self) -> &[String] {
        let ways = self.steps.iter().find_map(|step| match &step.action {
            Action::Task { task: Task::Migrate { way_back, .. }, .. } => Some(way_back.as_slice()),
            _ => None,
        });
        ways.unwrap_or_default()
    }

    /// The document that scripts may rely on: `{id, steps: [{kind, service, from, to, cause}]}`.
    pub fn document(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                let (from, to) = step.action.change();
                json!({
                    "kind": step.action.kind(), "service": step.service, "container": step.action.container(),
                    "from": from, "to": to, "cause": step.cause,
                })
            })
            .collect();
        json!({
            "id": self.id, "deployment": self.deployment, "intent": self.intent.word(), "steps": steps,
            "notes": self.notes, "questions": self.questions,
        })
    }
}

impl Action {
    /// The word for it, as in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Load { .. } => "load",
            Self::Network { .. } => "network",
            Self::Volume { .. } => "volume",
            Self::Create { .. } => "create",
            Self::Tag { .. } => "tag",
            Self::Release { .. } => "release",
            Self::Connect { .. } => "connect",
            Self::SetRestart { .. } => "set-restart",
            Self::Stop { .. } => "stop",
            Self::Rename { .. } => "rename",
            Self::Start { .. } => "start",
            Self::Gate { .. } => "gate",
            Self::Look { .. } => "look",
            Self::Drain { .. } => "drain",
            Self::DrainAhead { .. } => "drain-ahead",
            Self::Undrain { .. } => "undrain",
            Self::Task { task: Task::Migrate { .. }, .. } => "migrate",
            Self::Task { task: Task::Finish { .. }, .. } => "finish",
            Self::Task { task: Task::Keep { .. }, .. } | Self::KeepColumns { .. } => "keep-columns",
            Self::TakeBack { .. } => "take-back",
            Self::Backup { .. } => "backup",
            Self::Settle { .. } => "settle",
            Self::Claim { .. } => "claim",
            Self::SaveLogs { .. } => "save-logs",
            Self::Remove { .. } => "remove",
        }
    }

    /// The container it acts on, under the name that it has then.
    pub fn container(&self) -> Option<&str> {
        match self {
            Self::Load { .. }
            | Self::Network { .. }
            | Self::Volume { .. }
            | Self::Backup { .. }
            | Self::Tag { .. }
            | Self::Release { .. } => None,
            Self::TakeBack { container, .. } => container.as_deref(),
            Self::Create { name, .. } | Self::Claim { name } => Some(name),
            // Of a batch the first.
            Self::Drain { containers, .. }
            | Self::DrainAhead { containers, .. }
            | Self::Undrain { containers } => containers.first().map(String::as_str),
            Self::Connect { container, .. }
            | Self::SetRestart { container, .. }
            | Self::Stop { container, .. }
            | Self::Rename { container, .. }
            | Self::Start { container }
            | Self::Gate { container, .. }
            | Self::Look { container, .. }
            | Self::Task { container, .. }
            | Self::KeepColumns { container, .. }
            | Self::Settle { container, .. }
            | Self::SaveLogs { container }
            | Self::Remove { container } => Some(container),
        }
    }

    /// What changes: before and after, in the words of the thing that changes.
    pub fn change(&self) -> (Option<String>, Option<String>) {
        let text = |text: &str| Some(text.to_owned());
        match self {
            Self::Load { image, .. } => (None, Some(image.to_string())),
            Self::Network { name } | Self::Volume { name } => (None, text(name)),
            Self::Create { image, from, .. } => (from.clone(), Some(image.to_string())),
            Self::Tag { image_id, image } => (text(image_id), Some(image.to_string())),
            Self::Release { image } => (text(image), None),
            Self::Connect { network, .. } => (None, text(network)),
            Self::SetRestart { from, to, .. } => (text(&from.name), text(&to.name)),
            Self::Stop { .. } => (text("running"), text("exited")),
            Self::Rename { container, to } => (text(container), text(to)),
            Self::Start { .. } => (text("stopped"), text("running")),
            Self::Gate { .. } => (text("running"), text("proven")),
            Self::Drain { containers, .. } | Self::DrainAhead { containers, .. } => {
                (Some(containers.join(" ")), None)
            }
            Self::Undrain { containers } => (None, Some(containers.join(" "))),
            Self::Task { task: Task::Migrate { from, to, .. } | Task::Keep { from, to }, .. } => {
                (text(from), text(to))
            }
            Self::Task { task: Task::Finish { image }, .. } => (None, text(image)),
            Self::Backup { container, image } | Self::TakeBack { container, image } => {
                (container.clone().or_else(|| image.as_ref().map(Reference::to_string)), None)
            }
            Self::KeepColumns { to, .. } => (None, text(to)),
            Self::Look { .. } | Self::SaveLogs { .. } | Self::Settle { .. } | Self::Claim { .. } => {
                (None, None)
            }
            Self::Remove { container } => (text(container), None),
        }
    }
}
