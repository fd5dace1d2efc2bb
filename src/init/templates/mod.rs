//! Profile templates: they follow the binaries key by key, and never lose what an administrator wrote.
//!
//! A template that the database lacks is inserted. One that is there is merged ([`merge`]): by itself only where nothing but
//! the framework's own services use it; of a template that business services inherit, which tarsnode renders into them at
//! each of their starts, missing keys are added and changed values wait for a person.

mod base;
mod merge;
mod take_back;
mod upstream;

pub use take_back::{TakenBack, take_back};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Serialize;

use super::database::{DB_TARS, DatabaseError, Session};
use super::paths::{self, Paths};
use super::render::{self, Substitution};
use super::start_log::StartLog;
use super::touched::Touched;
use crate::diagnose::first_few;
use crate::tars::conf;
use base::ShippedTemplates;
use merge::{KeyDifference, Marks, Merge, Values, merge};

const DUPLICATE_KEY: u16 = 1062;
/// What is shown in the place of a secret.
const SECRET: &str = "***";

/// What was done, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The templates of this version.
    pub all: Vec<String>,
    /// Templates that the database lacked.
    pub added: Vec<String>,
    /// Keys that were added to a template, as `TEMPLATE BLOCK/.../KEY`.
    pub keys: Vec<String>,
    /// Keys that follow the image.
    pub changed: Vec<KeyReport>,
    /// Keys that an administrator edited and this version changes: kept.
    pub conflicts: Vec<KeyReport>,
    /// Keys that wait for a person, as business services inherit them.
    pub waiting: Vec<KeyReport>,
    /// Templates in which a path of an earlier version is mended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mended: Vec<String>,
    /// Keys that somebody took out, and that the framework's services do without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taken_out: Vec<String>,
    /// Keys that the framework's services of this version may need, and that nothing gives them: somebody took them out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needed: Vec<String>,
    /// Templates of the framework's services that are no TARS configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// Template → services that ran and use it, as `APPLICATION.SERVER at NODE`: what changed reaches them at their next start.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub readers: BTreeMap<String, Vec<String>>,
    /// The texts that were changed, as they were.
    #[serde(skip)]
    pub touched: BTreeMap<String, String>,
}

/// A key whose value in the database is not the one of this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    /// The template.
    pub template: String,
    /// `BLOCK/.../KEY`
    pub key: String,
    /// The value in the database (before).
    pub own: String,
    /// The value of this version.
    pub shipped: String,
    /// The business services that inherit it, as `APPLICATION.SERVER`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

/// The parent that upstream gives to a template.
pub fn parent(template: &str) -> &'static str {
    match template {
        "tars.springboot" => "tars.tarsjava.default",
        "tars.tarsAdminRegistry"
        | "tars.tarsconfig"
        | "tars.tarsnotify"
        | "tars.tarsproperty"
        | "tars.tarsqueryproperty"
        | "tars.tarsquerystat"
        | "tars.tarsregistry"
        | "tars.tarsstat" => "tars.framework-db",
        _ => "tars.default",
    }
}

/// A template of the database.
struct StoredTemplate {
    parent: String,
    profile: String,
}

/// What is done about the templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// What a start or a migration does.
    Merge,
    /// Nothing: what a merge would do is only told.
    Show,
    /// The keys of this template that wait are taken, also where business services inherit them.
    Take(&'a str),
    /// They stay, and wait no more.
    Keep(&'a str),
}

impl Wish<'_> {
    fn concerns(self, template: &str) -> bool {
        match self {
            Self::Merge | Self::Show => true,
            Self::Take(name) | Self::Keep(name) => name == template,
        }
    }
}

