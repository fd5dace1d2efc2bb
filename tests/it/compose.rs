//! Compose files as they are found in the wild, and the create bodies that come of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tarsup::deploy::Desired;
use tarsup::deploy::compose::{ComposeError, LoadOptions, load};
use tarsup::deploy::desired::{ImageOrigin, Service};
use tarsup::diagnose::{Diagnose, Place};
use tarsup::secretive::Secretive;

/// A folder with files, and a shell.
pub(crate) struct Project {
    folder: tempfile::TempDir,
    shell: BTreeMap<String, Secretive>,
}

impl Project {
    /// A folder that holds `files`.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let project =
            Self { folder: tempfile::tempdir().expect("a temporary folder"), shell: BTreeMap::new() };
        for (name, text) in files {
            let path = project.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        project
    }

    /// The same with a variable in the shell.
    pub(crate) fn shell(mut self, name: &str, value: &str) -> Self {
        self.shell.insert(name.to_owned(), Secretive::new(name, value));
        self
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Loads what compose would take, as project `p`.
    pub(crate) fn load(&self) -> Result<Desired, ComposeError> {
        self.load_files(&[])
    }

    /// Loads the named files, as project `p`.
    pub(crate) fn load_files(&self, files: &[&str]) -> Result<Desired, ComposeError> {
        load(&LoadOptions {
            files: files.iter().map(PathBuf::from).collect(),
            project: Some("p".to_owned()),
            directory: self.folder.path().to_owned(),
            environment: self.shell.clone(),
        })
    }

    /// The place of an error as `file:line` below the folder.
    pub(crate) fn shown(&self, place: &Place) -> String {
        let file = place.file.strip_prefix(self.folder.path()).unwrap_or(&place.file);
        match place.line {
            Some(line) => format!("{}:{line}", file.display()),
            None => file.display().to_string(),
        }
    }

    /// The error of loading: text, place, hint.
    pub(crate) fn error(&self) -> (String, String, String) {
        let error = self.load().expect_err("an error");
        let place = error.place().map(|place| self.shown(&place)).unwrap_or_default();
        (error.to_string(), place, error.hint().unwrap_or_default())
    }
}

/// The networks that are joined after create.
fn later(service: &Service) -> Vec<(String, Value)> {
    service.declaration.joins_later().map(|it| (it.network.clone(), it.settings())).collect()
}

/// The create body of a service, with the project's folder as `@`.
fn body(project: &Project, desired: &Desired, service: &str) -> Value {
    let service = desired.service(service).expect("the service");
    let text = Value::Object(service.declaration.render().0).to_string();
    let folder = project.folder.path().display().to_string();
    serde_json::from_str(&text.replace(&folder, "@")).expect("JSON")
}

fn documented() -> Project {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compose/documented.yaml");
    let text = fs::read_to_string(path).expect("the fixture");
    Project::new(&[("compose.yaml", &text), (".env", "PASSWORD='s3cret $x'\nVERSION=2.4.0\nTAG=v2.4.0\n")])
        .shell("HTTP_PROXY", "http://proxy")
}

#[test]
fn documented_run_lines_become_the_bodies_of_docker_run() {
    let project = documented();
    let desired = project.load().unwrap();
    assert_eq!(
        body(&project, &desired, "framework"),
        json!({
            "Image": "tarscloud/framework:v2.4.0",
            "Env": [
                "INET=eth0", "MYSQL_HOST=172.25.0.2", "MYSQL_PORT=3306", "MYSQL_ROOT_PASSWORD=s3cret $x",
                "MYSQL_USER=root", "REBUILD=false", "SLAVE=false",
            ],
            "ExposedPorts": {"3000/tcp": {}, "3001/tcp": {}},
            "Labels": {
                "io.tarsup.deployment": "p", "io.tarsup.role": "master", "io.tarsup.service": "framework",
            },
            "HostConfig": {
                "Binds": ["@/framework/data:/data/tars:rw", "/etc/localtime:/etc/localtime:ro"],
                "NetworkMode": "tars",
                "PortBindings": {
                    "3000/tcp": [{"HostIp": "", "HostPort": "3000"}],
                    "3001/tcp": [{"HostIp": "", "HostPort": "3001"}],
                },
                "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
            },
            "NetworkingConfig": {"EndpointsConfig": {"tars": {
                "Aliases": ["tars-framework", "framework"],
                "IPAMConfig": {"IPv4Address": "172.25.0.3"},
            }}},
        })
    );
    assert_eq!(
        body(&project, &desired, "slave")["Env"],
        json!([
            "INET=eth0",
            "MYSQL_HOST=172.25.0.2",
            "MYSQL_PORT=3306",
            "MYSQL_ROOT_PASSWORD=s3cret $x",
            "MYSQL_USER=root",
            "REBUILD=false",
            "SLAVE=true",
        ])
    );
}

#[test]
fn node_with_every_kind_of_key_becomes_the_body_that_compose_sends() {
    let project = documented();
    let desired = project.load().unwrap();
    let node = desired.service("node").unwrap();
    assert_eq!(
        body(&project, &desired, "node"),
        json!({
            "Image": "tarscloud/tars-node:latest",
            "Env": ["HTTP_PROXY=http://proxy", "INET=eth0", "WEB_HOST=http://172.25.0.3:3000"],
            "ExposedPorts": {"9000/tcp": {}, "9001/tcp": {}, "9002/tcp": {}},
            "Healthcheck": {
                "Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 30_000_000_000u64, "Retries": 3,
            },
            "Labels": {"io.tarsup.deployment": "p", "io.tarsup.role": "node", "io.tarsup.service": "node"},
            "StopTimeout": 60,
            "HostConfig": {
                "Binds": ["p_node:/data/tars:rw"],
                "ExtraHosts": ["web.tars:172.25.0.3"],
                "LogConfig": {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}},
                "Memory": 2_147_483_648u64,
                "NanoCpus": 1_500_000_000,
                "NetworkMode": "p_other",
                "PortBindings": {
                    "9000/tcp": [{"HostIp": "", "HostPort": "9000"}],
                    "9001/tcp": [{"HostIp": "", "HostPort": "9001"}],
                    "9002/tcp": [{"HostIp": "", "HostPort": "9002"}],
                },
                "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
                "Ulimits": [
                    {"Name": "nofile", "Soft": 65536, "Hard": 65536},
                    {"Name": "nproc", "Soft": 1024, "Hard": 2048},
                ],
            },
            "NetworkingConfig": {"EndpointsConfig": {"p_other": {"Aliases": ["p-node-1", "node"]}}},
        })
    );
    assert_eq!(
        later(node),
        [(
            "tars".to_owned(),
            json!({
                "Aliases": ["p-node-1", "node", "node.tars"], "IPAMConfig": {"IPv4Address": "172.25.0.5"},
            })
        )]
    );
    assert_eq!((node.container.as_str(), node.stop_grace.as_secs()), ("p-node-1", 60));
}

