//! A business service on the nodes: deployed into their volumes as a publish leaves it, called through the registries.

use std::path::{Path, PathBuf};
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
    let addresses: Vec<String> = nodes.iter().map(|(_, host)| deployment.address(*host)).collect();
    for statement in statements(&addresses) {
        deployment.query(&statement);
    }
}

/// The statements that write these rows.
pub fn statements(nodes: &[String]) -> Vec<String> {
    let rows = beside::folder("hello", "the service `hello`").expect("it lies beside the framework");
    let rows = std::fs::read_to_string(rows.join("rows.sql")).unwrap();
    let mut statements = Vec::new();
    for (at, address) in nodes.iter().enumerate() {
        // The file has two statements a node, for 172.25.0.5 and .6.
        let there = format!("172.25.0.{}", 5 + at);
        let of_node = rows.lines().filter(|line| line.contains(&there));
        statements.extend(of_node.map(|line| line.replace(&there, address)));
    }
    statements
}

/// Calls the service for two seconds; with `host` that node's own, else whatever the registries hand out.
pub fn call(deployment: &Deployment, host: Option<u8>) -> Ran {
    let host = host.map(|host| deployment.address(host));
    call_at([&deployment.address(3), &deployment.address(4)], host.as_deref())
}

/// The same with the addresses of any registries. From where the tests are, which every network of the engine lets in: a container for
/// each try costs a second of processor.
pub fn call_at(registries: [&str; 2], host: Option<&str>) -> Ran {
    let mut command = Command::new(folder().join("hello-client"));
    command.args(["-l", &locator(registries), "-r", "50", "-c", "8", "-t", "2"]);
    if let Some(host) = host {
        command.args(["-o", &format!("Demo.HelloServer.HelloObj@tcp -h {host} -p 9001")]);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// The client in a container of its own; more arguments are its own.
pub fn client(network: &str, registries: [&str; 2], container: &str) -> Command {
    let mut command = Command::new("docker");
    command.args([
        "run",
        "--rm",
        "--name",
        container,
        "--network",
        network,
        "--entrypoint",
        "/hello/hello-client",
    ]);
    command.args([
        "-v",
        &mounted(&folder()),
        &format!("{PREFIX}/node:{RELEASE}"),
        "-l",
        &locator(registries),
    ]);
    command
}

fn folder() -> PathBuf {
    beside::folder("real/hello", "the client of `hello`").expect("it lies beside the framework")
}

fn locator([master, slave]: [&str; 2]) -> String {
    format!("tars.tarsregistry.QueryObj@tcp -h {master} -p 17890:tcp -h {slave} -p 17890")
}

fn mounted(folder: &Path) -> String {
    format!("{}:/hello:ro", folder.display())
}
