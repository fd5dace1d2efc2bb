//! The guard: every place that `REBUILD` can come from, every value, and what else it refuses.

use tarsup::deploy::guard::{self, GuardError};
use tarsup::diagnose::{Diagnose, Exit};

use crate::compose::Project;

/// Values that must be refused, as a compose file or a dotenv file writes them in double quotes.
const FORBIDDEN: [&str; 14] = [
    "true", " true ", "true\\n", "-n true", "-e true", "TRUE", "True", "1", "yes", "0", "no", "False",
    " false", "x",
];

fn compose(lines: &str) -> String {
    let lines = lines.replace('\n', "\n    ");
    format!("services:\n  master:\n    image: tars/framework:1\n    x-tars: {{role: master}}\n    {lines}\n")
}

/// Where a forbidden value is refused: the place, and what the message says of the way.
fn refusal(project: &Project) -> (String, String, String) {
    let desired = project.load().expect("it loads");
    let error = guard::check(&desired).expect_err("refused");
    assert_eq!(error.exit(), Exit::Refused);
    assert!(matches!(error, GuardError::Rebuild { .. }), "{error}");
    let place = error.place().map(|place| project.shown(&place)).unwrap_or_default();
    (place, error.to_string(), error.hint().unwrap_or_default())
}

/// A file's name and text.
type File = (&'static str, String);

/// Every place: files with `VALUE` in the place of the value, and where the refusal points.
fn places() -> Vec<(&'static str, Vec<File>, &'static str)> {
    let own = |lines: &str| ("compose.yaml", compose(lines));
    let dotenv = || (".env", "# c\nREBUILD=\"VALUE\"\nOTHER=\"VALUE\"\n".to_owned());
    let base = "services:\n  base:\n    environment: {REBUILD: \"VALUE\"}\n".to_owned();
    vec![
        ("mapping", vec![own("environment:\n  REBUILD: \"VALUE\"")], "compose.yaml:6"),
        ("list", vec![own("environment:\n- A=1\n- \"REBUILD=VALUE\"")], "compose.yaml:7"),
        ("flow mapping", vec![own("environment: {REBUILD: \"VALUE\"}")], "compose.yaml:5"),
        (
            "anchor",
            vec![("compose.yaml", format!("x-e: &e\n  REBUILD: \"VALUE\"\n{}", compose("environment: *e")))],
            "compose.yaml:2",
        ),
        (
            "merge key",
            vec![(
                "compose.yaml",
                format!("x-e: &e\n  REBUILD: \"VALUE\"\n{}", compose("environment:\n  <<: *e\n  A: 1")),
            )],
            "compose.yaml:2",
        ),
        (
            "override file",
            vec![
                own("environment: {REBUILD: false}"),
                (
                    "compose.override.yaml",
                    "services:\n  master:\n    environment:\n    - \"REBUILD=VALUE\"\n".into(),
                ),
            ],
            "compose.override.yaml:4",
        ),
        (
            "extends, other file",
            vec![own("extends: {file: base.yaml, service: base}"), ("base.yaml", base)],
            "base.yaml:3",
        ),
        (
            "env_file",
            vec![own("env_file: a.env"), ("a.env", "A=1\n\nexport REBUILD=\"VALUE\"\n".into())],
            "a.env:3",
        ),
        (
            "second env_file",
            vec![
                own("env_file:\n- a.env\n- path: sub/b.env\n  required: true"),
                ("a.env", "REBUILD=false\n".into()),
                ("sub/b.env", "REBUILD: \"VALUE\"".into()),
            ],
            "sub/b.env:1",
        ),
        (".env passed through", vec![own("environment: [REBUILD]"), dotenv()], ".env:2"),
        (".env passed through a mapping", vec![own("environment:\n  REBUILD:"), dotenv()], ".env:2"),
        (".env interpolated", vec![own("environment:\n  REBUILD: ${OTHER:-false}"), dotenv()], ".env:3"),
        (".env interpolated in a list", vec![own("environment: [\"REBUILD=$OTHER\"]"), dotenv()], ".env:3"),
        (
            "default of an interpolation",
            vec![own("environment:\n  REBUILD: \"${NONE:-VALUE}\"")],
            "compose.yaml:6",
        ),
    ]
}

#[test]
fn rebuild_is_refused_wherever_it_comes_from_with_its_line() {
    for (name, files, place) in places() {
        for value in FORBIDDEN {
            let files: Vec<(&str, String)> =
                files.iter().map(|(file, text)| (*file, text.replace("VALUE", value))).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
            let project = Project::new(&files);
            let (at, message, hint) = refusal(&project);
            assert_eq!(at, place, "{name}: {value:?}");
            assert!(message.contains("db_tars") && message.contains("`master`"), "{message}");
            assert!(hint.contains("MySQL"), "{hint}");
        }
    }
}

#[test]
fn rebuild_that_is_unset_empty_or_false_passes_from_everywhere() {
    for (name, files, _) in places() {
        for value in ["", "false"] {
            let files: Vec<(&str, String)> =
                files.iter().map(|(file, text)| (*file, text.replace("VALUE", value))).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
            let desired = Project::new(&files).load().unwrap();
            assert!(guard::check(&desired).is_ok(), "{name}: {value:?}");
        }
    }
    for unquoted in ["false", "False", "FALSE", "", "~", "null"] {
        let text = compose(&format!("environment:\n  REBUILD: {unquoted}"));
        let desired = Project::new(&[("compose.yaml", &text)]).load().unwrap();
        assert!(guard::check(&desired).is_ok(), "{unquoted:?}");
    }
}

#[test]
fn rebuild_of_the_shell_is_refused_at_the_line_that_lets_it_in() {
    for lines in ["environment: [REBUILD]", "environment:\n  REBUILD: ${REBUILD-}", "env_file: a.env"] {
        let text = compose(lines);
        let project =
            Project::new(&[("compose.yaml", &text), ("a.env", "REBUILD\n"), (".env", "REBUILD=false\n")])
                .shell("REBUILD", "true");
        let (place, message, _) = refusal(&project);
        let expected = match lines {
            "environment: [REBUILD]" => "compose.yaml:5",
            "env_file: a.env" => "a.env:1",
            _ => "compose.yaml:6",
        };
        assert_eq!(place, expected, "{lines}");
        assert!(message.contains("would drop db_tars"), "{message}");
    }
    // A shell variable that no line lets in does no harm.
    let text = compose("environment: [A=1]");
    let project = Project::new(&[("compose.yaml", &text)]).shell("REBUILD", "true");
    assert!(guard::check(&project.load().unwrap()).is_ok());
}

#[test]
fn yaml_booleans_are_what_compose_renders() {
    let text = compose("environment:\n  REBUILD: True");
    let (place, message, _) = refusal(&Project::new(&[("compose.yaml", &text)]));
    assert_eq!(place, "compose.yaml:6");
    assert!(message.contains("`REBUILD` is \"true\""), "{message}");
}

#[test]
fn white_space_is_refused_and_the_password_never_shown() {
    for variable in tarsup::tars::rebuild::UNQUOTED {
        for value in ["se cret", " secret", "secret\\t", "sec\\nret"] {
            let text = compose(&format!("environment:\n  {variable}: \"{value}\""));
            let project = Project::new(&[("compose.yaml", &text)]);
            let error = guard::check(&project.load().unwrap()).expect_err("refused");
            assert_eq!(error.place().map(|place| project.shown(&place)).as_deref(), Some("compose.yaml:6"));
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(shown.contains(variable) && !shown.contains("cret"), "{shown}");
        }
    }
}

#[test]
fn what_replaces_the_images_own_start_is_refused() {
    for (lines, place, what) in [
        ("entrypoint: [sh]", "compose.yaml:5", "`entrypoint`"),
        ("entrypoint: []", "compose.yaml:5", "`entrypoint`"),
        ("command: sh -c true", "compose.yaml:5", "`command`"),
        (
            "volumes:\n- /etc/localtime:/etc/localtime\n- ./x:/usr/local/bin/tars-init",
            "compose.yaml:7",
            "tars-init",
        ),
        ("volumes:\n- ./x:/usr/local/bin/", "compose.yaml:6", "/usr/local/bin"),
        ("volumes:\n- ./x:/usr/./local/../local", "compose.yaml:6", "/usr/local"),
        ("volumes:\n- {type: tmpfs, target: /usr}", "compose.yaml:6", "/usr"),
        ("volumes:\n- ./sql:/usr/local/tars/cpp/deploy/framework/sql", "compose.yaml:6", "sql"),
        ("tmpfs: /usr/local/app/tars", "compose.yaml:5", "/usr/local/app/tars"),
        ("volumes:\n- /usr/local/app/tars", "compose.yaml:6", "/usr/local/app/tars"),
    ] {
        let project = Project::new(&[("compose.yaml", &compose(lines))]);
        let error = guard::check(&project.load().unwrap()).expect_err(lines);
        assert_eq!(error.place().map(|place| project.shown(&place)).as_deref(), Some(place), "{lines}");
        assert!(error.to_string().contains(what), "{error}");
    }
    for lines in ["command: []", "volumes:\n- ./d:/data/tars\n- ./log:/usr/local/app/tars/app_log"] {
        let project = Project::new(&[("compose.yaml", &compose(lines))]);
        assert!(guard::check(&project.load().unwrap()).is_ok(), "{lines}");
    }
}

#[test]
fn database_without_a_lasting_data_directory_is_refused() {
    let with = |lines: &str| {
        let text = format!(
            "services:\n  db:\n    image: mysql:8\n    x-tars: {{role: database}}\n    {}\nvolumes: {{v: {{}}}}\n",
            lines.replace('\n', "\n    ")
        );
        guard::check(&Project::new(&[("compose.yaml", &text)]).load().unwrap())
    };
    for lines in [
        "tty: false",
        "volumes: [\"/var/lib/mysql\"]",
        "tmpfs: /var/lib/mysql",
        "volumes: [\"v:/var/lib/mysql2\"]",
        "volumes: [\"v:/var/lib\", \"/var/lib/mysql\"]",
        "command: --datadir=/data\nvolumes: [\"v:/var/lib/mysql\"]",
    ] {
        let error = with(lines).expect_err(lines);
        assert!(matches!(error, GuardError::Unmounted { .. }), "{error}");
    }
    for lines in [
        "volumes: [\"v:/var/lib/mysql\"]",
        "volumes: [\"./d:/var/lib/mysql/\"]",
        "volumes: [\"v:/var/lib\"]",
        "volumes: [{type: volume, source: v, target: /var/lib/mysql, volume: {subpath: a}}]",
        "command: mysqld --datadir /data\nvolumes: [\"v:/data\"]",
    ] {
        with(lines).expect(lines);
    }
}
