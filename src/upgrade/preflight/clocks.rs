//! Clocks and time zones: a registry compares rows of the database with its own local time, and a lease is judged by this
//! machine's clock.

use std::collections::BTreeMap;

use crate::deploy::facts::{Clock, DatabaseClock};
use crate::deploy::{Desired, Observed};
use crate::tars::Role;
use crate::upgrade::finding::{About, Findings};

/// How many seconds two clocks may be apart.
const APART: i64 = 5;
const MISSES: &str =
    "a registry compares rows of the database with its own local time, and misses changes for up to an hour";

/// Judges what the clocks told; nothing where nobody asked them.
pub(super) fn check(desired: &Desired, observed: &Observed, findings: &mut Findings) {
    let facts = &observed.facts;
    let database = facts.cluster.as_ref().and_then(|told| told.as_ref().ok()).and_then(|told| told.clock);
    let engine = database.map(|clock| clock.database - clock.own).filter(|ahead| ahead.abs() > APART);
    if let Some(ahead) = engine {
        findings.ask(
            About::Clocks,
            format!(
                "the clock of the database is {} that of the containers, and {MISSES}. Go on all the same?",
                words(ahead)
            ),
        );
    }
    if let Some(ahead) = facts.clocks.values().map(|clock| clock.ahead).max_by_key(|ahead| ahead.abs())
        && ahead.abs() > APART
    {
        findings.note(
            About::Clocks,
            format!(
                "the clock of the containers is {} this machine's, by which it is judged whether somebody still holds the \
                 deployment",
                words(ahead)
            ),
        );
    }
    if let Some(database) = database {
        zones(desired, &facts.clocks, database, findings);
    }
}

/// The zone of each container against the database's. Only a registry reads local times of the database.
fn zones(
    desired: &Desired,
    clocks: &BTreeMap<String, Clock>,
    database: DatabaseClock,
    findings: &mut Findings,
) {
    let of = |is_registry: bool| -> Vec<String> {
        let differ = clocks.iter().filter(|(_, clock)| clock.zone != database.zone);
        let fits = |name: &str| {
            let role = desired.service(name).and_then(|service| service.role);
            matches!(role, Some(Role::Master | Role::Slave)) == is_registry
        };
        differ
            .filter(|(name, _)| fits(name))
            .map(|(name, clock)| format!("`{name}` ({})", zone(clock.zone)))
            .collect()
    };
    let (registries, others, theirs) = (of(true), of(false), zone(database.zone));
    let mount = "mount /etc/localtime in each, or give each the same `TZ`";
    if !registries.is_empty() {
        let registries = registries.join(", ");
        findings.ask(
            About::Clocks,
            format!(
                "the time zone of {registries} is not the database's ({theirs}), and {MISSES}: {mount}. Go on all the same?"
            ),
        );
    }
    if !others.is_empty() {
        let others = others.join(", ");
        findings.note(
            About::Clocks,
            format!("the time zone of {others} is not the database's ({theirs}): {mount}"),
        );
    }
}

fn words(ahead: i64) -> String {
    let word = if ahead < 0 { "behind" } else { "ahead of" };
    format!("{} s {word}", ahead.abs())
}

/// `+0800`
fn zone(seconds: i64) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}{:02}", minutes / 60, minutes % 60)
}
