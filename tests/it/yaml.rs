//! Compose files as nobody should write them, and how files come together: the loader never panics, and merges as compose.

use proptest::prelude::*;
use tarsup::deploy::{dotenv, guard};
use tarsup::secretive::Secretive;

use crate::compose::Project;

/// Pieces of compose files, good and bad, to be glued together at random.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "services:",
            "\n",
            "\n  ",
            "\n    ",
            "a:",
            "image: i",
            "environment:",
            "- ",
            "REBUILD: ",
            "true",
            "${A",
            "}",
            ":-",
            "$$",
            "$A",
            "&x ",
            "*x",
            "<<: ",
            "[",
            "]",
            "{",
            "}",
            ",",
            "'",
            "\"",
            "|",
            ">",
            "!reset ",
            "!override ",
            "!!int ",
            "#",
            "networks:",
            "volumes:",
            "x-tars: {role: master}",
            "ports:",
            "1-2:3",
            "..",
            "~",
            "---\n",
            "extends: a",
            "depends_on: [a]",
            "\t",
            "\u{feff}",
            "\u{0}",
            "é",
            "? ",
            "cpus: 1e999",
            "mem_limit: -0",
            "ulimits: {a: 99999999999999999999}",
            "healthcheck: {test: []}",
            "ipam: {config: [{subnet: 1/99}]}",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn loader_never_panics_on_glued_pieces(pieces in prop::collection::vec(piece(), 0..40), valid in any::<bool>()) {
        let glued = pieces.concat();
        let text = if valid { format!("services:\n  a:\n    image: i\n    {glued}\n") } else { glued };
        let project = Project::new(&[("compose.yaml", &text)]).shell("A", "1");
        if let Ok(desired) = project.load() {
            let _ = guard::check(&desired);
        }
    }

    #[test]
    fn dotenv_never_panics_and_keeps_single_quoted_text(text in ".{0,60}", value in "[^'\\\\\u{0}]{0,20}") {
        let _ = dotenv::parse(&text, &|_| None);
        let done = dotenv::parse(&format!("A='{value}'\n"), &|_| None).unwrap();
        // Line ends are normalised, as compose does.
        let value = Secretive::from(value.replace("\r\n", "\n"));
        prop_assert_eq!(&done[0].value, &Some(value));
    }

    #[test]
    fn rebuild_passes_the_guard_only_as_false_or_empty(value in "[ a-zA-Z0-9\"\\\\_-]{0,8}") {
        let quoted = serde_json::to_string(&value).unwrap();
        let text = format!("services:\n  a:\n    image: i\n    environment: {{REBUILD: {quoted}}}\n");
        let desired = Project::new(&[("compose.yaml", &text)]).load().unwrap();
        prop_assert_eq!(guard::check(&desired).is_ok(), value.is_empty() || value == "false");
    }
}

/// The body of service `a` at a JSON pointer.
fn at(files: &[(&str, &str)], pointer: &str) -> serde_json::Value {
    let project = Project::new(files);
    let desired = project.load().unwrap();
    let body = serde_json::Value::Object(desired.service("a").unwrap().declaration.render().0);
    let found = body.pointer(pointer).cloned().unwrap_or_default();
    let folder = project.path("").display().to_string();
    serde_json::from_str(&found.to_string().replace(folder.trim_end_matches('/'), "@")).unwrap()
}

