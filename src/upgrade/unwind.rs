//! The way back: what has to be done so that every touched service is what it was before the deploy.
//!
//! Derived from what the engine shows, never replayed: whatever was done or not done, by whomever, the same function
//! finds the rest of the way. It is asked again after each round, until nothing is left to do: an effect that was still
//! under way when the engine was looked at is seen by the next look. What the way back needs is only what it undoes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster_probe::has_account;
use super::names::{Part, failed_name, keep_name, migrate_name, old_name, part_of};
use super::record::DeployRecord;
use super::state::{by_id, declared_restart, is_fresh, is_up, made, of_service, ours, same_restart};
use super::step::{Action, After, Before, Plan, Step, Task, Touched};
use super::{DeployId, Intent, drain, keep, leaning};
use crate::deploy::desired::{DrainPolicy, Policy};
use crate::deploy::observed::LABEL_TWIN;
use crate::deploy::{Desired, Observed};
use crate::engine::{Container, RestartPolicy};
use crate::tars::Role;

/// The rest of a way back.
#[derive(Clone, Debug)]
pub struct WayBack {
    /// The steps. Empty: every touched service is what it was, and proven.
    pub plan: Plan,
    /// The services that cannot be what they were, because that is gone.
    pub lost: Vec<Lost>,
}

/// A service whose container of before is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The service.
    pub service: String,
    /// The container that served before, by its name then.
    pub container: String,
    /// What stands in its place, left as it is: the container that the deploy made.
    pub left: Option<String>,
}

impl WayBack {
    /// The names of the services that cannot be what they were.
    pub fn lost_services(&self) -> Vec<String> {
        self.lost.iter().map(|lost| lost.service.clone()).collect()
    }

    /// True where something on the engine would be changed.
    pub fn changes_something(&self) -> bool {
        self.plan.steps.iter().any(|step| {
            !matches!(
                step.action,
                Action::Gate { .. }
                    | Action::Look { .. }
                    | Action::SaveLogs { .. }
                    | Action::Drain { .. }
                    | Action::DrainAhead { .. }
                    | Action::Undrain { .. }
            )
        })
    }
}

/// The plan that undoes `record`, the last touched service first: it is the one that is down, and it is the order back
/// (nodes, master, slaves), because services are touched in the order slaves, master, nodes.
///
/// `proven` are the ids of containers that have passed their gate on this way back.
pub fn unwind(
    observed: &Observed,
    record: &DeployRecord,
    desired: &Desired,
    proven: &BTreeSet<String>,
) -> WayBack {
    let (plan, policy) = (&record.plan, &desired.policy);
    let mut unwinding = Unwinding {
        observed,
        plan,
        policy,
        proven,
        steps: Vec::new(),
        seen: Vec::new(),
        lost: Vec::new(),
        serving: BTreeSet::new(),
    };
    // What leans on another one's network, memory or processes cannot be started before that runs again.
    let touched =
        leaning::sorted(observed, &plan.deployment, plan.touched.iter().rev().collect(), |touched| {
            &touched.service
        });
    for touched in touched {
        unwinding.service(touched);
    }
    unwinding.one_off(migrate_name(&plan.deployment, &plan.id));
    unwinding.one_off(keep_name(&plan.deployment, &plan.id));
    let Unwinding { mut steps, seen, lost, serving, .. } = unwinding;
    if policy.drain == DrainPolicy::Auto && has_account(desired) {
        steps = with_drains(&steps, plan, &serving, &seen, policy);
    }
    // What was not touched is looked at last: nothing that comes back has to wait for it.
    steps.extend(seen);
    let mut notes = record.stays();
    let migrates =
        plan.steps.iter().any(|step| matches!(step.action, Action::Task { task: Task::Migrate { .. }, .. }));
    if notes.is_empty() && migrates {
        notes.push("the schema of the database is not rolled back; migrations only add".to_owned());
    }
    WayBack { plan: Plan { steps, notes, questions: Vec::new(), ..plan.clone() }, lost }
}

