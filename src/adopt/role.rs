//! What a container is in the framework, guessed from its environment and its processes. A person is shown the guess.

use crate::engine::Container;
use crate::secretive::Secretive;
use crate::tars::Role;
use crate::tars::catalogue::Service;

/// One of these must be set at the first start of the official images of MySQL and MariaDB.
const DATABASE: [&str; 10] = [
    "MYSQL_ROOT_PASSWORD",
    "MYSQL_ROOT_PASSWORD_FILE",
    "MYSQL_ALLOW_EMPTY_PASSWORD",
    "MYSQL_RANDOM_ROOT_PASSWORD",
    "MARIADB_ROOT_PASSWORD",
    "MARIADB_ROOT_PASSWORD_FILE",
    "MARIADB_ROOT_PASSWORD_HASH",
    "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD",
    "MARIADB_ALLOW_EMPTY_PASSWORD",
    "MARIADB_RANDOM_ROOT_PASSWORD",
];

/// The role, and what speaks for it.
pub fn guess(container: &Container, processes: &[String]) -> (Option<Role>, String) {
    by_environment(container).or_else(|| by_processes(processes)).map_or_else(
        || (None, "nothing says that it is a part of TARS".to_owned()),
        |(role, why)| (Some(role), why),
    )
}

/// What its processes say against the role; nothing where it does not run.
pub fn doubt(role: Option<Role>, processes: &[String]) -> Option<String> {
    let (seen, why) = by_processes(processes)?;
    // A slave starts its services as a master does; which ones run is told best by its environment.
    let fits = role == Some(seen) || role == Some(Role::Master) && seen == Role::Slave;
    (!fits).then(|| {
        let guessed = role.map_or("no role", Role::name);
        format!(
            "it looks like {guessed}, and {why}, as a {} does: correct `role` if that is wrong",
            seen.name()
        )
    })
}

fn by_environment(container: &Container) -> Option<(Role, String)> {
    let value = |name: &str| container.env.filled(name).map(Secretive::expose);
    let of_tars = ["SLAVE", "REBUILD", "INET", "DOMAIN"].iter().find(|name| value(name).is_some());
    if let (Some(_), Some(of_tars)) = (value("MYSQL_HOST"), of_tars) {
        return Some(match value("SLAVE") {
            Some("true") => (Role::Slave, "`MYSQL_HOST` is set, and `SLAVE` is true".to_owned()),
            Some(_) => (Role::Master, "`MYSQL_HOST` is set, and `SLAVE` is not true".to_owned()),
            None => (Role::Master, format!("`MYSQL_HOST` and `{of_tars}` are set, and no `SLAVE`")),
        });
    }
    for name in ["WEB_HOST", "TARS_REGISTRY_ADDRESS"] {
        if value(name).is_some() {
            return Some((Role::Node, format!("`{name}` is set")));
        }
    }
    let name = DATABASE.iter().find(|name| value(name).is_some() && value("MYSQL_HOST").is_none())?;
    Some((Role::Database, format!("`{name}` is set, and no `MYSQL_HOST`")))
}

fn by_processes(processes: &[String]) -> Option<(Role, String)> {
    // The name of a program, with or without a path.
    let runs = |program: &str| {
        processes.iter().any(|line| {
            line.split_whitespace().next().is_some_and(|first| first.rsplit('/').next() == Some(program))
        })
    };
    let of = |role: Role, program: &str| runs(program).then(|| (role, format!("it runs {program}")));
    of(Role::Master, Service::AdminRegistry.name())
        .or_else(|| of(Role::Slave, Service::Registry.name()))
        .or_else(|| of(Role::Node, Service::Node.name()))
        .or_else(|| of(Role::Database, "mysqld"))
        .or_else(|| of(Role::Database, "mariadbd"))
}
