//! What was done to the schemas, or would be: for the document of a migration.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::sql::{Statement, StatementKind};
use super::touched::Touched;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `db_tars` was made or finished by this run.
    pub installed_tars: bool,
    /// What the installed schemas lacked and have now.
    pub added: Vec<String>,
    /// What differs from a fresh installation and stays, each with the reason.
    pub kept: Vec<String>,
    /// What of it binds programs of before, which know nothing of it.
    pub binds: Vec<String>,
    /// What was changed of what was there.
    #[serde(skip)]
    pub touched: Touched,
    /// The tables that were made, as `SCHEMA.TABLE`, each with its columns, both in lower case.
    #[serde(skip)]
    pub made: BTreeMap<String, BTreeSet<String>>,
}

impl Report {
    /// Notes the tables that these statements make.
    pub fn note_tables<'a>(&mut self, schema: &str, statements: impl Iterator<Item = &'a Statement>) {
        for statement in statements {
            if let StatementKind::CreateTable { table, columns, .. } = &statement.kind {
                let columns = columns.iter().map(|column| column.name.to_lowercase()).collect();
                self.made.insert(format!("{schema}.{table}").to_lowercase(), columns);
            }
        }
    }
}
