//! A service published as its developers do it: a package through the real web console's API, tarspatch, a node.

use std::path::Path;
use std::process::Command;

use super::hello;
use super::rows::wait_for_nodes;
use super::stage::{WITH_WEB, stage_with};
use crate::beside;
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;

/// Sets the console's first password, logs in, uploads the package, and prints what the console says in the end.
const PUBLISH: &str = "
const base = process.argv[1], fs = require('fs');
const post = (path, body) => fetch(base + path, {
  method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }).then((answer) => answer.json());
(async () => {
  const password = require('crypto').createHash('sha1').update('a-password-1').digest('hex');
  const set = await post('/pages/server/api/adminModifyPass', { password, repeat_password: password });
  const { data } = await post('/pages/server/api/login', { uid: 'admin', password });
  if (!data || !data.ticket) throw new Error('no ticket; the password: ' + JSON.stringify(set));
  const form = new FormData();
  for (const [name, value] of [['application', 'Demo'], ['module_name', 'HelloServer'], ['comment', 'the first']]) form.append(name, value);
  form.append('suse', new Blob([fs.readFileSync('/tmp/HelloServer.tgz')]), 'HelloServer.tgz');
  const answer = await fetch(base + '/api/upload_and_publish?ticket=' + data.ticket, { method: 'POST', body: form });
  console.log(answer.status, await answer.text());
})().catch((error) => { console.error(error); process.exit(1); });
";

/// Publishes the program as `Demo.HelloServer` through the console in a master's container; what the console says.
pub fn publish(framework: &str, url: &str, program: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("HelloServer")).unwrap();
    std::fs::copy(program, folder.path().join("HelloServer/HelloServer")).unwrap();
    let package = folder.path().join("HelloServer.tgz");
    succeed(Command::new("tar").arg("-C").arg(folder.path()).arg("-czf").arg(&package).arg("HelloServer"));
    succeed(Command::new("docker").arg("cp").arg(&package).arg(format!("{framework}:/tmp/HelloServer.tgz")));
    let published =
        succeed(Command::new("docker").args(["exec", framework, "node", "-e", PUBLISH, "--", url]));
    String::from_utf8_lossy(&published.stdout).into_owned()
}

#[test]
fn real_service_is_published_through_the_console_and_comes_back_with_its_node() {
    let test = "real_service_is_published";
    let Some(stage) = stage_with(WITH_WEB, test) else { return };
    let deployment = Deployment::of(stage, WITH_WEB, "real-publish", 71, &["database", "framework", "node"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    wait_for_nodes(&deployment, 2);
    hello::register(&deployment, &[("node", 5)]);
    let program = beside::folder("real/hello/HelloServer", test).unwrap();
    let url = format!("http://{}:3000", deployment.address(3));
    let said = publish(&deployment.container("framework"), &url, &program);

    assert!(said.starts_with("200 ") && said.contains("task no:"), "{said}");
    wait_for("the service to answer on its node", || hello::call(&deployment, Some(5)).code == 0);
    let node = deployment.container("node");
    let there = "/data/tars/tarsnode-data/Demo.HelloServer/bin/HelloServer";
    let sum = |command: &mut Command| {
        let output = succeed(command);
        String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!(
        sum(Command::new("docker").args(["exec", &node, "md5sum", there])),
        sum(Command::new("md5sum").arg(&program))
    );
    let patched = "SELECT COUNT(*) FROM db_tars.t_server_conf WHERE server_name = 'HelloServer' AND patch_version <> ''";
    assert_eq!(deployment.query(patched).trim(), "1", "{said}");

    deployment.tarsup(&["restart", "--yes"]).exits(0);

    wait_for("the service to answer again", || hello::call(&deployment, Some(5)).code == 0);
}
