//! `tarsup templates`, `tarsup accept-database`: what the framework's own tars-init is asked or told, in a container of it.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::options::DeploymentOptions;
use super::rollout::{connect, desired, run};
use super::{Failure, Outcome, Ui};
use crate::deploy::Desired;
use crate::deploy::observed::LABEL_DEPLOYMENT;
use crate::diagnose::{Diagnose, Exit};
use crate::engine::{Container, CreateBody, DockerEngine, Engine as _, EngineError, Status};
use crate::tars::Role;
use crate::tars::catalogue::INIT_PATH;

/// How long one answer may take: a database may be slow, and templates are few.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Profile templates: what waits, what is in conflict
#[derive(Debug, Args)]
pub struct TemplatesArgs {
    #[command(flatten)]
    deployment: DeploymentOptions,
    #[command(subcommand)]
    what: Option<TemplatesCommand>,
}

/// What is done about one template.
#[derive(Debug, Subcommand)]
enum TemplatesCommand {
    /// Show the keys of a template that differ from this version's
    Diff {
        /// The template
        name: String,
    },
    /// Take this version's values for the keys that wait, also where business services inherit them
    Take {
        /// The template
        name: String,
    },
    /// Keep the values of the database; the keys wait no more
    Keep {
        /// The template
        name: String,
    },
}

/// Renew the stamp in the volume: the database was changed on purpose
#[derive(Debug, Args)]
pub struct AcceptDatabaseArgs {
    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// Why the framework was not asked, or did not do it.
#[derive(Debug, thiserror::Error)]
enum FrameworkError {
    #[error("the deployment `{0}` declares no master")]
    NoMaster(String),
    #[error("the master's container `{0}` is not there")]
    Absent(String),
    #[error("the master's container `{0}` does not run")]
    Stopped(String),
    #[error("the tars-init in `{container}` says: {said}")]
    Refused { container: String, said: String },
    #[error("`{name}` is no template of this version")]
    Unknown { name: String },
}

impl Diagnose for FrameworkError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unknown { .. } | Self::NoMaster(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoMaster(_) => "name the file of the deployment that has the master, with -f".to_owned(),
            Self::Absent(_) | Self::Stopped(_) => "start it with `tarsup up`".to_owned(),
            Self::Refused { .. } => {
                "an image of an older tarsup does not know this: build it anew".to_owned()
            }
            Self::Unknown { .. } => "`tarsup templates` lists those that differ".to_owned(),
        })
    }
}

/// Lists, shows, takes or keeps.
pub fn templates(args: &TemplatesArgs, ui: &Ui) -> Outcome {
    let desired = desired(&args.deployment, ui)?;
    run(ui, async {
        let engine = connect(&args.deployment).await?;
        let master = running_master(&engine, &desired).await?;
        let words: Vec<&str> = match &args.what {
            None | Some(TemplatesCommand::Diff { .. }) => vec!["templates", "--json"],
            Some(TemplatesCommand::Take { name }) => vec!["templates", "take", name],
            Some(TemplatesCommand::Keep { name }) => vec!["templates", "keep", name],
        };
        let mut report = ask(&engine, &master, &words).await?;
        if let Some(TemplatesCommand::Diff { name }) = &args.what {
            only(&mut report, name)?;
        }
        ui.result(&told(&report));
        ui.json(&json!({"deployment": desired.deployment, "templates": report}));
        Ok(Exit::Done)
    })
}

/// Tells tars-init, in a container with the master's volumes, to forget which database it was on.
pub fn accept_database(args: &AcceptDatabaseArgs, ui: &Ui) -> Outcome {
    let desired = desired(&args.deployment, ui)?;
    run(ui, async {
        let engine = connect(&args.deployment).await?;
        let master = master(&engine, &desired).await?;
        let name = format!("{}.accept", desired.deployment);
        let labels = BTreeMap::from([(LABEL_DEPLOYMENT, desired.deployment.clone())]);
        let body = json!({
            "Image": master.image_id, "Entrypoint": [INIT_PATH, "accept-database"], "Cmd": [], "Labels": labels,
            "HostConfig": {"VolumesFrom": [master.id], "NetworkMode": "none"},
        });
        let body = CreateBody(body.as_object().cloned().unwrap_or_default());
        remove_left_over(&engine, &desired.deployment, &name).await?;
        engine.create_container(&name, &body).await?;
        let done = async {
            engine.start_container(&name).await?;
            let code = engine.wait_container(&name).await?;
            Ok::<_, EngineError>((code, engine.logs(&name, 5).await.unwrap_or_default()))
        }
        .await;
        engine.remove_container(&name).await?;
        let (code, said) = done?;
        if code != 0 {
            return Err(FrameworkError::Refused { container: name, said: said.trim().to_owned() }.into());
        }
        ui.result(&format!("{}: the next start takes the database as it finds it", master.name));
        ui.json(&json!({"deployment": desired.deployment, "accepted": master.name}));
        Ok(Exit::Done)
    })
}

/// Removes what a command that was killed here left: a container of this name and with the deployment's label is of nobody else.
async fn remove_left_over(engine: &DockerEngine, deployment: &str, name: &str) -> Result<(), EngineError> {
    let Some(found) = engine.inspect_container(name).await? else { return Ok(()) };
    if found.labels.get(LABEL_DEPLOYMENT).is_none_or(|label| label != deployment) {
        return Ok(());
    }
    if found.status == Status::Running {
        // It ends by itself, in a moment.
        engine.wait_container(&found.id).await?;
    }
    engine.remove_container(&found.id).await
}

