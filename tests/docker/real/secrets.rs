//! The real framework with its passwords in files, TLS between tars-init and the database, and another password than the
//! one that everybody knows.

use std::fs;
use std::process::{Command, Stdio};

use super::silence::inside;
use super::stage::{PATCHED, RELEASE, stage};
use crate::certificates::Certificates;
use crate::e2e::deployment::{Deployment, PASSWORD, wait_for};
use crate::turns::is_for_another_time;

const SERVICES: &str = "Services-Secret=2026";

/// What a container printed.
fn said(container: &str) -> String {
    let output = Command::new("docker").args(["logs", container]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[track_caller]
fn hides(what: &str, text: &str) {
    for secret in [PASSWORD, SERVICES] {
        assert!(!text.contains(secret), "{what}: {text}");
    }
}

/// PID 1 with all that it speaks with a database is below 6 MiB on disk, and below 8 in memory.
#[track_caller]
fn is_small(deployment: &Deployment) {
    let number = |words: &str| inside(deployment, words).parse::<u64>().unwrap();
    let bytes = number("stat -L -c %s /proc/1/exe");
    let resident = number("grep ^VmRSS: /proc/1/status | tr -cd 0-9");
    eprintln!("tars-init: {bytes} bytes, {resident} KiB resident");
    assert!(bytes < 6 << 20 && resident < 8 << 10, "{bytes} bytes, {resident} KiB resident");
}

#[test]
fn real_master_with_passwords_in_files_and_tls_starts_upgrades_and_shows_no_secret() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_master_with_passwords_in_files") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-secret", 59, &["database", "framework"]);
    // Outside of the deployment's folder, where nothing secret may be.
    let certificates = Certificates::of(&deployment.address(2));
    let folder = certificates.folder.path();
    for (name, text) in [("root", PASSWORD), ("services", SERVICES)] {
        fs::write(folder.join(name), format!("{text}\n")).unwrap();
    }
    // The server runs as mysql.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder, mode).unwrap();
    let mount = |name: &str| format!("{}:/run/secrets/{name}:ro", certificates.path(name));
    let (root, services, ca) = (mount("root"), mount("services"), mount("ca.pem"));
    let (server, key) = (mount("server.pem"), mount("key.pem"));
    deployment.edit(
        "compose.yaml",
        "MYSQL_ROOT_PASSWORD: ${PASSWORD}",
        "MYSQL_ROOT_PASSWORD_FILE: /run/secrets/root",
    );
    deployment.edit(
        "compose.yaml",
        "    volumes: [\"database:/var/lib/mysql\"]\n",
        &format!(
            "    volumes: [\"database:/var/lib/mysql\", \"{root}\", \"{server}\", \"{key}\"]\n    \
             command: [--ssl-cert=/run/secrets/server.pem, --ssl-key=/run/secrets/key.pem]\n"
        ),
    );
    deployment.edit(
        "compose.yaml",
        "      INET: eth0\n",
        "      TARS_ADMIN_PASSWORD_FILE: /run/secrets/services\n      MYSQL_SSL_CA: /run/secrets/ca.pem\n      INET: eth0\n",
    );
    deployment.edit(
        "compose.yaml",
        "[\"framework:/data/tars\"]",
        &format!("[\"framework:/data/tars\", \"{root}\", \"{services}\", \"{ca}\"]"),
    );

    deployment.tarsup(&["up", "--yes"]).exits(0);

    wait_for("the master to be well", || deployment.answers("framework"));
    let master = deployment.container("framework");
    assert!(!said(&master).contains("everybody knows"), "{}", said(&master));
    // From here on the administrator comes over TLS, or not at all.
    deployment.query("ALTER USER root@'%' REQUIRE SSL");
    let plan = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    hides("an upgrade", &(plan.out + &plan.err));
    wait_for("the master to be well", || deployment.answers("framework"));
    assert_eq!(deployment.version("framework"), PATCHED);

    for container in deployment.containers() {
        hides(&container, &said(&container));
    }
    let env = inside(&deployment, "tars-init env");
    assert!(env.contains("MYSQL_ROOT_PASSWORD_FILE=/run/secrets/root\n"), "{env}");
    assert!(env.contains("over TLS, by the CA in /run/secrets/ca.pem"), "{env}");
    hides("tars-init env", &env);
    hides("tars-init status", &inside(&deployment, "tars-init status"));
    let started = inside(&deployment, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'");
    assert!(started.contains("tarsregistry"), "{started}");
    hides("what is started", &started);
    deployment.holds_no_secret();
    is_small(&deployment);
}