/// What this deploy had proven serves, and is drained before it goes back. What it had drained is given back with each container
/// that has come back, and what it never came to before the first drain: each may be the other instance of the next one.
fn with_drains(
    steps: &[Step],
    plan: &Plan,
    serving: &BTreeSet<String>,
    seen: &[Step],
    policy: &Policy,
) -> Vec<Step> {
    let is_drained = |step: &Step| {
        matches!(step.action, Action::Stop { .. })
            && step.service.as_ref().is_some_and(|name| serving.contains(name))
    };
    let is_tars = |step: &Step| {
        let mut parts = plan.touched.iter().filter(|touched| is_part(touched.role));
        parts.any(|touched| Some(&touched.service) == step.service.as_ref())
    };
    // Whoever still calls then is let down: the way back must come to its end.
    let policy = Policy { drains_strictly: false, ..policy.clone() };
    let mut steps = drain::with_drains(steps, is_drained, is_tars, &policy);
    let was_drained = |name: &str| {
        plan.steps.iter().any(|step| {
            matches!(&step.action, Action::Drain { containers, .. } if containers.iter().any(|one| one == name))
        })
    };
    let untouched = seen.iter().filter_map(|step| step.action.container()).filter(|name| was_drained(name));
    let containers: Vec<String> = untouched.map(str::to_owned).collect();
    let first = steps.iter().position(|step| matches!(step.action, Action::Drain { .. }));
    if let (Some(first), Some(step)) = (first, seen.first().filter(|_| !containers.is_empty())) {
        let (service, cause) = (step.service.clone(), "it was not touched".to_owned());
        steps.insert(first, Step { service, cause, action: Action::Undrain { containers } });
    }
    steps
}

/// True for what registries hand out.
fn is_part(role: Option<Role>) -> bool {
    matches!(role, Some(Role::Master | Role::Slave | Role::Node))
}

struct Unwinding<'a> {
    observed: &'a Observed,
    plan: &'a Plan,
    policy: &'a Policy,
    proven: &'a BTreeSet<String>,
    steps: Vec<Step>,
    seen: Vec<Step>,
    lost: Vec<Lost>,
    /// The services whose containers this deploy had proven: they have got their restart policy.
    serving: BTreeSet<String>,
}

impl<'a> Unwinding<'a> {
    fn push(&mut self, touched: &Touched, cause: &str, action: Action) {
        let service = Some(touched.service.clone());
        self.steps.push(Step { service, cause: cause.to_owned(), action });
    }

    fn service(&mut self, touched: &'a Touched) {
        let made = made(self.observed, &self.plan.deployment, &touched.service, &self.plan.id);
        let old = touched.before.as_ref().and_then(|before| by_id(self.observed, &before.id));
        let twin = touched.before.as_ref().and_then(|before| self.twin(touched, before));
        let comes_back = match (&touched.before, old) {
            // It was stopped, and must not be started again.
            (Some(Before { instead: Some(_), running: true, .. }), Some(old)) if !is_up(old) => twin,
            (_, old) => old.or(twin),
        };
        if let (Some(before), None) = (&touched.before, comes_back) {
            // Nothing is left to go back to: what was made stays, so that something serves.
            let left = made.map(|made| made.name.clone());
            let container = before.instead.as_ref().filter(|_| old.is_some()).unwrap_or(&before.name).clone();
            self.lost.push(Lost { service: touched.service.clone(), container, left });
            return;
        }
        match &touched.after {
            After::Made => {
                if let Some(made) = made {
                    let before = touched.before.as_ref().filter(|before| before.running);
                    if let (Some(_), Some(back)) = (before, comes_back)
                        && let Some(keeps) = keep::before_the_way_back(touched.role, made, back)
                    {
                        self.push(touched, "its console may drop what it does not know", keeps);
                    }
                    self.give_up(touched, made);
                }
            }
            After::Parked { id, name } => {
                if let Some(parked) = by_id(self.observed, id) {
                    self.park_again(touched, parked, name);
                }
            }
            After::Same => {}
        }
        if let (Some(before), Some(back)) = (&touched.before, comes_back) {
            if let Some(old) = old.filter(|old| old.id != back.id) {
                let parked = old_name(&touched.container, &self.plan.id);
                self.retire(touched, old, parked, "it is never started again");
            }
            self.restore(touched, before, back);
        }
        if let Some(twin) =
            twin.filter(|twin| is_fresh(twin) && comes_back.is_none_or(|one| one.id != twin.id))
        {
            let container = twin.name.clone();
            self.push(touched, "what it is the twin of comes back", Action::Remove { container });
        }
    }

