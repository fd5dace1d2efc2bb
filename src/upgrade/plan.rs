//! The planner: desired and observed state and an intent in, a plan or a refusal out.
//!
//! No clock, no prompt, no log, no input or output; the same arguments give the same plan. The deploy's name is given,
//! so the planner of an interrupted deploy recognises what that deploy made and plans its rest.

use super::batches::together;
use super::finding::{Findings, tell};
use super::names::{Part, failed_name, migrate_name, old_name, part_of, twin_name};
use super::one_off::OneOff;
use super::order::{by_dependency, needed_by_framework};
use super::outage::{self, Outage};
use super::preflight::{self, guard_container};
use super::state::{
    by_id, is_fresh, is_parked_in_place, is_up, made, ours, same_restart, serving, ways_back,
};
use super::step::{Action, After, Plan, Purpose, Step, Task};
use super::swap::{Phases, Swap};
use super::{
    DeployId, Intent, Refusal, adopted, backup, cluster_probe, differ, drain, finish, follow, held, leaning,
    locators, other_start, prune, rollback,
};
use crate::deploy::desired::{Resource, Service};
use crate::deploy::observed::{LABEL_DEPLOY, LABEL_PREDECESSOR, LABEL_SERVICE};
use crate::deploy::{Desired, Observed, guard};
use crate::engine::{Container, EngineImage};
use crate::tars::Role;

/// What has to be done, or why nothing is: all of it. `desired` already has the intent applied ([`Intent::apply`]).
///
/// `lost` are the services that this deploy cannot give back, because the containers of before are gone: the way on is
/// then open even after a way back.
pub fn plan(
    id: &DeployId,
    desired: &Desired,
    observed: &Observed,
    intent: &Intent,
    lost: &[String],
) -> Result<Plan, Refusal> {
    let (mut plan, findings) = draft(id, desired, observed, intent, lost);
    tell(&mut plan, &findings.judged()?);
    Ok(plan)
}

/// The same as far as it goes: a plan that lacks what is refused is shown to nobody.
pub(super) fn draft(
    id: &DeployId,
    desired: &Desired,
    observed: &Observed,
    intent: &Intent,
    lost: &[String],
) -> (Plan, Findings) {
    let mut findings = preflight::check(desired, observed, intent);
    let given_up = |container: &Container| part_of(&container.name) == Part::Failed(id.clone());
    if lost.is_empty() && ours(observed, &desired.deployment).any(given_up) {
        let why = format!("the deploy {id} is being undone already; resume it without --forward");
        findings.refuse(Refusal::NoLongerFits { why });
    }
    let mut planner = Planner {
        id,
        desired,
        observed,
        lost,
        findings,
        plan: Plan {
            id: id.clone(),
            deployment: desired.deployment.clone(),
            intent: intent.clone(),
            steps: Vec::new(),
            notes: Vec::new(),
            questions: Vec::new(),
            touched: Vec::new(),
        },
    };
    let done = match intent {
        Intent::Upgrade { .. } => planner.upgrade(intent),
        Intent::Restart { services, ask_with } => planner.restart(services, ask_with.is_some()),
        Intent::Finish => finish::plan(&mut planner),
        Intent::Down { all } => planner.down(*all),
        Intent::Up => {
            planner.up();
            Ok(())
        }
        Intent::Rollback { targets, .. } => {
            rollback::plan(&mut planner, targets);
            Ok(())
        }
        Intent::Prune { keep, foreign } => {
            prune::plan(&mut planner, *keep, *foreign);
            Ok(())
        }
    };
    planner.findings.check(done);
    drain::insert(&mut planner, intent);
    locators::find(&mut planner);
    let backup = backup::insert(&mut planner);
    planner.findings.check(backup);
    if !matches!(intent, Intent::Down { .. }) {
        planner.ask_about_outage();
    }
    adopted::note(&mut planner);
    other_start::note(&mut planner);
    planner.note_names_that_may_change(intent);
    planner.note_proof_of_nodes();
    (planner.plan, planner.findings)
}

/// A plan that is being made.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    pub id: &'a DeployId,
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub lost: &'a [String],
    pub plan: Plan,
    pub findings: Findings,
}

