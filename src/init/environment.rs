//! Upstream's environment contract, parsed and judged: every variable that a TARS container understands.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use crate::tars::Role;

use super::failure::{Code, Failure};
use super::secret;
use super::tls::Tls;

/// The usual password of the services' account: upstream's, known to everybody.
pub const USUAL_PASSWORD: &str = "Tars@2019";
/// TARS keeps a node's name in columns of this width (`t_server_conf.node_name`).
const LONGEST_NODE_NAME: usize = 50;
/// Where a registry answers, unless `TARS_REGISTRY_ADDRESS` says otherwise.
const REGISTRY_PORT: u16 = 17890;

/// What a container of ours is told from outside.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Master, slave or node.
    pub role: Role,
    /// Where the address comes from.
    pub naming: Naming,
    /// The administrator's account; a node has none.
    pub database: Option<Account>,
    /// How a node finds its registries; a master or slave has its own.
    pub locator: Locator,
    /// The version of the image (`TARSUP_VERSION`).
    pub version: Option<String>,
    /// The image, as whoever runs it names it (`TARSUP_IMAGE`).
    pub image: Option<String>,
    /// The older versions that may still run on what this one leaves (`TARSUP_WAY_BACK`, with commas).
    pub way_back: Vec<String>,
    /// How long to wait for the database, and for a registry.
    pub patience: Duration,
    /// How long services may take to stop before they are killed.
    pub grace: Duration,
    /// How long a core service or the web console may live without ever answering before it is started again.
    pub answer: Duration,
}

/// How a container gets the name that TARS knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `DOMAIN`: a host name instead of an address.
    Domain(String),
    /// `INET`: the first IPv4 address of these interfaces that is not loopback.
    Interfaces(Vec<String>),
}

/// The administrator's account at the database, and what the services' is to be. Its `Debug` keeps the passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// `MYSQL_HOST`
    pub host: String,
    /// `MYSQL_PORT`
    pub port: u16,
    /// `MYSQL_USER`
    pub user: String,
    /// `MYSQL_ROOT_PASSWORD`, or the content of `MYSQL_ROOT_PASSWORD_FILE`
    pub password: String,
    /// `MYSQL_SSL`, `MYSQL_SSL_CA`
    pub tls: Tls,
    /// `TARS_ADMIN_PASSWORD`, or the content of `TARS_ADMIN_PASSWORD_FILE`, or [`USUAL_PASSWORD`]
    pub services_password: String,
}

impl Account {
    /// What nobody else may read, the longest first.
    pub fn secrets(&self) -> [&str; 2] {
        let mut secrets = [self.password.as_str(), self.services_password.as_str()];
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

/// How a node finds its registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locator {
    /// `TARS_REGISTRY_ADDRESS`: `tcp -h A -p 17890:tcp -h B -p 17890`. Empty for master and slave.
    Named(Vec<Endpoint>),
    /// `WEB_HOST` alone: the web console is asked.
    Web {
        /// Without a path: `http://172.25.0.3:3000`.
        url: String,
        /// A registry on the console's own host: the last guess, as a proxy may stand before the console.
        guess: Endpoint,
    },
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(registries) => f.write_str(&Endpoint::list(registries)),
            Self::Web { url, .. } => write!(f, "registries as {url} knows them"),
        }
    }
}

/// One `tcp -h HOST -p PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address or host name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp -h {} -p {}", self.host, self.port)
    }
}

impl Endpoint {
    /// Reads `tcp -h HOST -p PORT [-t MILLISECONDS]`, the options in any order.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        if words.next() != Some("tcp") {
            return None;
        }
        let (mut host, mut port) = (None, None);
        while let Some(option) = words.next() {
            match (option, words.next()) {
                ("-h", Some(value)) => host = Some(value.to_owned()),
                ("-p", Some(value)) => port = value.parse().ok(),
                (_, Some(_)) => {}
                (_, None) => return None,
            }
        }
        Some(Self { host: host.filter(|host| is_host(host))?, port: port? })
    }

    /// Reads `tcp -h A -p 17890:tcp -h B -p 17890`; `None` where any of it is no endpoint.
    pub fn parse_list(text: &str) -> Option<Vec<Self>> {
        let nth = |(at, text): (usize, &str)| {
            if at == 0 { Self::parse(text) } else { Self::parse(&format!("tcp {text}")) }
        };
        text.split(":tcp ").enumerate().map(nth).collect()
    }

    /// As configuration and `TARS_REGISTRY_ADDRESS` have it.
    pub fn list(endpoints: &[Self]) -> String {
        endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(":")
    }

    /// The registry of a host, at its own port.
    pub fn registry(host: &str) -> Self {
        Self { host: host.to_owned(), port: REGISTRY_PORT }
    }
}

