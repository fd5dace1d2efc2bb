//! Containers that do not start with tars-init, such as upstream's: what their start sets anew is told in a plan, and before one of
//! a master or slave is started the database is asked, because that start installs over one that does not answer.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Cluster, Database, Stopped};
use super::offer::Offer;
use super::plan::Planner;
use super::run::{Runner, StepError};
use super::state::{by_id, is_up};
use super::step::{After, Plan, Step, Touched};
use super::watch::known_by;
use crate::deploy::desired::Service;
use crate::deploy::{Desired, Observed, guard};
use crate::engine::{Container, Environment, Variable};
use crate::tars::Role;
use crate::tars::catalogue::WEB_PORT;

/// How long the database may take to answer before such a start.
const PATIENCE: Duration = Duration::from_secs(30);
/// The account that such a start asks with.
const ACCOUNT: [&str; 4] = ["MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_ROOT_PASSWORD"];
/// Its row is written at the first installation alone, so that nothing sets it anew.
const WRITTEN_ONCE: &str = "tarslog";

/// What happens to a container that does not start with tars-init.
enum Turn<'a> {
    /// An image of ours takes its place.
    Leaves(&'a Container),
    /// It is started.
    Starts(&'a Container),
}

/// What a plan does with such a container.
fn turn<'a>(touched: &Touched, observed: &'a Observed) -> Option<Turn<'a>> {
    let lacks_init = |container: &&Container| !guard::has_our_start(&container.raw["Config"]);
    let before = || by_id(observed, &touched.before.as_ref()?.id).filter(lacks_init);
    if !matches!(touched.role, Some(Role::Master | Role::Slave | Role::Node)) {
        return None;
    }
    match &touched.after {
        After::Made => before().map(Turn::Leaves),
        After::Same => before().map(Turn::Starts),
        After::Parked { id, .. } => by_id(observed, id).filter(lacks_init).map(Turn::Starts),
    }
}

/// What is lost, and what is met, as far as it is known without asking anybody.
pub(super) fn note(planner: &mut Planner<'_>) {
    let touched = planner.plan.touched.clone();
    for touched in &touched {
        let is_node = touched.role == Some(Role::Node);
        let name = &touched.service;
        match turn(touched, planner.observed) {
            Some(Turn::Leaves(_)) if is_node => planner.note(
                name,
                "has its tarsnode from the image from now on, and no more from the web console at each start (`/get_tarsnode`)",
            ),
            Some(Turn::Leaves(container)) => {
                let leaves = format!(
                    "leaves the start of {}: that one wrote the rows of its own services anew at each boot, their state, \
                     traffic, threads, endpoints and allow lists; from now on rows that exist stay as they are",
                    container.image
                );
                planner.note(name, &leaves);
                planner.note(name, "does not start with any other `REBUILD` than `false` from now on, and never drops a schema");
                if touched.role == Some(Role::Master) {
                    let told = told_to_nodes(planner, name);
                    planner.note(name, told);
                }
            }
            Some(Turn::Starts(container)) if !is_node => {
                planner.note(name, &unsafe_start(&container.image));
            }
            Some(Turn::Starts(_)) | None => {}
        }
    }
}

/// What is said of a start of another image's own.
pub(super) fn unsafe_start(image: &str) -> String {
    format!(
        "is started by {image}'s own start, which installs anew where it gets no answer from the database: that is asked right \
         before, and the container is started only if it answers and holds TARS"
    )
}

/// What nodes with upstream's own start get from the new master's image.
fn told_to_nodes(planner: &Planner<'_>, service: &str) -> &'static str {
    let image = planner.desired.service(service).and_then(|it| planner.observed.image(&it.image.to_string()));
    let port = format!("{WEB_PORT}/tcp");
    let has_web = image.is_some_and(|image| image.raw["Config"]["ExposedPorts"].get(port.as_str()).is_some());
    if has_web {
        "serves `/get_tarsnode` to nodes with upstream's own start, as before: they install their tarsnode from it at each start"
    } else {
        "has no web console in its new image: nodes with upstream's own start, which install their tarsnode from its \
         `/get_tarsnode` at each start, wait for ever once they are started again"
    }
}

/// What is stopped or drained in the containers whose own start sets it anew, or set it anew until now, by what the database said
/// before the plan is shown: a line for each container.
pub(super) fn told(offer: &Offer, observed: &Observed, asked: &Result<Cluster, String>) -> Vec<String> {
    let line = |(service, turn): (&Service, Turn<'_>)| {
        let (container, then) = match turn {
            Turn::Leaves(container) => (container, "stays so"),
            Turn::Starts(container) => {
                (container, "is started and gets traffic again, whoever stopped or drained it")
            }
        };
        format!("`{}`: {}", service.name, sentence(asked, node(service, container).as_deref(), then))
    };
    turns(&offer.plan, &offer.desired, observed).into_iter().map(line).collect()
}

/// True where a plan has such a container of a master or slave.
pub(super) fn is_there(plan: &Plan, desired: &Desired, observed: &Observed) -> bool {
    !turns(plan, desired, observed).is_empty()
}

fn turns<'a>(plan: &Plan, desired: &'a Desired, observed: &'a Observed) -> Vec<(&'a Service, Turn<'a>)> {
    let touched = plan.touched.iter().filter(|touched| touched.role != Some(Role::Node));
    touched
        .filter_map(|touched| Some((desired.service(&touched.service)?, turn(touched, observed)?)))
        .collect()
}

