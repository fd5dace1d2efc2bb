//! `tars-init migrate`: one run of a new image before the first swap brings schemas and templates forward, adding only.

use super::boot;
use super::database::{self, Server};
use super::environment::{Environment, ImageRole};
use super::failure::{Code, Failure};
use super::guard;
use super::lock::InstallLock;
use super::paths::Paths;
use super::scripts::SchemaScripts;
use super::signals::Stop;
use super::story::Story;

/// Installs an empty server, else adds what this version adds. Starts nothing, and registers no node: the container
/// that runs this has an address of its own for the moment.
pub fn run(paths: &Paths, stop: &Stop, story: &Story) -> Result<(), Failure> {
    guard::check()?;
    let environment = Environment::read(ImageRole::Framework)?;
    let Some(account) = &environment.database else {
        return Err(Failure::new(Code::Environment, "a node has no database to migrate.", ""));
    };
    let scripts = SchemaScripts::read(paths)?;
    let server = Server::of(account).for_work(environment.patience, story);
    let version = environment.version.as_deref();
    let mut greeting = boot::Greeting::default();
    database::patiently(story, stop, environment.patience, &server, || {
        let mut session = greeting.connect(&server, story)?;
        let _lock = InstallLock::take(&server)?;
        boot::bring_forward(&server, account, &mut session, &scripts, paths, version, None, story)
    })?;
    story.say(format!("the database is at version {}", version.unwrap_or("of this image")));
    Ok(())
}