/// What happens to one service.
#[derive(Debug)]
pub(super) enum Decision<'a> {
    Keep,
    Create { made: Option<&'a Container> },
    Start { container: &'a Container, cause: String },
    Replace { old: &'a Container, made: Option<&'a Container>, cause: String },
}

impl<'a> Planner<'a> {
    fn up(&mut self) {
        self.resources();
        let mut planned = Vec::new();
        for service in self.ordered() {
            let decision =
                if held::is_left(self, service) { Ok(Decision::Keep) } else { self.decide(service) };
            if let Some(decision) = self.findings.check(decision) {
                planned.push((service, decision));
            }
        }
        self.roll(planned);
        self.note_orphans();
    }

    fn upgrade(&mut self, intent: &Intent) -> Result<(), Refusal> {
        let Intent::Upgrade { images } = intent else { return Ok(()) };
        self.database_runs("upgrade");
        let mut planned = Vec::new();
        let mut there = false;
        for service in self.ordered() {
            if service.role == Some(Role::Database) || !images.contains_key(&service.name) {
                continue;
            }
            let decision = self.decide(service);
            let Some(decision) = self.findings.check(decision) else {
                there = true;
                continue;
            };
            match decision {
                Decision::Create { made: None } if !self.lost.contains(&service.name) => {
                    self.note(&service.name, "is declared and not there: `tarsup up` creates it");
                    continue;
                }
                Decision::Start { container, .. } if !self.is_own(container) => {
                    self.note(&service.name, "is stopped and stays so: `tarsup up` starts it");
                    there = true;
                    continue;
                }
                Decision::Replace { old, made: None, .. } if !is_up(old) && !self.is_own(old) => {
                    self.note(&service.name, "is stopped and stays so: `tarsup up` replaces and starts it");
                    there = true;
                    continue;
                }
                _ => there = true,
            }
            planned.push((service, decision));
        }
        if !there {
            return Err(self.nothing_there("upgrade"));
        }
        self.roll(planned);
        Ok(())
    }

    /// True where this deploy itself parked, started or made it: an interrupted run's.
    pub(super) fn is_own(&self, container: &Container) -> bool {
        container.labels.get(LABEL_DEPLOY).is_some_and(|deploy| deploy == self.id.as_str())
            || container.name.ends_with(&format!(".old.{}", self.id))
            || made(
                self.observed,
                &self.desired.deployment,
                container.labels.get(LABEL_SERVICE).map_or("", String::as_str),
                self.id,
            )
            .is_some()
    }

    /// Compares one service with its declaration.
    pub(super) fn decide(&self, service: &'a Service) -> Result<Decision<'a>, Refusal> {
        let deployment = &self.desired.deployment;
        let made = made(self.observed, deployment, &service.name, self.id);
        if let Some(made) = made {
            if differ::difference(service, made, self.observed).is_some() {
                let why =
                    format!("what is declared for `{}` has changed since the deploy began", service.name);
                return Err(Refusal::NoLongerFits { why });
            }
            let Some(predecessor) = made.labels.get(LABEL_PREDECESSOR) else {
                return Ok(Decision::Create { made: Some(made) });
            };
            let Some(old) = by_id(self.observed, predecessor) else {
                // It is gone: there is nothing to park, and what was made goes on alone.
                return Ok(Decision::Create { made: Some(made) });
            };
            let cause = format!("image differs: {} → {}", old.image, service.image);
            return Ok(Decision::Replace { old, made: Some(made), cause });
        }
        let Some(container) = serving(self.observed, deployment, service).or_else(|| self.parked(service))
        else {
            return Ok(Decision::Create { made: None });
        };
        let database = service.role == Some(Role::Database);
        if let Some(cause) = differ::difference(service, container, self.observed)
            && !database
        {
            // Going back would start it again.
            match adopted::twin(self.desired, service, container) {
                Some((twin, _)) => adopted::guard_twin(service, container, &twin)?,
                None => guard_container(service, container)?,
            }
            return Ok(Decision::Replace { old: container, made: None, cause });
        }
        if is_up(container) {
            let unproven =
                !same_restart(&container.restart, &service.restart) && is_no(&container.restart.name);
            if unproven && !database {
                let cause = "it was started and never proven".to_owned();
                return Ok(Decision::Start { container, cause });
            }
            return Ok(Decision::Keep);
        }
        adopted::check_start(self, service, container)?;
        let cause = if is_fresh(container) {
            "it was created and never started"
        } else if is_parked_in_place(container) {
            "`tarsup down` stopped it"
        } else {
            "it is stopped"
        };
        Ok(Decision::Start { container, cause: cause.to_owned() })
    }

    /// What this deploy has parked already, where nothing is in its place yet.
    pub(super) fn parked(&self, service: &Service) -> Option<&'a Container> {
        let name = old_name(&service.container, self.id);
        self.observed.container(&name)
    }

    /// Migration first, then service by service in the given order, nodes in batches of what may be down together.
    fn roll(&mut self, planned: Vec<(&'a Service, Decision<'a>)>) {
        let planned = follow::with_followers(self, planned);
        let migration = self.migration(&planned);
        let mut rest = Vec::new();
        let mut migrated = false;
        let is_touched = |_: &Service, decision: &Decision| !matches!(decision, Decision::Keep);
        for batch in self.in_batches(planned, is_touched) {
            let mut phases = Vec::new();
            for (service, decision) in batch {
                if matches!(decision, Decision::Replace { .. }) && !migrated {
                    // After the database's start, before the first swap.
                    rest.extend(migration.clone());
                    migrated = true;
                }
                phases.extend(self.phases(service, &decision));
            }
            rest.extend(together(phases));
        }
        self.plan.steps.extend(rest);
    }

    fn phases(&mut self, service: &'a Service, decision: &Decision<'a>) -> Option<Phases> {
        let (touched, phases) = match decision {
            Decision::Keep => {
                self.note_database(service);
                return None;
            }
            Decision::Create { made } => {
                let cause = "it is declared and not there";
                let swap = self.swap(service, cause);
                (swap.touched(None, After::Made), swap.create(self.image(service)?, *made))
            }
            Decision::Start { container, cause } => {
                let swap = self.swap(service, cause);
                (swap.touched(Some(container), After::Same), swap.start(container))
            }
            Decision::Replace { old, made, cause } => {
                let swap = self.swap(service, cause);
                let mut touched = swap.touched(Some(old), After::Made);
                let mut phases = swap.replace(self.image(service)?, old, *made);
                if let Some((twin, why)) = adopted::twin(self.desired, service, old) {
                    let name = twin_name(&service.container, self.id);
                    let found = self.observed.container(&name);
                    phases.prepare.extend(swap.twin(old, &twin, why.cause(), found));
                    if let Some(before) = touched.before.as_mut().filter(|_| why.is_never_again()) {
                        before.instead = Some(name);
                    }
                }
                (touched, phases)
            }
        };
        self.note_database(service);
        let mut phases = phases;
        let failed = failed_name(&service.container, self.id);
        if let Some(failed) = self.observed.container(&failed).filter(|failed| !is_up(failed)) {
            let action = Action::Remove { container: failed.name.clone() };
            let cause = "its first try was given up, and it is tried again".to_owned();
            phases.prepare.insert(0, Step { service: Some(service.name.clone()), cause, action });
        }
        self.plan.touched.push(touched);
        (!phases.is_empty()).then_some(phases)
    }

    pub(super) fn image(&self, service: &Service) -> Option<&'a EngineImage> {
        self.observed.image(&service.image.to_string())
    }

    pub(super) fn swap<'b>(&'b self, service: &'b Service, cause: &'b str) -> Swap<'b> {
        Swap { deploy: self.id, service, cause, policy: &self.desired.policy }
    }

    /// One run of the new framework image, where a framework's image changes.
    fn migration(&self, planned: &[(&'a Service, Decision<'a>)]) -> Vec<Step> {
        let changes = |role: Role| {
            planned.iter().find_map(|(service, decision)| match decision {
                Decision::Replace { old, .. } if service.role == Some(role) => {
                    let image = self.image(service)?;
                    (image.id != old.image_id).then_some((*service, *old, image))
                }
                _ => None,
            })
        };
        let Some((service, old, image)) = changes(Role::Master).or_else(|| changes(Role::Slave)) else {
            return Vec::new();
        };
        let name = migrate_name(&self.desired.deployment, self.id);
        let found = ours(self.observed, &self.desired.deployment).find(|container| container.name == name);
        let (from, to) = (old.image.clone(), service.image.to_string());
        let cause = format!("the schema must fit {to} before anything runs it");
        let done = found.is_some_and(|found| !is_up(found) && !is_fresh(found) && found.exit_code == 0);
        let task = (!done).then(|| {
            let way_back = ways_back(self.observed, &self.desired.deployment, image);
            Task::Migrate { from: from.clone(), to, way_back }
        });
        let one_off = OneOff {
            service,
            name,
            cause,
            image: service.image.clone(),
            image_id: (!image.id.is_empty()).then(|| image.id.clone()),
            from: Some(from),
            purpose: Purpose::Migrate,
        };
        one_off.steps(found, task)
    }

    fn restart(&mut self, services: &[String], can_ask: bool) -> Result<(), Refusal> {
        for name in services.iter().filter(|name| self.desired.service(name).is_none()) {
            let why = "it is not declared".to_owned();
            self.findings.refuse(Refusal::NoService { service: name.clone(), why });
        }
        let named = |service: &Service| services.contains(&service.name);
        let wanted = |service: &Service| {
            if services.is_empty() { service.role != Some(Role::Database) } else { named(service) }
        };
        let mut there = false;
        let ordered = self.ordered();
        let along = follow::restarted(self, &ordered, &wanted, can_ask);
        let goes = |service: &Service| wanted(service) || along.contains_key(&service.name);
        for batch in self.batches_for(ordered, goes) {
            let mut phases = Vec::new();
            for service in batch.into_iter().filter(|service| goes(service)) {
                if service.written.hold && !named(service) {
                    self.note(&service.name, "is held and goes on running: name it to restart it");
                    continue;
                }
                let Some(container) = serving(self.observed, &self.desired.deployment, service) else {
                    self.note(&service.name, "is declared and not there: `tarsup up` creates it");
                    continue;
                };
                there = true;
                let may = adopted::check_restart(self.desired, service, container, can_ask);
                let may = may.and_then(|()| leaning::check_restart(self.observed, service, container));
                if self.findings.check(may).is_none() {
                    continue;
                }
                let cause = match along.get(&service.name) {
                    Some(cause) => cause,
                    None if named(service) => "a restart was asked for",
                    None => "a restart of all was asked for",
                };
                phases.extend(self.restarted(service, container, cause));
            }
            self.plan.steps.extend(together(phases));
        }
        if there || self.findings.is_refused() { Ok(()) } else { Err(self.nothing_there("restart")) }
    }

    fn restarted(&mut self, service: &'a Service, container: &Container, cause: &str) -> Option<Phases> {
        let swap = self.swap(service, cause);
        let touched = swap.touched(Some(container), After::Same);
        let phases = if is_up(container) {
            swap.restart(container)
        } else if is_cut_off_restart(container) {
            swap.start(container)
        } else {
            self.note(&service.name, "is stopped and stays so: `tarsup up` starts it");
            return None;
        };
        self.plan.touched.push(touched);
        Some(phases)
    }

    fn down(&mut self, all: bool) -> Result<(), Refusal> {
        let mut services = self.ordered();
        services.reverse();
        for service in services {
            let Some(container) = serving(self.observed, &self.desired.deployment, service) else { continue };
            if service.role == Some(Role::Database) && !all {
                if is_up(container) {
                    self.note(
                        &service.name,
                        "is the database and goes on running: `tarsup down --all` stops it",
                    );
                }
                continue;
            }
            if !is_up(container) {
                continue;
            }
            if service.written.hold && !all {
                self.note(&service.name, "is held and goes on running: `tarsup down --all` stops it");
                continue;
            }
            preflight::refuse_auto_remove(service, container)?;
            let swap = self.swap(service, "the deployment is to be down");
            let (touched, phases) = (swap.touched(Some(container), After::Same), swap.park(container));
            self.plan.touched.push(touched);
            self.plan.steps.extend(phases.flatten());
        }
        Ok(())
    }

    /// The order in which services are touched: what the framework depends on, slaves, master, nodes, the others.
    ///
    /// Slaves go before the master, so that one of them is the canary and a registry always answers. Where no master
    /// runs there is nothing to lose, and slaves need its database: then the master goes first.
    pub(super) fn ordered(&self) -> Vec<&'a Service> {
        let services = by_dependency(&self.desired.services);
        let with = |role: Option<Role>| services.iter().copied().filter(move |service| service.role == role);
        let runs =
            |service: &Service| serving(self.observed, &self.desired.deployment, service).is_some_and(is_up);
        let needed = needed_by_framework(&self.desired.services);
        let mut ordered: Vec<&Service> = with(Some(Role::Database)).collect();
        ordered.extend(with(None).filter(|service| needed.contains(&service.name.as_str())));
        let (master, slaves) = (with(Some(Role::Master)), with(Some(Role::Slave)));
        if with(Some(Role::Master)).all(runs) || self.is_cut_off() {
            ordered.extend(slaves.chain(master));
        } else {
            ordered.extend(master.chain(slaves));
        }
        ordered.extend(with(Some(Role::Node)));
        ordered.extend(with(None).filter(|service| !needed.contains(&service.name.as_str())));
        ordered
    }

    /// The order back: nodes, master, slaves, because new registries serve old nodes, and not the reverse.
    pub(super) fn ordered_back(&self) -> Vec<&'a Service> {
        let mut ordered = self.ordered();
        let rank = |service: &Service| match service.role {
            Some(Role::Node) => 0,
            Some(Role::Master) => 1,
            Some(Role::Slave) => 2,
            Some(Role::Database) | None => 3,
        };
        let places: Vec<usize> = (0..ordered.len()).filter(|&at| rank(ordered[at]) < 3).collect();
        let mut roles: Vec<&Service> = places.iter().map(|&at| ordered[at]).collect();
        roles.sort_by_key(|service| rank(service));
        for (at, service) in places.into_iter().zip(roles) {
            ordered[at] = service;
        }
        ordered
    }

    /// True where this deploy has begun to swap already: a master that is down then is its own work.
    fn is_cut_off(&self) -> bool {
        let suffix = format!(".old.{}", self.id);
        ours(self.observed, &self.desired.deployment).any(|container| container.name.ends_with(&suffix))
    }

    fn resources(&mut self) {
        let missing = |resources: &'a [Resource], is_there: &dyn Fn(&str) -> bool| {
            let wanted = resources.iter().filter(|resource| !resource.external);
            wanted.filter(|resource| !is_there(&resource.name)).collect::<Vec<_>>()
        };
        let observed = self.observed;
        let network = |name: &str| observed.networks.get(name).is_some_and(Option::is_some);
        let volume = |name: &str| observed.volumes.get(name).is_some_and(Option::is_some);
        let step = |action| Step { service: None, cause: "it is declared and not there".to_owned(), action };
        for resource in missing(&self.desired.networks, &network) {
            self.plan.steps.push(step(Action::Network { name: resource.name.clone() }));
        }
        for resource in missing(&self.desired.volumes, &volume) {
            self.plan.steps.push(step(Action::Volume { name: resource.name.clone() }));
        }
    }

    pub(super) fn database_runs(&mut self, word: &'static str) {
        for service in &self.desired.services {
            let down = serving(self.observed, &self.desired.deployment, service).is_none_or(|c| !is_up(c));
            if service.role == Some(Role::Database) && down {
                self.findings.refuse(Refusal::DatabaseDown { service: service.name.clone(), word });
            }
        }
    }

    pub(super) fn nothing_there(&self, word: &'static str) -> Refusal {
        Refusal::NothingThere { deployment: self.desired.deployment.clone(), word }
    }

    pub(super) fn note(&mut self, service: &str, text: &str) {
        self.plan.notes.push(format!("`{service}` {text}"));
    }

    /// A database server that differs is left alone, and the plan says so.
    fn note_database(&mut self, service: &Service) {
        if service.role != Some(Role::Database) {
            return;
        }
        if let Some(container) = serving(self.observed, &self.desired.deployment, service)
            && let Some(cause) = differ::difference(service, container, self.observed)
        {
            self.note(&service.name, &format!("is the database and is left as it is ({cause})"));
        }
    }

    fn note_orphans(&mut self) {
        let orphans: Vec<String> = ours(self.observed, &self.desired.deployment)
            .filter(|container| part_of(&container.name) == Part::Serving)
            .filter(|container| {
                container.labels.get(LABEL_SERVICE).is_none_or(|name| self.desired.service(name).is_none())
            })
            .map(|container| container.name.clone())
            .collect();
        for name in orphans {
            self.plan
                .notes
                .push(format!("the container `{name}` belongs to no declared service and is left alone"));
        }
    }

    /// Without an account nobody can ask the database whether a node is registered.
    fn note_proof_of_nodes(&mut self) {
        let proves_node = |step: &Step| matches!(step.action, Action::Gate { role: Some(Role::Node), .. });
        if !cluster_probe::has_account(self.desired) && self.plan.steps.iter().any(proves_node) {
            self.plan.notes.push(
                "no account at the database is known: nodes are proven by what a registry says (`database: {env_file: FILE}` \
                 under `x-tars` names one)"
                    .to_owned(),
            );
        }
    }

    /// The last registry is not swapped in silence.
    fn ask_about_outage(&mut self) {
        match outage::of(&self.plan, self.desired, self.observed) {
            Some(Outage::Note(note)) => self.plan.notes.push(note),
            Some(Outage::Question(question)) => self.plan.questions.push(question),
            None => {}
        }
    }

    fn note_names_that_may_change(&mut self, intent: &Intent) {
        let services = self.desired.services.iter().filter(|service| intent.makes(service));
        for service in services.filter(|service| guard::may_change_its_name(self.desired, service)) {
            let text = "has neither a fixed address nor `DOMAIN`: its address is its name in the database, and with \
                        another one it is another node there";
            self.note(&service.name, text);
        }
    }
}

/// Stopped with its restart policy in place: by an interrupted restart, not by `down`.
fn is_cut_off_restart(container: &Container) -> bool {
    !is_fresh(container) && !is_parked_in_place(container)
}

fn is_no(policy: &str) -> bool {
    matches!(policy, "" | "no")
}
