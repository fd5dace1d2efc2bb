//! Why a plan is not made: each names what stands in the way, where, and what to do about it.

use crate::deploy::guard::GuardError;
use crate::deploy::pins::PinsError;
use crate::diagnose::{Diagnose, Exit, Place};

/// Why a plan is not made. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// More than one thing stands in the way.
    #[error("{}", joined(all))]
    Several {
        /// Each of them.
        all: Vec<Refusal>,
    },
    /// A wanted name is taken by a container that tarsup did not make.
    #[error("service `{service}`: the container `{container}` is there already, and tarsup did not make it")]
    Foreign {
        /// The service.
        service: String,
        /// The name.
        container: String,
        /// What it mounts that outlives it: a sentence each.
        data: Vec<String>,
        /// Where the service is declared.
        place: Box<Place>,
    },
    /// A wanted name is taken by a container of ours that belongs to something else.
    #[error("service `{service}`: the container `{container}` belongs to {owner}")]
    Other {
        /// The service.
        service: String,
        /// The name.
        container: String,
        /// Whose it is.
        owner: String,
        /// Where the service is declared.
        place: Box<Place>,
    },
    /// A container that the engine removes as soon as it stops.
    #[error("service `{service}`: the engine removes its container as soon as it stops (AutoRemove)")]
    AutoRemove {
        /// The service.
        service: String,
        /// Where it is declared.
        place: Box<Place>,
    },
    /// Nothing would be left of the database as it is now.
    #[error("no backup can be made of the database, and one precedes what changes it: {why}")]
    NoBackup {
        /// Why.
        why: String,
    },
    /// An adopted container is to be restarted, and nothing in it could say whether it came back well.
    #[error(
        "service `{service}`: its container was made by somebody else and does not start with tars-init: nothing could prove \
         it after a restart"
    )]
    AdoptedRestart {
        /// The service.
        service: String,
        /// Where it is declared.
        place: Box<Place>,
    },
    /// Nobody can be asked how a container without tars-init is.
    #[error("{why}")]
    NoAsker {
        /// Why.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// The guard.
    #[error(transparent)]
    Guard(#[from] Box<GuardError>),
    /// Images that are neither in the engine nor in the local store.
    #[error("{}", missing_text(missing))]
    NoImages {
        /// Each of them.
        missing: Vec<Missing>,
    },
    /// A service would look for its data where it never was.
    #[error(
        "service `{service}`: its data at {path} lies in {from}, and is declared to lie in {to}: what is there now would \
         stay behind"
    )]
    DataMoves {
        /// The service.
        service: String,
        /// The path in the container.
        path: String,
        /// Where it lies.
        from: String,
        /// Where it is looked for then.
        to: String,
        /// Where the service is declared.
        place: Box<Place>,
    },
    /// A container keeps in shared memory what its stop would end.
    #[error("service `{service}`: its container keeps {what}, which is gone once it stops")]
    StateLoss {
        /// The service.
        service: String,
        /// What it keeps.
        what: String,
        /// Where the service is declared.
        place: Box<Place>,
    },
    /// An image for another machine.
    #[error("service `{service}`: the image `{image}` is for {has}, the engine runs {wants}")]
    Architecture {
        /// The service.
        service: String,
        /// The image.
        image: String,
        /// The image's.
        has: String,
        /// The engine's.
        wants: String,
    },
    /// An external network or volume that is not there.
    #[error("the external {kind} `{name}` is not there")]
    NoExternal {
        /// `network` or `volume`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it is declared.
        place: Box<Place>,
    },
    /// A container of somebody else's whose namespace a service shares, and that is not there.
    #[error("service `{service}`: the container `{name}`, of which it has {what}, is not there")]
    NoLeader {
        /// The service.
        service: String,
        /// What it shares.
        what: &'static str,
        /// The other container.
        name: String,
        /// Where it is declared.
        place: Box<Place>,
    },
    /// A container that could be stopped, and not started again: what it leans on is gone or has a successor.
    #[error(
        "service `{service}`: its container has {what} from one that does not come back, and would not start again"
    )]
    LeaderGone {
        /// The service.
        service: String,
        /// What it shares.
        what: &'static str,
        /// Where it is declared.
        place: Box<Place>,
    },
    /// A fixed address that another container has.
    #[error("service `{service}`: the address {address} on `{network}` is in use by {by}")]
    AddressTaken {
        /// The service.
        service: String,
        /// The address.
        address: String,
        /// The network.
        network: String,
        /// Who has it.
        by: String,
        /// Where the service is declared.
        place: Box<Place>,
    },
    /// A fixed address that the network does not have.
    #[error("service `{service}`: the address {address} is not in the network `{network}` ({subnets})")]
    AddressOutside {
        /// The service.
        service: String,
        /// The address.
        address: String,
        /// The network.
        network: String,
        /// The network's subnets.
        subnets: String,
        /// Where the service is declared.
        place: Box<Place>,
    },
    /// An engine that is too old.
    #[error("the engine speaks API {has}; {wants} is the least that tarsup works with")]
    EngineTooOld {
        /// What it speaks.
        has: String,
        /// What is needed.
        wants: &'static str,
    },
    /// A service that is not declared, or that a command cannot act on.
    #[error("no service `{service}`: {why}")]
    NoService {
        /// The service.
        service: String,
        /// Why not.
        why: String,
    },
    /// What is served nowhere else would go silent, and it was said that nothing may.
    #[error("served nowhere else, and silent while its container is stopped: {gaps}")]
    Gaps {
        /// The servers and their nodes.
        gaps: String,
    },
    /// Nobody can be asked to send clients elsewhere, and it was said that nothing may go silent.
    #[error("nothing can be drained without an account at the database, and clients notice: {gaps}")]
    Undrained {
        /// The servers and their nodes.
        gaps: String,
    },
    /// A node would have no registry to ask, and it was said that nothing may go silent.
    #[error("nodes that know no other registry than one that is stopped: {nodes}")]
    Locators {
        /// The nodes, and what they know.
        nodes: String,
    },
    /// Something is being published: a stop in the middle of it leaves half of it.
    #[error("being published right now: {servers}")]
    Publishing {
        /// The servers and their nodes.
        servers: String,
    },
    /// Nothing runs that could be upgraded, restarted or rolled back.
    #[error("nothing of the deployment `{deployment}` is there to {word}")]
    NothingThere {
        /// The deployment.
        deployment: String,
        /// The command.
        word: &'static str,
    },
    /// The database server is down, and the command leaves it alone.
    #[error("the database `{service}` does not run, and `{word}` never touches it")]
    DatabaseDown {
        /// Its service.
        service: String,
        /// The command.
        word: &'static str,
    },
    /// What a rollback would bring back is gone.
    #[error("service `{service}`: no parked container is left to go back to{before}")]
    ParkedGone {
        /// The service.
        service: String,
        /// ` before <deploy>`, or nothing.
        before: String,
    },
    /// What a rollback would make once more has no image any longer.
    #[error(
        "service `{service}`: the container to go back to is gone, and neither the engine nor the local store has its image `{image}`"
    )]
    KeptImageGone {
        /// The service.
        service: String,
        /// The image, as the container named it.
        image: String,
    },
    /// What a container that a rollback makes once more had is gone.
    #[error("service `{service}`: the container to go back to is gone, and so is its {kind} `{name}`")]
    KeptGone {
        /// The service.
        service: String,
        /// `network` or `volume`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A version that its own start would not run on the database.
    #[error(
        "service `{service}`: {version} does not start on this database: {newer} has changed it, and nobody has said that \
         {version} may still run on it"
    )]
    NoStart {
        /// The service.
        service: String,
        /// The version that would be started.
        version: String,
        /// The newer ones that changed the database.
        newer: String,
    },
    /// A disk that is too full.
    #[error("{place} has room for {has}, and {what} need {needs}")]
    NoRoom {
        /// Where.
        place: String,
        /// For what.
        what: String,
        /// What there is room for.
        has: String,
        /// What is needed.
        needs: String,
    },
    /// What a migration leaves may be more than the version of before can write to.
    #[error("there may be no way back from the migration to {image}: {why}")]
    NoWayBack {
        /// The new image.
        image: String,
        /// Why.
        why: String,
    },
    /// The plan that was shown is not the plan that would be made now.
    #[error("the plan no longer fits: {why}")]
    NoLongerFits {
        /// What changed.
        why: String,
    },
    /// A tag leads elsewhere than when the plan was shown.
    #[error("the image `{image}` was {shown} when the plan was shown, and is now {now}")]
    ImageMoved {
        /// The image.
        image: String,
        /// The id that was shown.
        shown: String,
        /// The id now.
        now: String,
    },
    /// `migrate --finish` while something runs another version.
    #[error("service `{service}` runs {runs}, and not {wants}: not everything has moved")]
    NotMoved {
        /// The service.
        service: String,
        /// What it runs.
        runs: String,
        /// What it would have to run.
        wants: String,
    },
    /// `migrate --finish` while an older version may come back.
    #[error(
        "the parked container `{container}` ({image}) is a way back to another version, which may need what would go"
    )]
    WayBack {
        /// The container.
        container: String,
        /// Its image.
        image: String,
    },
    /// The database does not fit the new version, and its migration would not mend that.
    #[error("the migration to {image}: {why}")]
    Migration {
        /// The new image.
        image: String,
        /// What is missing.
        why: String,
        /// The keys of templates that are missing, as `TEMPLATE KEY`.
        needed: Vec<String>,
    },
    /// What is deployed in a container does not run in the image that it is replaced by.
    #[error("service `{service}`: {image} cannot run {server}: {why}")]
    NotRunnable {
        /// The service.
        service: String,
        /// The image.
        image: String,
        /// Such as `Demo.HelloServer`.
        server: String,
        /// Why.
        why: String,
        /// Where the service is declared.
        place: Box<Place>,
    },
    /// An image is not the pinned one.
    #[error(transparent)]
    Pins(#[from] Box<PinsError>),
}