/// Brings the database's templates to those of the image. The caller holds the lock. Where something was `saved`, no other
/// text than that is changed.
pub fn migrate(
    session: &mut Session,
    paths: &Paths,
    substitution: &Substitution,
    version: Option<&str>,
    wish: Wish<'_>,
    saved: Option<&Touched>,
    log: &StartLog,
) -> Result<Report, DatabaseError> {
    let mut held = held(session)?;
    let mut report = Report::default();
    if wish == Wish::Merge {
        report.mended = mend_upload_path(session, paths, &mut held, &mut report.touched)?;
        if !report.mended.is_empty() {
            let names = report.mended.join(", ");
            log.say(format!("UPLOAD_PATH, rendered wrongly by an earlier version, is mended in {names}"));
        }
    }
    let users = Users::of(session, &held)?;
    let mut base = ShippedTemplates::read(session, version.unwrap_or_default())?;
    let marks = Marks::new(paths);
    let all = names(paths)?;
    if let Wish::Take(name) | Wish::Keep(name) = wish
        && !all.contains(name)
    {
        return Err(DatabaseError::Unfit(format!("the image has no template {name}")));
    }
    report.all = all.iter().cloned().collect();
    for name in all.into_iter().filter(|name| wish.concerns(name)) {
        let path = paths.deploy("sql").join("template").join(&name);
        let unfit = |what: String| DatabaseError::Unfit(format!("the template {}: {what}", path.display()));
        let text = fs::read_to_string(&path).map_err(|error| unfit(error.to_string()))?;
        let rendered = substitution.apply(&text).map_err(|error| unfit(error.to_string()))?;
        let rendered_values = conf::pairs(&rendered).map_err(|error| unfit(error.to_string()))?;
        let shipped = marks.of(conf::pairs(&text).map_err(|error| unfit(error.to_string()))?);
        let Some(stored) = held.get(&name) else {
            if wish == Wish::Show || insert(session, &name, &rendered)? {
                report.added.push(name.clone());
            }
            if wish == Wish::Show {
                continue;
            }
            base.record(session, &name, &shipped, log)?;
            continue;
        };
        let Ok(own) = conf::pairs(&stored.profile) else {
            log.say(format!("the template {name} of the database is no TARS configuration: left as it is"));
            if users.framework.contains(&name) {
                report.unreadable.push(name.clone());
            }
            continue;
        };
        let services = users.business.get(&name).cloned().unwrap_or_default();
        let is_inherited = !services.is_empty() && !matches!(wish, Wish::Take(_));
        let mut merged = merge(&name, &marks.of(own), &shipped, &base.of(&name), is_inherited);
        if !users.framework.contains(&name) {
            merged.taken_out.append(&mut merged.needed);
        }
        merged.needed.retain(|path| !is_inherited_from_a_parent(&held, stored, path));
        if wish == Wish::Show {
            report.note(&name, merged, &services);
            continue;
        }
        if matches!(wish, Wish::Take(_)) {
            merged.take(shipped);
        } else if matches!(wish, Wish::Keep(_)) {
            merged.keep(shipped);
        }
        let values = merged.to_put(&rendered_values);
        let is_saved = |saved: &Touched| {
            saved
                .templates
                .get(&name)
                .is_none_or(|text| report.mended.contains(&name) || *text == stored.profile)
        };
        if !values.is_empty() && !report.mended.contains(&name) {
            report.touched.insert(name.clone(), stored.profile.clone());
        }
        if saved.is_none_or(is_saved) && update(session, &name, stored, &values)? {
            base.record(session, &name, &merged.base, log)?;
            if let Some(running) = users.running.get(&name).filter(|_| !merged.changed.is_empty()) {
                report.readers.insert(name.clone(), running.clone());
            }
            report.note(&name, merged, &services);
        } else {
            log.say(format!("the template {name} was edited just now: the next start merges it"));
        }
    }
    report.say(log);
    Ok(report)
}

impl Report {
    /// Leaves out those that are about to be started anyway.
    pub fn forget_readers_at(&mut self, node: &str) {
        let own = format!(" at {node}");
        self.readers.values_mut().for_each(|readers| readers.retain(|reader| !reader.ends_with(&own)));
        self.readers.retain(|_, readers| !readers.is_empty());
    }

    fn note(&mut self, template: &str, merged: Merge, services: &[String]) {
        let report = |difference: KeyDifference| {
            let key = difference.path.join("/");
            // A template may hold a password of somebody's own.
            let is_secret =
                ["pass", "pwd", "secret", "token"].iter().any(|word| key.to_lowercase().contains(word));
            let shown = |value: String| if is_secret { SECRET.to_owned() } else { value };
            let (own, shipped) = (shown(difference.own), shown(difference.shipped));
            KeyReport { template: template.to_owned(), key, own, shipped, services: services.to_vec() }
        };
        self.keys.extend(merged.added.iter().map(|path| format!("{template} {}", path.join("/"))));
        self.changed.extend(merged.changed.into_iter().map(report));
        let named = |path: &Vec<String>| format!("{template} {}", path.join("/"));
        self.taken_out.extend(merged.taken_out.iter().map(named));
        self.needed.extend(merged.needed.iter().map(named));
        self.conflicts.extend(merged.conflicts.into_iter().map(report));
        self.waiting.extend(merged.waiting.into_iter().map(report));
    }