/// Whoever changes these replaces every container at the next `up`: a new version of the rule keeps the old one beside it.
#[test]
fn spec_hashes_of_the_documented_file_are_what_they_were() {
    let project = documented();
    let desired = project.load().unwrap();
    let folder = project.folder.path().display().to_string();
    let hashes: Vec<String> = desired
        .services
        .iter()
        .map(|service| {
            // The folder is another one in each run.
            let text = serde_json::to_string(&(service.declaration.render().0, later(service)))
                .unwrap()
                .replace(&folder, "@");
            format!("{} {}", service.name, tarsup::oci::Digest::of(text).short())
        })
        .collect();
    assert_eq!(
        hashes,
        ["mysql 7bdb4c737f06", "framework d471a944ff60", "slave c6db5d76fb3e", "node 023862863b30"]
    );
}

#[test]
fn networks_volumes_and_policy_are_what_the_file_says() {
    let desired = documented().load().unwrap();
    let names: Vec<&str> = desired.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(names, ["p_other", "tars"]);
    assert_eq!(
        desired.networks[1].body["IPAM"]["Config"],
        json!([{"Subnet": "172.25.0.0/16", "Gateway": "172.25.0.1"}])
    );
    assert_eq!(desired.volumes[0].name, "p_node");
    let policy = &desired.policy;
    assert_eq!((policy.batch, policy.gate_timeout.as_secs(), policy.dwell.as_secs()), (Some(2), 180, 10));
    assert_eq!(desired.notes, Vec::<String>::new());
}