    /// The twin that the deploy made of a container.
    fn twin(&self, touched: &'a Touched, before: &Before) -> Option<&'a Container> {
        of_service(self.observed, &self.plan.deployment, &touched.service).find(|container| {
            container.labels.get(LABEL_TWIN) == Some(&before.id)
                && (part_of(&container.name) == Part::Twin(self.plan.id.clone())
                    || container.name == before.name)
        })
    }

    /// What the deploy made: removed if it never started, else kept to look at.
    fn give_up(&mut self, touched: &Touched, made: &Container) {
        let container = made.name.clone();
        if is_fresh(made) {
            self.push(touched, "it never started", Action::Remove { container });
            return;
        }
        self.push(touched, "its predecessor comes back", Action::SaveLogs { container });
        self.retire(touched, made, failed_name(&touched.container, &self.plan.id), "it is kept to look at");
    }

    /// What a rollback had brought back goes to where it was.
    fn park_again(&mut self, touched: &Touched, parked: &Container, name: &str) {
        if is_up(parked) {
            let container = parked.name.clone();
            self.push(touched, "its predecessor comes back", Action::SaveLogs { container });
        }
        self.retire(touched, parked, name.to_owned(), "it is parked again");
    }

    fn retire(&mut self, touched: &Touched, container: &Container, name: String, why: &str) {
        let (from, to) = (container.restart.clone(), RestartPolicy::no());
        self.note_serving(touched, container);
        if !same_restart(&from, &to) {
            let cause = "`always` would start a parked container again at the next boot";
            self.push(touched, cause, Action::SetRestart { container: container.name.clone(), from, to });
        }
        if is_up(container) {
            let action = Action::Stop { container: container.name.clone(), grace: touched.grace };
            self.push(touched, "its predecessor takes its address and ports back", action);
        }
        if container.name != name {
            self.push(touched, why, Action::Rename { container: container.name.clone(), to: name });
        }
    }

    fn note_serving(&mut self, touched: &Touched, container: &Container) {
        let is_proven = same_restart(&container.restart, &declared_restart(container));
        if is_part(touched.role) && is_up(container) && is_proven {
            self.serving.insert(touched.service.clone());
        }
    }

    /// What was there before: its name, its policy, running or not, and the gate.
    fn restore(&mut self, touched: &Touched, before: &Before, old: &Container) {
        let container = before.name.clone();
        let renamed = old.name != before.name;
        if renamed {
            let action = Action::Rename { container: old.name.clone(), to: container.clone() };
            self.push(touched, "it takes its place again", action);
        }
        if !before.running && is_up(old) {
            self.note_serving(touched, old);
            let action = Action::Stop { container: container.clone(), grace: touched.grace };
            self.push(touched, "it did not run before", action);
        }
        if !same_restart(&old.restart, &before.restart) {
            let (from, to) = (old.restart.clone(), before.restart.clone());
            let action = Action::SetRestart { container: container.clone(), from, to };
            self.push(touched, "it gets the restart policy back that it had", action);
        }
        if before.running && !is_up(old) {
            let action = Action::Start { container: container.clone() };
            self.push(touched, "it is what ran before the deploy", action);
        }
        if before.running && !renamed && leaning::is_cut_off(self.observed, old, |on| self.has_restarted(on))
        {
            let cause = "what it leans on was started anew, and it is left with what is gone";
            self.push(touched, cause, Action::Stop { container: container.clone(), grace: touched.grace });
            self.push(touched, cause, Action::Start { container: container.clone() });
            let (timeout, role, dwell) = (self.policy.gate_timeout, touched.role, self.policy.dwell);
            let action = Action::Gate { container, role, timeout, dwell };
            return self.push(touched, "it must prove itself again", action);
        }
        let is_proven = self.proven.contains(&before.id) && is_up(old) && !renamed;
        if before.running && !is_proven {
            // What was not touched is only seen to be well; what comes back must prove itself and stay so for a while.
            let has_run_on = !before.started_at.is_empty() && old.started_at == before.started_at;
            let is_as_it_was = is_up(old) && !renamed && has_run_on;
            let (timeout, role) = (self.policy.gate_timeout, touched.role);
            if is_as_it_was {
                let action = Action::Look { container, role, timeout };
                let cause = "it was not touched, and must be as well as it was".to_owned();
                self.seen.push(Step { service: Some(touched.service.clone()), cause, action });
            } else {
                let action = Action::Gate { container, role, timeout, dwell: self.policy.dwell };
                self.push(touched, "it must prove itself again", action);
            }
        }
    }

    /// True where this deploy has stopped a container that runs again.
    fn has_restarted(&self, container: &Container) -> bool {
        let mut befores = self.plan.touched.iter().filter_map(|touched| touched.before.as_ref());
        befores.any(|before| {
            before.id == container.id
                && !before.started_at.is_empty()
                && before.started_at != container.started_at
        })
    }

    fn one_off(&mut self, name: String) {
        let found = ours(self.observed, &self.plan.deployment).find(|container| container.name == name);
        let Some(found) = found else { return };
        debug_assert!(matches!(part_of(&found.name), Part::Migrate(_)));
        let step = |cause: &str, action| Step { service: None, cause: cause.to_owned(), action };
        if is_up(found) {
            let grace = Duration::from_mins(1);
            self.steps.push(step("the deploy is undone", Action::Stop { container: name.clone(), grace }));
        }
        self.steps.push(step("the deploy is undone", Action::Remove { container: name }));
    }
}

/// What may still be under way at the engine when a deploy is taken up again: it goes on with what its client asked for,
/// whether the client lives or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InFlight {
    /// Every call has been answered.
    Nothing,
    /// This one has not.
    Step {
        /// Its kind: [`Action::kind`].
        kind: String,
        /// The container, under the name that it had then.
        container: String,
        /// The service.
        service: Option<String>,
    },
    /// Nobody here knows.
    Unknown,
}

