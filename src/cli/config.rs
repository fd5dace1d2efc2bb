//! `tarsup config`: what tarsup understands of a deployment's files, secrets masked.

use clap::Args;
use serde_json::{Map, Value, json};

use super::options::DeploymentOptions;
use super::rollout::desired;
use super::{Outcome, Ui};
use crate::deploy::Desired;
use crate::deploy::desired::{DrainPolicy, Resource, Service};
use crate::diagnose::Exit;
use crate::engine::Variable;
use crate::secretive::Secretive;
use crate::tars::rebuild::{REBUILD, is_switch};
use crate::upgrade::mask::{Mask, is_plain};

/// Show what tarsup understands of the deployment's files, secrets masked; no engine is asked
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// Shows it: YAML for a person, JSON for a script.
pub fn config(args: &ConfigArgs, ui: &Ui) -> Outcome {
    let desired = desired(&args.deployment, ui)?;
    let document = document(&desired);
    if !ui.is_json() {
        ui.result(&serde_yaml::to_string(&document).unwrap_or_default());
    }
    ui.json(&document);
    Ok(Exit::Done)
}

fn document(desired: &Desired) -> Value {
    let services: Map<String, Value> =
        desired.services.iter().map(|service| (service.name.clone(), understood(service))).collect();
    let resources = |all: &[Resource]| -> Vec<String> { all.iter().map(|one| one.name.clone()).collect() };
    let policy = &desired.policy;
    json!({
        "name": desired.deployment,
        "files": desired.files,
        "services": services,
        "networks": resources(&desired.networks),
        "volumes": resources(&desired.volumes),
        "x-tars": {
            "batch": policy.batch,
            "gate_timeout": seconds(policy.gate_timeout),
            "services_timeout": seconds(policy.services_timeout),
            "dwell": seconds(policy.dwell),
            "drain": if policy.drain == DrainPolicy::Off { "off" } else { "auto" },
            "client_refresh": seconds(policy.client_refresh),
            "drain_timeout": seconds(policy.drain_timeout),
            "keep_parked": policy.keep_parked,
            "keep_images": policy.keep_images,
        },
    })
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}ms", duration.as_millis()).replace("000ms", "s")
}

/// A service: what it is to tarsup, and its container in the words of the engine's API.
fn understood(service: &Service) -> Value {
    let mut body = service.declaration.render().0;
    let environment = &service.declaration.environment;
    let is_shown = |name: &str, value: &Secretive| {
        value.is_empty() || if name == REBUILD { is_switch(value.expose()) } else { is_plain(name) }
    };
    let masked = |variable: &Variable| match &variable.value {
        Some(value) if !is_shown(&variable.name, value) => format!("{}=***", variable.name),
        _ => variable.expose(),
    };
    if body.contains_key("Env") {
        body.insert("Env".to_owned(), environment.0.iter().map(masked).collect::<Vec<_>>().into());
    }
    // A command or a label may hold what the environment holds.
    let mask = Mask::of_environments([environment]);
    let body = serde_json::from_str(&mask.hide(&Value::Object(body).to_string())).unwrap_or(Value::Null);
    json!({
        "place": service.place.to_string(),
        "container_name": service.container,
        "role": service.role.map(|role| role.to_string()),
        "image": service.image.to_string(),
        "stop_grace_period": seconds(service.stop_grace),
        "depends_on": service.depends_on,
        "container": body,
    })
}
