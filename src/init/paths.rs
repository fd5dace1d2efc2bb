//! Where everything lies in the container: upstream's paths, below a root that tests may move.

use std::io;
use std::path::{Path, PathBuf};

use crate::tars::Service;
use crate::tars::catalogue::{
    DATA_PATH, DEPLOY_PATH, INSTALL_SCRIPT, PATCHS_PATH, TARS_PATH, UPLOAD_PATH, WEB_PATH,
};

/// Upstream's paths below a root.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The container's own; `TARSUP_ROOT` (for tests only) puts all of them below another folder.
    pub fn of_container() -> Self {
        Self::below(std::env::var_os("TARSUP_ROOT").unwrap_or_else(|| "/".into()))
    }

    /// All paths below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// `/usr/local/app/tars`, `TARS_PATH` of the templates.
    pub fn tars(&self) -> PathBuf {
        self.at(TARS_PATH)
    }

    /// `/usr/local/app`, `UPLOAD_PATH` of the templates.
    pub fn upload(&self) -> PathBuf {
        self.at(UPLOAD_PATH)
    }

    /// `/usr/local/app/patchs`
    pub fn patchs(&self) -> PathBuf {
        self.at(PATCHS_PATH)
    }

    /// `/usr/local/app/web`
    pub fn web(&self) -> PathBuf {
        self.at(WEB_PATH)
    }

    /// `/usr/local/app/web/files`: what the web console serves to nodes.
    pub fn downloads(&self) -> PathBuf {
        self.web().join("files")
    }

    /// Upstream's script that installs a tarsnode, where the image has it.
    pub fn install_script(&self) -> PathBuf {
        self.at(DEPLOY_PATH).join(INSTALL_SCRIPT)
    }

    /// `/data/tars`, the volume.
    pub fn data(&self) -> PathBuf {
        self.at(DATA_PATH)
    }

    /// `conf`, `sql`, `servers` of the image's version.
    pub fn deploy(&self, part: &str) -> PathBuf {
        self.at(DEPLOY_PATH).join("framework").join(part)
    }

    /// A service's folder.
    pub fn service(&self, service: Service) -> PathBuf {
        self.tars().join(service.name())
    }

    /// A service's program.
    pub fn program(&self, service: Service) -> PathBuf {
        self.service(service).join("bin").join(service.name())
    }

    /// The configuration that tarsnode makes from the templates in the database. It wins over [`Self::own_conf`].
    pub fn generated_conf(&self, service: Service) -> PathBuf {
        self.tarsnode_data().join(format!("tars.{service}")).join("conf").join(conf_name(service))
    }

    /// The configuration that tars-init renders.
    pub fn own_conf(&self, service: Service) -> PathBuf {
        self.service(service).join("conf").join(conf_name(service))
    }

    /// Where a service's own words at start go; `docker logs` shows their end when it dies.
    pub fn output_log(&self, service: &str) -> PathBuf {
        self.data().join("app_log/tars-init").join(format!("{service}.log"))
    }

    /// A path of the container, as a database or a configuration names it.
    pub fn inside(&self, absolute: &Path) -> PathBuf {
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// `/usr/local/app/tars/tarsnode/data`: what is deployed on the node, and a link into the volume.
    pub fn tarsnode_data(&self) -> PathBuf {
        self.tars().join("tarsnode/data")
    }

    /// True where the volume holds services that tarsnode was given.
    pub fn has_deployments(&self) -> bool {
        let entries = std::fs::read_dir(self.data().join("tarsnode-data"));
        entries.is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    name.contains('.') && !name.starts_with("tars.") && entry.path().is_dir()
                })
            })
        })
    }

    /// What is remembered of this start: gone, or of another process, at the next.
    pub fn run(&self) -> PathBuf {
        self.at("/run/tars-init")
    }

    /// What the image's programs looked like at the container's first start; beside [`Self::started_mark`].
    pub fn programs_mark(&self) -> PathBuf {
        self.tars().join(".tars-init-programs")
    }

    /// What tells the container from others; beside [`Self::started_mark`].
    pub fn container_mark(&self) -> PathBuf {
        self.tars().join(".tars-init-container")
    }

    /// Lies in the container's own layer: there after its first start, gone when it is made anew.
    pub fn started_mark(&self) -> PathBuf {
        self.tars().join(".tars-init-started")
    }
}

/// `tars.<service>.config.conf`
pub fn conf_name(service: Service) -> String {
    format!("tars.{service}.config.conf")
}

/// As text for configuration files; ours are all UTF-8.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// An error of the system with the path that it is about.
pub fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