#[test]
fn policy_of_backups_is_what_the_file_says_and_what_is_not_understood_is_refused() {
    let compose = |policy: &str| {
        let file = format!("x-tars: {{backup: {policy}}}\nservices: {{node: {{image: \"tars/node:1\"}}}}\n");
        Project::new(&[("compose.yaml", &file)])
    };
    let policy = compose("{to: ../saved, image: \"mariadb:11\", keep: 9, statistics: true}").load().unwrap();
    let policy = policy.policy.backup;
    assert_eq!(policy.to.unwrap().to_str(), Some("../saved"));
    assert_eq!(policy.image.unwrap().to_string(), "mariadb:11");
    assert_eq!((policy.keep, policy.statistics), (9, true));
    let usual = compose("{}").load().unwrap().policy.backup;
    assert_eq!((usual.to, usual.image, usual.keep, usual.statistics), (None, None, 5, false));
    for (policy, words) in [
        ("{keep: 0}", "`keep` is at least 1"),
        ("{keep: many}", "keep"),
        ("{image: \"A B\"}", "A B"),
        ("{too: x}", "too"),
        ("{way: none}", "way"),
        ("{statistics: perhaps}", "statistics"),
        ("/srv", "backup"),
    ] {
        let (error, place, _) = compose(policy).error();
        assert!(error.contains(words), "{policy}: {error}");
        assert!(place.contains("compose.yaml:1"), "{policy}: {place}");
    }
}

#[test]
fn account_at_the_database_of_nodes_alone_comes_from_an_env_file() {
    let compose = |account: &str| {
        let file = format!("x-tars: {account}\nservices: {{node: {{image: \"tars/node:1\"}}}}\n");
        Project::new(&[
            ("compose.yaml", &file),
            ("db.env", "MYSQL_HOST=172.25.0.2\nMYSQL_ROOT_PASSWORD=s3cret\n"),
            ("other.env", "MYSQL_USER=root\n"),
        ])
    };
    let desired = compose("{database: {env_file: db.env}}").load().unwrap();
    let account = desired.database.unwrap();
    assert_eq!(account.0.expose(), ["MYSQL_HOST=172.25.0.2", "MYSQL_ROOT_PASSWORD=s3cret"]);
    assert!(!format!("{account:?}").contains("s3cret"), "{account:?}");
    assert!(compose("{batch: 1}").load().unwrap().database.is_none());
    for (account, words) in [
        ("{database: {env_file: absent.env}}", "absent.env"),
        ("{database: {env_file: other.env}}", "must set MYSQL_HOST"),
        ("{database: {env_fiel: db.env}}", "env_fiel"),
        ("{database: {}}", "must set MYSQL_HOST"),
        ("{database: root}", "database"),
    ] {
        let (error, place, _) = compose(account).error();
        assert!(error.contains(words), "{account}: {error}");
        assert!(place.contains("compose.yaml:1"), "{account}: {place}");
    }
}

#[test]
fn image_origin_is_the_line_that_a_person_would_edit() {
    let project = documented();
    let desired = project.load().unwrap();
    let origin = |name: &str| desired.service(name).unwrap().image_origin.clone();
    assert_eq!(origin("mysql"), ImageOrigin::File(Place::line(project.path("compose.yaml"), 20)));
    assert!(matches!(origin("framework"), ImageOrigin::Elsewhere { .. }));
    assert_eq!(
        origin("slave"),
        ImageOrigin::DotEnv { variable: "TAG".to_owned(), place: Place::line(project.path(".env"), 3) }
    );
}

/// A file with one service `s` that has an image and `lines`.
fn with(lines: &str) -> String {
    let lines = lines.replace('\n', "\n    ");
    format!("services:\n  s:\n    image: a/b:1\n    {lines}\n").replace("    \n", "")
}

