//! Where a node's registries are: as its environment names them, as the web console knows them, as the volume remembers
//! them, or on the console's own host. Source: the entry of upstream's node image, which asks `/get_tarsnode`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::tars::{Service, ping};

use super::address;
use super::environment::{Endpoint, Locator};
use super::paths::Paths;
use super::signals::Stop;
use super::start_log::StartLog;
use super::web;

/// For the answer of one registry.
const REGISTRY: Duration = Duration::from_secs(1);
/// For the console's answer; it asks its database.
const CONSOLE: Duration = Duration::from_secs(3);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);
/// A console that starts beside its registry answers a moment later: so long no guess is taken for its answer.
const GUESS_AFTER: Duration = Duration::from_secs(4);
/// When the start log first says what is waited for; then with growing pauses.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// What upstream's installer script replaces by the registries.
const IN_SCRIPT: &str = "s/registryAddress/";
/// What stands before the registries in a configuration and in tarsnode's cache.
const IN_CONFIGURATION: &str = "tars.tarsregistry.QueryObj@";

/// The registries to go by: the first of the ways that gives one that answers. Where the environment names them, those,
/// whether they answer or not.
pub fn find(locator: &Locator, paths: &Paths, address: &str, stop: &Stop, log: &StartLog) -> Vec<Endpoint> {
    let Locator::Web { url, guess } = locator else { return known(locator, paths) };
    let (begun, mut next_word) = (Instant::now(), FIRST_WORD);
    loop {
        let guess = Some(guess).filter(|_| begun.elapsed() >= GUESS_AFTER);
        let found = stop.may_exit_during(|| first_that_answers(url, guess, paths, address));
        match found {
            Ok((registries, how)) => {
                log.say(format!("registries {how}: {}", Endpoint::list(&registries)));
                return registries;
            }
            Err(why) if begun.elapsed() >= next_word => {
                log.say(format!(
                    "tarsnode waits for a registry, none answers yet: {why} ({} s)",
                    begun.elapsed().as_secs()
                ));
                next_word = next_word * 2 + FIRST_WORD;
            }
            Err(_) => {}
        }
        stop.sleep(PAUSE);
    }
}

/// The registries without waiting: those of this container's start, else what the volume remembers, else the guess.
pub fn known(locator: &Locator, paths: &Paths) -> Vec<Endpoint> {
    match locator {
        Locator::Named(registries) => registries.clone(),
        Locator::Web { guess, .. } => {
            let own = fs::read_to_string(paths.own_conf(Service::Node)).ok().and_then(|text| listed(&text));
            own.or_else(|| remembered(paths)).unwrap_or_else(|| vec![guess.clone()])
        }
    }
}

/// Whether a registry answers; why not, in a few words.
pub fn ask(registry: &Endpoint) -> Result<(), String> {
    let at = address::socket(&registry.host, registry.port).map_err(|error| error.to_string())?;
    ping::ping(at, "tars.tarsregistry.QueryObj", REGISTRY).map_err(|error| error.to_string())
}

fn first_that_answers(
    url: &str,
    guess: Option<&Endpoint>,
    paths: &Paths,
    address: &str,
) -> Result<(Vec<Endpoint>, String), String> {
    let answers = |registries: &[Endpoint]| registries.iter().any(|registry| ask(registry).is_ok());
    let told = told_by_console(url, address);
    let why = match told {
        Ok(registries) if answers(&registries) => {
            return Ok((registries, format!("as the web console at {url} knows them")));
        }
        Ok(registries) => {
            format!("the web console at {url} names {}, and none answers", Endpoint::list(&registries))
        }
        Err(why) => format!("the web console at {url} cannot tell them ({why})"),
    };
    if let Some(registries) = remembered(paths).filter(|registries| answers(registries)) {
        return Ok((registries, format!("as the volume remembers them, as {why}")));
    }
    match guess {
        Some(guess) if ask(guess).is_ok() => {
            Ok((vec![guess.clone()], format!("guessed from WEB_HOST, as {why}")))
        }
        _ => Err(why),
    }
}

/// Upstream's console answers with a script that has them; what it wants to know of a node is in the question.
fn told_by_console(url: &str, address: &str) -> Result<Vec<Endpoint>, String> {
    if !url.starts_with("http://") {
        return Err("only plain HTTP is spoken here".to_owned());
    }
    let question = format!("{url}/get_tarsnode?ip={address}&runuser=root&registryAddress=");
    let script = web::get(&question, CONSOLE)?;
    in_script(&script).ok_or_else(|| "its answer names no registry".to_owned())
}

fn in_script(script: &str) -> Option<Vec<Endpoint>> {
    let (_, rest) = script.split_once(IN_SCRIPT)?;
    Endpoint::parse_list(rest.split('/').next()?)
}

/// What an earlier tarsnode left in the volume: its configuration, and the cache of what registries told it.
fn remembered(paths: &Paths) -> Option<Vec<Endpoint>> {
    let data = paths.data().join("tarsnode-data");
    let places: [PathBuf; 2] = [paths.generated_conf(Service::Node), data.join("tarsnode.tarsdat")];
    places.into_iter().find_map(|place| listed(&fs::read_to_string(place).ok()?))
}

fn listed(text: &str) -> Option<Vec<Endpoint>> {
    let (_, rest) = text.split_once(IN_CONFIGURATION)?;
    Endpoint::parse_list(rest.split(['\n', '>']).next()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::render;

    #[test]
    fn registries_stand_in_the_consoles_script_and_in_what_tarsnode_leaves() {
        let both = vec![Endpoint::registry("172.25.0.3"), Endpoint::registry("172.25.0.4")];
        let list = "tcp -h 172.25.0.3 -p 17890:tcp -h 172.25.0.4 -p 17890";
        let script =
            format!("echo \"registryAddress:{list}\"\nsed -i \"s/registryAddress/{list}/g\" x.conf\n");
        assert_eq!(in_script(&script), Some(both.clone()));
        // Upstream's console of a database without registries.
        assert_eq!(in_script("sed -i \"s/registryAddress//g\" x.conf"), None);
        assert_eq!(in_script("#!/bin/bash \n echo 'not tarsnode.tgz exists'"), None);

        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert_eq!(remembered(&paths), None);
        let cache = format!("<cache>\n  <tars.tarsregistry.QueryObj@{list}>\n    a=b\n");
        render::write(&paths.data().join("tarsnode-data/tarsnode.tarsdat"), &cache).unwrap();
        assert_eq!(remembered(&paths), Some(both.clone()));
        let web = Locator::Web { url: "http://fw".to_owned(), guess: Endpoint::registry("fw") };
        assert_eq!(known(&web, &paths), both);
        // As it comes with a package: nobody has filled it in.
        let packaged = "locator=tars.tarsregistry.QueryObj@registryAddress\n";
        render::write(&paths.own_conf(Service::Node), packaged).unwrap();
        assert_eq!(known(&web, &paths), both);
        let own = "locator = tars.tarsregistry.QueryObj@tcp -h 172.25.0.9 -p 17890\n";
        render::write(&paths.own_conf(Service::Node), own).unwrap();
        assert_eq!(known(&web, &paths), [Endpoint::registry("172.25.0.9")]);
    }
}
