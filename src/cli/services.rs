//! `tarsup services`: what is deployed where, what it does, and what a restart of each node would interrupt.

use clap::Args;
use serde_json::json;

use super::framework::{ask, running_master};
use super::options::DeploymentOptions;
use super::rollout::{connect, desired, run};
use super::{Failure, Outcome, Ui};
use crate::deploy::Desired;
use crate::deploy::services::Services;
use crate::diagnose::Exit;
use crate::engine::docker::DockerEngine;
use crate::tars::Instance;

/// What is deployed on the nodes, and what a restart of each would interrupt
#[derive(Debug, Args)]
pub struct ServicesArgs {
    #[command(flatten)]
    deployment: DeploymentOptions,
    /// The framework's own services too
    #[arg(long)]
    all: bool,
}

/// Asks the running master's tars-init, and shows it.
pub fn services(args: &ServicesArgs, ui: &Ui) -> Outcome {
    let desired = desired(&args.deployment, ui)?;
    run(ui, async {
        let engine = connect(&args.deployment).await?;
        let services = of_cluster(&engine, &desired).await?.unwrap_or_default();
        let shown = |instance: &&Instance| args.all || !instance.is_framework();
        ui.result(&told(&services, shown));
        let instances: Vec<_> = services
            .instances
            .iter()
            .filter(shown)
            .map(|one| {
                let mut value = json!(one);
                value["state"] = services.state(one).into();
                value["only"] = services.is_only(one).into();
                value
            })
            .collect();
        ui.json(&json!({
            "deployment": desired.deployment, "services": instances, "drains": services.drains,
            "interrupted": services.interrupted(),
        }));
        Ok(Exit::Done)
    })
}

/// What is deployed in the cluster, as the running master tells; nothing where its tars-init is too old to.
pub(super) async fn of_cluster(
    engine: &DockerEngine,
    desired: &Desired,
) -> Result<Option<Services>, Failure> {
    let master = running_master(engine, desired).await?;
    let report = ask(engine, &master, &["cluster", "--json", "--facts"]).await?;
    Ok(serde_json::from_value(report["facts"].clone()).ok())
}

fn told(services: &Services, shown: impl Fn(&&Instance) -> bool) -> String {
    let mut lines = Vec::new();
    let mut before = "";
    for one in services.instances.iter().filter(shown) {
        if one.server != before {
            let all = || services.instances.iter().filter(|other| other.server == one.server);
            let serving = all().filter(|other| other.serves()).count();
            lines.push(format!("{}  {serving} of {} serve", one.server, all().count()));
            before = &one.server;
        }
        let only = if services.is_only(one) { "  the only one: silent while its node restarts" } else { "" };
        let set = one.set.as_ref().map(|set| format!("  set {set}")).unwrap_or_default();
        let version = if one.version.is_empty() { "-" } else { &one.version };
        lines.push(format!("  {:<16}  {:<10}  {}{set}{only}", one.node, version, services.state(one)));
    }
    if lines.is_empty() {
        return "no service is deployed on any node".to_owned();
    }
    lines.push("a restart interrupts:".to_owned());
    for (node, silent) in services.interrupted() {
        let names: Vec<&str> = silent.into_iter().collect();
        let what = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        lines.push(format!("  {node:<16}  {what}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_states_and_what_is_interrupted() {
        let one = |server: &str, node: &str, flow: bool| Instance {
            server: server.to_owned(),
            node: node.to_owned(),
            setting: true,
            present: true,
            flow,
            lives: true,
            version: "1.2".to_owned(),
            ..Instance::default()
        };
        let instances = vec![
            one("Demo.A", "172.25.0.5", true),
            one("Demo.A", "172.25.0.6", false),
            one("Demo.B", "172.25.0.6", true),
            one("tars.tarslog", "172.25.0.3", true),
        ];
        let services = Services { instances, drains: Vec::new() };
        assert_eq!(
            told(&services, |one| !one.is_framework()),
            "Demo.A  1 of 2 serve\n\
             \x20 172.25.0.5        1.2         serves  the only one: silent while its node restarts\n\
             \x20 172.25.0.6        1.2         not handed out\n\
             Demo.B  1 of 1 serve\n\
             \x20 172.25.0.6        1.2         serves  the only one: silent while its node restarts\n\
             a restart interrupts:\n\
             \x20 172.25.0.5        Demo.A\n\
             \x20 172.25.0.6        Demo.B"
        );
        assert_eq!(told(&Services::default(), |_| true), "no service is deployed on any node");
    }
}