#[test]
fn every_refusal_names_the_line_and_what_to_do() {
    for (text, place, message, hint) in [
        (with("enviroment: {A: 1}"), "compose.yaml:4", "compose knows no key `enviroment`", "`environment`?"),
        (with("build: ."), "compose.yaml:4", "does not carry out `build`", "tarsup build"),
        (with("deploy: {replicas: 2}"), "compose.yaml:4", "does not carry out `deploy`", "mem_limit"),
        (with("scale: 2"), "compose.yaml:4", "does not carry out `scale`", "one service for each"),
        (with("secrets: [a]"), "compose.yaml:4", "does not carry out `secrets`", "MYSQL_ROOT_PASSWORD_FILE"),
        (with("profiles: [a]"), "compose.yaml:4", "does not carry out `profiles`", "-f"),
        (with("pull_policy: always"), "compose.yaml:4", "pull_policy: always", "tarsup copy"),
        (with("uts: container:x"), "compose.yaml:4", "uts: container:x", "namespace"),
        (with("network_mode: service:x"), "compose.yaml:4", "no such service", "container:NAME"),
        (with("ipc: service:s"), "compose.yaml:4", "`ipc: service:s` of `s` is the service itself", "remove"),
        (with("pid: 'service:'"), "compose.yaml:4", "names nobody", "colon"),
        (with("x-tars: {role: mastr}"), "compose.yaml:4", "`mastr` is no role", "`master`?"),
        (with("x-tars: {rol: master}"), "compose.yaml:4", "no key `rol`", "`role`?"),
        (with("restart: sometimes"), "compose.yaml:4", "`restart` is one of", "quotes"),
        (with("ports:\n- a:b"), "compose.yaml:5", "`b` is no port", "container port"),
        (with("volumes:\n- data:/data"), "compose.yaml:5", "volume `data` is not declared", "./data"),
        (with("networks: [x]"), "compose.yaml:4", "network `x` is not declared", "networks"),
        (with("environment:\n  A: [1]"), "compose.yaml:5", "takes a scalar", ""),
        (with("environment:\n  A: ${B"), "compose.yaml:5", "begins no variable", "$$"),
        (with("environment:\n  A: ${B:?say B}"), "compose.yaml:5", "say B", "set `B`"),
        (with("image: c"), "compose.yaml:4", "`image` stands on line 3 already", ""),
        (with("env_file: none.env"), "compose.yaml:4", "cannot read", "write it"),
        (with("depends_on: [x]"), "compose.yaml:4", "depends on `x`", "declare"),
        (with("depends_on: [s]"), "compose.yaml:4", "circle", "remove"),
        (with("stop_grace_period: 30"), "compose.yaml:4", "takes a duration", "90s"),
        (with("labels: {io.tarsup.role: x}"), "compose.yaml:4", "io.tarsup.role", "remove"),
        (with("extends: {service: s}"), "compose.yaml:4", "circle", ""),
        (with("extends: {file: gone.yaml, service: s}"), "compose.yaml:4", "cannot read", "write it"),
        (with("healthcheck: {tst: x}"), "compose.yaml:4", "no key `tst`", "`test`?"),
        (
            "services: {}\nsecrets: {a: {}}\n".into(),
            "compose.yaml:2",
            "does not carry out `secrets`",
            "/run/secrets/pw:ro",
        ),
        ("service:\n  a: {}\n".into(), "compose.yaml:1", "no key `service`", "`services`?"),
        ("services:\n  a: {}\n".into(), "compose.yaml:2", "names no image", "image"),
        ("- a\n".into(), "compose.yaml:1", "a list", ""),
        (String::new(), "compose.yaml:1", "nothing", ""),
        ("services:\n  a: [\n".into(), "compose.yaml:3", "not YAML", ""),
        (with("") + "x-tars: {bach: 1}\n", "compose.yaml:4", "no key `bach`", "`batch`?"),
        (with("") + "x-tars: {batch: 0}\n", "compose.yaml:4", "at least 1", ""),
    ] {
        let project = Project::new(&[("compose.yaml", &text)]);
        let (shown, at, advice) = project.error();
        assert!(shown.contains(message), "{text}\n{shown}");
        assert_eq!(at, place, "{text}\n{shown}");
        assert!(advice.contains(hint), "{text}\n{advice}");
    }
}

#[test]
fn services_that_cannot_run_beside_each_other_are_refused() {
    let network = "networks: {n: {ipam: {config: [{subnet: 10.1.0.0/24, gateway: 10.1.0.1}]}}, m: {}}\n";
    let two =
        |a: &str, b: &str| format!("services:\n  a: {{image: i, {a}}}\n  b: {{image: i, {b}}}\n{network}");
    let on = |address: &str| format!("networks: {{n: {{ipv4_address: {address}}}}}");
    for (text, message) in [
        (two("container_name: x", "container_name: x"), "one container name"),
        (two(&on("10.1.0.2"), &on("10.1.0.2")), "one address"),
        (two(&on("10.1.0.2"), &on("10.2.0.2")), "outside the subnet"),
        (two(&on("10.1.0.2"), &on("10.1.0.1")), "gateway"),
        (two(&on("10.1.0.2"), &on("10.1.0.x")), "no IPv4 address"),
        (two("init: true", "networks: {m: {ipv4_address: 10.1.0.2}}"), "declares no subnet"),
        (two("ports: ['1:1']", "ports: ['127.0.0.1:1:2']"), "both publish port 1/tcp"),
        (two("x-tars: {role: master}", "x-tars: {role: master}"), "two masters"),
        (two("depends_on: [b]", "depends_on: [a]"), "circle: a -> b -> a"),
    ] {
        let (shown, _, hint) = Project::new(&[("compose.yaml", &text)]).error();
        assert!(shown.contains(message), "{text}\n{shown}");
        assert!(!hint.is_empty(), "{shown}");
    }
}

