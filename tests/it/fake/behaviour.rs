//! How containers behave in the fake engine.

use std::time::Duration;

use super::tools::Tools;

/// How containers of an image behave; the default starts at once, answers healthy and never dies.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How long after its start it answers healthy; `None`: never.
    pub healthy_after: Option<Duration>,
    /// How long after its start it exits by itself, and with which code.
    pub dies: Option<(Duration, i64)>,
    /// True where the image has a health check.
    pub health_check: bool,
    /// The exit code of a run whose entrypoint ends in `migrate`.
    pub migrate_exit: i64,
    /// What `tars-init migrate --dry-run` answers: exit code and text, on stderr where it failed.
    pub dry_run: (i64, String),
    /// What its `tars-init migrate` saves first, a line each; `None` where it is of an older tarsup, and saves nothing.
    pub saves: Option<Vec<String>>,
    /// The document that it ends with.
    pub migrated: String,
    /// The value that it brings into the only template, where it brings one: by `migrate`, and at its start.
    pub ships: Option<&'static str>,
    /// What `tars-init keep-columns --all` ends with, asked or run: exit code and document.
    pub kept: (i64, String),
    /// What its start changes in the database, as its probe tells it.
    pub changes: serde_json::Value,
    /// False where its tarsnode answers, and registers with nobody.
    pub registers: bool,
    /// False where it has no tars-init (upstream's image): no exec finds one.
    pub has_init: bool,
    /// How long after its start the database is away, for as long as nobody brings it back.
    pub takes_database: Option<Duration>,
    /// The version that its tars-init puts into its documents.
    pub protocol: u32,
    /// The database's own tools in it.
    pub tools: Tools,
    /// What was published in it over the image's own: service and version.
    pub published: Vec<(String, String)>,
    /// What its `tars-init runnable` finds: server and why.
    pub cannot_run: Vec<(String, String)>,
    /// The exit code of that.
    pub runnable_exit: i64,
    /// What its `tars-init shared-memory`, or its shell, tells before the `end`; `None` where it has neither.
    pub shared: Option<String>,
    /// What its probe says that is deployed there, and whether it serves; `None` where it does not tell.
    pub deployed: Option<Vec<(&'static str, bool)>>,
    /// What of it answers from outside, each so long after a start; the others do so by the word of their tarsnode alone.
    pub outside: Vec<(&'static str, Duration)>,
    /// How long it takes to stop; killed (137) where the grace period ends before.
    pub stops_after: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            healthy_after: Some(Duration::ZERO),
            dies: None,
            health_check: false,
            migrate_exit: 0,
            saves: Some(vec!["a row".to_owned(), "another".to_owned()]),
            migrated: "{\"version\":1}".to_owned(),
            dry_run: (0, "{\"version\":1,\"dry_run\":true}".to_owned()),
            ships: None,
            kept: (0, "{\"version\":1,\"kept\":[],\"not_kept\":[]}".to_owned()),
            changes: serde_json::Value::Null,
            registers: true,
            has_init: true,
            takes_database: None,
            protocol: 2,
            tools: Tools::default(),
            published: Vec::new(),
            cannot_run: Vec::new(),
            runnable_exit: 0,
            shared: Some(String::new()),
            deployed: Some(Vec::new()),
            outside: Vec::new(),
            stops_after: Duration::ZERO,
        }
    }
}