impl InFlight {
    /// A step whose answer was lost.
    pub fn of(step: &Step) -> Self {
        match step.action.container() {
            Some(container) => Self::Step {
                kind: step.action.kind().to_owned(),
                container: container.to_owned(),
                service: step.service.clone(),
            },
            None => Self::Nothing,
        }
    }
}

/// How much longer than its grace a stop may take: the engine kills, and waits for the end.
const MARGIN: Duration = Duration::from_secs(3);

/// The steps that bring what may be under way to its end: repeated where it is known, waited for where it is not.
pub fn settle(observed: &Observed, record: &DeployRecord, in_flight: &InFlight) -> Vec<Step> {
    let plan = &record.plan;
    match in_flight {
        InFlight::Nothing => Vec::new(),
        InFlight::Step { kind, container, service } => {
            let found = observed.container(container);
            let grace = plan
                .touched
                .iter()
                .find(|touched| Some(&touched.service) == service.as_ref())
                .map_or(Duration::from_mins(1), |touched| touched.grace);
            let action = match kind.as_str() {
                "stop" if found.is_some_and(is_up) => Action::Stop { container: container.clone(), grace },
                "create" if found.is_none() => Action::Claim { name: container.clone() },
                _ => return Vec::new(),
            };
            let cause = format!("the {kind} that was under way is seen to its end");
            vec![Step { service: service.clone(), cause, action }]
        }
        InFlight::Unknown => {
            plan.touched.iter().filter_map(|touched| may_be_stopping(observed, plan, touched)).collect()
        }
    }
}

/// A stop comes after the restart policy is taken away: where it is still there, none was asked for.
fn may_be_stopping(observed: &Observed, plan: &Plan, touched: &Touched) -> Option<Step> {
    let before = touched.before.as_ref()?;
    let old = by_id(observed, &before.id).filter(|old| is_up(old) && old.name == before.name)?;
    let keeps_its_policy = same_restart(&old.restart, &before.restart);
    let had_none = same_restart(&before.restart, &RestartPolicy::no());
    let restarts = matches!(plan.intent, Intent::Restart { .. });
    if keeps_its_policy && !had_none && !restarts {
        return None;
    }
    Some(Step {
        service: Some(touched.service.clone()),
        cause: "a stop may be under way: it is seen to its end".to_owned(),
        action: Action::Settle { container: old.name.clone(), within: touched.grace + MARGIN },
    })
}

/// The deploy that a container's labels or name speak of.
pub fn deploy_of(container: &Container) -> Option<DeployId> {
    match part_of(&container.name) {
        Part::New(id) | Part::Old(id) | Part::Failed(id) | Part::Twin(id) | Part::Migrate(id) => Some(id),
        Part::Serving => container.labels.get(crate::deploy::observed::LABEL_DEPLOY)?.parse().ok(),
    }
}