#[test]
fn relative_device_of_a_bind_volume_starts_from_the_project_folder_as_in_compose() {
    let volume = |options: &str| {
        let text = format!(
            "services: {{s: {{image: a, volumes: ['v:/data']}}}}\nvolumes: {{v: {{driver_opts: {options}}}}}\n"
        );
        let project = Project::new(&[("compose.yaml", &text)]);
        let desired = project.load().unwrap();
        let device = desired.volumes[0].body["DriverOpts"]["device"].as_str().unwrap().to_owned();
        device.replace(&project.path("").display().to_string(), "@/")
    };
    assert_eq!(volume("{type: none, o: bind, device: ./data}"), "@/data");
    assert_eq!(volume("{type: none, o: 'rw,bind', device: data/../x}"), "@/x");
    assert_eq!(volume("[type=none, o=bind, device=./data]"), "@/data");
    assert_eq!(volume("{type: none, o: bind, device: /srv}"), "/srv");
    assert_eq!(volume("{type: nfs, o: addr=10.0.0.1, device: ':/export'}"), ":/export");
    assert_eq!(volume("{type: tmpfs, o: size=1m, device: tmpfs}"), "tmpfs");
}

#[test]
fn project_name_is_there_for_interpolation_wherever_it_comes_from() {
    let text = "services: {s: {image: a, volumes: ['v:/data'], environment: [COMPOSE_PROJECT_NAME]}}\n\
                volumes: {v: {name: 'data-${COMPOSE_PROJECT_NAME}'}}\n";
    let names = |file: &str, project: Option<&str>, environment: &[(&str, &str)]| {
        let folder = Project::new(&[("compose.yaml", file)]);
        let desired = load(&LoadOptions {
            files: Vec::new(),
            project: project.map(str::to_owned),
            directory: folder.path(""),
            environment: environment
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).into()))
                .collect(),
        })
        .unwrap();
        assert_eq!(desired.notes, Vec::<String>::new());
        let env = desired.services[0].declaration.environment.value("COMPOSE_PROJECT_NAME");
        assert_eq!(env.map(Secretive::expose), Some(desired.deployment.as_str()));
        desired.volumes[0].name.clone()
    };
    assert_eq!(names(text, Some("p"), &[("COMPOSE_PROJECT_NAME", "shell")]), "data-p");
    assert_eq!(names(text, None, &[("COMPOSE_PROJECT_NAME", "shell")]), "data-shell");
    let own_name = format!("name: ${{WHO}}-fw\n{text}");
    assert_eq!(names(&own_name, None, &[("WHO", "ann")]), "data-ann-fw");
}

#[test]
fn namespace_of_another_service_or_container_is_what_compose_makes_of_it() {
    let file = "services:
  app: {image: a/b:1, network_mode: 'service:base', ipc: service:base, pid: 'container:other', depends_on: [base]}
  base: {image: a/b:1, container_name: the-base, ipc: shareable, ports: ['80:80']}
  late: {image: a/b:1, network_mode: 'container:the-base'}
  far: {image: a/b:1, network_mode: 'container:vpn', ports: [], dns: []}
";
    let project = Project::new(&[("compose.yaml", file)]);
    let desired = project.load().unwrap();
    let modes = |service: &str| {
        let host = body(&project, &desired, service)["HostConfig"].clone();
        ["NetworkMode", "IpcMode", "PidMode"].map(|key| host[key].clone())
    };
    let base = json!("container:the-base");
    assert_eq!(modes("app"), [base.clone(), base.clone(), json!("container:other")]);
    assert_eq!(modes("late"), [base, Value::Null, Value::Null]);
    assert_eq!(modes("far"), [json!("container:vpn"), Value::Null, Value::Null]);
    for service in ["app", "late", "far"] {
        assert_eq!(body(&project, &desired, service).get("NetworkingConfig"), None, "{service}");
    }
    // Whose namespace it is, is started before.
    let needs = |service: &str| desired.service(service).unwrap().depends_on.clone();
    assert_eq!(
        (needs("app"), needs("late"), needs("far")),
        (vec!["base".into()], vec!["base".into()], vec![])
    );
    assert!(desired.networks.iter().all(|network| network.key == "default"));
    assert!(desired.notes.is_empty(), "{:?}", desired.notes);
}