/// An image that is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The image.
    pub image: String,
    /// The services that run it.
    pub services: Vec<String>,
    /// True where `tarsup build` makes such an image: it is one of the framework.
    pub is_built: bool,
    /// Where it is named first.
    pub place: Place,
}

fn missing_text(missing: &[Missing]) -> String {
    let one = |missing: &Missing| {
        let services: Vec<String> = missing.services.iter().map(|service| format!("`{service}`")).collect();
        format!("`{}` (of {})", missing.image, services.join(", "))
    };
    let all: Vec<String> = missing.iter().map(one).collect();
    let (word, verb) = if all.len() == 1 { ("image", "is") } else { ("images", "are") };
    format!("the {word} {} {verb} neither in the engine nor in the local store", all.join(", "))
}

impl Refusal {
    /// All that stands in the way as one error; nothing where nothing does.
    pub(super) fn together(mut all: Vec<Self>) -> Result<(), Self> {
        match all.len() {
            0 => Ok(()),
            1 => Err(all.remove(0)),
            _ => Err(Self::Several { all }),
        }
    }

    /// What to do about what callers would notice.
    fn gap_hint(&self) -> &'static str {
        match self {
            Self::Publishing { .. } => {
                "let it end, or go with --wait; of one that nobody carries out any more (its master was stopped in the middle) `--accept-publish \
                 APP.SERVER` says so, and an hour after it was asked for it counts no more"
            }
            Self::Locators { .. } => {
                "name every registry in TARS_REGISTRY_ADDRESS of the node, or restart it, so that it asks the web console again; or go \
                 without --no-gaps"
            }
            Self::Undrained { .. } => {
                "name an account, as in `x-tars: {database: {env_file: FILE}}`, or go without --no-gaps"
            }
            _ => {
                "deploy another instance on a node of another container (`tarsup services` shows what is where), or go without --no-gaps"
            }
        }
    }
}

