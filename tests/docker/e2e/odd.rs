//! Servers that a gate cannot simply ask: over UDP, for other callers alone, without an adapter, with a script or a folder of their own, a
//! backup. Each serves again before the gate of its node passes, and one that does not holds it.

use std::process::Command;

use super::deployment::Deployment;
use super::servers::{Server, deploy, is_given_back};
use super::stage::{NEW, succeed};
use crate::turns::is_for_another_time;

const ON: &[(&str, u8)] = &[("node", 5)];

#[test]
fn servers_that_cannot_be_asked_or_lie_elsewhere_serve_again_before_a_gate_passes() {
    if is_for_another_time() {
        return;
    }
    let deployment = &Deployment::new("e2e-odd", 100, &["database", "framework", "node"]);
    deployment.edit("compose.yaml", "drain: off", "client_refresh: 2s, drain_timeout: 3s");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let script = "/data/tars/tarsnode-data/Demo.ScriptServer/start.sh";
    let servers = [
        Server::new("UdpServer", "udp -p 9011", ON),
        Server { allow_ip: "10.9.9.9", ..Server::new("ClosedServer", "tcp -p 9012", ON) },
        Server::new("QuietServer", "", ON),
        Server { row: "bak_flag = 1", ..Server::new("BackServer", "tcp -p 9013", ON) },
        Server {
            row: &format!("start_script_path = '{script}'"),
            ..Server::new("ScriptServer", "tcp -p 9014", ON)
        },
        Server { folder: "/data/tars/elsewhere", ..Server::new("ElsewhereServer", "tcp -p 9015", ON) },
    ];
    let home = servers[4].home();
    // A process is known by its configuration, as tarsnode names it.
    let own = "/usr/local/app/tars/tarsnode/data/Demo.ScriptServer";
    let started = format!("{own}/bin/ScriptServer --config={own}/conf/Demo.ScriptServer.config.conf");
    let written = format!(
        "mkdir -p {home} && printf '#!/bin/sh\\n{started} >/dev/null 2>&1 </dev/null &\\n' >{script} && chmod 755 {script}"
    );
    let node = deployment.container("node");
    succeed(Command::new("docker").args(["exec", &node, "sh", "-c", &written]));
    deploy(deployment, &servers);
    let processes = |name: &str| {
        let output = Command::new("docker").args(["exec", &node, "pidof", name]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).split_whitespace().count()
    };
    let plan = deployment.tarsup(&["restart", "node", "--dry-run", "--json", "--yes"]).exits(0).json();
    let (silent, along) = (&plan["overview"]["silent"], &plan["overview"]["along"]);
    for server in &servers {
        let list = if server.name == "BackServer" { along } else { silent };
        assert!(list[format!("Demo.{}", server.name)].is_array(), "{}: {plan}", server.name);
    }

    for words in
        [&["restart", "node", "--yes"][..], &["upgrade", "--to", NEW, "--yes"], &["rollback", "--yes"]]
    {
        let ran = deployment.tarsup(words).exits(0);
        for server in &servers {
            assert_eq!(processes(server.name), 1, "{words:?}: {}\n{}", server.name, ran.err);
        }
        is_given_back(deployment);
    }

    // The gate of a node whose server is there no more is not passed by the port of another one, nor by a row of the database.
    let breaks = format!("sed -i 's/^.*ScriptServer.*$/sleep 600 \\&/' {script}");
    succeed(Command::new("docker").args(["exec", &node, "sh", "-c", &breaks]));
    deployment.edit("compose.yaml", "client_refresh: 2s,", "services_timeout: 25s, client_refresh: 2s,");
    let refused = deployment.tarsup(&["restart", "node", "--yes"]);
    assert!(matches!(refused.code, 1 | 4), "{}\n{}", refused.code, refused.err);
    assert!(refused.err.contains("Demo.ScriptServer"), "{}", refused.err);
    for server in servers.iter().filter(|server| server.name != "ScriptServer") {
        assert!(!refused.err.contains(&format!("{} ", server.object())), "{}", refused.err);
    }
}