/// Which of the two image roles the entrypoint names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageRole {
    /// `tars-init framework`: master, or slave by `SLAVE`.
    Framework,
    /// `tars-init node`
    Node,
}

impl Environment {
    /// Reads the process's own environment.
    pub fn read(image: ImageRole) -> Result<Self, Failure> {
        Self::parse(image, &|name| std::env::var_os(name))
    }

    /// Reads the environment through `get`; exit code 64 with the variable's name for what is not understood.
    pub fn parse(image: ImageRole, get: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let vars = Variables { get };
        let role = match image {
            ImageRole::Node => Role::Node,
            ImageRole::Framework => vars.framework_role()?,
        };
        Ok(Self {
            role,
            naming: vars.naming(image)?,
            database: if role == Role::Node { None } else { Some(vars.account()?) },
            locator: if role == Role::Node { vars.locator()? } else { Locator::Named(Vec::new()) },
            version: vars.host("TARSUP_VERSION")?,
            image: vars.word("TARSUP_IMAGE")?,
            way_back: vars
                .word("TARSUP_WAY_BACK")?
                .map(|list| list.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default(),
            patience: vars.seconds("TARSUP_DATABASE_TIMEOUT", 120)?,
            grace: vars.seconds("TARSUP_STOP_TIMEOUT", 8)?,
            answer: vars.seconds("TARSUP_ANSWER_TIMEOUT", 30)?.max(Duration::from_secs(1)),
        })
    }
}

impl Environment {
    /// The administrator's account, for what is of no use without one.
    pub fn account(&self) -> Result<&Account, Failure> {
        let none = || Failure::new(Code::Environment, "a node has no database.", "");
        self.database.as_ref().ok_or_else(none)
    }
}

impl Account {
    /// Reads the account alone, for what asks the database and runs no service; `None` where none is named.
    pub fn read() -> Result<Option<Self>, Failure> {
        Self::parse(&|name| std::env::var_os(name))
    }

