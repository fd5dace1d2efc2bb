//! The real framework with its web console, and a deployment of four hundred services, with a tenth of every limit: each is at least
//! ten times what they need.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tarsup::limits;
use tempfile::TempDir;

use crate::beside;
use crate::e2e::stage::{bases, succeed};
use crate::turns::is_for_another_time;

/// Services of the largest deployment.
const SERVICES: usize = 400;

/// `tarsup` in this folder, with a tenth of every limit.
fn tenth(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
    command.args(arguments).current_dir(folder);
    command.env("TARSUP_STORE", folder.join("store")).env("TARSUP_CACHE", folder.join("cache"));
    for limit in limits::all() {
        command.env(limit.variable, (limit.most / 10).to_string());
    }
    succeed(&mut command)
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect::<Vec<_>>().concat()
}

/// A compose file that says of each service what one of production says.
fn compose() -> String {
    let service = |n: usize| {
        let address = format!("172.29.{}.{}", n / 200, n % 200 + 10);
        let role = match n {
            0 => "master",
            1 | 2 => "slave",
            _ => "node",
        };
        format!(
            "  node-{n:03}:
    image: tars/{image}:${{TARS_VERSION}}
    container_name: tars-node-{n:03}
    restart: unless-stopped
    stop_grace_period: 60s
    env_file: tars.env
    environment:
      DOMAIN: {address}
      TARS_REGISTRY_ADDRESS: tcp -h 172.29.0.10 -p 17890:tcp -h 172.29.0.11 -p 17890
      TZ: Asia/Shanghai
      KEY_{n}: ${{KEY}}-{n}
    volumes: [\"node-{n:03}:/data/tars\", \"/etc/localtime:/etc/localtime:ro\", \"/srv/{n}/logs:/usr/local/app/tars/app_log\"]
    networks: {{tars: {{ipv4_address: {address}}}}}
    ports: [\"127.0.0.1:{own}:3000\", \"{first}-{last}:{first}-{last}\"]
    labels: {{team: payments, owner: somebody@example.com}}
    logging: {{driver: json-file, options: {{max-size: 100m, max-file: \"3\"}}}}
    ulimits: {{nofile: {{soft: 65536, hard: 65536}}}}
    x-tars: {{role: {role}}}
",
            image = if n < 3 { "framework" } else { "node" },
            own = 10_000 + n,
            first = 20_000 + n * 100,
            last = 20_000 + n * 100 + 99,
        )
    };
    let services = (0..SERVICES).map(service).collect::<Vec<_>>().concat();
    let volumes = lines(SERVICES, |n| format!("  node-{n:03}: {{}}\n"));
    // A chain of six, of which the last is what the others begin with.
    let chain = lines(6, |n| format!("  chain-{n}: {{extends: chain-{}, image: x:1}}\n", n + 1));
    format!(
        "services:\n{services}{chain}  chain-6: {{image: x:1}}\nvolumes:\n{volumes}networks: {{tars: {{ipam: {{config: [{{subnet: 172.29.0.0/16}}]}}}}}}\n"
    )
}

#[test]
fn a_tenth_of_every_limit_is_enough_for_the_largest_real_input() {
    const NAME: &str = "a_tenth_of_every_limit_is_enough_for_the_largest_real_input";
    if is_for_another_time() {
        return;
    }
    let Some(real) = beside::folder("real", NAME) else { return };
    let folder = TempDir::new().unwrap();
    let path = |below: &str| folder.path().join(below);

    fs::write(path("compose.yaml"), compose()).unwrap();
    let settings = lines(40, |n| format!("SETTING_{n}=the value of setting {n}, with some words\n"));
    fs::write(path("tars.env"), format!("{settings}MYSQL_HOST=172.29.0.2\nMYSQL_ROOT_PASSWORD=x\n")).unwrap();
    fs::write(path(".env"), format!("TARS_VERSION=3.0.17\nKEY={}\n", "0123456789abcdef".repeat(4))).unwrap();
    let understood: Value =
        serde_json::from_slice(&tenth(folder.path(), &["config", "--json"]).stdout).unwrap();
    assert_eq!(understood["services"].as_object().map(serde_json::Map::len), Some(SERVICES + 7));
    // Of each container an engine's list says less than its inspect; its predecessor is kept as well.
    let shown: Value =
        serde_json::from_str(include_str!("../../fixtures/adopt/docker-run-20.10.json")).unwrap();
    let largest =
        shown["containers"].as_array().unwrap().iter().map(|one| one.to_string().len() as u64).max();
    assert!(largest.unwrap() * 2 * SERVICES as u64 <= limits::ANSWER.most / 10, "{largest:?}");

    let release = real.join("v3.0.17");
    succeed(Command::new("tar").arg("-xzf").arg(release.join("deploy.tgz")).arg("-C").arg(folder.path()));
    let init = std::env::var_os("TARSUP_TEST_INIT").expect("TARSUP_TEST_INIT: run it by tests/all.sh");
    let packages = fs::read_dir(&release).unwrap().map(|entry| entry.unwrap().path());
    let packages: Vec<String> = packages
        .filter(|path| !path.ends_with("deploy.tgz"))
        .map(|path| path.display().to_string())
        .collect();
    let recipe = format!(
        "name: x/framework\nversion: 1\nrole: framework\nbase: rootfs:{}\npackages: [{}]\ndeploy: deploy/framework\ninit: {}\nweb: {}\n",
        bases().join("web.tar").display(),
        packages.join(", "),
        Path::new(&init).display(),
        real.join("web.tgz").display()
    );
    fs::write(path("framework.yaml"), recipe).unwrap();
    tenth(folder.path(), &["build", "framework.yaml"]);
    fs::remove_dir_all(path("cache")).unwrap();
    tenth(folder.path(), &["build", "framework.yaml", "--version", "2", "--after", "x/framework:1"]);
    tenth(folder.path(), &["diff", "x/framework:1", "x/framework:2"]);

    // A list that is too large counts as none, and fails nobody.
    let image = tarsup::transport::layout::read(&path("store"), Some("x/framework:2")).unwrap();
    assert!(
        image.layers.iter().map(|layer| layer.descriptor.size).sum::<u64>() * 3 <= limits::IMAGE.most / 10
    );
    let lists = image.layers.iter().zip(image.layer_names()).filter(|(_, name)| name.starts_with("contents"));
    let mut seen = 0;
    for (layer, name) in lists {
        assert!(layer.descriptor.size <= limits::LIST.most / 10, "{name}: {}", layer.descriptor.size);
        let mut list = Vec::new();
        flate2::read::MultiGzDecoder::new(layer.source.open().unwrap()).read_to_end(&mut list).unwrap();
        assert!(list.len() as u64 <= limits::LISTED.most / 10, "{name}: {}", list.len());
        seen += 1;
    }
    assert!(seen >= 2, "{seen}");
}
