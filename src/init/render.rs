//! The services' configuration: the image's templates with this container's addresses and accounts in them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::tars::Service;
use crate::tars::conf::{self, ConfError};

use super::account;
use super::environment::{Account, Endpoint};
use super::failure::{Code, Failure};
use super::paths::{self, Paths};

/// What the placeholders stand for.
#[derive(Clone, Debug)]
pub struct Substitution {
    /// This node's address: `localip.tars.com` and `registry.tars.com`.
    pub address: String,
    /// `registryAddress`: this node's registry first, then the others that live.
    pub registries: Vec<Endpoint>,
    /// What `dbhost`, `dbport` and `dbpass` are filled in from; a node has none.
    pub database: Option<Account>,
    /// `TARS_PATH`
    pub tars: String,
    /// `UPLOAD_PATH`
    pub upload: String,
}

impl Substitution {
    /// For a master or slave whose registry is its own, or a node with registries elsewhere.
    pub fn new(paths: &Paths, address: &str, database: Option<&Account>, registries: Vec<Endpoint>) -> Self {
        Self {
            address: address.to_owned(),
            registries,
            database: database.cloned(),
            tars: paths::text(&paths.tars()),
            upload: paths::text(&paths.upload()),
        }
    }

    /// A template with everything filled in.
    pub fn apply(&self, template: &str) -> Result<String, ConfError> {
        let text = conf::set(template, |path| if is_database(path) { self.account() } else { None })?;
        let registries: Vec<String> = self.registries.iter().map(Endpoint::to_string).collect();
        Ok(text
            .replace("TARS_PATH", &self.tars)
            .replace("UPLOAD_PATH", &self.upload)
            .replace("registry.tars.com", self.registry_host())
            .replace("localip.tars.com", &self.address)
            .replace("registryAddress", &registries.join(":")))
    }

    /// The host of the first registry: this node itself, except on a node that has none.
    fn registry_host(&self) -> &str {
        self.registries.first().map_or(self.address.as_str(), |endpoint| endpoint.host.as_str())
    }

    fn account(&self) -> Option<Vec<(&'static str, String)>> {
        let database = self.database.as_ref()?;
        Some(vec![
            ("dbhost", database.host.clone()),
            ("dbuser", account::USER.to_owned()),
            ("dbpass", database.services_password.clone()),
            ("dbport", database.port.to_string()),
        ])
    }
}

/// `<tars><db>`, and each block of `<tars><statdb>` and `<tars><propertydb>`.
pub fn is_database(path: &[&str]) -> bool {
    matches!(path, ["tars", "db"] | ["tars", "statdb" | "propertydb", _])
}

