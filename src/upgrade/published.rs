//! What was published through the web console over an image's own programs: it lies in the container's own layer, and the
//! container that takes its place brings the image's again, which may be older.

use std::time::Duration;

use serde::Deserialize;

use super::state::by_id;
use super::step::{After, Plan, Touched};
use crate::deploy::{Desired, Observed, guard};
use crate::engine::Engine;
use crate::tars::Role;
use crate::tars::catalogue::INIT_PATH;

/// What is asked in each container that a plan replaces.
const QUESTION: [&str; 3] = [INIT_PATH, "published", "--json"];
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked of an image with upstream's start: each program beside the one that its start copied into place.
const COMPARE: &str = "cd /usr/local/tars/cpp/deploy/framework/servers || exit 3
for service in *; do
    own=$service/bin/$service there=/usr/local/app/tars/$service/bin/$service
    [ ! -f \"$own\" ] || [ ! -f \"$there\" ] || [ \"$(cksum <\"$own\")\" = \"$(cksum <\"$there\")\" ] || echo \"$service\"
done
echo end";
/// The same, which reads some hundred megabytes.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(30);

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

/// What is said of it.
#[derive(Default)]
pub(super) struct Told {
    /// Where something was published: one for each container.
    pub questions: Vec<String>,
    /// Where nobody could look.
    pub notes: Vec<String>,
}

/// Asks each master and slave whose programs a plan replaces. One of ours without a tars-init that answers this tells nothing,
/// and is asked nothing more; another image's is compared with what its start installs, which a restart does as well.
pub(super) async fn ask(engine: &dyn Engine, plan: &Plan, desired: &Desired, observed: &Observed) -> Told {
    let mut told = Told::default();
    for touched in &plan.touched {
        let before = touched.before.as_ref().filter(|before| before.running);
        let (Some(before), Some(Role::Master | Role::Slave)) = (before, touched.role) else { continue };
        let Some(found) = by_id(observed, &before.id) else { continue };
        let is_foreign = !guard::has_our_start(&found.raw["Config"]);
        if touched.after == After::Same && !is_foreign {
            continue;
        }
        let found =
            if is_foreign { compared(engine, &before.id).await } else { Ok(said(engine, &before.id).await) };
        match found {
            Ok(services) if services.is_empty() => {}
            Ok(services) => told.questions.push(question(touched, desired, &services)),
            Err(why) => told.notes.push(format!(
                "`{}` cannot be asked which programs were published over its image's own, which go with it: {why}",
                touched.service
            )),
        }
    }
    told
}

/// What a container's tars-init says.
async fn said(engine: &dyn Engine, container: &str) -> Vec<Published> {
    let output = engine.exec(container, &QUESTION, TIMEOUT).await;
    let document = output.ok().and_then(|output| serde_json::from_str::<Document>(output.stdout.trim()).ok());
    document.map(|document| document.services).unwrap_or_default()
}

/// What differs from the tree that upstream's start installs from.
async fn compared(engine: &dyn Engine, container: &str) -> Result<Vec<Published>, String> {
    let output = engine.exec(container, &["/bin/sh", "-c", COMPARE], COMPARE_TIMEOUT).await;
    let output = output.map_err(|error| error.to_string())?;
    let names = output.stdout.strip_suffix("end\n").filter(|_| output.exit_code == 0);
    let names = names.ok_or_else(|| "it has no tree of upstream's, or no shell to look with".to_owned())?;
    Ok(names.lines().map(|name| Published { service: name.to_owned(), version: None }).collect())
}

fn question(touched: &Touched, desired: &Desired, services: &[Published]) -> String {
    let what: Vec<String> = services.iter().map(Published::words).collect();
    let image = desired.service(&touched.service).map(|service| service.image.to_string());
    let image = match &touched.after {
        After::Made => image.unwrap_or_default(),
        After::Same => "the image, which its start installs anew,".to_owned(),
        After::Parked { .. } => "the image that comes back".to_owned(),
    };
    format!(
        "`{}` runs {}, published over its image's own: those of {image} take their place, and may be older. Replace \
         them all the same?",
        touched.service,
        what.join(", ")
    )
}

impl Published {
    fn words(&self) -> String {
        match &self.version {
            Some(version) => format!("{} {version}", self.service),
            None => self.service.clone(),
        }
    }
}
