//! What was published through the web console over an image's own programs: it lies in the container's own layer, and the
//! container that takes its place brings the image's again, which may be older.

use std::time::Duration;

use serde::Deserialize;

use super::step::{After, Plan};
use crate::deploy::Desired;
use crate::engine::Engine;
use crate::tars::Role;
use crate::tars::catalogue::INIT_PATH;

/// What is asked in each container that a plan replaces.
const QUESTION: [&str; 3] = [INIT_PATH, "published", "--json"];
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What `tars-init published --json` prints.
#[derive(Debug, Deserialize)]
struct Document {
    services: Vec<Published>,
}

#[derive(Debug, Deserialize)]
struct Published {
    service: String,
    version: Option<String>,
}

/// A question for each container of the plan in which something was published. One without a tars-init that answers this
/// tells nothing, and is asked nothing more.
pub(super) async fn questions(engine: &dyn Engine, plan: &Plan, desired: &Desired) -> Vec<String> {
    let mut questions = Vec::new();
    for touched in &plan.touched {
        let replaced = matches!(touched.after, After::Made | After::Parked { .. });
        let before = touched.before.as_ref().filter(|before| before.running && replaced);
        let (Some(before), Some(Role::Master | Role::Slave)) = (before, touched.role) else { continue };
        let Ok(output) = engine.exec(&before.id, &QUESTION, TIMEOUT).await else { continue };
        let Ok(document) = serde_json::from_str::<Document>(output.stdout.trim()) else { continue };
        if document.services.is_empty() {
            continue;
        }
        let what: Vec<String> = document.services.iter().map(Published::words).collect();
        let image = desired.service(&touched.service).map(|service| service.image.to_string());
        let image = match &touched.after {
            After::Made => image.unwrap_or_default(),
            _ => "the image that comes back".to_owned(),
        };
        questions.push(format!(
            "`{}` runs {}, published over its image's own: those of {image} take their place, and may be older. Replace \
             them all the same?",
            touched.service,
            what.join(", ")
        ));
    }
    questions
}

impl Published {
    fn words(&self) -> String {
        match &self.version {
            Some(version) => format!("{} {version}", self.service),
            None => self.service.clone(),
        }
    }
}
