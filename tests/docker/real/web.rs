//! A master with the real web console.

use std::process::Command;

use super::silence::inside;
use super::stage::{WITH_WEB, stage_with};
use crate::e2e::deployment::{Deployment, wait_for};

/// What the web answers on its port, asked by its own Node.js inside the container.
fn answers(deployment: &Deployment) -> bool {
    let ask = format!(
        "require('http').get('http://{}:3000/', answer => process.exit(answer.statusCode < 500 ? 0 : 1))\
         .on('error', () => process.exit(1))",
        deployment.address(3)
    );
    let container = deployment.container("framework");
    Command::new("docker").args(["exec", &container, "node", "-e", &ask]).output().unwrap().status.success()
}

#[test]
fn real_master_with_its_web_comes_up_and_comes_back_after_a_restart() {
    let Some(stage) = stage_with(WITH_WEB, "real_master_with_its_web") else { return };
    let deployment = Deployment::of(stage, WITH_WEB, "real-web", 54, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    wait_for("the web to answer", || answers(&deployment));

    deployment.tarsup(&["restart", "--yes"]).exits(0);

    wait_for("the web to answer again", || answers(&deployment));
    assert!(deployment.answers("framework"));
    let schemas = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('db_tars_web', \
                   'db_user_system', 'db_cache_web', 'db_base')";
    assert_eq!(deployment.query(schemas).trim(), "4");

    // What it prints, every statement that it sends among it, is for its owner alone and is cut off while it runs.
    let log = "/data/tars/app_log/tars-init/web.log";
    let is_printing = || inside(&deployment, &format!("grep -c 'SELECT\\|CREATE' {log} || :")) != "0";
    wait_for("the console to print statements", is_printing);
    inside(&deployment, &format!("head -c 12000000 /dev/zero | tr '\\0' x >>{log}"));
    wait_for("the log to be put aside", || {
        inside(&deployment, &format!("ls {log}.1 2>&1 || :")) == format!("{log}.1")
    });
    wait_for("the console to print again", || inside(&deployment, &format!("stat -c %s {log}")) != "0");
    let size: u64 = inside(&deployment, &format!("stat -c %s {log}")).parse().unwrap();
    assert!(size < 1 << 20, "{size} bytes: it goes on at its new end");
    let modes = inside(&deployment, &format!("stat -c %a {log} {log}.1"));
    assert_eq!(modes, "640\n640");
}
