//! The eleven framework services: kind, order, ports, servants, and which role runs which.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where upstream installs everything (`TARS_PATH` in its configuration templates).
pub const TARS_PATH: &str = "/usr/local/app/tars";
/// `UPLOAD_PATH` in its configuration templates: the folder that holds [`PATCHS_PATH`], as they say `UPLOAD_PATH/patchs/...`.
pub const UPLOAD_PATH: &str = "/usr/local/app";
/// Where published packages are kept: a link into the volume.
pub const PATCHS_PATH: &str = "/usr/local/app/patchs";
/// Where the web console lies.
pub const WEB_PATH: &str = "/usr/local/app/web";
/// Upstream's installer tree: `framework/{conf,sql,util-linux}` of the image lie below it.
pub const DEPLOY_PATH: &str = "/usr/local/tars/cpp/deploy";
/// In `framework` of that tree: the scripts that start and watch a service on a machine without tars-init.
pub const UTIL_FOLDER: &str = "util-linux";
/// In that tree: upstream's script that installs a tarsnode from the web console.
pub const INSTALL_SCRIPT: &str = "tools/install.sh";
/// Where tars-init, the start of every image that `tarsup build` makes of it, lies in the image.
pub const INIT_PATH: &str = "/usr/local/bin/tars-init";
/// The one volume of a TARS container.
pub const DATA_PATH: &str = "/data/tars";
/// The label of every image that `tarsup build` made: what it is for. See [`Role::image_role`].
pub const IMAGE_ROLE_LABEL: &str = "io.tarsup.image.role";
/// The port of the web console.
pub const WEB_PORT: u16 = 3000;

/// A framework service, in upstream's start order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the services' own")]
pub enum Service {
    AdminRegistry,
    Registry,
    Config,
    Node,
    Notify,
    Property,
    QueryProperty,
    QueryStat,
    Stat,
    Log,
    Patch,
}

/// An object that a service answers for: `tars.<service>.<object>` on one TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Servant {
    /// The object's name, such as `QueryObj`.
    pub object: &'static str,
    /// The TCP port it really listens on.
    pub port: u16,
}

impl Service {
    /// All eleven, in upstream's start order.
    pub const ALL: [Self; 11] = [
        Self::AdminRegistry,
        Self::Registry,
        Self::Config,
        Self::Node,
        Self::Notify,
        Self::Property,
        Self::QueryProperty,
        Self::QueryStat,
        Self::Stat,
        Self::Log,
        Self::Patch,
    ];

    /// The name that packages, folders and binaries bear.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminRegistry => "tarsAdminRegistry",
            Self::Registry => "tarsregistry",
            Self::Config => "tarsconfig",
            Self::Node => "tarsnode",
            Self::Notify => "tarsnotify",
            Self::Property => "tarsproperty",
            Self::QueryProperty => "tarsqueryproperty",
            Self::QueryStat => "tarsquerystat",
            Self::Stat => "tarsstat",
            Self::Log => "tarslog",
            Self::Patch => "tarspatch",
        }
    }

    /// Core services come from `make X-tar` with a `bin/` folder and cannot be published through the web.
    pub const fn is_core(self) -> bool {
        matches!(self, Self::AdminRegistry | Self::Registry | Self::Config | Self::Node | Self::Patch)
    }

    /// What it answers tars_ping for, with the ports that it listens on.
    ///
    /// tarsnode's `NodeObj` (19385) is left out: the database advertises it, 3.0.17 never listens on it.
    pub const fn servants(self) -> &'static [Servant] {
        const fn one(object: &'static str, port: u16) -> Servant {
            Servant { object, port }
        }
        match self {
            Self::AdminRegistry => const { &[one("AdminRegObj", 12000)] },
            Self::Registry => const { &[one("QueryObj", 17890), one("RegistryObj", 17891)] },
            Self::Config => const { &[one("ConfigObj", 18193)] },
            Self::Node => const { &[one("ServerObj", 19386)] },
            Self::Notify => const { &[one("NotifyObj", 18593)] },
            Self::Property => const { &[one("PropertyObj", 18493)] },
            Self::QueryProperty => const { &[one("QueryObj", 18693)] },
            Self::QueryStat => const { &[one("QueryObj", 18393)] },
            Self::Stat => const { &[one("StatObj", 18293)] },
            Self::Log => const { &[one("LogObj", 18993)] },
            Self::Patch => const { &[one("PatchObj", 18793)] },
        }
    }

    /// The full name of one of its servants, such as `tars.tarsregistry.QueryObj`.
    pub fn servant_name(self, servant: Servant) -> String {
        format!("tars.{}.{}", self.name(), servant.object)
    }

    /// The ports that upstream's images expose for it; tarsnode's advertised 19385 is one of them.
    pub fn exposed_ports(self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.servants().iter().map(|servant| servant.port).collect();
        if self == Self::Node {
            ports.insert(0, 19385);
        }
        ports
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no framework service bears.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a TARS framework service")]
pub struct UnknownService(pub String);

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|service| service.name() == name)
            .ok_or_else(|| UnknownService(name.to_owned()))
    }
}

/// What a container is in a deployment: `x-tars: {role: ...}` of its compose service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The MySQL or MariaDB server. Never touched by an upgrade.
    Database,
    /// Runs all eleven services and the web console.
    Master,
    /// Runs a second registry and what clients ask most.
    Slave,
    /// Runs tarsnode alone, and what it deploys.
    Node,
}

impl Role {
    /// The services that a container of this role runs, in start order. Source: upstream's installer.
    pub const fn services(self) -> &'static [Service] {
        use Service as S;
        match self {
            Self::Database => &[],
            Self::Master => &S::ALL,
            Self::Slave => &[S::Registry, S::Config, S::Node, S::Notify, S::QueryProperty, S::QueryStat],
            Self::Node => &[S::Node],
        }
    }

    /// What [`IMAGE_ROLE_LABEL`] says of an image that starts with tars-init as this role; a database is anybody's image.
    pub const fn image_role(self) -> Option<&'static str> {
        match self {
            Self::Database => None,
            Self::Master | Self::Slave => Some("framework"),
            Self::Node => Some("node"),
        }
    }

    /// The ports that a container of this role listens on.
    pub fn ports(self) -> BTreeSet<u16> {
        let servants = self.services().iter().flat_map(|service| service.servants());
        let web = (self == Self::Master).then_some(WEB_PORT);
        servants.map(|servant| servant.port).chain(web).collect()
    }

    /// The word in a compose file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Master => "master",
            Self::Slave => "slave",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_name_round_trips() {
        for service in Service::ALL {
            assert_eq!(service.name().parse(), Ok(service));
        }
        assert_eq!("tarsweb".parse::<Service>(), Err(UnknownService("tarsweb".to_owned())));
    }

    #[test]
    fn servants_are_twelve_with_ports_of_their_own() {
        let mut ports: Vec<u16> =
            Service::ALL.iter().flat_map(|service| service.servants()).map(|servant| servant.port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 12);
    }
}
