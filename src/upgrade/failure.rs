//! How a deploy ends when it does not end as asked: the exit code, and what to do.

use std::io;

use super::lock::Hold;
use super::run::{StepError, StepFailed};
use super::unwind::Lost;
use super::{DeployId, Refusal};
use crate::diagnose::{Diagnose, Exit, Place};
use crate::engine::EngineError;

/// What to do without a backup.
const NO_BACKUP: &str = "nothing was stopped and nothing changed; run it again, or `tarsup backup` alone until it succeeds; `--no-backup` says that there is another one";

/// Why a deploy did not end as asked.
#[derive(Debug, thiserror::Error)]
pub enum DeployFailure {
    /// No plan is made.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The engine failed before anything was changed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Somebody works on it.
    #[error("{who} works on the deployment `{deployment}` since {since}: {what}")]
    Held {
        /// The deployment.
        deployment: String,
        /// `user@host`, with the pid.
        who: String,
        /// Since when, RFC 3339.
        since: String,
        /// The command.
        what: String,
    },
    /// Somebody worked on it, and was cut off.
    #[error("the deploy {deploy} of `{deployment}` was interrupted ({sign})")]
    Unfinished {
        /// The deployment.
        deployment: String,
        /// The deploy.
        deploy: String,
        /// The command and who ran it, or what else tells of it.
        sign: String,
    },
    /// What is to be known of it to finish or undo it cannot be read.
    #[error("the record of the deploy {deploy} cannot be used: {why}")]
    Record {
        /// The deploy.
        deploy: String,
        /// Why.
        why: String,
    },
    /// Somebody took the lock away while the deploy was carried out. Nothing was done since.
    #[error("stopped before step {step} of the deploy {deploy}: the deployment's lock is {}", became(hold))]
    LockLost {
        /// The deploy.
        deploy: DeployId,
        /// The step that was not begun, counted from 1.
        step: usize,
        /// What has become of the lock.
        hold: Hold,
    },
    /// It is undone as far as it could be: some services have nothing left to go back to.
    #[error("the deploy {deploy} is undone, but for what is lost: {}", listed(lost))]
    Lost {
        /// The deploy.
        deploy: DeployId,
        /// What is lost.
        lost: Vec<Lost>,
    },
    /// Somebody elsewhere worked on it, and has not been heard of since.
    #[error(
        "the deploy {deploy} of `{deployment}` belongs to {who}, whose lease has run out; whether it still works cannot be seen from here"
    )]
    LeaseRunOut {
        /// The deployment.
        deployment: String,
        /// The deploy.
        deploy: String,
        /// `user@host`, with the pid.
        who: String,
    },
    /// The journal cannot be opened.
    #[error("the journal of deploy {deploy} cannot be opened")]
    Journal {
        /// The deploy.
        deploy: String,
        /// Why.
        source: io::Error,
    },
    /// What a container is cannot be kept for a way back.
    #[error("what `{container}` is cannot be kept for a way back later, so nothing was begun: {source}")]
    NotKept {
        /// The container.
        container: String,
        /// Why.
        source: io::Error,
    },
    /// It failed, and everything is as it was.
    #[error("rolled back; {failed}{}", notes(note))]
    RolledBack {
        /// The step.
        failed: Box<StepFailed>,
        /// What was not rolled back.
        note: Vec<String>,
    },
    /// It failed where there is nothing to go back to.
    #[error("{failed}")]
    Failed {
        /// The step.
        failed: Box<StepFailed>,
    },
    /// Told to stop.
    #[error("interrupted at step {step}; the deployment is locked by the deploy {deploy}")]
    Interrupted {
        /// The deploy.
        deploy: DeployId,
        /// The step that was not completed, counted from 1.
        step: usize,
    },
    /// It is over, and still locked.
    #[error("the deploy {deploy} has ended, but its lock cannot be removed")]
    Unreleased {
        /// The deploy.
        deploy: DeployId,
        /// Why.
        source: EngineError,
    },
    /// It failed, and so did the way back.
    #[error("stuck: {undo}{}", first(failed.as_deref()))]
    Stuck {
        /// What failed first.
        failed: Option<Box<StepFailed>>,
        /// Why the way back failed.
        undo: String,
    },
}