#[test]
fn what_belongs_to_a_network_is_refused_beside_another_ones_network() {
    for lines in [
        "ports: ['80:80']",
        "expose: [80]",
        "hostname: a",
        "domainname: a",
        "mac_address: '02:00:5e:00:53:01'",
        "dns: 192.0.2.1",
        "dns_opt: [ndots:2]",
        "dns_search: [example.org]",
        "extra_hosts: ['a:192.0.2.1']",
    ] {
        let key = lines.split(':').next().unwrap();
        let project =
            Project::new(&[("compose.yaml", &with(&format!("network_mode: 'container:vpn'\n{lines}")))]);
        let (error, place, hint) = project.error();
        let expected = format!(
            "`{key}` and `network_mode: container:vpn` exclude each other: the network is the other's"
        );
        assert_eq!((error.as_str(), place.as_str()), (expected.as_str(), "compose.yaml:5"));
        assert!(hint.contains("write it there"), "{hint}");
        // Its memory and processes have nothing to do with it.
        let project = Project::new(&[("compose.yaml", &with(&format!("ipc: 'container:vpn'\n{lines}")))]);
        project.load().unwrap_or_else(|error| panic!("{lines}: {error}"));
    }
    let both = with("network_mode: 'container:vpn'\nnetworks: [a]");
    assert!(Project::new(&[("compose.yaml", &both)]).error().0.contains("`networks` exclude each other"));
}

#[test]
fn namespaces_in_a_circle_are_refused_and_memory_that_nobody_shares_is_told() {
    let circle = "services:
  a: {image: a/b:1, network_mode: 'service:b'}
  b: {image: a/b:1, pid: 'service:a'}
";
    assert!(Project::new(&[("compose.yaml", circle)]).error().0.contains("in a circle: a -> b -> a"));
    let private = "services:
  a: {image: a/b:1, ipc: 'service:b'}
  b: {image: a/b:1}
";
    let notes = Project::new(&[("compose.yaml", private)]).load().unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("`b` does not share its memory")), "{notes:?}");
}

#[test]
fn value_of_an_environment_is_in_no_text_that_is_made_of_a_deployment() {
    let file = "services:\n  a:\n    image: i\n    env_file: a.env\n    environment:\n      LITERAL: hunter2-literal\n      \
                FROM_DOTENV: ${OF_DOTENV}\n      OF_SHELL:\n      JOINED: \"x${OF_DOTENV}y$OF_SHELL\"\n    command: [\"--pw=${OF_SHELL}\"]\n    \
                labels: {pw: \"${OF_DOTENV}\"}\nx-tars: {database: {env_file: db.env}}\nvolumes:\n  v: {driver_opts: {o: \"password=${OF_SHELL}\"}}\n";
    let project = Project::new(&[
        ("compose.yaml", &file.replace("    image: i\n", "    image: i\n    volumes: [\"v:/data\"]\n")),
        (".env", "OF_DOTENV=hunter2-dotenv\n"),
        ("a.env", "OF_FILE=hunter2-file\n"),
        ("db.env", "MYSQL_HOST=10.0.0.2\nMYSQL_ROOT_PASSWORD=hunter2-account\n"),
    ])
    .shell("OF_SHELL", "hunter2-shell");
    let desired = project.load().unwrap();
    let environment = &desired.services[0].declaration.environment;
    assert_eq!(environment.value("JOINED").unwrap().expose(), "xhunter2-dotenvyhunter2-shell");
    let shown = format!("{desired:?}{desired:#?}{:?}{:?}", environment.value("JOINED"), project.shell);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("***(JOINED)") && shown.contains("***(OF_SHELL)"), "{shown}");
    // The engine alone is given them.
    let body = desired.services[0].declaration.render();
    let sent = Value::Object(body.0.clone()).to_string();
    for value in ["literal", "dotenv", "shell", "file"] {
        assert!(sent.contains(&format!("hunter2-{value}")), "{value}: {sent}");
    }
    assert!(!format!("{body:?}").contains("hunter2"), "{body:?}");
}
