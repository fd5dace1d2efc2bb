//! What a file of an image is, by its path and by what the lists know of it.

use serde::Serialize;

use super::layers::File;
use crate::contents::{Kind, Offers};
use crate::paths::ImagePathBuf;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// What is run.
    Program,
    /// What programs are loaded with.
    Library,
    /// A file with settings.
    Configuration,
    /// A profile template: a configuration that the database keeps.
    Template,
    /// Statements for the database.
    Sql,
    /// What a shell or another interpreter reads.
    Script,
    /// A file of the web console.
    Web,
    /// Anything else.
    Other,
}

impl FileKind {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Link => "link",
            Self::Program => "program",
            Self::Library => "library",
            Self::Configuration => "configuration",
            Self::Template => "template",
            Self::Sql => "SQL",
            Self::Script => "script",
            Self::Web => "web file",
            Self::Other => "file",
        }
    }
}

/// The part with the web console.
pub(super) const WEB: &str = "web";
/// Where templates lie, below the framework's folder.
const TEMPLATES: &str = "sql/template/";
/// What files with settings end with.
const SETTINGS: [&str; 10] =
    ["cfg", "cnf", "conf", "env", "ini", "json", "properties", "toml", "yaml", "yml"];
/// What files for an interpreter end with.
const SCRIPTS: [&str; 8] = ["bash", "bat", "js", "lua", "pl", "py", "rb", "sh"];

/// What a file of this part is. `offers`: what the list of the image knows of machine code.
pub(super) fn of(part: &str, path: &ImagePathBuf, file: &File, offers: Option<&Offers>) -> FileKind {
    match file.kind {
        Kind::Folder => return FileKind::Folder,
        Kind::Link => return FileKind::Link,
        Kind::File => {}
    }
    if let Some(offers) = offers {
        if offers.libraries.contains_key(path) {
            return FileKind::Library;
        }
        if offers.programs.contains_key(path) {
            return FileKind::Program;
        }
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let end = name.rsplit_once('.').map_or("", |(_, end)| end).to_ascii_lowercase();
    let is_run = file.mode & 0o111 != 0;
    if end == "sql" {
        FileKind::Sql
    } else if part == WEB {
        FileKind::Web
    } else if path.contains(TEMPLATES) {
        FileKind::Template
    } else if name.starts_with("lib") && (end == "so" || name.contains(".so.")) {
        FileKind::Library
    } else if SETTINGS.contains(&end.as_str()) {
        FileKind::Configuration
    } else if SCRIPTS.contains(&end.as_str()) {
        FileKind::Script
    } else if is_run
        && folder.rsplit('/').next().is_some_and(|last| matches!(last, "bin" | "sbin" | "libexec"))
    {
        FileKind::Program
    } else {
        FileKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn kind_is_told_by_path_and_mode() {
        let print = Digest::of("");
        let file = |mode| File {
            kind: Kind::File,
            size: 1,
            mode,
            uid: 0,
            gid: 0,
            capabilities: None,
            layer: 0,
            print,
        };
        for (part, path, mode, kind) in [
            ("tarsstat", "usr/local/app/tars/tarsstat/bin/tarsstat", 0o755, FileKind::Program),
            ("tarsstat", "usr/local/app/tars/tarsstat/bin/notes", 0o644, FileKind::Other),
            ("tarsstat", "usr/local/app/tars/tarsstat/util/start.sh", 0o755, FileKind::Script),
            (
                "deploy",
                "x/framework/conf/tarslog/conf/tars.tarslog.config.conf",
                0o644,
                FileKind::Configuration,
            ),
            ("deploy", "x/framework/sql/template/tars.default", 0o644, FileKind::Template),
            ("deploy", "x/framework/sql/db_tars.sql", 0o644, FileKind::Sql),
            ("web", "x/web/config/x.conf", 0o644, FileKind::Web),
            ("web", "x/web/sql/db.sql", 0o644, FileKind::Sql),
            ("base", "usr/lib/libz.so.1.2.13", 0o644, FileKind::Library),
            ("base", "usr/lib/libz.so", 0o644, FileKind::Library),
            ("base", "usr/lib/libz.a", 0o644, FileKind::Other),
        ] {
            let path = ImagePathBuf::parse(path).unwrap();
            assert_eq!(of(part, &path, &file(mode), None), kind, "{path}");
        }
    }
}
