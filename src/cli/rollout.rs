//! `tarsup plan`, `up`, `upgrade`, `restart`, `rollback`, `resume` and `down`: from arguments to an intent, a plan that is
//! shown and confirmed, and a deploy.

mod error;
pub mod glance;
mod operator;
mod resume;
mod stored;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::timeout;

use super::options::{AcceptOptions, ConfirmOptions, DeploymentOptions};
use super::{Failure, Outcome, Ui};
use crate::deploy::compose::{LoadOptions, load};
use crate::deploy::desired::DrainPolicy;
use crate::deploy::pins::Pins;
use crate::deploy::{Desired, guard, rewrite};
use crate::diagnose::Exit;
use crate::engine::docker::DockerEngine;
use crate::engine::{ConnectOptions, Engine};
use crate::oci::Reference;
use crate::oci::reference::InvalidReference;
use crate::tars::Role;
use crate::upgrade::finding::Findings;
use crate::upgrade::seen::Seen;
use crate::upgrade::{Deploy, DeployFailure, DeployId, Intent, Plan, Request};

use error::RolloutError;
pub(super) use operator::Operator;
pub use operator::STATE;
pub use resume::{ResumeArgs, resume};
pub(super) use stored::StoredImages;

/// How long an engine may take to tell what stands in the way beside what the guard refuses.
const GUARDED: Duration = Duration::from_secs(30);

/// What every command that changes containers takes.
#[derive(Debug, Default, Args)]
pub struct ChangeOptions {
    #[command(flatten)]
    confirm: ConfirmOptions,

    /// Stop this service although what it keeps in shared memory is gone then; --yes does not cover it
    #[arg(long, value_name = "SERVICE")]
    accept_state_loss: Vec<String>,

    #[command(flatten)]
    clients: ClientOptions,

    /// Show every step, too
    #[arg(long)]
    steps: bool,
}

/// What becomes of clients while containers are stopped.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientOptions {
    /// Do not send clients to what serves elsewhere before a container is stopped
    #[arg(long)]
    no_drain: bool,

    /// Stop, and give everything back, where somebody still calls what is drained after `drain_timeout`
    #[arg(long, conflicts_with = "no_drain")]
    strict_drain: bool,

    /// Refuse where a service goes silent because it is served nowhere else; --yes does not cover it
    #[arg(long)]
    no_gaps: bool,

    /// Wait until nothing is published any more, and until another host gives back what it has drained: so long at most
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "600")]
    wait: Option<u64>,

    /// Go on although the database has a publish of this server that has not ended: nobody carries it out any more; --yes does
    /// not cover it
    #[arg(long, value_name = "APP.SERVER")]
    accept_publish: Vec<String>,
}

impl ChangeOptions {
    /// Of a command that stops nothing which clients call.
    pub(super) fn without_clients(confirm: &ConfirmOptions) -> Self {
        Self { confirm: confirm.clone(), ..Self::default() }
    }

    /// The deployment, with what these options say of its policy.
    fn desired(&self, ui: &Ui) -> Result<Desired, Failure> {
        let mut desired = desired(&self.confirm.deployment, ui)?;
        if self.clients.no_drain {
            desired.policy.drain = DrainPolicy::Off;
        }
        desired.policy.drains_strictly = self.clients.strict_drain;
        desired.policy.refuses_gaps = self.clients.no_gaps;
        desired.policy.ended_publishes.clone_from(&self.clients.accept_publish);
        desired.policy.wait = Duration::from_secs(self.clients.wait.unwrap_or_default());
        Ok(desired)
    }
}

/// Finish the migration of a deployment whose nodes have all moved
#[derive(Debug, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    confirm: ConfirmOptions,

    /// Take out what concerns all nodes: the rows of old protocols. They are saved first
    #[arg(long, required = true)]
    finish: bool,

    /// Change the database without a backup: there is another one
    #[arg(long)]
    no_backup: bool,
}

/// Show what `up` (or, with --to or --image, `upgrade`) would do
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    deployment: DeploymentOptions,

    #[command(flatten)]
    version: VersionOptions,

    #[command(flatten)]
    accept: AcceptOptions,

    /// Plan to stop this service although what it keeps in shared memory is gone then
    #[arg(long, value_name = "SERVICE")]
    accept_state_loss: Vec<String>,

    #[command(flatten)]
    clients: ClientOptions,

    /// Show every step, too
    #[arg(long)]
    steps: bool,

    /// Only the images that tarsup.lock pins
    #[arg(long)]
    locked: bool,
}

/// To which version.
#[derive(Debug, Args)]
pub struct VersionOptions {
    /// The tag that the images of master, slaves and nodes get (default: what the files name)
    #[arg(long, value_name = "VERSION", conflicts_with = "image")]
    to: Option<String>,

