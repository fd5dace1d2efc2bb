//! Recipes, and what stands beside them.

use std::fs;

use crate::attack::{Attack, all_hold};
use crate::kinds;
use crate::packages::{RECIPE, Workshop};

fn build(name: impl Into<String>, recipe: &str) -> Attack {
    let workshop = Workshop::new();
    workshop.write("framework.yaml", recipe);
    Attack::new(name, workshop.folder, &["build", "framework.yaml"])
}

fn plain(name: impl Into<String>, lines: &str) -> Attack {
    build(name, &format!("name: a/b\nversion: 1\nrole: plain\nbase: scratch\n{lines}\n"))
}

#[test]
fn recipes_that_mean_nothing_are_refused() {
    let mut attacks: Vec<Attack> = [
        ("a key twice", format!("{RECIPE}name: b\n")),
        ("a key of a map twice", format!("{RECIPE}labels: {{a: b, a: c}}\n")),
        ("an unknown key", format!("{RECIPE}unknown: b\n")),
        ("a BOM", format!("\u{feff}{RECIPE}")),
        ("a BOM in the middle", format!("{RECIPE}\u{feff}labels: {{}}\n")),
        ("two documents", format!("{RECIPE}---\n{RECIPE}")),
        ("nothing", String::new()),
        ("a list", "- a\n".to_owned()),
        ("a nul", format!("{RECIPE}labels: {{a: \"\\0\"}}\n")),
        ("nested lists", format!("x: {}", "[".repeat(50_000))),
        (
            "nested packages",
            RECIPE.replace("[packages/*.tgz]", &format!("{}{}", "[".repeat(100), "]".repeat(100))),
        ),
        ("20 MB", format!("{RECIPE}{}", "# nothing\n".repeat(2_000_000))),
        ("a label of 8 MB", format!("{RECIPE}labels: {{a: {}}}\n", "l".repeat(8 << 20))),
        ("an empty label", format!("{RECIPE}labels: {{\"\": b}}\n")),
        ("a label with escapes", format!("{RECIPE}labels: {{\"\\e[2J\": 1}}\nunknown: 1\n")),
        ("a name of upper case", RECIPE.replace("tars/framework", "Tars/Framework")),
        ("a name of 1 MB", RECIPE.replace("tars/framework", &"a".repeat(1 << 20))),
        ("a name that climbs", RECIPE.replace("tars/framework", "../x")),
        ("a version of 300", RECIPE.replace("3.0.17", &"1".repeat(300))),
        ("a version that climbs", RECIPE.replace("3.0.17", "../x")),
        ("no version", RECIPE.replace("3.0.17", "\"\"")),
        ("an unknown role", RECIPE.replace("role: framework", "role: what")),
        ("a base of nothing", RECIPE.replace("scratch", "\"rootfs:\"")),
        ("a base of an unknown kind", RECIPE.replace("scratch", "\"zip:x\"")),
        ("a base that is not there", RECIPE.replace("scratch", "\"rootfs:nothing.tar\"")),
        ("a glob of many stars", RECIPE.replace("packages/*.tgz", &"*".repeat(5000))),
        ("a glob far above", RECIPE.replace("packages/*.tgz", &"../".repeat(5000))),
        ("a glob of brackets", RECIPE.replace("packages/*.tgz", "\"[[[[\"")),
        ("aliases that double", {
            let mut text = format!("{RECIPE}labels:\n  a0: &a0 [x, x]\n");
            for number in 1..40 {
                text += &format!("  a{number}: &a{number} [*a{0}, *a{0}]\n", number - 1);
            }
            text
        }),
        ("a scalar and its aliases", {
            let value = "x".repeat(100 << 10);
            let aliases: String = (0..6000).map(|n| format!("  l{n}: *a\n")).collect();
            format!("{RECIPE}labels:\n  a: &a {value}\n{aliases}")
        }),
    ]
    .map(|(name, text)| build(name, &text))
    .into();
    for lines in [
        "env: {\"\": x}",
        "env: {\"A=B\": x}",
        "env: {A: \"x\\0\"}",
        "env: {A: 1, A: 2}",
        "stop_signal: SIGWHAT",
        "stop_signal: 999",
        "stop_signal: \"\"",
        "healthcheck: {test: [WHAT, x]}",
        "healthcheck: {test: []}",
        "healthcheck: {test: [CMD]}",
        "healthcheck: {test: [CMD, x], interval: 99999999999999999h}",
        "healthcheck: {test: [CMD, x], interval: -1s}",
        "healthcheck: {test: [CMD, x], retries: 99999999999999999999}",
        "healthcheck: {test: [CMD, x], retries: -1}",
        "ports: [0]",
        "ports: [65536]",
        "ports: [\"80/what\"]",
        "ports: [\"-1\"]",
        "volumes: [relative]",
        "volumes: [/a/../b]",
        "volumes: [\"/a\\0b\"]",
        "workdir: relative",
        "workdir: \"/a\\0b\"",
        "entrypoint: [\"a\\0b\"]",
        "entrypoint: {a: b}",
        "cmd: [[x]]",
        "user: \"a\\0b\"",
        "files: {framework.yaml: relative}",
        "files: {framework.yaml: {to: /a, mode: \"99999\"}}",
        "files: {framework.yaml: {to: /a, mode: rwx}}",
        "files: {framework.yaml: {to: /a, mode: -1}}",
    ] {
        attacks.push(plain(lines, lines));
    }
    for (name, variable, value) in [
        ("an epoch of the far future", "SOURCE_DATE_EPOCH", "99999999999999999999"),
        ("an epoch before the first", "SOURCE_DATE_EPOCH", "-1"),
        ("an epoch past every calendar", "SOURCE_DATE_EPOCH", "9223372036854775807"),
        ("an epoch of words", "SOURCE_DATE_EPOCH", "yesterday"),
        ("no threads", "TARSUP_THREADS", "0"),
        ("many threads", "TARSUP_THREADS", "99999999999999999999"),
        ("threads of words", "TARSUP_THREADS", "all"),
    ] {
        attacks.push(build(name, RECIPE).with(variable, value));
    }
    attacks.push(build("100,000 threads", RECIPE).with("TARSUP_THREADS", "100000").or_taken());
    all_hold("recipes", 65, attacks);
}