/// What to do about a container of somebody else's.
fn foreign_hint(container: &str, data: &[String]) -> String {
    if data.is_empty() {
        return format!(
            "look at it with `docker inspect {container}`: `tarsup adopt` takes it over as it is; it mounts nothing, so else give it another name with `docker rename`, \
             remove it if nobody needs it, or declare another container_name"
        );
    }
    format!(
        "it keeps data ({}): `tarsup adopt` takes it over as it is; else stop it and give it another name with `docker rename {container} {container}.before`, and \
         declare the same mounts for the service, or declare another container_name",
        data.join(", ")
    )
}

fn missing_hint(missing: &[Missing]) -> String {
    let one = |Missing { image, is_built, .. }: &Missing| {
        let copy = format!("`tarsup copy docker-archive:FILE docker-daemon:{image}`");
        if *is_built {
            format!("build {image} with `tarsup build RECIPE`, or bring it with {copy}")
        } else {
            format!("bring {image} with {copy}, or `docker pull {image}` where a registry is in reach")
        }
    };
    missing.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn joined(all: &[Refusal]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What to do about what does not run in a new image.
const NOT_RUNNABLE: &str = "build the image on a base that has it, or stop the server in the web console first: what is stopped there is \
                            not looked at";

impl Diagnose for Refusal {
    fn exit(&self) -> Exit {
        match self {
            Self::Several { all } => {
                let exits = all.iter().map(Diagnose::exit);
                exits.max().unwrap_or(Exit::Refused)
            }
            Self::NoImages { .. }
            | Self::NoExternal { .. }
            | Self::NoLeader { .. }
            | Self::NoService { .. } => Exit::Usage,
            Self::Pins(error) => error.exit(),
            _ => Exit::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Several { all } => return all.first().and_then(Diagnose::hint),
            Self::Foreign { container, data, .. } => foreign_hint(container, data),
            Self::Other { .. } => {
                "declare another container_name, or another project name with -p".to_owned()
            }
            Self::AutoRemove { .. } => {
                "a parked predecessor would vanish: do without AutoRemove (`docker run --rm`)".to_owned()
            }
            Self::AdoptedRestart { service, .. } => format!(
                "name an image of ours that asks it from outside: `tarsup restart {service} --image REF`; or move it to one: \
                 `tarsup upgrade --image {service}=REF`"
            ),
            Self::NoAsker { hint, .. } => (*hint).to_owned(),
            Self::Guard(guard) => return guard.hint(),
            Self::NoImages { missing } => missing_hint(missing),
            Self::DataMoves { service, .. } => format!(
                "declare the mount as it was, or copy the data over first; `--accept-data-move {service}` goes on all the same"
            ),
            Self::StateLoss { service, .. } => format!(
                "let the service write it down first, by its own means; `--accept-state-loss {service}` goes on all the same, and \
                 `x-tars: {{hold: true}}` has it left alone"
            ),
            Self::Architecture { wants, .. } => format!("build it with --platform linux/{wants}"),
            Self::NoExternal { kind, name, .. } => {
                format!("create it with `docker {kind} create {name}`, or declare it without `external`")
            }
            Self::LeaderGone { .. } => "`tarsup up` makes it anew, on the one that is there now".to_owned(),
            Self::NoLeader { name, .. } => format!("start `{name}` first, or declare another one there"),
            Self::AddressTaken { .. } => {
                "stop the other container, or declare another ipv4_address".to_owned()
            }
            Self::AddressOutside { .. } => "declare an ipv4_address inside the network's subnet".to_owned(),
            Self::EngineTooOld { .. } => "update the engine to Docker 19.03 or newer".to_owned(),
            Self::Gaps { .. }
            | Self::Undrained { .. }
            | Self::Locators { .. }
            | Self::Publishing { .. } => self.gap_hint().to_owned(),
            Self::NoService { .. } => "see `tarsup status` for the services".to_owned(),
            Self::NothingThere { .. } | Self::DatabaseDown { .. } => "run `tarsup up` first".to_owned(),
            Self::ParkedGone { .. } => {
                "see `tarsup history`; an older version comes back with `tarsup upgrade --to VERSION`"
                    .to_owned()
            }
            Self::KeptImageGone { image, .. } => {
                format!("bring the image back (`docker load`, or build {image} again), and roll back then")
            }
            Self::KeptGone { kind: "volume", .. } => {
                "its data was there: restore the volume under its name first; an older version comes back with `tarsup upgrade \
                 --to VERSION`"
                    .to_owned()
            }
            Self::KeptGone { kind, name, .. } => {
                format!("make it again as it was, with `docker {kind} create {name}`, and roll back then")
            }
            Self::NoStart { version, .. } => format!(
                "whoever knows that it may says so once: `tars-init accept-version` in a container of the image of {version}"
            ),
            Self::NoRoom { .. } => "make room on that disk: `tarsup prune` takes what nobody needs".to_owned(),
            Self::NoWayBack { .. } => {
                "the image is loaded now: run the command again, and its plan asks about it".to_owned()
            }
            Self::NoLongerFits { .. } | Self::ImageMoved { .. } => {
                "run the command again and look at the new plan".to_owned()
            }
            Self::NotMoved { .. } => "run `tarsup upgrade` first".to_owned(),
            Self::WayBack { container, .. } => {
                format!("once nobody wants to go back to it, remove it with `docker rm {container}`")
            }
            Self::Migration { needed, .. } => match needed.first().and_then(|key| key.split(' ').next()) {
                Some(template) => format!(
                    "somebody took them out: `tarsup templates take {template}` puts them back, `tarsup templates keep \
                     {template}` says that they are not needed"
                ),
                None => "mend it in the web console or in the database; nothing was changed".to_owned(),
            },
            Self::NotRunnable { .. } => NOT_RUNNABLE.to_owned(),
            Self::NoBackup { why } if why.contains("Access denied") => {
                "the password that the deployment declares is not the one that the database has; `--no-backup` says that \
                 there is another backup"
                    .to_owned()
            }
            Self::NoBackup { why } if why.contains("has room for") => {
                "make room, or name another folder: `x-tars: {backup: {to: DIR}}`; `--no-backup` says that there is another \
                 backup"
                    .to_owned()
            }
            Self::NoBackup { .. } => {
                "name an image that has it, and bring it to the engine: `x-tars: {backup: {image: mariadb:10.11}}`; \
                 `--no-backup` says that there is another backup"
                    .to_owned()
            }
            Self::Pins(error) => return error.hint(),
        };
        Some(hint)
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Several { all } => all.first().and_then(Diagnose::place),
            Self::Foreign { place, .. }
            | Self::Other { place, .. }
            | Self::AutoRemove { place, .. }
            | Self::AdoptedRestart { place, .. }
            | Self::DataMoves { place, .. }
            | Self::StateLoss { place, .. }
            | Self::NoExternal { place, .. }
            | Self::NoLeader { place, .. }
            | Self::LeaderGone { place, .. }
            | Self::AddressTaken { place, .. }
            | Self::AddressOutside { place, .. }
            | Self::NotRunnable { place, .. } => Some(Place::clone(place)),
            Self::NoImages { missing } => missing.first().map(|missing| missing.place.clone()),
            Self::Guard(guard) => guard.place(),
            Self::Pins(error) => error.place(),
            _ => None,
        }
    }

    fn parts(&self) -> Vec<&dyn Diagnose> {
        match self {
            Self::Several { all } => all.iter().map(|one| one as &dyn Diagnose).collect(),
            _ => Vec::new(),
        }
    }
}
