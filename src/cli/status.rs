//! `tarsup status`: what runs, as which image, since which deploy, and whether a deploy was cut off.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::options::DeploymentOptions;
use super::rollout::{STATE, connect, desired, run};
use super::services::of_cluster;
use super::table::aligned;
use super::{Outcome, Ui};
use crate::deploy::desired::Service;
use crate::deploy::observe::{Glance, observe_with};
use crate::deploy::observed::LABEL_DEPLOY;
use crate::deploy::{Desired, Observed};
use crate::diagnose::Exit;
use crate::engine::Container;
use crate::upgrade::DeployId;
use crate::upgrade::glance::{Ends, is_parked};
use crate::upgrade::journal;
use crate::upgrade::lock::{Holder, Standing, holder};
use crate::upgrade::owner::Owner;
use crate::upgrade::state::{is_parked_in_place, serving};
use crate::upgrade::unfinished::{Left, left_by};

/// Show what runs
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// One line of the table.
struct Row {
    name: String,
    role: String,
    state: String,
    health: Option<String>,
    image: String,
    digest: Option<String>,
    address: Option<String>,
    deploy: Option<String>,
}

/// Shows the deployment.
pub fn status(args: &StatusArgs, ui: &Ui) -> Outcome {
    let desired = desired(&args.deployment, ui)?;
    run(ui, async {
        let engine = connect(&args.deployment).await?;
        let state = desired.directory.join(STATE);
        let read = |deploy: Option<&DeployId>| journal::find(&state, &desired.deployment, deploy);
        let ends = Ends::new(&read);
        let glance =
            Glance { ended: &|deploy| ends.has_ended(deploy), is_parked: &is_parked, holds_lock: false };
        let observed = observe_with(&engine, &desired, &BTreeMap::new(), Some(glance)).await?;
        let holder = holder(&engine, &desired.deployment).await?;
        let rows: Vec<Row> =
            desired.services.iter().map(|service| row(&desired, &observed, service)).collect();
        ui.result(table(&rows).trim_end());
        let holder = holder.as_ref().map(|holder| (holder, standing(holder)));
        let left = if holder.is_none() { without_lock(&desired, &observed, ui) } else { None };
        if let Some((holder, standing)) = &holder {
            ui.result(&told(holder, *standing));
        }
        if let Some(left) = &left {
            ui.result(&format!(
                "\nthe deploy {} was interrupted ({}): run `tarsup resume`",
                left.id, left.sign
            ));
        }
        // Whoever works on it gives back what is drained.
        let drained = match &holder {
            Some((_, Standing::Held)) => None,
            _ => of_cluster(&engine, &desired).await.ok().flatten(),
        };
        for line in drained.iter().flat_map(|services| services.drained(&desired.deployment)) {
            ui.result(&format!("\n{line}"));
        }
        let works = holder.filter(|(_, standing)| *standing == Standing::Held);
        let interrupted = match (holder.filter(|(_, standing)| *standing != Standing::Held), &left) {
            (Some((holder, _)), _) => Some(held(holder)),
            (None, Some(left)) => {
                Some(json!({"deploy": left.id, "what": left.record.what, "sign": left.sign}))
            }
            (None, None) => None,
        };
        ui.json(&json!({
            "deployment": desired.deployment,
            "services": rows.iter().map(document).collect::<Vec<_>>(),
            "interrupted": interrupted,
            "drains": drained.map(|services| services.drains),
            "running": works.map(|(holder, _)| held(holder)),
        }));
        Ok(Exit::Done)
    })
}

/// A deploy that was cut off, and whose lock is gone.
fn without_lock(desired: &Desired, observed: &Observed, ui: &Ui) -> Option<Left> {
    let journal = journal::find(&desired.directory.join(STATE), &desired.deployment, None);
    left_by(desired, observed, journal, |text| ui.warn(text))
}

fn standing(holder: &Holder) -> Standing {
    holder.standing(&Owner::current(), OffsetDateTime::now_utc())
}

fn held(holder: &Holder) -> Value {
    json!({"deploy": holder.deploy, "what": holder.what, "by": holder.owner.who, "since": holder.since})
}

fn told(holder: &Holder, standing: Standing) -> String {
    let Holder { deploy, what, since, .. } = holder;
    let who = holder.named();
    match standing {
        Standing::Held => format!("\n{who} works on it since {since}: {what}, deploy {deploy}"),
        Standing::Dead | Standing::RunOut => {
            format!(
                "\nthe deploy {deploy} was interrupted ({what}, by {who}, begun {since}): run `tarsup resume`"
            )
        }
    }
}

fn row(desired: &Desired, observed: &Observed, service: &Service) -> Row {
    let role = service.role.map_or_else(|| "-".to_owned(), |role| role.name().to_owned());
    let name = service.name.clone();
    let Some(container) = serving(observed, &desired.deployment, service) else {
        let image = service.image.to_string();
        let state = "absent".to_owned();
        return Row { name, role, state, health: None, image, digest: None, address: None, deploy: None };
    };
    Row {
        name,
        role,
        state: state(container),
        health: container.health.map(|health| format!("{health:?}").to_lowercase()),
        image: container.image.clone(),
        digest: Some(container.image_id.clone()),
        address: container.addresses.values().find(|address| !address.is_empty()).cloned(),
        deploy: container.labels.get(LABEL_DEPLOY).cloned(),
    }
}

fn state(container: &Container) -> String {
    if is_parked_in_place(container) {
        return "down".to_owned();
    }
    format!("{:?}", container.status).to_lowercase()
}

fn document(row: &Row) -> Value {
    json!({
        "name": row.name, "role": row.role, "state": row.state, "health": row.health, "image": row.image,
        "digest": row.digest, "address": row.address, "deploy": row.deploy,
    })
}

fn table(rows: &[Row]) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let headings = ["SERVICE", "ROLE", "STATE", "HEALTH", "IMAGE", "ADDRESS", "DEPLOY"];
    let mut cells = vec![headings.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let (health, address, deploy) = (or_dash(&row.health), or_dash(&row.address), or_dash(&row.deploy));
        vec![
            row.name.clone(),
            row.role.clone(),
            row.state.clone(),
            health,
            row.image.clone(),
            address,
            deploy,
        ]
    }));
    aligned(&cells).join("\n") + "\n"
}