#[test]
fn targets_of_files_that_lead_elsewhere_are_refused() {
    let deep = "a/".repeat(3000);
    let long = "n".repeat(300);
    let mut attacks = Vec::new();
    for target in [
        "/a/../b",
        "/..",
        "/.",
        "/",
        "",
        "a",
        "./a",
        "/a/./b/..",
        "/etc/.wh.passwd",
        "/etc/.wh..wh..opq",
        "/.wh.etc",
        "/a\\0b",
        "/a\\e[2J/../b",
        &format!("/{deep}x"),
        &format!("/{long}"),
        "/usr/local/app/tars/tarsregistry/bin/tarsregistry/x",
    ] {
        attacks.push(build(
            format!("to {}", target.chars().take(60).collect::<String>()),
            &format!("{RECIPE}files: {{framework.yaml: \"{target}\"}}\n"),
        ));
    }
    for kind in kinds::KINDS {
        for (what, line) in [
            ("files", "files: {odd: /odd}\n"),
            ("init", ""),
            ("a package", ""),
            ("the base", ""),
            ("the recipe", ""),
            ("the deploy folder", ""),
            ("the web", "web: odd\n"),
            ("a configuration", ""),
            ("an SQL file", ""),
        ] {
            let workshop = Workshop::new();
            let at = match what {
                "init" => "tars-init",
                "a package" => "packages/tarsstat.tgz",
                "the base" => "base.tar",
                "the recipe" => "framework.yaml",
                "the deploy folder" => "deploy",
                "a configuration" => "deploy/conf/tarsstat/conf/tars.tarsstat.config.conf",
                "an SQL file" => "deploy/sql/db_tars.sql",
                _ => "odd",
            };
            let recipe = if what == "the base" {
                RECIPE.replace("scratch", "rootfs:base.tar")
            } else {
                RECIPE.to_owned()
            };
            workshop.write("framework.yaml", &format!("{recipe}{line}"));
            let at = workshop.path(at);
            let _ = fs::remove_dir_all(&at).or_else(|_| fs::remove_file(&at));
            kinds::make(kind, &at);
            let attack =
                Attack::new(format!("{what} is {kind}"), workshop.folder, &["build", "framework.yaml"]);
            // A folder may be what `files`, `deploy` and a web console are.
            let folder = kind == "a folder"
                && matches!(what, "files" | "the deploy folder" | "a configuration" | "an SQL file");
            // A link within a folder is taken as a link.
            let link = kind == "a link to itself" && matches!(what, "a configuration" | "an SQL file");
            attacks.push(if folder || link { attack.or_taken() } else { attack });
        }
    }
    all_hold("targets and kinds", 60, attacks);
}