/// The rows of a node's own services that are not as a start of upstream's writes them.
fn sentence(asked: &Result<Cluster, String>, node: Option<&str>, then: &str) -> String {
    let unknown = |why: &str| format!("what is stopped or drained there, and {then}, is not known: {why}");
    let cluster = match asked {
        Ok(cluster) => cluster,
        Err(why) => return unknown(why),
    };
    let rows = match (&cluster.stopped, node) {
        (_, None) => return unknown("the engine knows no address of it"),
        (None, _) if cluster.database == Database::Unknown => return unknown(&cluster.detail),
        (None, _) => return unknown("the image that was asked has an older tars-init"),
        (Some(rows), Some(node)) => {
            rows.iter().filter(move |row| row.node == node && row.server != WRITTEN_ONCE)
        }
    };
    let words = |row: &Stopped| {
        let state = if row.setting { "stopped" } else { "drained" };
        format!("tars.{} ({state})", row.server)
    };
    let found: BTreeSet<String> = rows.map(words).collect();
    if found.is_empty() {
        return "nothing of its own services is stopped or drained now".to_owned();
    }
    let found: Vec<String> = found.into_iter().collect();
    format!("{} {then}", found.join(", "))
}

/// The name by which the database knows it: `DOMAIN`, else its address, which the engine forgets while it is stopped.
fn node(service: &Service, container: &Container) -> Option<String> {
    let declared = || service.declaration.endpoints.iter().find_map(|endpoint| endpoint.ipv4.clone());
    known_by(container).or_else(declared)
}

impl Runner<'_> {
    /// Waits until the database answers and holds TARS, where the container that is about to be started would install anew
    /// over one that does not answer. It is asked with the container's own account, from the deployment's networks.
    pub(super) async fn before_start(&mut self, step: &Step, container: &str) -> Result<(), StepError> {
        let service = step.service.as_deref().and_then(|name| self.desired.service(name));
        if !service.is_some_and(|service| matches!(service.role, Some(Role::Master | Role::Slave))) {
            return Ok(());
        }
        let Some(found) = self.engine.inspect_container(container).await? else { return Ok(()) };
        if is_up(&found) || guard::has_our_start(&found.raw["Config"]) {
            return Ok(());
        }
        self.machine.reporter.say(&format!(
            "       asking the database: the own start of {} installs anew where it gets no answer",
            found.image
        ));
        let own = |name: &str| found.env.get(name).filter(|variable| variable.value.is_some()).cloned();
        let mut account: Vec<Variable> = ACCOUNT.iter().filter_map(|name| own(name)).collect();
        if own("MYSQL_ROOT_PASSWORD").is_some() {
            // Both together are refused, and upstream's start knows no file.
            account.push(Variable::of("MYSQL_ROOT_PASSWORD_FILE="));
        }
        // Both have one name.
        let deployment = &self.desired.deployment;
        self.cluster_probe.close(self.engine, deployment).await?;
        let mut probe = self.cluster_probe.with_account(Environment(account));
        let begun = Instant::now();
        let known = loop {
            if !probe.is_open() {
                self.own_the_lock().await?;
            }
            let why = match probe.ask(self.engine, self.desired, None).await {
                Ok(Cluster { database: Database::Exists, .. }) => break Ok(()),
                Ok(Cluster { database: Database::Absent, .. }) => "it holds no TARS".to_owned(),
                Ok(cluster) => format!("it cannot be asked: {}", cluster.detail),
                Err(why) => format!("nobody can ask it: {why}"),
            };
            if begun.elapsed() >= PATIENCE {
                let (container, why) = (container.to_owned(), self.mask.hide(&why));
                break Err(StepError::UnsafeStart { container, why });
            }
            self.pause().await?;
        };
        probe.close(self.engine, deployment).await?;
        known
    }
}