    fn parse(get: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Failure> {
        if get("MYSQL_HOST").is_none_or(|host| host.is_empty()) {
            return Ok(None);
        }
        Variables { get }.account().map(Some)
    }
}

struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Variables<'_> {
    fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        match (self.get)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Err(_)) => Err(refused(format!("{name} is not UTF-8 text."))),
        }
    }

    /// Upstream passes these unquoted: a space in one shifts the next, and one of them is `REBUILD`.
    fn word(&self, name: &str) -> Result<Option<String>, Failure> {
        let text = self.text(name)?;
        if text.as_deref().is_some_and(|text| text.chars().any(char::is_whitespace)) {
            return Err(white_space(name));
        }
        Ok(text)
    }

    fn host(&self, name: &str) -> Result<Option<String>, Failure> {
        match self.word(name)? {
            Some(host) if !is_host(&host) => Err(refused(format!(
                "{name} is {host:?}; letters, digits and the signs . - _ : may stand in it."
            ))),
            host => Ok(host),
        }
    }

    fn framework_role(&self) -> Result<Role, Failure> {
        match self.text("SLAVE")?.as_deref() {
            None | Some("false") => Ok(Role::Master),
            Some("true") => Ok(Role::Slave),
            Some(other) => Err(refused(format!(
                "SLAVE is {other:?}. Only exactly `true` makes a slave, and unset, empty or `false` a master; anything \
                 else would become a second master by mistake.",
            ))),
        }
    }

    fn naming(&self, image: ImageRole) -> Result<Naming, Failure> {
        let mut domain = self.host("DOMAIN")?;
        if image == ImageRole::Node && domain.is_none() {
            domain = self.host("TARS_DOMAIN")?;
        }
        if let Some(domain) = domain {
            if domain.len() > LONGEST_NODE_NAME {
                return Err(refused(format!(
                    "DOMAIN has {} characters; TARS keeps node names of at most {LONGEST_NODE_NAME}.",
                    domain.len()
                )));
            }
            return Ok(Naming::Domain(domain));
        }
        let inet = self.text("INET")?.unwrap_or_else(|| "eth0".to_owned());
        let names: Vec<String> = inet.split_whitespace().map(str::to_owned).collect();
        if names.is_empty() {
            return Err(refused("INET holds nothing but white space.".to_owned()));
        }
        Ok(Naming::Interfaces(names))
    }

    fn account(&self) -> Result<Account, Failure> {
        let port = match self.text("MYSQL_PORT")? {
            None => 3306,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| refused(format!("MYSQL_PORT is {port:?}, which is no TCP port.")))?,
        };
        let Some(password) = self.secret("MYSQL_ROOT_PASSWORD")? else {
            return Err(refused(
                "MYSQL_ROOT_PASSWORD is not set, nor is MYSQL_ROOT_PASSWORD_FILE; it is the password of MYSQL_USER (root by \
                 default)."
                    .to_owned(),
            ));
        };
        Ok(Account {
            host: self.host("MYSQL_HOST")?.ok_or_else(|| {
                refused("MYSQL_HOST is not set; it names the database server of the framework.".to_owned())
            })?,
            port,
            user: self.word("MYSQL_USER")?.unwrap_or_else(|| "root".to_owned()),
            password,
            tls: Tls::read(self.get)?,
            services_password: self.services_password()?,
        })
    }

    /// It stands in TARS's configuration and in JavaScript.
    fn services_password(&self) -> Result<String, Failure> {
        match self.secret("TARS_ADMIN_PASSWORD")?.filter(|password| !password.is_empty()) {
            None => Ok(USUAL_PASSWORD.to_owned()),
            Some(password) if is_plain(&password) => Ok(password),
            Some(_) => Err(refused(
                "TARS_ADMIN_PASSWORD holds a sign that configuration files cannot carry: letters, digits and punctuation but \
                 quotes, back quote, backslash, # < > $ may stand in it."
                    .to_owned(),
            )),
        }
    }

    /// As `word`, and it may lie in a file.
    fn secret(&self, name: &str) -> Result<Option<String>, Failure> {
        let secret = secret::read(self.get, name)?;
        if secret.as_deref().is_some_and(|text| text.chars().any(char::is_whitespace)) {
            return Err(white_space(name));
        }
        Ok(secret)
    }

    fn locator(&self) -> Result<Locator, Failure> {
        if let Some(text) = self.text("TARS_REGISTRY_ADDRESS")? {
            return Endpoint::parse_list(&text).map(Locator::Named).ok_or_else(|| {
                refused(format!(
                    "TARS_REGISTRY_ADDRESS is {text:?}; it should read `tcp -h A -p 17890:tcp -h B -p 17890`."
                ))
            });
        }
        let Some(web) = self.word("WEB_HOST")? else {
            return Err(refused(
                "neither TARS_REGISTRY_ADDRESS nor WEB_HOST is set; a node must know where its registry is."
                    .to_owned(),
            ));
        };
        let (scheme, rest) = web.split_once("://").unwrap_or(("http", &web));
        let place = rest.split('/').next().unwrap_or_default();
        let host = place.split(':').next().unwrap_or_default();
        if !is_host(place) || !is_host(host) {
            return Err(refused(format!("WEB_HOST is {web:?}; it should read `http://HOST:3000`.")));
        }
        Ok(Locator::Web { url: format!("{scheme}://{place}"), guess: Endpoint::registry(host) })
    }

    fn seconds(&self, name: &str, default: u64) -> Result<Duration, Failure> {
        match self.text(name)? {
            None => Ok(Duration::from_secs(default)),
            Some(text) => match text.parse() {
                Ok(seconds) => Ok(Duration::from_secs(seconds)),
                Err(_) => Err(refused(format!("{name} is {text:?}; it should be a number of seconds."))),
            },
        }
    }
}

fn white_space(name: &str) -> Failure {
    refused(format!("{name} contains white space, which TARS's start scripts cannot carry."))
}

/// What may stand in SQL and configuration as an address: nothing that either could take for syntax.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte))
}

/// What may stand between the quotes of the web console's configuration, and in a line of TARS's, as it is.
fn is_plain(password: &str) -> bool {
    !password.is_empty()
        && password.bytes().all(|byte| byte.is_ascii_graphic() && !b"'\"\\`#<>$".contains(&byte))
}

