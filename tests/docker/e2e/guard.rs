//! REBUILD, wherever it is written: refused, nothing started, and not one table changed.

use std::process::Command;

use super::deployment::Deployment;
use super::stage::{OLD, PREFIX, succeed};

/// A deployment with tables to lose.
fn deployment(name: &'static str, subnet: u8) -> Deployment {
    let deployment = Deployment::new(name, subnet, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.mark();
    deployment
}

/// Writes it somewhere, and says in which file and with which text the refusal must name it.
type Case = (&'static str, fn(&Deployment), &'static [(&'static str, &'static str)], &'static str);

const CASES: &[Case] = &[
    (
        "the compose file",
        |d| d.edit("compose.yaml", "REBUILD: \"false\"", "REBUILD: true"),
        &[],
        "compose.yaml:",
    ),
    (
        "a value that only upstream's shell makes true of",
        |d| d.edit("compose.yaml", "\"false\"\n      SLAVE", "\" true \"\n      SLAVE"),
        &[],
        "compose.yaml:",
    ),
    (
        "interpolation from .env",
        |d| {
            d.edit("compose.yaml", "REBUILD: \"false\"", "REBUILD: ${REBUILD_IT}");
            d.write(".env", &(d.read(".env") + "REBUILD_IT=true\n"));
        },
        &[],
        "REBUILD_IT",
    ),
    (
        "an env_file",
        |d| {
            d.edit("compose.yaml", "      REBUILD: \"false\"\n", "");
            d.edit(
                "compose.yaml",
                "    volumes: [\"framework:",
                "    env_file: [tars.env]\n    volumes: [\"framework:",
            );
            d.write("tars.env", "INET=eth0\nREBUILD=true\n");
        },
        &[],
        "tars.env:2",
    ),
    (
        "the shell, passed through",
        |d| {
            d.edit("compose.yaml", "REBUILD: \"false\"", "REBUILD:");
        },
        &[("REBUILD", "true")],
        "compose.yaml:",
    ),
];

#[test]
fn rebuild_is_refused_wherever_the_files_say_it() {
    let deployment = deployment("e2e-guard", 21);
    let (tables, id) = (deployment.tables(), deployment.id("framework"));
    let (compose, env) = (deployment.read("compose.yaml"), deployment.read(".env"));
    for (place, write, shell, named) in CASES {
        write(&deployment);
        for words in [&["up", "--yes"][..], &["restart", "--yes"], &["plan"]] {
            let ran = deployment.tarsup_with(words, shell);
            assert_eq!(ran.code, 3, "{place}, {words:?}: {}{}", ran.out, ran.err);
            assert!(ran.err.contains(named) && ran.err.contains("REBUILD"), "{place}: {}", ran.err);
        }
        deployment.write("compose.yaml", &compose);
        deployment.write(".env", &env);
    }
    assert_eq!(deployment.tables(), tables);
    assert_eq!(deployment.id("framework"), id);
    assert!(deployment.answers("framework"), "what ran still runs");
}

#[test]
fn rebuild_in_an_image_or_a_running_container_is_refused() {
    let deployment = deployment("e2e-baked", 22);
    let (tables, id) = (deployment.tables(), deployment.id("framework"));
    let baked = format!("{PREFIX}/framework:baked");
    let by_hand = deployment.container("by-hand");
    succeed(Command::new("docker").args([
        "create",
        "--name",
        &by_hand,
        &format!("{PREFIX}/framework:{OLD}"),
    ]));
    succeed(Command::new("docker").args(["commit", "--change", "ENV REBUILD=true", &by_hand, &baked]));
    succeed(Command::new("docker").args(["rm", &by_hand]));
    deployment.edit("compose.yaml", "      REBUILD: \"false\"\n", "");

    let ran = deployment.tarsup(&["upgrade", "--to", "baked", "--yes"]).exits(3);
    assert!(ran.err.contains("REBUILD"), "{}", ran.err);
    assert_eq!(deployment.id("framework"), id);

    // A container that a restart would start again.
    let name = deployment.container("framework");
    succeed(Command::new("docker").args(["stop", &name]));
    succeed(Command::new("docker").args(["rename", &name, &by_hand]));
    let mut run = Command::new("docker");
    run.args(["run", "-d", "--name", &name, "-e", "REBUILD=true", "--entrypoint", "sleep"]);
    for (label, value) in [("deployment", deployment.name), ("service", "framework"), ("role", "master")] {
        run.args(["--label", &format!("io.tarsup.{label}={value}")]);
    }
    succeed(run.args([&format!("{PREFIX}/framework:{OLD}"), "600"]));
    let stranger = deployment.id("framework");
    let ran = deployment.tarsup(&["restart", "--yes"]).exits(3);
    assert!(ran.err.contains("REBUILD"), "{}", ran.err);
    assert_eq!(deployment.id("framework"), stranger);
    succeed(Command::new("docker").args(["rm", "-f", &name]));
    succeed(Command::new("docker").args(["rename", &by_hand, &name]));
    assert_eq!(deployment.tables(), tables);
    succeed(Command::new("docker").args(["rmi", &baked]));
}

#[test]
fn container_started_by_hand_never_rebuilds_nor_installs_over_what_it_cannot_see() {
    let deployment = deployment("e2e-by-hand", 23);
    let tables = deployment.tables();
    for value in ["true", " true", "TRUE", "1"] {
        let ran = deployment.run_by_hand(&[("REBUILD", value)]).exits(77);
        assert!((ran.out + &ran.err).contains("REBUILD"));
    }
    assert_eq!(deployment.tables(), tables);

    // The database cannot be asked: upstream reads that as "not there" and empties it.
    succeed(Command::new("docker").args(["pause", &deployment.container("database")]));
    let ran = deployment.run_by_hand(&[("REBUILD", "false"), ("TARSUP_DATABASE_TIMEOUT", "3")]);
    succeed(Command::new("docker").args(["unpause", &deployment.container("database")]));
    assert_eq!(ran.code, 69, "{}{}", ran.out, ran.err);
    deployment
        .run_by_hand(&[
            ("MYSQL_ROOT_PASSWORD", "wrong"),
            ("REBUILD", "false"),
            ("TARSUP_DATABASE_TIMEOUT", "3"),
        ])
        .exits(69);
    assert_eq!(deployment.tables(), tables);
}
