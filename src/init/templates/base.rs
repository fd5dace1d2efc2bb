//! `tarsup.t_template`: what each template's keys were shipped as when they were merged last.

use std::collections::BTreeMap;

use super::merge::{KeyPath, Values};
use crate::init::database::{DatabaseError, Session};
use crate::init::history::{self, RecordTable};
use crate::init::start_log::StartLog;

/// What was shipped last, by template.
pub struct ShippedTemplates {
    templates: BTreeMap<String, Values>,
    version: String,
    place: RecordTable,
}

impl ShippedTemplates {
    pub fn read(session: &mut Session, version: &str) -> Result<Self, DatabaseError> {
        let mut base =
            Self { templates: BTreeMap::new(), version: version.to_owned(), place: RecordTable::NotYetMade };
        if !history::has(session, "t_template")? {
            return Ok(base);
        }
        base.place = RecordTable::Made;
        let query = "SELECT name, shipped FROM tarsup.t_template";
        let rows: Vec<(String, String)> = session.rows("reading tarsup.t_template", query, ())?;
        for (name, shipped) in rows {
            // What cannot be read counts as not recorded.
            let pairs: Vec<(KeyPath, String)> = serde_json::from_str(&shipped).unwrap_or_default();
            base.templates.insert(name, pairs.into_iter().collect());
        }
        Ok(base)
    }

    /// What was shipped of this template; nothing where that was never recorded.
    pub fn of(&self, name: &str) -> Values {
        self.templates.get(name).cloned().unwrap_or_default()
    }

    /// Records what is shipped now.
    pub fn record(
        &mut self,
        session: &mut Session,
        name: &str,
        shipped: &Values,
        log: &StartLog,
    ) -> Result<(), DatabaseError> {
        if self.templates.get(name) == Some(shipped) {
            return Ok(());
        }
        if self.place == RecordTable::NotYetMade {
            self.make(session, log)?;
        }
        if self.place == RecordTable::Denied {
            return Ok(());
        }
        let pairs: Vec<(&KeyPath, &String)> = shipped.iter().collect();
        let document = serde_json::to_string(&pairs).unwrap_or_default();
        session.run_with(
            &format!("recording the template {name}"),
            "REPLACE INTO tarsup.t_template (name, version, shipped, recorded_at) VALUES (?, ?, ?, NOW())",
            (name, &self.version, document),
        )?;
        self.templates.insert(name.to_owned(), shipped.clone());
        Ok(())
    }

    fn make(&mut self, session: &mut Session, log: &StartLog) -> Result<(), DatabaseError> {
        let definition = "(name VARCHAR(128) NOT NULL PRIMARY KEY, version VARCHAR(64) NOT NULL, shipped MEDIUMTEXT NOT NULL, \
                          recorded_at DATETIME NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8 \
                          COMMENT='what the keys of each template were shipped as'";
        self.place = history::make(session, "t_template", definition, "the shipped templates", Some(log))?;
        Ok(())
    }
}