#[test]
fn override_file_merges_by_the_rule_of_each_key() {
    for (base, over, pointer, expected) in [
        ("environment: [A=1, B=1]", "environment: {B: 2, C: 3}", "/Env", r#"["A=1","B=2","C=3"]"#),
        ("environment: {A: 1}", "environment: {A: }", "/Env", r#"["A"]"#),
        ("command: [a, b]", "command: [c]", "/Cmd", r#"["c"]"#),
        ("image: x", "image: y:1", "/Image", r#""y:1""#),
        ("dns: 1.1.1.1", "dns: [2.2.2.2]", "/HostConfig/Dns", r#"["1.1.1.1","2.2.2.2"]"#),
        ("cap_add: [A, B]", "cap_add: [B, C]", "/HostConfig/CapAdd", r#"["A","B","C"]"#),
        (
            "volumes: ['./a:/x', './b:/y']",
            "volumes: ['./c:/x:ro']",
            "/HostConfig/Binds",
            r#"["@/c:/x:ro","@/b:/y:rw"]"#,
        ),
        ("labels: {a: 1}", "labels: [b=2]", "/Labels/b", r#""2""#),
        (
            "healthcheck: {test: [CMD, a], retries: 2}",
            "healthcheck: {test: b}",
            "/Healthcheck",
            r#"{"Retries":2,"Test":["CMD-SHELL","b"]}"#,
        ),
        (
            "logging: {driver: json-file, options: {a: 1}}",
            "logging: {driver: local}",
            "/HostConfig/LogConfig",
            r#"{"Config":{},"Type":"local"}"#,
        ),
        (
            "logging: {driver: json-file, options: {a: 1}}",
            "logging: {options: {b: 2}}",
            "/HostConfig/LogConfig",
            r#"{"Config":{"a":"1","b":"2"},"Type":"json-file"}"#,
        ),
        (
            "ulimits: {n: {soft: 1, hard: 2}}",
            "ulimits: {n: 3}",
            "/HostConfig/Ulimits",
            r#"[{"Hard":3,"Name":"n","Soft":3}]"#,
        ),
        (
            "extra_hosts: {a: 1.1.1.1}",
            "extra_hosts: ['b:2.2.2.2']",
            "/HostConfig/ExtraHosts",
            r#"["a:1.1.1.1","b:2.2.2.2"]"#,
        ),
        ("environment: {A: 1}", "environment: !override {B: 2}", "/Env", r#"["B=2"]"#),
        ("environment: {A: 1, B: 2}", "environment: {A: !reset null}", "/Env", r#"["B=2"]"#),
        ("ports: ['1:1']", "ports: !reset []", "/HostConfig/PortBindings", "null"),
    ] {
        let base_image = if base.starts_with("image") { "" } else { "image: i, " };
        let base = format!("services:\n  a: {{{base_image}{base}}}\n");
        let over = format!("services:\n  a: {{{over}}}\n");
        let files = [("docker-compose.yml", base.as_str()), ("docker-compose.override.yml", over.as_str())];
        assert_eq!(at(&files, pointer).to_string(), expected, "{base}{over}");
    }
}

#[test]
fn extends_brings_the_other_service_with_paths_from_its_own_folder() {
    let compose =
        "services:\n  a:\n    extends: {file: sub/base.yaml, service: b}\n    environment: {B: 2}\n";
    let base = "services:\n  b:\n    extends: c\n    env_file: b.env\n    volumes: ['./data:/data']\n    environment: {A: 1, B: 1}\n  c:\n    image: i:${V}\n    tty: true\n";
    let files = [
        ("compose.yaml", compose),
        ("sub/base.yaml", base),
        ("sub/b.env", "F=file\nA=file\n"),
        (".env", "V=7\n"),
    ];
    assert_eq!(at(&files, "/Env").to_string(), r#"["A=1","B=2","F=file"]"#);
    assert_eq!(at(&files, "/HostConfig/Binds").to_string(), r#"["@/sub/data:/data:rw"]"#);
    assert_eq!(at(&files, "/Image").to_string(), r#""i:7""#);
    assert_eq!(at(&files, "/Tty").to_string(), "true");
}

#[test]
fn names_come_from_the_option_the_variable_the_file_or_the_folder() {
    use tarsup::deploy::compose::{LoadOptions, load};
    let file = "name: from-file\nservices: {a: {image: i}}\n";
    let project = Project::new(&[
        ("My.Folder_1/compose.yaml", "services: {a: {image: i}}\n"),
        ("n/compose.yaml", file),
    ]);
    let name = |folder: &str, option: Option<&str>, variable: Option<&str>| {
        let environment = variable.map(|name| ("COMPOSE_PROJECT_NAME".to_owned(), name.into()));
        load(&LoadOptions {
            directory: project.path(folder),
            project: option.map(str::to_owned),
            environment: environment.into_iter().collect(),
            ..LoadOptions::default()
        })
        .map(|desired| desired.deployment)
        .map_err(|error| error.to_string())
    };
    assert_eq!(name("My.Folder_1", None, None).as_deref(), Ok("myfolder_1"));
    assert_eq!(name("n", None, None).as_deref(), Ok("from-file"));
    assert_eq!(name("n", None, Some("from-variable")).as_deref(), Ok("from-variable"));
    assert_eq!(name("n", Some("from-option"), Some("from-variable")).as_deref(), Ok("from-option"));
    assert!(name("n", Some("Big"), None).unwrap_err().contains("`Big`"));
}

#[test]
fn files_named_in_dotenv_are_taken_and_other_env_files_refused() {
    let files = [
        ("compose.yaml", "services: {a: {image: one}}\n"),
        ("prod.yaml", "services: {a: {image: two}}\n"),
        (".env", "COMPOSE_FILE=compose.yaml:prod.yaml\n"),
    ];
    let desired = Project::new(&files).load().unwrap();
    assert_eq!((desired.files.len(), desired.services[0].image.to_string().as_str()), (2, "two:latest"));
    let shell = Project::new(&files).shell("COMPOSE_FILE", "compose.yaml");
    assert_eq!(shell.load().unwrap().services[0].image.to_string(), "one:latest");
    let (message, _, hint) = Project::new(&files).shell("COMPOSE_ENV_FILES", "other.env").error();
    assert!(message.contains("COMPOSE_ENV_FILES") && hint.contains("unset"), "{message}");
}

#[test]
fn deployments_of_the_repository_load_and_pass_the_guard() {
    use tarsup::deploy::compose::{LoadOptions, load};
    for file in ["compose.yaml", "demo.yaml"] {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("compose");
        let variables = ["TARS_VERSION", "MYSQL_ROOT_PASSWORD", "DEMO_PASSWORD"];
        let environment = variables.iter().map(|name| ((*name).to_owned(), "3.0.17".into())).collect();
        let desired =
            load(&LoadOptions { files: vec![file.into()], project: None, directory, environment }).unwrap();
        guard::check(&desired).unwrap();
        assert_eq!(
            (desired.notes.len(), guard::concerns(&desired.services).len()),
            (0, 0),
            "{:?}",
            desired.notes
        );
        assert_eq!(desired.services.iter().filter(|service| service.role.is_some()).count(), 4);
    }
}

#[test]
fn files_are_found_in_composes_order_and_above() {
    let service = |image: &str| format!("services: {{a: {{image: {image}}}}}\n");
    let (one, two) = (service("one"), service("two"));
    let project = Project::new(&[("compose.yml", &one), ("docker-compose.yml", &two), ("sub/deep/x", "")]);
    assert_eq!(project.load().unwrap().services[0].image.to_string(), "one:latest");
    assert_eq!(
        project.load_files(&["docker-compose.yml"]).unwrap().services[0].image.to_string(),
        "two:latest"
    );
    let options = tarsup::deploy::compose::LoadOptions {
        directory: project.path("sub/deep"),
        project: Some("p".to_owned()),
        ..Default::default()
    };
    let desired = tarsup::deploy::compose::load(&options).unwrap();
    assert_eq!(
        desired.directory,
        project.path("").parent().map(|_| project.path("")).unwrap().components().as_path()
    );
}
