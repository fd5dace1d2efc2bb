//! The way back: what has to be done so that every touched service is what it was before the deploy.
//!
//! Derived from what the engine shows, never replayed: whatever was done or not done, by whomever, the same function
//! finds the rest of the way. Its own steps may be cut off too; called again it plans what is left.

use super::names::{Part, failed_name, migrate_name, part_of};
use super::state::{by_id, is_fresh, is_up, made, ours, same_restart};
use super::step::{Action, After, Before, Plan, Step, Touched};
use super::{Intent, Refusal};
use crate::deploy::Observed;
use crate::deploy::desired::Policy;
use crate::engine::{Container, RestartPolicy};

/// The plan that undoes `record`, the last touched service first: it is the one that is down.
pub fn unwind(observed: &Observed, record: &Plan, policy: &Policy) -> Result<Plan, Refusal> {
    let mut unwinding = Unwinding { observed, record, policy, steps: Vec::new() };
    for touched in record.touched.iter().rev() {
        unwinding.service(touched)?;
    }
    unwinding.migration();
    let mut notes = Vec::new();
    if record.steps.iter().any(|step| matches!(step.action, Action::Migrate { .. })) {
        notes.push("the schema of the database is not rolled back; migrations only add".to_owned());
    }
    Ok(Plan {
        id: record.id.clone(),
        deployment: record.deployment.clone(),
        intent: record.intent.clone(),
        steps: unwinding.steps,
        notes,
        questions: Vec::new(),
        touched: record.touched.clone(),
    })
}

struct Unwinding<'a> {
    observed: &'a Observed,
    record: &'a Plan,
    policy: &'a Policy,
    steps: Vec<Step>,
}

impl Unwinding<'_> {
    fn push(&mut self, touched: &Touched, cause: &str, action: Action) {
        let service = Some(touched.service.clone());
        self.steps.push(Step { service, cause: cause.to_owned(), action });
    }

    fn service(&mut self, touched: &Touched) -> Result<(), Refusal> {
        match &touched.after {
            After::Made => {
                let made = made(self.observed, &self.record.deployment, &touched.service, &self.record.id);
                if let Some(made) = made {
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
        let Some(before) = &touched.before else { return Ok(()) };
        let gone = || Refusal::PredecessorGone { service: touched.service.clone() };
        let old = by_id(self.observed, &before.id).ok_or_else(gone)?;
        self.restore(touched, before, old);
        Ok(())
    }

    /// What the deploy made: removed if it never started, else kept to look at.
    fn give_up(&mut self, touched: &Touched, made: &Container) {
        let container = made.name.clone();
        if is_fresh(made) {
            self.push(touched, "it never started", Action::Remove { container });
            return;
        }
        self.push(touched, "its predecessor comes back", Action::SaveLogs { container });
        self.retire(touched, made, failed_name(&touched.container, &self.record.id), "it is kept to look at");
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

    /// What was there before: its name, its policy, running or not, and the gate.
    fn restore(&mut self, touched: &Touched, before: &Before, old: &Container) {
        let container = before.name.clone();
        let renamed = old.name != before.name;
        if renamed {
            let action = Action::Rename { container: old.name.clone(), to: container.clone() };
            self.push(touched, "it takes its place again", action);
        }
        if !before.running && is_up(old) {
            let action = Action::Stop { container: container.clone(), grace: touched.grace };
            self.push(touched, "it did not run before", action);
        }
        if !same_restart(&old.restart, &before.restart) {
            let (from, to) = (old.restart.clone(), before.restart.clone());
            let action = Action::SetRestart { container: container.clone(), from, to };
            self.push(touched, "it gets the restart policy back that it had", action);
        }
        if before.running && !is_up(old) {
            self.push(
                touched,
                "it is what ran before the deploy",
                Action::Start { container: container.clone() },
            );
        }
        // A restart has nothing to go back to: what runs again is left to its watchers.
        let was_down = !is_up(old) || renamed || self.has_failed(touched);
        let same = matches!(self.record.intent, Intent::Restart { .. }) && is_up(old);
        if before.running && was_down && !same {
            let (timeout, dwell) = (self.policy.gate_timeout, self.policy.dwell);
            let action = Action::Gate { container, role: touched.role, timeout, dwell };
            self.push(touched, "it must prove itself again", action);
        }
    }

    /// True where a successor was given up already: by an unwinding that was cut off before its gate.
    fn has_failed(&self, touched: &Touched) -> bool {
        let name = failed_name(&touched.container, &self.record.id);
        self.observed.containers.iter().any(|container| container.name == name)
    }

    fn migration(&mut self) {
        let name = migrate_name(&self.record.deployment, &self.record.id);
        let found = ours(self.observed, &self.record.deployment).find(|container| container.name == name);
        let Some(found) = found else { return };
        debug_assert!(matches!(part_of(&found.name), Part::Migrate(_)));
        let step = |cause: &str, action| Step { service: None, cause: cause.to_owned(), action };
        if !is_fresh(found) {
            let action = Action::SaveLogs { container: name.clone() };
            self.steps.push(step("what it said may tell what it did", action));
        }
        if is_up(found) {
            let grace = std::time::Duration::from_mins(1);
            self.steps.push(step("the deploy is undone", Action::Stop { container: name.clone(), grace }));
        }
        self.steps.push(step("the deploy is undone", Action::Remove { container: name }));
    }
}