    /// The image that the services of the same repository get, or this service alone, whatever it ran before; repeatable
    #[arg(long, value_name = "[SERVICE=]REF")]
    image: Vec<ImageChoice>,
}

/// `[SERVICE=]REF`
#[derive(Clone, Debug)]
struct ImageChoice {
    service: Option<String>,
    image: Reference,
}

impl std::str::FromStr for ImageChoice {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('=') {
            Some((service, image)) => Self { service: Some(service.to_owned()), image: image.parse()? },
            None => Self { service: None, image: text.parse()? },
        })
    }
}

impl std::fmt::Display for ImageChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}={}", self.image),
            None => self.image.fmt(f),
        }
    }
}

/// Create what is declared and missing, start what is stopped, replace what differs
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    change: ChangeOptions,

    #[command(flatten)]
    accept: AcceptOptions,

    /// Run exactly the images that tarsup.lock pins, or refuse
    #[arg(long)]
    locked: bool,
}

/// Roll another version through the deployment: slaves, master, nodes, each behind a gate
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    change: ChangeOptions,

    #[command(flatten)]
    version: VersionOptions,

    #[command(flatten)]
    accept: AcceptOptions,

    /// Run exactly the images that tarsup.lock pins, or refuse
    #[arg(long)]
    locked: bool,
}

/// Restart the same containers one after the other, each behind a gate
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// The services (default: all but the database)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// An image of ours in which an adopted container without tars-init is asked, from outside, how it came back
    #[arg(long, value_name = "REF")]
    image: Option<Reference>,

    #[command(flatten)]
    change: ChangeOptions,
}

/// Bring the parked containers of before the last deploy back
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Bring back what served after this deploy (see `tarsup history`)
    #[arg(long, value_name = "DEPLOY")]
    to: Option<DeployId>,

    #[command(flatten)]
    change: ChangeOptions,
}

/// Stop the deployment and park it; no container, volume or data is removed
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The database too
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    change: ChangeOptions,
}