/// The container of the master, whatever it does.
async fn master(engine: &DockerEngine, desired: &Desired) -> Result<Container, Failure> {
    let service = desired.services.iter().find(|service| service.role == Some(Role::Master));
    let service = service.ok_or_else(|| FrameworkError::NoMaster(desired.deployment.clone()))?;
    let found = engine.inspect_container(&service.container).await?;
    Ok(found.ok_or_else(|| FrameworkError::Absent(service.container.clone()))?)
}

/// The same, which runs.
pub(super) async fn running_master(engine: &DockerEngine, desired: &Desired) -> Result<Container, Failure> {
    let master = master(engine, desired).await?;
    if master.status == Status::Running {
        Ok(master)
    } else {
        Err(FrameworkError::Stopped(master.name).into())
    }
}

/// Asks its tars-init for a document.
pub(super) async fn ask(
    engine: &DockerEngine,
    container: &Container,
    words: &[&str],
) -> Result<Value, Failure> {
    let command: Vec<&str> = std::iter::once(INIT_PATH).chain(words.iter().copied()).collect();
    let output = engine.exec(&container.id, &command, TIMEOUT).await?;
    let last = output.stdout.lines().last().unwrap_or_default();
    match serde_json::from_str(last) {
        Ok(report) if output.exit_code == 0 => Ok(report),
        _ => {
            let said = output.stderr.lines().chain(output.stdout.lines()).next().unwrap_or("nothing");
            let (container, said) =
                (container.name.clone(), said.trim_start_matches("tars-init: ").to_owned());
            Err(FrameworkError::Refused { container, said }.into())
        }
    }
}

/// Leaves what concerns one template; an error where the image has none of that name.
fn only(report: &mut Value, name: &str) -> Result<(), FrameworkError> {
    let is_known = report["all"].as_array().is_some_and(|all| all.iter().any(|it| it == name));
    if !is_known {
        return Err(FrameworkError::Unknown { name: name.to_owned() });
    }
    for (list, items) in report.as_object_mut().into_iter().flatten() {
        if let Value::Array(items) = items {
            items.retain(|item| match item.as_str() {
                Some(text) => text == name || (list != "all" && text.starts_with(&format!("{name} "))),
                None => item["template"] == name,
            });
        }
    }
    Ok(())
}

/// The report as a person reads it.
fn told(report: &Value) -> String {
    let list = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let mut lines: Vec<String> = Vec::new();
    for name in list("added") {
        lines.push(format!("{}: the database lacks it", name.as_str().unwrap_or_default()));
    }
    for key in list("keys") {
        lines.push(format!("{}: missing, and added by the next start", key.as_str().unwrap_or_default()));
    }
    for (kind, words) in [
        ("taken_out", "taken out by somebody, and not needed as far as is known"),
        (
            "needed",
            "taken out by somebody, and this version ships another value of it: `tarsup templates take` or `keep`",
        ),
        ("unreadable", "no TARS configuration, and left as it is"),
    ] {
        lines.extend(list(kind).iter().filter_map(Value::as_str).map(|key| format!("{key}: {words}")));
    }
    for (kind, words) in [
        ("changed", "follows this version"),
        ("waiting", "waits: `tarsup templates take` or `keep`"),
        ("conflicts", "edited, and this version changes it"),
    ] {
        for item in list(kind) {
            let text = |key: &str| item[key].as_str().unwrap_or_default();
            let (template, key, own, shipped) = (text("template"), text("key"), text("own"), text("shipped"));
            let services: Vec<&str> =
                item["services"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let inherited = match services.len() {
                0 => String::new(),
                count => format!(
                    " (inherited by {}{})",
                    services[..count.min(3)].join(", "),
                    if count > 3 { format!(" and {} more", count - 3) } else { String::new() }
                ),
            };
            lines.push(format!("{template} {key}: {own}, shipped {shipped}: {words}{inherited}"));
        }
    }
    if lines.is_empty() { "every template is as this version ships it".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Value {
        let key = |template: &str| json!({"template": template, "key": "tars/x", "own": "1", "shipped": "2", "services": ["A.B", "C.D", "E.F", "G.H"]});
        json!({
            "all": ["tars.default", "tars.tarsnode"], "added": [], "keys": ["tars.tarsnode tars/new"], "changed": [],
            "waiting": [key("tars.default")], "conflicts": [key("tars.tarsnode")],
        })
    }

    #[test]
    fn report_is_told_by_key() {
        assert_eq!(
            told(&report()),
            "tars.tarsnode tars/new: missing, and added by the next start\n\
             tars.default tars/x: 1, shipped 2: waits: `tarsup templates take` or `keep` (inherited by A.B, C.D, E.F and 1 \
             more)\n\
             tars.tarsnode tars/x: 1, shipped 2: edited, and this version changes it (inherited by A.B, C.D, E.F and 1 more)"
        );
        assert_eq!(told(&json!({})), "every template is as this version ships it");
    }

    #[test]
    fn diff_shows_one_template_and_refuses_one_that_is_none() {
        let mut one = report();
        only(&mut one, "tars.tarsnode").unwrap();
        assert_eq!((one["waiting"].as_array().unwrap().len(), one["keys"].as_array().unwrap().len()), (0, 1));
        assert!(only(&mut report(), "tars.nothing").is_err());
    }
}