/// Renders the configuration of these services to where they read it, and puts away what an earlier start of tarsnode
/// generated: it may hold addresses of then, and would win (upstream's installer removes it as well).
pub fn render(paths: &Paths, services: &[Service], substitution: &Substitution) -> Result<(), Failure> {
    for service in services.iter().copied() {
        let folder = paths.deploy("conf").join(service.name()).join("conf");
        let files = if folder.is_dir() { list(&folder)? } else { Vec::new() };
        for file in &files {
            let name = file.file_name().unwrap_or_default();
            render_file(file, &paths.service(service).join("conf").join(name), substitution)?;
        }
        let own = paths.own_conf(service);
        if !own.is_file() {
            return Err(Failure::new(
                Code::Configuration,
                format!(
                    "the image has no configuration for {service}: neither {} nor {}.",
                    folder.display(),
                    own.display()
                ),
                "Build the image with the recipe's `deploy:` folder of the same framework version.",
            ));
        }
        if files.is_empty() {
            // A package may carry its configuration itself.
            render_file(&own, &own, substitution)?;
        }
        match fs::remove_file(paths.generated_conf(service)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unwritable(&paths.generated_conf(service), &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut files: Vec<_> =
        entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

fn render_file(template: &Path, target: &Path, substitution: &Substitution) -> Result<(), Failure> {
    let text = fs::read_to_string(template).map_err(|error| unreadable(template, &error))?;
    let text = substitution.apply(&text).map_err(|error| {
        Failure::new(
            Code::Configuration,
            format!("{} is no TARS configuration: {error}.", template.display()),
            "Correct it in the recipe's `deploy:` folder and build the image again.",
        )
    })?;
    write(target, &text).map_err(|error| unwritable(target, &error))
}

/// Writes by temporary file and rename: a reader sees the old text or the new one. Owner and group may read it: it
/// holds the services' account.
pub fn write(target: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
    let beside = name_beside(target);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&beside)?;
    file.set_permissions(fs::Permissions::from_mode(0o640))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, target)
}

/// Where a file is written before it takes the place of `target`.
pub fn name_beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.tars-init"))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Configuration, format!("cannot read {}: {error}.", path.display()), "")
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Code::Configuration,
        format!("cannot write {}: {error}.", path.display()),
        "The image's folders and the volume must be writable, and not full.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substitution() -> Substitution {
        let account = Account {
            host: "172.25.0.2".to_owned(),
            port: 3307,
            user: "root".to_owned(),
            password: "topsecret".to_owned(),
            services_password: "Own=2026".to_owned(),
            ..Account::default()
        };
        let registries = vec![Endpoint::registry("172.25.0.4"), Endpoint::registry("172.25.0.3")];
        Substitution::new(&Paths::below("/"), "172.25.0.4", Some(&account), registries)
    }

    #[test]
    fn placeholders_are_filled_and_the_administrators_account_stays_out() {
        let template = "<tars>\n path=TARS_PATH/app_log\n up=UPLOAD_PATH/patchs/x\n ip=localip.tars.com\n \
                        locator=tars.tarsregistry.QueryObj@tcp -h registry.tars.com -p 17890\n \
                        nodes=@registryAddress\n <db>\n  dbhost  = db.tars.com\n  dbuser=tars\n  dbpass=tars2015\n  \
                        dbport=3306\n </db>\n <statdb>\n <db1>\n  dbhost=db.tars.com\n </db1>\n </statdb>\n</tars>\n";
        let text = substitution().apply(template).unwrap();
        for expected in [
            " path=/usr/local/app/tars/app_log\n",
            " up=/usr/local/app/patchs/x\n",
            " ip=172.25.0.4\n",
            "@tcp -h 172.25.0.4 -p 17890\n",
            " nodes=@tcp -h 172.25.0.4 -p 17890:tcp -h 172.25.0.3 -p 17890\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        let root = conf::parse(&text).unwrap();
        for path in [&["tars", "db"][..], &["tars", "statdb", "db1"]] {
            let block = root.at(path).unwrap();
            let keys = ["dbhost", "dbport", "dbuser", "dbpass"].map(|key| block.get(key).unwrap());
            assert_eq!(keys, ["172.25.0.2", "3307", "tarsAdmin", "Own=2026"]);
        }
        assert!(!text.contains("topsecret"));
    }

    #[test]
    fn rendered_files_are_not_for_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/conf/x.conf");
        write(&target, "one").unwrap();
        write(&target, "two").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "two");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn missing_configuration_is_named_and_a_stale_generated_one_is_put_away() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let services = [Service::Registry];
        let failure = render(&paths, &services, &substitution()).unwrap_err();
        assert_eq!(failure.code, Code::Configuration);
        assert!(failure.message.contains("tarsregistry"), "{}", failure.message);

        let template = paths.deploy("conf").join("tarsregistry/conf/tars.tarsregistry.config.conf");
        write(&template, "<tars>\nip=localip.tars.com\n</tars>\n").unwrap();
        write(&paths.generated_conf(Service::Registry), "old").unwrap();
        render(&paths, &services, &substitution()).unwrap();
        assert!(!paths.generated_conf(Service::Registry).exists());
        let text = fs::read_to_string(paths.own_conf(Service::Registry)).unwrap();
        assert_eq!(text, "<tars>\nip=172.25.0.4\n</tars>\n");
    }
}