/// What a command asks for, before the files are read.
pub(super) enum Ask<'a> {
    Up,
    Upgrade(&'a VersionOptions),
    Restart(&'a RestartArgs),
    Finish,
    Prune { keep: Option<usize>, foreign: bool },
    Rollback(Option<&'a DeployId>),
    Down { all: bool },
}

impl Ask<'_> {
    /// The command in words: for the lock, the journal and the history.
    fn words(&self) -> String {
        match self {
            Self::Up => "up".to_owned(),
            Self::Upgrade(VersionOptions { to: Some(version), .. }) => format!("upgrade --to {version}"),
            Self::Upgrade(VersionOptions { image, .. }) => {
                image.iter().fold("upgrade".to_owned(), |words, image| format!("{words} --image {image}"))
            }
            Self::Finish => "migrate --finish".to_owned(),
            Self::Prune { keep, foreign } => {
                let keep = keep.map(|keep| format!(" --keep {keep}")).unwrap_or_default();
                format!("prune{keep}{}", if *foreign { " --upstream" } else { "" })
            }
            Self::Restart(RestartArgs { services, image, .. }) => {
                let words = format!("restart {}", services.join(" "));
                let image = image.as_ref().map(|image| format!(" --image {image}")).unwrap_or_default();
                format!("{}{image}", words.trim_end())
            }
            Self::Rollback(Some(to)) => format!("rollback --to {to}"),
            Self::Rollback(None) => "rollback".to_owned(),
            Self::Down { all } => if *all { "down --all" } else { "down" }.to_owned(),
        }
    }

    /// The intent, as far as the files decide it.
    fn intent(&self, desired: &Desired) -> Result<Intent, Failure> {
        Ok(match self {
            Self::Up => Intent::Up,
            Self::Upgrade(VersionOptions { image, .. }) if !image.is_empty() => chosen(desired, image)?,
            Self::Upgrade(VersionOptions { to, .. }) => {
                if let Some(version) = to.as_ref().filter(|version| !crate::oci::reference::is_tag(version)) {
                    return Err(RolloutError::NoTag { version: version.clone() }.into());
                }
                Intent::upgrade(desired, to.as_deref())
            }
            Self::Finish => Intent::Finish,
            Self::Prune { keep, foreign } => Intent::Prune { keep: *keep, foreign: *foreign },
            Self::Restart(RestartArgs { services, image, .. }) => {
                Intent::Restart { services: services.clone(), ask_with: image.clone() }
            }
            Self::Rollback(to) => {
                Intent::Rollback { to: to.cloned(), targets: std::collections::BTreeMap::new() }
            }
            Self::Down { all } => Intent::Down { all: *all },
        })
    }
}

/// Each choice in its turn: a later one counts.
fn chosen(desired: &Desired, choices: &[ImageChoice]) -> Result<Intent, RolloutError> {
    let mut images = std::collections::BTreeMap::new();
    for ImageChoice { service, image } in choices {
        let Some(name) = service else {
            match Intent::upgrade_image(desired, image) {
                Intent::Upgrade { images: of_repository } if !of_repository.is_empty() => {
                    images.extend(of_repository);
                }
                _ => return Err(RolloutError::NoSuchRepository { repository: image.familiar_name() }),
            }
            continue;
        };
        match desired.service(name) {
            None => return Err(RolloutError::NoSuchService { service: name.clone() }),
            Some(service) if service.role == Some(Role::Database) => {
                return Err(RolloutError::IsDatabase { service: name.clone() });
            }
            Some(_) => drop(images.insert(name.clone(), image.clone())),
        }
    }
    Ok(Intent::Upgrade { images })
}

/// Shows a plan.
pub fn plan(args: &PlanArgs, ui: &Ui) -> Outcome {
    let (deployment, accept_state_loss) = (args.deployment.clone(), args.accept_state_loss.clone());
    let confirm = ConfirmOptions { deployment, dry_run: true, yes: false };
    let change =
        ChangeOptions { confirm, accept_state_loss, clients: args.clients.clone(), steps: args.steps };
    let asked = args.version.to.is_some() || !args.version.image.is_empty();
    let ask = if asked { Ask::Upgrade(&args.version) } else { Ask::Up };
    change_deployment(&change, &ask, &args.accept, args.locked, ui)
}

/// Makes the engine match the files.
pub fn up(args: &UpArgs, ui: &Ui) -> Outcome {
    change_deployment(&args.change, &Ask::Up, &args.accept, args.locked, ui)
}

/// Rolls a version.
pub fn upgrade(args: &UpgradeArgs, ui: &Ui) -> Outcome {
    change_deployment(&args.change, &Ask::Upgrade(&args.version), &args.accept, args.locked, ui)
}

/// Takes out what concerns all nodes.
pub fn migrate(args: &MigrateArgs, ui: &Ui) -> Outcome {
    debug_assert!(args.finish, "required");
    let accept = AcceptOptions { no_backup: args.no_backup, ..AcceptOptions::default() };
    change_deployment(&ChangeOptions::without_clients(&args.confirm), &Ask::Finish, &accept, false, ui)
}

/// Restarts.
pub fn restart(args: &RestartArgs, ui: &Ui) -> Outcome {
    change_deployment(&args.change, &Ask::Restart(args), &AcceptOptions::default(), false, ui)
}

/// Rolls back.
pub fn rollback(args: &RollbackArgs, ui: &Ui) -> Outcome {
    change_deployment(&args.change, &Ask::Rollback(args.to.as_ref()), &AcceptOptions::default(), false, ui)
}

/// Stops and parks.
pub fn down(args: &DownArgs, ui: &Ui) -> Outcome {
    change_deployment(&args.change, &Ask::Down { all: args.all }, &AcceptOptions::default(), false, ui)
}

/// The files of a deployment, with what compose would warn of said.
pub fn desired(options: &DeploymentOptions, ui: &Ui) -> Result<Desired, Failure> {
    let desired = load(&LoadOptions::from_process(options.files.clone(), options.project.clone()))?;
    for note in &desired.notes {
        ui.warn(note);
    }
    Ok(desired)
}

/// The engine that a deployment runs on.
pub async fn connect(options: &DeploymentOptions) -> Result<DockerEngine, Failure> {
    let (host, context) = (options.engine.host.clone(), options.engine.context.clone());
    Ok(DockerEngine::connect(&ConnectOptions { host, context }).await?)
}

/// Runs a command's future.
pub fn run<T>(ui: &Ui, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    ui.block_on(future).map_err(RolloutError::Runtime)?
}

pub(super) fn change_deployment(
    change: &ChangeOptions,
    ask: &Ask,
    accept: &AcceptOptions,
    locked: bool,
    ui: &Ui,
) -> Outcome {
    let desired = change.desired(ui)?;
    let mut guarded = Findings::default();
    if !matches!(ask, Ask::Down { .. }) {
        for error in guard::find(&desired) {
            guarded.refuse(Box::new(error).into());
        }
    }
    if matches!(ask, Ask::Up | Ask::Upgrade(_)) {
        for concern in guard::concerns(&desired.services) {
            ui.warn(&concern);
        }
    }
    let is_guarded = guarded.is_refused();
    let patience = if is_guarded { GUARDED } else { Duration::MAX };
    let work = change_on_engine(change, ask, accept, locked, &desired, ui);
    let done = run(ui, async { Ok(timeout(patience, work).await.ok()) })?;
    match done {
        // It has what the guard refuses, and whatever else stands in the way.
        Some(Err(failure)) if is_guarded && tells_all(&failure) => Err(failure),
        // What the guard refuses in the files depends on nothing that runs, nor on an engine that answers.
        done => {
            guarded.judged()?;
            done.unwrap_or(Ok(Exit::Refused))
        }
    }
}

fn tells_all(failure: &Failure) -> bool {
    let error: &dyn Error = failure.error();
    matches!(error.downcast_ref::<DeployFailure>(), Some(DeployFailure::Refused(_)))
}

/// Offer, show, ask, carry out.
async fn change_on_engine(
    change: &ChangeOptions,
    ask: &Ask<'_>,
    accept: &AcceptOptions,
    locked: bool,
    desired: &Desired,
    ui: &Ui,
) -> Outcome {
    let engine: Arc<dyn Engine> = Arc::new(connect(&change.confirm.deployment).await?);
    let intent = ask.intent(desired)?;
    let pins = if locked { Some(Pins::read(desired)?) } else { None };
    let stored = StoredImages::find(&intent.apply(desired), matches!(ask, Ask::Rollback(_)))?;
    let operator = Operator::new(ui, desired, engine.clone(), &stored);
    let (machine, stop) = (operator.machine(), told_to_stop());
    let deploy = Deploy { engine: engine.as_ref(), machine, desired, stored: stored.shown(), stop };
    let accept_data_move = accept.accept_data_move.clone();
    let (what, backup) = super::backup::way(accept.no_backup, ask.words());
    let accept_state_loss = change.accept_state_loss.clone();
    let request = Request { id: new_id(), what, intent, pins, accept_data_move, accept_state_loss, backup };
    let offer = deploy.offer(&request).await?;
    // A commit must not fail at its last step.
    rewrite::check(desired, &offer.edits)?;
    let shown = glance::glance(&offer, change.steps);
    if change.confirm.dry_run || offer.is_empty() {
        if !change.confirm.dry_run {
            deploy.remove_left_probe().await;
        }
        ui.result(shown.trim_end());
        ui.json(&offer.document());
        return Ok(Exit::Done);
    }
    ui.note(shown.trim_end());
    ui.confirm_all(&offer.plan.questions, change.confirm.yes)?;
    if !offer.plan.is_empty() {
        ui.confirm(&format!("Carry out these {} steps?", offer.plan.steps.len()), change.confirm.yes)?;
    }
    let rolled = deploy.roll(&offer).await;
    let seen = operator.seen(&offer.plan.id);
    if rolled.is_err() {
        // The error says how it ended; this is what callers saw of it.
        ui.end_lines();
        if let Some(seen) = &seen {
            ui.note(seen.text().trim_end());
        }
    }
    rolled?;
    report(&offer.plan, seen.as_ref(), ui);
    if matches!(ask, Ask::Up | Ask::Upgrade(_))
        && let Some(rows) = deploy.left_to_finish(&offer.desired).await
    {
        ui.note(&format!(
            "every node has moved, and {rows} rows of old protocols are left: `tarsup migrate --finish` takes them out"
        ));
    }
    Ok(Exit::Done)
}

fn report(plan: &Plan, seen: Option<&Seen>, ui: &Ui) {
    let services: Vec<&str> = plan.touched.iter().map(|touched| touched.service.as_str()).collect();
    let seconds = ui.elapsed().as_secs_f32();
    let list = if services.is_empty() { "done".to_owned() } else { services.join(", ") };
    let lines = seen.map(Seen::text).unwrap_or_default();
    ui.result(
        format!(
            "{} {}: {list} in {seconds:.1} s, deploy {}\n{lines}",
            plan.intent.word(),
            plan.deployment,
            plan.id
        )
        .trim_end(),
    );
    let mut document = plan.document();
    if let Value::Object(map) = &mut document {
        map.insert("outcome".to_owned(), json!("committed"));
        if let Some(Seen { seconds, containers, services, .. }) = seen {
            let seen = json!({"seconds": seconds, "containers": containers, "services": services});
            map.insert("seen".to_owned(), seen);
        }
    }
    ui.json(&document);
}

/// A name for a new deploy. The second and four digits tell two of them apart.
pub(super) fn new_id() -> DeployId {
    let now = OffsetDateTime::now_utc();
    let mixed = u64::from(now.nanosecond()) ^ (u64::from(std::process::id()) << 7);
    DeployId::new(now, u16::try_from(mixed % 0x1_0000).unwrap_or_default())
}

/// True under `nohup`: a handler of ours would undo what it did.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Becomes true at Ctrl-C, at SIGTERM and when the terminal goes away: the call that runs is finished, then all stops.
pub(super) fn told_to_stop() -> watch::Receiver<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell, told) = watch::channel(false);
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    if !hangup_is_ignored() {
        kinds.push(SignalKind::hangup());
    }
    for kind in kinds {
        let Ok(mut signals) = signal(kind) else { continue };
        let tell = tell.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let _ = tell.send(true);
            }
        });
    }
    told
}