    fn say(&self, log: &StartLog) {
        if !self.added.is_empty() {
            log.say(format!("{} templates added: {}", self.added.len(), self.added.join(", ")));
        }
        for key in &self.keys {
            log.say(format!("template key added: {key}"));
        }
        for KeyReport { template, key, own, shipped, .. } in &self.changed {
            log.say(format!("template key follows this version: {template} {key}: {own} → {shipped}"));
        }
        for (template, readers) in &self.readers {
            log.say(format!("{template} is read at their next start by {}", first_few(readers)));
        }
        for KeyReport { template, key, own, shipped, .. } in &self.conflicts {
            log.say(format!(
                "warning: {template} {key} stays {own}, as edited; this version ships {shipped}"
            ));
        }
        for KeyReport { template, key, own, shipped, services } in &self.waiting {
            log.say(format!(
                "{template} {key} stays {own}, as {} services inherit it; this version ships {shipped}",
                services.len()
            ));
        }
        for key in &self.needed {
            log.say(format!(
                "warning: somebody took {key} out, and this version ships another value of it: `tarsup templates take` puts \
                 it back, `keep` says that it is not needed"
            ));
        }
    }
}

/// The templates in which the account `user` has another password than this. tarsnode renders them into the services that it
/// starts; a start fills in new ones alone.
pub fn with_another_password(
    session: &mut Session,
    user: &str,
    password: &str,
) -> Result<Vec<String>, DatabaseError> {
    let differs = |template: &StoredTemplate| {
        let Ok(values) = conf::pairs(&template.profile) else { return false };
        values.iter().any(|(path, value)| {
            let Some((key, blocks)) = path.split_last() else { return false };
            let beside = |key: &str| values.get(&[blocks, &[key.to_owned()]].concat());
            let names: Vec<&str> = blocks.iter().map(String::as_str).collect();
            render::is_database(&names)
                && key == "dbpass"
                && value != password
                && beside("dbuser").is_some_and(|known| known == user)
        })
    };
    Ok(held(session)?.into_iter().filter(|(_, template)| differs(template)).map(|(name, _)| name).collect())
}

/// All templates of the database.
fn held(session: &mut Session) -> Result<BTreeMap<String, StoredTemplate>, DatabaseError> {
    if session.only_asks() && !session.tables(DB_TARS)?.contains("t_profile_template") {
        return Ok(BTreeMap::new());
    }
    let query = "SELECT template_name, COALESCE(parents_name, ''), COALESCE(profile, '') FROM db_tars.t_profile_template";
    let rows: Vec<(String, String, String)> = session.rows("reading the templates", query, ())?;
    Ok(rows.into_iter().map(|(name, parent, profile)| (name, StoredTemplate { parent, profile })).collect())
}

/// Who uses a template, or a template below it.
#[derive(Default)]
struct Users {
    /// Template → business services.
    business: BTreeMap<String, Vec<String>>,
    /// The templates of the framework's own services.
    framework: BTreeSet<String>,
    /// Template → services that run, as `APPLICATION.SERVER at NODE`.
    running: BTreeMap<String, Vec<String>>,
}

impl Users {
    fn of(session: &mut Session, held: &BTreeMap<String, StoredTemplate>) -> Result<Self, DatabaseError> {
        let mut users = Self::default();
        if session.only_asks() && !session.tables(DB_TARS)?.contains("t_server_conf") {
            return Ok(users);
        }
        let query = "SELECT COALESCE(NULLIF(template_name, ''), 'tars.default'), application, \
                     CONCAT(application, '.', server_name), IF(present_state = 'active', node_name, '') \
                     FROM db_tars.t_server_conf ORDER BY 3, 4";
        let rows: Vec<(String, String, String, String)> =
            session.rows("asking who uses the templates", query, ())?;
        for (template, application, service, node) in rows {
            for template in with_parents(held, &template) {
                if !node.is_empty() {
                    let running = users.running.entry(template.clone()).or_default();
                    running.push(format!("{service} at {node}"));
                }
                if application == "tars" {
                    users.framework.insert(template);
                } else {
                    users.business.entry(template).or_default().push(service.clone());
                }
            }
        }
        // A service has a row a node.
        users.business.values_mut().for_each(Vec::dedup);
        Ok(users)
    }
}

