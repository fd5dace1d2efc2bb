//! The image's SQL files, all of them read and judged before a database is asked anything: a file that is refused stops
//! a start or a migration at its beginning, with nothing sent and nothing half done.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::tars::Role;

use super::database::DB_TARS;
use super::failure::{Code, Failure};
use super::paths::Paths;
use super::sql::{self, FilePurpose, Statement, StatementKind};
use super::upgrade_conf::{self, Upgrade};

/// A schema, and the file of the image that makes its tables (two have none: the services make theirs).
const SCHEMAS: [(&str, Option<&str>); 7] = [
    (DB_TARS, Some("db_tars.sql")),
    ("tars_stat", None),
    ("tars_property", None),
    ("db_tars_web", Some("db_tars_web.sql")),
    ("db_user_system", Some("db_user_system.sql")),
    ("db_cache_web", Some("db_cache_web.sql")),
    ("db_base", Some("db_base.sql")),
];

/// tarslog's rows, which belong to a new database and to it alone.
pub const LOG_FILE: &str = "tars_servers_logs.sql";

/// What brings the schemas to this image's version.
#[derive(Clone, Debug)]
pub struct SchemaScripts {
    /// Each schema that the image knows, in upstream's order.
    pub schemas: Vec<SchemaScript>,
    /// The columns that `tars_upgrade.conf` adds.
    pub upgrades: Vec<Upgrade>,
}

/// A schema and the statements that fill it.
#[derive(Clone, Debug)]
pub struct SchemaScript {
    /// Its name.
    pub schema: &'static str,
    /// The statements; `None` where the services make the tables themselves.
    pub statements: Option<Vec<Statement>>,
}

/// A file that registers a node.
#[derive(Clone, Debug)]
pub struct RowScript {
    /// Its name, for messages.
    pub file: &'static str,
    /// Its statements, with this node's address and version.
    pub statements: Vec<Statement>,
}

impl SchemaScripts {
    /// Reads the files. A schema without its file is left out: an image without the web has none of the web's.
    pub fn read(paths: &Paths) -> Result<Self, Failure> {
        let mut schemas = Vec::new();
        for (schema, file) in SCHEMAS {
            let Some(file) = file else {
                schemas.push(SchemaScript { schema, statements: None });
                continue;
            };
            let path = schema_file(paths, file);
            let Some(text) = text(&path, schema == DB_TARS)? else { continue };
            schemas
                .push(SchemaScript { schema, statements: Some(judged(&path, &text, FilePurpose::Schema)?) });
        }
        let path = path(paths, "tars_upgrade.conf");
        let upgrades = match text(&path, false)? {
            Some(text) => upgrade_conf::read(&text).map_err(|why| refused(&path, &why))?,
            None => Vec::new(),
        };
        Ok(Self { schemas, upgrades })
    }
}

/// Reads the files that register this node, in upstream's order: tarslog's are for a new database and stand first.
pub fn of_node(
    paths: &Paths,
    role: Role,
    substituted: impl Fn(&str) -> String,
) -> Result<Vec<RowScript>, Failure> {
    let files: &[&str] = match role {
        Role::Master => &[LOG_FILE, "tars_servers_master.sql", "tars_servers.sql", "tars_node_init.sql"],
        _ => &["tars_servers.sql", "tars_node_init.sql"],
    };
    files
        .iter()
        .map(|file| {
            let path = path(paths, file);
            let text = substituted(&text(&path, true)?.unwrap_or_default());
            Ok(RowScript { file, statements: judged(&path, &text, FilePurpose::Registration)? })
        })
        .collect()
}

/// The rows that upstream's files take out at each start, at every node: table and condition. They are of services as they
/// were before they spoke TARS's own protocol.
pub fn outdated(paths: &Paths) -> Result<Vec<(String, String)>, Failure> {
    let scripts = of_node(paths, Role::Master, str::to_owned)?;
    let statements = scripts.into_iter().flat_map(|script| script.statements);
    let rows = statements.filter_map(|statement| match statement.kind {
        StatementKind::Delete(text) => {
            let (table, condition) = text.strip_prefix("DELETE FROM ")?.split_once(" WHERE ")?;
            Some((table.to_owned(), condition.to_owned()))
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// The web's files come with the web; an installer's tree that somebody merged them into has them beside the framework's.
fn schema_file(paths: &Paths, file: &str) -> PathBuf {
    let of_the_web = paths.web().join("sql").join(file);
    if of_the_web.is_file() { of_the_web } else { path(paths, file) }
}

fn path(paths: &Paths, file: &str) -> PathBuf {
    paths.deploy("sql").join(file)
}

fn text(path: &Path, is_needed: bool) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound && !is_needed => Ok(None),
        Err(error) => Err(Failure::new(
            Code::Configuration,
            format!("the image's {} cannot be read: {error}.", path.display()),
            "Nothing was sent to the database. Build the image with the `deploy` and `web` of its version.",
        )),
    }
}

fn judged(path: &Path, text: &str, purpose: FilePurpose) -> Result<Vec<Statement>, Failure> {
    sql::judge(text, purpose).map_err(|refusal| refused(path, &refusal))
}

fn refused(path: &Path, refusal: &sql::SqlRefusal) -> Failure {
    Failure::new(
        Code::Configuration,
        format!("the image's {}, {refusal}.", path.display()),
        "Nothing was sent to the database. tars-init sends what adds or keeps, and never what takes away (docs/start.md \
         has the list). Mend the file in `deploy`, build the image again; what an administrator must do once is done by \
         hand.",
    )
}
