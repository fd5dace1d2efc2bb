//! The steps that put one container in the place of another, from wherever they stand.
//!
//! Every function looks at the observed state and leaves out what is done already: the same code plans a deploy and,
//! after an interruption, its rest.

use super::state::{declared_restart, is_up, same_restart};
use super::step::{Action, After, Before, Purpose, Step, Touched, TwinOf};
use super::{DeployId, names};
use crate::deploy::container::Endpoint;
use crate::deploy::desired::{Policy, Service};
use crate::deploy::mounts::Mounts;
use crate::deploy::twin::Twin;
use crate::engine::{Container, EngineImage, RestartPolicy};
use crate::oci::Reference;

/// The steps for one service, in the four phases that nodes of one batch go through together.
#[derive(Debug, Default)]
pub struct Phases {
    /// Create and connect: nothing that runs is touched.
    pub prepare: Vec<Step>,
    /// Stop, rename, start.
    pub swap: Vec<Step>,
    /// The gate.
    pub prove: Vec<Step>,
    /// The final restart policy.
    pub settle: Vec<Step>,
}

impl Phases {
    /// One service after the other.
    pub fn flatten(self) -> impl Iterator<Item = Step> {
        self.prepare.into_iter().chain(self.swap).chain(self.prove).chain(self.settle)
    }

    /// True where there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.prepare.is_empty() && self.swap.is_empty() && self.prove.is_empty() && self.settle.is_empty()
    }
}

/// A container that is gone and can be made once more.
#[derive(Clone, Copy, Debug)]
pub struct Again<'a> {
    /// The name that it was parked under.
    pub name: &'a str,
    /// What it was.
    pub twin: &'a Twin,
    /// Its image.
    pub image: &'a Reference,
    /// True where the engine has the image, and not under that name.
    pub lacks_its_name: bool,
}

/// One service's swap: who it is, why, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Swap<'a> {
    /// The deploy.
    pub deploy: &'a DeployId,
    /// The service.
    pub service: &'a Service,
    /// Why.
    pub cause: &'a str,
    /// Time-outs.
    pub policy: &'a Policy,
}