fn became(hold: &Hold) -> String {
    match hold {
        Hold::Own => "held".to_owned(),
        Hold::Gone => "gone (a prune with --volumes takes it)".to_owned(),
        Hold::Taken(by) => format!("held by {by} now"),
    }
}

fn listed(lost: &[Lost]) -> String {
    let one = |lost: &Lost| {
        let left = lost.left.as_ref().map_or_else(
            || "nothing serves for it".to_owned(),
            |left| format!("`{left}`, which the deploy made, is left as it is"),
        );
        format!("`{}` has no predecessor any more (`{}` was removed); {left}", lost.service, lost.container)
    };
    lost.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn notes(notes: &[String]) -> String {
    notes.iter().fold(String::new(), |text, note| text + "\n  note: " + note)
}

fn first(failed: Option<&StepFailed>) -> String {
    failed.map(|failed| format!("\n  after: {failed}")).unwrap_or_default()
}

impl Diagnose for DeployFailure {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused(refusal) => refusal.exit(),
            Self::Engine(error) => error.exit(),
            Self::Held { .. } => Exit::Held,
            Self::Unfinished { .. }
            | Self::Record { .. }
            | Self::LockLost { .. }
            | Self::Lost { .. }
            | Self::Interrupted { .. }
            | Self::Unreleased { .. }
            | Self::Stuck { .. } => Exit::Interrupted,
            Self::LeaseRunOut { .. } => Exit::Refused,
            Self::Journal { .. } | Self::NotKept { .. } | Self::Failed { .. } => Exit::Failed,
            Self::RolledBack { .. } => Exit::RolledBack,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Refused(refusal) => return refusal.hint(),
            Self::Engine(error) => return error.hint(),
            Self::Held { .. } => "wait until it is done; `tarsup status` shows how far it is",
            Self::Unfinished { .. } => {
                "run `tarsup resume` to undo it (or to finish it, if it was committed), `tarsup resume --forward` to go on"
            }
            Self::LeaseRunOut { .. } => "if nobody works on it any more, run `tarsup resume --take-over`",
            Self::Record { .. } => {
                "use the tarsup that began it, or the journal below `.tarsup/deploys` of the machine that did; nothing was changed"
            }
            Self::LockLost { hold: Hold::Taken(_), .. } => {
                "somebody else goes on with it; `tarsup status` shows how far it is"
            }
            Self::Lost { .. } => "run `tarsup resume --forward` to go on with what was made",
            Self::Journal { .. } | Self::NotKept { .. } => {
                "make the folder `.tarsup` beside the deployment file writable, with room on its disk"
            }
            Self::RolledBack { failed, .. } | Self::Failed { failed }
                if matches!(failed.source, StepError::StillCalled { .. }) =>
            {
                "look at who calls: it may have a list of its own, or ask less often than `client_refresh` of `x-tars` says; without \
                 --strict-drain it is named, and the deploy goes on"
            }
            Self::RolledBack { failed, .. } | Self::Failed { failed }
                if matches!(failed.source, StepError::Gap { .. }) =>
            {
                "`tarsup services` shows what serves where; without --no-gaps it is named, and the deploy goes on"
            }
            Self::RolledBack { .. } => {
                "what was started and failed is parked as `<name>.failed.<deploy>`, its logs are in `.tarsup/logs`; everything else is as it was"
            }
            Self::Failed { failed } if let StepError::Backup(error) = &failed.source => {
                return Some(error.hint().unwrap_or_else(|| NO_BACKUP.to_owned()));
            }
            Self::Failed { .. } => "look at the container's logs; `tarsup status` shows what runs",
            Self::Unreleased { .. } => "when the engine answers again, run `tarsup resume`",
            Self::Interrupted { .. } | Self::LockLost { .. } => {
                "run `tarsup resume` to undo it, `tarsup resume --forward` to go on"
            }
            Self::Stuck { .. } => {
                "remove what is in the way, then run `tarsup resume`; nothing is removed and no data is lost"
            }
        };
        Some(hint.to_owned())
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Refused(refusal) => refusal.place(),
            _ => None,
        }
    }

    fn parts(&self) -> Vec<&dyn Diagnose> {
        match self {
            Self::Refused(refusal) => refusal.parts(),
            _ => Vec::new(),
        }
    }
}
