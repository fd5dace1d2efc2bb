//! A business service on the nodes: deployed into their volumes as a publish leaves it, called through the registries.

use std::path::Path;
use std::process::Command;

use crate::beside;
use crate::e2e::deployment::{Deployment, Ran};
use crate::e2e::stage::succeed;

use super::stage::{PREFIX, RELEASE};

const FOLDER: &str = "/data/tars/tarsnode-data/Demo.HelloServer/bin";

/// Puts the service's rows into the database and its program onto the nodes; a node starts it at its next start.
pub fn deploy(deployment: &Deployment, nodes: &[(&str, u8)]) {
    register(deployment, nodes);
    let hello = beside::folder("real/hello", "the service `hello`").expect("it lies beside the framework");
    for (service, _) in nodes {
        let container = deployment.container(service);
        succeed(Command::new("docker").args(["exec", &container, "mkdir", "-p", FOLDER]));
        let program = hello.join("HelloServer");
        succeed(
            Command::new("docker").arg("cp").arg(&program).arg(format!("{container}:{FOLDER}/HelloServer")),
        );
    }
}

/// The rows alone, as the web console writes them for a service whose package is published afterwards.
pub fn register(deployment: &Deployment, nodes: &[(&str, u8)]) {
    let rows = beside::folder("hello", "the service `hello`").expect("it lies beside the framework");
    let rows = std::fs::read_to_string(rows.join("rows.sql")).unwrap();
    for (at, (_, host)) in nodes.iter().enumerate() {
        // The file has two statements a node, for 172.25.0.5 and .6.
        let there = format!("172.25.0.{}", 5 + at);
        for statement in rows.lines().filter(|line| line.contains(&there)) {
            deployment.query(&statement.replace(&there, &deployment.address(*host)));
        }
    }
}

/// Calls the service for two seconds; with `host` that node's own, else whatever the registries hand out.
pub fn call(deployment: &Deployment, host: Option<u8>) -> Ran {
    let client = beside::folder("real/hello", "the client of `hello`").expect("it lies beside the framework");
    let locator = format!(
        "tars.tarsregistry.QueryObj@tcp -h {} -p 17890:tcp -h {} -p 17890",
        deployment.address(3),
        deployment.address(4)
    );
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--network", &deployment.network(), "--entrypoint", "/hello/hello-client"]);
    command.args(["-v", &mounted(&client), &format!("{PREFIX}/node:{RELEASE}")]);
    command.args(["-l", &locator, "-r", "50", "-c", "8", "-t", "2"]);
    if let Some(host) = host {
        command
            .args(["-o", &format!("Demo.HelloServer.HelloObj@tcp -h {} -p 9001", deployment.address(host))]);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

fn mounted(folder: &Path) -> String {
    format!("{}:/hello:ro", folder.display())
}
