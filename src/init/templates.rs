//! Profile templates: inserted where the name is missing, never changed; an administrator may have edited them.

use std::collections::BTreeSet;
use std::fs;

use super::database::{DatabaseError, Session};
use super::paths::{self, Paths};
use super::render::Substitution;

const DUPLICATE_KEY: u16 = 1062;

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

/// Adds the image's templates whose names the database lacks; returns those names, sorted.
pub fn add_missing(
    session: &mut Session,
    paths: &Paths,
    substitution: &Substitution,
) -> Result<Vec<String>, DatabaseError> {
    let query = "SELECT template_name FROM db_tars.t_profile_template";
    let present: Vec<String> = session.rows("listing the templates", query, ())?;
    let present: BTreeSet<String> = present.into_iter().collect();
    let mut added = Vec::new();
    for name in names(paths)? {
        if present.contains(&name) {
            continue;
        }
        let path = paths.deploy("sql").join("template").join(&name);
        let unfit = |what: String| DatabaseError::Unfit(format!("the template {}: {what}", path.display()));
        let text = fs::read_to_string(&path).map_err(|error| unfit(error.to_string()))?;
        let profile = substitution.apply(&text).map_err(|error| unfit(error.to_string()))?;
        let written = session.run_with(
            &format!("adding the template {name}"),
            "INSERT INTO db_tars.t_profile_template (template_name, parents_name, profile, posttime, lastuser) \
             VALUES (?, ?, ?, NOW(), 'admin')",
            (&name, parent(&name), profile),
        );
        match written {
            Err(error) if error.number() == Some(DUPLICATE_KEY) => {}
            written => {
                written?;
                added.push(name);
            }
        }
    }
    Ok(added)
}

/// Mends what an earlier tarsup rendered: it took `UPLOAD_PATH` for the folder of the packages itself, so that every publish
/// looked for them in `patchs/patchs`. Returns the names of the templates, sorted.
pub fn mend_upload_path(session: &mut Session, paths: &Paths) -> Result<Vec<String>, DatabaseError> {
    let right = paths::text(&paths.patchs());
    let wrong = format!("{right}/patchs/");
    let query =
        "SELECT template_name FROM db_tars.t_profile_template WHERE LOCATE(?, profile) > 0 ORDER BY 1";
    let names: Vec<String> = session.rows("looking for a wrong UPLOAD_PATH", query, (&wrong,))?;
    for name in &names {
        session.run_with(
            &format!("mending UPLOAD_PATH in the template {name}"),
            "UPDATE db_tars.t_profile_template SET profile = REPLACE(profile, ?, ?) WHERE template_name = ?",
            (&wrong, format!("{right}/"), name),
        )?;
    }
    Ok(names)
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