fn refused(message: String) -> Failure {
    Failure::environment(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(image: ImageRole, vars: &[(&str, &str)]) -> Result<Environment, Failure> {
        Environment::parse(image, &|name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn framework(more: &[(&str, &str)]) -> Result<Environment, Failure> {
        let mut vars = more.to_vec();
        vars.extend([("MYSQL_HOST", "172.25.0.2"), ("MYSQL_ROOT_PASSWORD", "secret")]);
        parse(ImageRole::Framework, &vars)
    }

    #[test]
    fn defaults_are_those_of_upstream() {
        let environment = framework(&[]).unwrap();
        assert_eq!(environment.role, Role::Master);
        assert_eq!(environment.naming, Naming::Interfaces(vec!["eth0".to_owned()]));
        let account = environment.database.unwrap();
        assert_eq!((account.port, account.user.as_str()), (3306, "root"));
        assert_eq!(environment.patience, Duration::from_mins(2));
    }

    #[test]
    fn slave_is_exactly_true_and_nothing_near_it_becomes_a_master() {
        assert_eq!(framework(&[("SLAVE", "true")]).unwrap().role, Role::Slave);
        for master in ["", "false"] {
            assert_eq!(framework(&[("SLAVE", master)]).unwrap().role, Role::Master);
        }
        for refused in ["true ", " true", "TRUE", "1", "yes", "true\n", "no"] {
            assert_eq!(framework(&[("SLAVE", refused)]).unwrap_err().code, Code::Environment, "{refused:?}");
        }
    }

    #[test]
    fn white_space_is_refused_by_the_variables_name() {
        for (name, value) in [
            ("DOMAIN", "fw tars"),
            ("MYSQL_USER", "root "),
            ("MYSQL_HOST", "db\ttars"),
            ("MYSQL_ROOT_PASSWORD", "a b"),
        ] {
            let failure = framework(&[(name, value)]).unwrap_err();
            assert_eq!(failure.code, Code::Environment);
            assert!(failure.message.contains(name), "{}", failure.message);
            assert!(!failure.message.contains("a b"), "the password shows");
        }
    }

    #[test]
    fn password_of_the_services_is_the_usual_one_or_one_that_files_can_carry() {
        let services =
            |vars: &[(&str, &str)]| framework(vars).map(|read| read.database.unwrap().services_password);
        assert_eq!(services(&[]).unwrap(), USUAL_PASSWORD);
        assert_eq!(services(&[("TARS_ADMIN_PASSWORD", "")]).unwrap(), USUAL_PASSWORD);
        assert_eq!(services(&[("TARS_ADMIN_PASSWORD", "aB3!=%&/()?*+~-_.,:;@[]{}|^")]).unwrap().len(), 27);
        for wrong in ["it's", "a\\b", "a b", "a#b", "a<b", "a\"b", "ümlaut", "a`b", "a$b"] {
            let failure = services(&[("TARS_ADMIN_PASSWORD", wrong)]).unwrap_err();
            assert_eq!(failure.code, Code::Environment, "{wrong}");
            assert!(failure.message.contains("TARS_ADMIN_PASSWORD") && !failure.message.contains(wrong));
        }
    }

    #[test]
    fn missing_database_is_named() {
        let failure = parse(ImageRole::Framework, &[("MYSQL_ROOT_PASSWORD", "x")]).unwrap_err();
        assert!(failure.message.contains("MYSQL_HOST"));
        let failure = parse(ImageRole::Framework, &[("MYSQL_HOST", "x")]).unwrap_err();
        assert!(failure.message.contains("MYSQL_ROOT_PASSWORD"));
        assert_eq!(framework(&[("MYSQL_PORT", "0")]).unwrap_err().code, Code::Environment);
    }

    #[test]
    fn domain_that_tars_cannot_store_is_refused() {
        assert!(framework(&[("DOMAIN", &"a".repeat(50))]).is_ok());
        assert!(framework(&[("DOMAIN", &"a".repeat(51))]).is_err());
        assert!(framework(&[("DOMAIN", "a'; drop")]).is_err());
    }

    #[test]
    fn interfaces_may_be_several() {
        let environment = framework(&[("INET", "eth1 eth0")]).unwrap();
        assert_eq!(environment.naming, Naming::Interfaces(vec!["eth1".to_owned(), "eth0".to_owned()]));
    }

    #[test]
    fn node_finds_its_registries_by_address_list_or_web_host() {
        let node =
            |vars: &[(&str, &str)]| parse(ImageRole::Node, vars).map(|environment| environment.locator);
        let listed =
            node(&[("TARS_REGISTRY_ADDRESS", "tcp -h 172.25.0.3 -p 17890:tcp -h fw2 -p 17899 -t 3000")]);
        assert_eq!(
            listed.unwrap(),
            Locator::Named(vec![
                Endpoint::registry("172.25.0.3"),
                Endpoint { host: "fw2".to_owned(), port: 17899 }
            ])
        );
        let web = |url: &str, host| Locator::Web { url: url.to_owned(), guess: Endpoint::registry(host) };
        assert_eq!(
            node(&[("WEB_HOST", "http://172.25.0.3:3000")]).unwrap(),
            web("http://172.25.0.3:3000", "172.25.0.3")
        );
        assert_eq!(node(&[("WEB_HOST", "fw.tars/")]).unwrap(), web("http://fw.tars", "fw.tars"));
        assert!(node(&[("WEB_HOST", "http://")]).is_err());
        assert!(node(&[]).is_err());
        assert!(node(&[("TARS_REGISTRY_ADDRESS", "172.25.0.3:17890")]).is_err());
    }

    #[test]
    fn node_takes_tars_domain_where_domain_is_absent() {
        let vars = [("WEB_HOST", "fw"), ("TARS_DOMAIN", "node1")];
        assert_eq!(parse(ImageRole::Node, &vars).unwrap().naming, Naming::Domain("node1".to_owned()));
    }
}