impl Swap<'_> {
    fn step(&self, cause: &str, action: Action) -> Step {
        Step { service: Some(self.service.name.clone()), cause: cause.to_owned(), action }
    }

    fn name(&self) -> String {
        self.service.container.clone()
    }

    /// The gate of this service's container.
    pub fn gate(&self, cause: &str) -> Step {
        let (timeout, dwell) = (self.policy.gate_timeout, self.policy.dwell);
        self.step(cause, Action::Gate { container: self.name(), role: self.service.role, timeout, dwell })
    }

    /// A policy change, unless the container has that policy.
    pub fn set_restart(
        &self,
        container: &str,
        from: &RestartPolicy,
        to: &RestartPolicy,
        cause: &str,
    ) -> Option<Step> {
        (!same_restart(from, to)).then(|| {
            let (from, to) = (from.clone(), to.clone());
            self.step(cause, Action::SetRestart { container: container.to_owned(), from, to })
        })
    }

    /// A container where none was: created under its own name.
    pub fn create(&self, image: &EngineImage, made: Option<&Container>) -> Phases {
        let mut phases = Phases::default();
        self.prepare(&mut phases, &self.name(), image, made, None);
        if let Some(made) = made.filter(|made| made.name != self.service.container) {
            let action = Action::Rename { container: made.name.clone(), to: self.name() };
            phases.swap.push(self.step("it takes its place", action));
        }
        if !made.is_some_and(is_up) {
            phases.swap.push(self.step(self.cause, Action::Start { container: self.name() }));
        }
        self.prove(&mut phases, made.map(|made| &made.restart), &self.service.restart);
        phases
    }

    /// A new container in the place of `old`, which is parked. `made` is what an interrupted run made already.
    pub fn replace(&self, image: &EngineImage, old: &Container, made: Option<&Container>) -> Phases {
        let mut phases = Phases::default();
        let new_name = names::new_name(&self.service.container, self.deploy);
        self.prepare(&mut phases, &new_name, image, made, Some(old));
        let made_name = made.map_or(new_name.as_str(), |made| made.name.as_str());
        self.exchange(&mut phases, Some(old), made_name, made.is_some_and(is_up));
        self.prove(&mut phases, made.map(|made| &made.restart), &self.service.restart);
        phases
    }

    /// A parked container back in the place of `old` (where it is still there), which is parked in turn.
    pub fn bring_back(&self, parked: &Container, old: Option<&Container>) -> Phases {
        let mut phases = Phases::default();
        self.exchange(&mut phases, old, &parked.name, is_up(parked));
        self.prove(&mut phases, Some(&parked.restart), &declared_restart(parked));
        phases
    }

    /// The twin of a container that is about to be replaced, beside it; nothing that `found`, as an earlier try left it, has.
    pub fn twin(&self, old: &Container, twin: &Twin, why: &str, found: Option<&Container>) -> Vec<Step> {
        let name = names::twin_name(&self.service.container, self.deploy);
        let whose = || Some(TwinOf::Container(old.id.clone()));
        let mut steps = Vec::new();
        if found.is_none() {
            let action = Action::Create {
                name: name.clone(),
                image: twin.image.parse().unwrap_or_else(|_| self.service.image.clone()),
                image_id: Some(twin.image_id.clone()),
                spec: twin.digest(),
                purpose: Purpose::Serve,
                predecessor: None,
                from: None,
                volumes: Vec::new(),
                twin: whose(),
            };
            steps.push(self.step(why, action));
        }
        for (network, _) in twin.joins_later() {
            if !found.is_some_and(|found| found.addresses.contains_key(network)) {
                let (container, network) = (name.clone(), network.clone());
                steps.push(self.step(why, Action::Connect { container, network, twin: whose() }));
            }
        }
        steps
    }

    /// What a container was, made once more, in the place of `old` (where one is there), which is parked. `made` is what an
    /// interrupted run made already.
    pub fn make_again(&self, again: &Again<'_>, old: Option<&Container>, made: Option<&Container>) -> Phases {
        let mut phases = Phases::default();
        let twin = again.twin;
        let own_name = || names::new_name(&self.service.container, self.deploy);
        let name = made.map_or_else(own_name, |made| made.name.clone());
        let whose = Some(TwinOf::Kept(again.name.to_owned()));
        if made.is_none() {
            let (image, name) = (again.image.clone(), name.clone());
            if again.lacks_its_name {
                let action = Action::Tag { image_id: twin.image_id.clone(), image: image.clone() };
                phases.prepare.push(self.step("it is held under a name of tarsup's alone", action));
            }
            let action = Action::Create {
                name,
                image,
                image_id: Some(twin.image_id.clone()),
                spec: twin.digest(),
                purpose: Purpose::Serve,
                predecessor: old.map(|old| old.id.clone()),
                from: old.map(|old| old.image.clone()),
                volumes: Vec::new(),
                twin: whose.clone(),
            };
            phases.prepare.push(self.step(self.cause, action));
        }
        for (network, _) in twin.joins_later() {
            if !made.is_some_and(|made| made.addresses.contains_key(network)) {
                let (container, network) = (name.clone(), network.clone());
                let cause = format!("it was on `{network}` too");
                let action = Action::Connect { container, network, twin: whose.clone() };
                phases.prepare.push(self.step(&cause, action));
            }
        }
        self.exchange(&mut phases, old, &name, made.is_some_and(is_up));
        self.prove(&mut phases, made.map(|made| &made.restart), &twin.restart);
        phases
    }

    /// Starts a container that is there and stopped.
    pub fn start(&self, container: &Container) -> Phases {
        let mut phases = Phases::default();
        if !is_up(container) {
            phases.swap.push(self.step(self.cause, Action::Start { container: container.name.clone() }));
        }
        self.prove(&mut phases, Some(&container.restart), &self.service.restart);
        phases
    }

    /// Stops and starts the same container.
    pub fn restart(&self, container: &Container) -> Phases {
        let mut phases = Phases::default();
        phases.swap.push(self.stop(container, self.cause));
        phases.swap.push(self.step(self.cause, Action::Start { container: container.name.clone() }));
        phases.prove.push(self.gate("the restarted container must prove itself"));
        phases
    }

    /// Stops a container and takes its restart policy away: it stays under its name.
    pub fn park(&self, container: &Container) -> Phases {
        let mut phases = Phases::default();
        let why = "`always` would start a stopped container again at the next boot";
        phases.swap.extend(self.set_restart(&container.name, &container.restart, &RestartPolicy::no(), why));
        phases.swap.push(self.stop(container, self.cause));
        phases
    }

    fn stop(&self, container: &Container, cause: &str) -> Step {
        self.step(cause, Action::Stop { container: container.name.clone(), grace: self.service.stop_grace })
    }

    fn prepare(
        &self,
        phases: &mut Phases,
        name: &str,
        image: &EngineImage,
        made: Option<&Container>,
        old: Option<&Container>,
    ) {
        if made.is_none() {
            phases.prepare.push(self.step(
                self.cause,
                Action::Create {
                    name: name.to_owned(),
                    image: self.service.image.clone(),
                    image_id: (!image.id.is_empty()).then(|| image.id.clone()),
                    spec: self.service.spec(),
                    purpose: Purpose::Serve,
                    predecessor: old.map(|old| old.id.clone()),
                    from: old.map(|old| old.image.clone()),
                    volumes: old.map(|old| carried_volumes(self.service, image, old)).unwrap_or_default(),
                    twin: None,
                },
            ));
        }
        let name = made.map_or(name, |made| made.name.as_str());
        for Endpoint { network, .. } in self.service.declaration.joins_later() {
            if !made.is_some_and(|made| made.addresses.contains_key(network)) {
                let (container, network) = (name.to_owned(), network.clone());
                let cause = format!("it is declared on `{network}` too");
                phases.prepare.push(self.step(&cause, Action::Connect { container, network, twin: None }));
            }
        }
    }

    /// Old out, new in. Never both up: two writers under one address.
    fn exchange(&self, phases: &mut Phases, old: Option<&Container>, new: &str, new_is_up: bool) {
        if let Some(old) = old {
            let why = "`always` would start a parked container again at the next boot";
            phases.swap.extend(self.set_restart(&old.name, &old.restart, &RestartPolicy::no(), why));
            if is_up(old) {
                phases.swap.push(self.stop(old, "its successor takes its address and ports"));
            }
            let parked = names::old_name(&self.service.container, self.deploy);
            if old.name != parked {
                let action = Action::Rename { container: old.name.clone(), to: parked };
                phases.swap.push(self.step("it is kept until its successor is proven", action));
            }
        }
        if new != self.service.container {
            let action = Action::Rename { container: new.to_owned(), to: self.name() };
            phases.swap.push(self.step("it takes its place", action));
        }
        if !new_is_up {
            phases.swap.push(self.step(self.cause, Action::Start { container: self.name() }));
        }
    }

    fn prove(&self, phases: &mut Phases, now: Option<&RestartPolicy>, declared: &RestartPolicy) {
        phases.prove.push(self.gate("it must prove itself before anything else is touched"));
        let now = now.cloned().unwrap_or_else(RestartPolicy::no);
        phases.settle.extend(self.set_restart(&self.service.container, &now, declared, "it is proven"));
    }

    /// What the record says of this service.
    pub fn touched(&self, before: Option<&Container>, after: After) -> Touched {
        Touched {
            service: self.service.name.clone(),
            container: self.name(),
            role: self.service.role,
            before: before.map(|before| Before {
                id: before.id.clone(),
                name: before.name.clone(),
                running: is_up(before),
                restart: before.restart.clone(),
                started_at: before.started_at.clone(),
                instead: None,
            }),
            after,
            grace: self.service.stop_grace,
        }
    }
}

/// Anonymous volumes of the predecessor, as `volume:path`, where the successor mounts nothing with a name: it would
/// otherwise begin with an empty one.
fn carried_volumes(service: &Service, image: &EngineImage, old: &Container) -> Vec<String> {
    Mounts::of_container(old).handed_on(&service.declaration.mounts().with_image(image))
}