/// A template and those that it inherits from, nearest first. Parents may go round in a circle: an administrator writes them.
fn with_parents(held: &BTreeMap<String, StoredTemplate>, template: &str) -> Vec<String> {
    let mut line = vec![template.to_owned()];
    while let Some(stored) = line.last().and_then(|last| held.get(last)) {
        if stored.parent.is_empty() || line.contains(&stored.parent) {
            break;
        }
        line.push(stored.parent.clone());
    }
    line
}

fn is_inherited_from_a_parent(
    held: &BTreeMap<String, StoredTemplate>,
    stored: &StoredTemplate,
    path: &[String],
) -> bool {
    with_parents(held, &stored.parent).iter().any(|parent| {
        let pairs = held.get(parent).and_then(|parent| conf::pairs(&parent.profile).ok());
        pairs.is_some_and(|pairs| pairs.contains_key(path))
    })
}

/// True where it was inserted by this call.
fn insert(session: &mut Session, name: &str, profile: &str) -> Result<bool, DatabaseError> {
    let inserted = session.run_with(
        &format!("adding the template {name}"),
        "INSERT INTO db_tars.t_profile_template (template_name, parents_name, profile, posttime, lastuser) \
         VALUES (?, ?, ?, NOW(), 'admin')",
        (name, parent(name), profile),
    );
    match inserted {
        Err(error) if error.number() == Some(DUPLICATE_KEY) => Ok(false),
        inserted => inserted.map(|()| true),
    }
}

/// False where somebody edited it since it was read.
fn update(
    session: &mut Session,
    name: &str,
    held: &StoredTemplate,
    values: &Values,
) -> Result<bool, DatabaseError> {
    if values.is_empty() {
        return Ok(true);
    }
    let profile = conf::put(&held.profile, values)
        .map_err(|error| DatabaseError::Unfit(format!("the template {name} of the database: {error}")))?;
    session.run_with(
        &format!("merging the template {name}"),
        "UPDATE db_tars.t_profile_template SET profile = ?, posttime = NOW(), lastuser = 'admin' \
         WHERE template_name = ? AND BINARY profile = ?",
        (&profile, name, &held.profile),
    )?;
    if session.only_asks() {
        return Ok(true);
    }
    let query =
        "SELECT COUNT(*) FROM db_tars.t_profile_template WHERE template_name = ? AND BINARY profile = ?";
    Ok(session.number(&format!("reading the template {name}"), query, (name, &profile))? > 0)
}

/// Mends what an earlier tarsup rendered: it took `UPLOAD_PATH` for the folder of the packages itself, so that every publish
/// looked for them in `patchs/patchs`. Returns the names of the templates, sorted.
fn mend_upload_path(
    session: &mut Session,
    paths: &Paths,
    held: &mut BTreeMap<String, StoredTemplate>,
    touched: &mut BTreeMap<String, String>,
) -> Result<Vec<String>, DatabaseError> {
    let right = paths::text(&paths.patchs());
    let wrong = format!("{right}/patchs/");
    let right = format!("{right}/");
    let mut mended = Vec::new();
    for (name, stored) in held.iter_mut().filter(|(_, stored)| stored.profile.contains(&wrong)) {
        session.run_with(
            &format!("mending UPLOAD_PATH in the template {name}"),
            "UPDATE db_tars.t_profile_template SET profile = REPLACE(profile, ?, ?) WHERE template_name = ?",
            (&wrong, &right, name),
        )?;
        touched.insert(name.clone(), stored.profile.clone());
        stored.profile = stored.profile.replace(&wrong, &right);
        mended.push(name.clone());
    }
    Ok(mended)
}

fn names(paths: &Paths) -> Result<BTreeSet<String>, DatabaseError> {
    let folder = paths.deploy("sql").join("template");
    let entries = fs::read_dir(&folder)
        .map_err(|error| DatabaseError::Unfit(format!("the image's {}: {error}", folder.display())))?;
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_those_of_upstream() {
        assert_eq!(parent("tars.springboot"), "tars.tarsjava.default");
        assert_eq!(parent("tars.tarsregistry"), "tars.framework-db");
        for name in ["tars.default", "tars.framework-db", "tars.tarsnode", "tars.tarslog", "tars.tarspatch"] {
            assert_eq!(parent(name), "tars.default");
        }
    }
}
