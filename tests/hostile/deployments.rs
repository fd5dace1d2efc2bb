//! Deployment files, `.env`, `env_file` and the lock.

use std::fmt::Write as _;
use std::fs;

use tempfile::TempDir;

use crate::attack::{Attack, SECRET, all_hold};
use crate::kinds;

/// A deployment that is understood, to which something is added.
const SOUND: &str = "\
services:
  framework:
    image: tars/framework:3.0.17
    environment: {DOMAIN: 172.25.0.3, MYSQL_HOST: 172.25.0.2}
    volumes: [data:/data/tars]
    networks: {tars: {ipv4_address: 172.25.0.3}}
    x-tars: {role: master}
volumes: {data: {}}
networks: {tars: {ipam: {config: [{subnet: 172.25.0.0/16}]}}}
";

fn files(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn config(name: impl Into<String>, text: &str) -> Attack {
    Attack::new(name, files(&[("compose.yaml", text)]), &["config"])
}

/// The sound deployment with this in the place of its `x-tars` line.
fn with(name: impl Into<String>, lines: &str) -> Attack {
    let text =
        SOUND.replace("    x-tars: {role: master}\n", &format!("    x-tars: {{role: master}}\n{lines}\n"));
    config(name, &text)
}

#[test]
fn bombs_and_floods_of_yaml_end_soon() {
    let scalar = "x".repeat(100 << 10);
    let aliases = vec!["*a"; 6000].join(", ");
    let mut anchors = "x-anchors:\n".to_owned();
    let mut keys = "    labels:\n".to_owned();
    let mut merges = "x-m:\n  m0: &m0 {k0: v}\n".to_owned();
    for number in 0..99_000 {
        let _ = writeln!(keys, "      key{number}: v");
    }
    for number in 0..60_000 {
        let _ = writeln!(anchors, "  - &a{number} v");
    }
    for number in 1..3000 {
        let _ = writeln!(merges, "  m{number}: &m{number} {{<<: *m{}, k{number}: v}}", number - 1);
    }
    let mut doubled = "x-a0: &a0 [x, x]\n".to_owned();
    for number in 1..40 {
        let _ = writeln!(doubled, "x-a{number}: &a{number} [*a{}, *a{}]", number - 1, number - 1);
    }
    let list = format!("x-l: [{}]\n", vec!["x"; 500_000].join(","));
    all_hold(
        "floods of YAML",
        14,
        vec![
            config("a long scalar and its aliases", &format!("{SOUND}x-a: &a {scalar}\nx-b: [{aliases}]\n")),
            config(
                "a long key and its aliases",
                &format!("{SOUND}x-a: &a {{{scalar}: 1}}\nx-b: [{aliases}]\n"),
            ),
            with("99,000 keys", &keys).taken().within(160),
            config("60,000 anchors", &format!("{SOUND}{anchors}")).or_taken(),
            config("merges of merges", &format!("{SOUND}{merges}")).within(160),
            config("aliases that double", &format!("{SOUND}{doubled}")),
            config("half a million items", &format!("{SOUND}{list}")),
            config("lists in lists", &format!("x: {}", "[".repeat(50_000))),
            config("mappings in mappings", &format!("x: {}", "{a: ".repeat(50_000))),
            config(
                "blocks in blocks",
                &(0..3000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>(),
            ),
            config("dashes in dashes", &"- ".repeat(100_000)),
            config("20 MB of comment", &format!("{SOUND}{}", "# nothing\n".repeat(2_000_000))),
            config("a line of 8 MB", &format!("{SOUND}x-a: {}\n", "y".repeat(8 << 20))),
            config("quotes that never end", &format!("{SOUND}x-a: \"{}", "y\n".repeat(100_000))),
            config("a key of 1 MB", &format!("{SOUND}? {}\n: 1\n", "k".repeat(1 << 20))),
            config("question marks", &"? ".repeat(60_000)),
            config("tags", &format!("x: {}", "!a ".repeat(60_000))),
            config("anchors on anchors", &format!("x: {} 1", "&a ".repeat(60_000))),
        ],
    );
}

#[test]
fn yaml_that_is_none_is_refused_by_place() {
    let mut attacks: Vec<Attack> = [
        ("an unclosed list", "services: [\n"),
        ("a tab", "services:\n\tframework: {}\n"),
        ("two documents", "services: {}\n---\nservices: {}\n"),
        ("an alias to itself", "x: &a [*a]\n"),
        ("an alias to nothing", "x: *nothing\n"),
        ("a mapping as a key", "? {a: 1}\n: 2\n"),
        ("a list as the document", "- a\n"),
        ("a text as the document", "hello\n"),
        ("nothing", ""),
        ("a nul", "services:\0 {}\n"),
        ("terminal escapes", "\"\\e[2Jkey\": {}\nservices: \"\\e]0;x\\a\"\n"),
        ("escapes in a service's name", "services: {\"\\e[31mred\": {image: x}}\n"),
        ("right-to-left in a name", "services: {\"a\\u202eb\": {image: x}}\n"),
        ("a tag", "services: !!python/object:os.system {}\n"),
        ("binary", "services: !!binary aGVsbG8=\n"),
        ("a set", "services: !!set {a, b}\n"),
        ("merge of a text", "services: {<<: x}\n"),
        ("keys twice", "services: {a: {image: x}, a: {image: y}}\n"),
        ("a directive", "%YAML 9.9\n---\nservices: {}\n"),
    ]
    .map(|(name, text)| config(name, text))
    .into();
    let raw = |name: &str, bytes: &[u8]| {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("compose.yaml"), bytes).unwrap();
        Attack::new(name, folder, &["config"])
    };
    attacks.push(raw("no UTF-8", b"services:\n  a\xff: {}\n"));
    attacks.push(raw("UTF-16", b"\xff\xfes\0e\0r\0v\0"));
    attacks.push(raw("a program", b"\x7fELF\x02\x01\x01\0\0\0"));
    all_hold("no YAML", 20, attacks);
}

/// One key for each kind of value that is understood.
const KEYS: [&str; 50] = [
    "cpus: V",
    "mem_limit: V",
    "memswap_limit: V",
    "mem_reservation: V",
    "mem_swappiness: V",
    "cpu_shares: V",
    "cpu_quota: V",
    "cpu_period: V",
    "cpu_rt_runtime: V",
    "cpuset: V",
    "pids_limit: V",
    "shm_size: V",
    "oom_score_adj: V",
    "oom_kill_disable: V",
    "stop_grace_period: V",
    "stop_signal: V",
    "restart: V",
    "ports: [V]",
    "ports: [{target: V}]",
    "ports: [{target: 1, published: V}]",
    "expose: [V]",
    "mac_address: V",
    "ipc: V",
    "pid: V",
    "network_mode: V",
    "privileged: V",
    "read_only: V",
    "init: V",
    "tty: V",
    "user: V",
    "ulimits: {nofile: V}",
    "ulimits: {nofile: {soft: V, hard: V}}",
    "sysctls: {net.core.somaxconn: V}",
    "healthcheck: {interval: V}",
    "healthcheck: {timeout: V}",
    "healthcheck: {retries: V}",
    "healthcheck: {test: V}",
    "logging: {driver: V}",
    "blkio_config: {weight: V}",
    "device_cgroup_rules: [V]",
    "devices: [V]",
    "tmpfs: [V]",
    "extra_hosts: [V]",
    "dns: [V]",
    "group_add: [V]",
    "cap_add: [V]",
    "security_opt: [V]",
    "volumes_from: [V]",
    "profiles: [V]",
    "links: [V]",
];

#[test]
fn values_from_variables_are_never_told() {
    let mut attacks = Vec::new();
    for key in KEYS {
        let written = key.replace('V', "\"${PW}\"");
        let of_env = with(format!("{key} from .env"), &format!("    {written}"));
        fs::write(of_env.folder.path().join(".env"), format!("PW={SECRET}\n")).unwrap();
        // The text of a field that takes any text is what `config` shows: only refusals are looked at.
        attacks.push(
            Attack { arguments: vec!["plan".into()], ..of_env }.with("DOCKER_HOST", "unix:///nowhere.sock"),
        );
    }
    for (name, text) in [
        ("the image", SOUND.replace("tars/framework:3.0.17", "\"${PW}\"")),
        ("the role", SOUND.replace("role: master", "role: \"${PW}\"")),
        ("the name", format!("name: \"${{PW}}\"\n{SOUND}")),
        ("an address", SOUND.replace("{ipv4_address: 172.25.0.3}", "{ipv4_address: \"${PW}\"}")),
        ("a subnet", SOUND.replace("172.25.0.0/16", "${PW}")),
        ("REBUILD", SOUND.replace("DOMAIN: 172", "REBUILD: \"${PW}\", DOMAIN: 172")),
        ("DOMAIN", SOUND.replace("DOMAIN: 172.25.0.3", "DOMAIN: \" ${PW}\"")),
        ("SLAVE", SOUND.replace("DOMAIN: 172", "SLAVE: \"${PW}\", DOMAIN: 172")),
        ("a volume", SOUND.replace("data:/data/tars", "${PW}:/data/tars")),
        ("a volume's target", SOUND.replace("data:/data/tars", "data:${PW}")),
        ("an env_file", SOUND.replace("    x-tars", "    env_file: \"${PW}\"\n    x-tars")),
        ("an unknown key", SOUND.replace("    x-tars", "    unknown: \"${PW}\"\n    x-tars")),
        ("a policy", format!("{SOUND}x-tars: {{batch: \"${{PW}}\"}}\n")),
        ("a gate", format!("{SOUND}x-tars: {{gate_timeout: \"${{PW}}\"}}\n")),
        ("drain", format!("{SOUND}x-tars: {{drain: \"${{PW}}\"}}\n")),
        ("extends", SOUND.replace("    x-tars", "    extends: {file: \"${PW}\", service: a}\n    x-tars")),
        ("depends_on", SOUND.replace("    x-tars", "    depends_on: [\"${PW}\"]\n    x-tars")),
        ("a network", SOUND.replace("networks: {tars: {ipv4", "networks: {\"${PW}\": {}, tars: {ipv4")),
        ("container_name", SOUND.replace("    x-tars", "    container_name: \"-${PW}\"\n    x-tars")),
        ("required", SOUND.replace("DOMAIN: 172", "A: \"${UNSET:?${PW}}\", DOMAIN: 172")),
    ] {
        let attack = config(format!("{name} of a variable"), &text);
        fs::write(attack.folder.path().join(".env"), format!("PW={SECRET}\n")).unwrap();
        let attack = Attack { arguments: vec!["plan".into()], ..attack };
        attacks.push(attack.with("DOCKER_HOST", "unix:///nowhere.sock"));
        let of_shell = config(format!("{name} of the shell"), &text).with("PW", SECRET);
        let of_shell = Attack { arguments: vec!["plan".into()], ..of_shell };
        attacks.push(of_shell.with("DOCKER_HOST", "unix:///nowhere.sock"));
    }
    all_hold("values of variables", 90, attacks);
}

#[test]
fn lines_with_secrets_are_never_shown() {
    let twice = |lines: &str| SOUND.replace("    x-tars", &format!("{lines}\n    x-tars"));
    let mut attacks: Vec<Attack> = [
        ("a dollar", SOUND.replace("DOMAIN: 172", &format!("K: \"a$-{SECRET}\", DOMAIN: 172"))),
        ("an open brace", SOUND.replace("DOMAIN: 172", &format!("K: \"${{{SECRET}\", DOMAIN: 172"))),
        (
            "an unknown operator",
            SOUND.replace("DOMAIN: 172", &format!("K: \"${{A!{SECRET}}}\", DOMAIN: 172")),
        ),
        ("a message", SOUND.replace("DOMAIN: 172", &format!("K: \"${{A?$-{SECRET}}}\", DOMAIN: 172"))),
        ("an int", SOUND.replace("DOMAIN: 172", &format!("K: !!int {SECRET}, DOMAIN: 172"))),
        ("a float", SOUND.replace("DOMAIN: 172", &format!("K: !!float {SECRET}, DOMAIN: 172"))),
        ("a bool", SOUND.replace("DOMAIN: 172", &format!("K: !!bool {SECRET}, DOMAIN: 172"))),
        ("a null", SOUND.replace("DOMAIN: 172", &format!("K: !!null {SECRET}, DOMAIN: 172"))),
        ("a tag", SOUND.replace("DOMAIN: 172", &format!("K: !x {SECRET}, DOMAIN: 172"))),
        (
            "a key twice",
            SOUND.replace("DOMAIN: 172", &format!("DB_KEY: {SECRET}, DB_KEY: {SECRET}, DOMAIN: 172")),
        ),
        ("a DSN", twice(&format!("    labels: {{DSN: \"mysql://root:{SECRET}@h\", DSN: x}}"))),
        ("a list", twice(&format!("    command: [\"--key={SECRET}\", {{a: b}}]"))),
        ("a text for a mapping", twice(&format!("    healthcheck: {SECRET}"))),
        ("a text for a list", twice(&format!("    devices: {SECRET}"))),
        ("an open quote", SOUND.replace("DOMAIN: 172", &format!("K: \"{SECRET}, DOMAIN: 172"))),
        ("a nested mapping", SOUND.replace("DOMAIN: 172", &format!("K: {{a: {SECRET}}}, DOMAIN: 172"))),
        (
            "REBUILD beside it",
            SOUND.replace("DOMAIN: 172", &format!("REBUILD: \"true\", KEY: {SECRET}, DOMAIN: 172")),
        ),
        ("REBUILD itself", SOUND.replace("DOMAIN: 172", &format!("REBUILD: {SECRET}, DOMAIN: 172"))),
        (
            "list form",
            SOUND.replace(
                "{DOMAIN: 172.25.0.3, MYSQL_HOST: 172.25.0.2}",
                &format!("[\"A={SECRET}\", {{x: y}}]"),
            ),
        ),
    ]
    .map(|(name, text)| {
        let attack = config(name, &text);
        // What is refused is the start; `config` shows what is written, but for what is no switch.
        if name.starts_with("REBUILD") { attack.or_taken() } else { attack }
    })
    .into();
    for (name, line) in [
        ("no assignment", format!("{SECRET} {SECRET}")),
        ("a dollar", format!("A=a$-{SECRET}")),
        ("no closing quote", format!("A=\"{SECRET}")),
        ("text after the quote", format!("A='x'{SECRET}")),
        ("a required one", format!("A=${{B:?{SECRET}}}")),
        ("REBUILD", format!("REBUILD={SECRET}")),
        ("an odd name", format!("{SECRET}!=x")),
    ] {
        for file in ["secrets.env", "secrets.yml", "secrets.yaml"] {
            let text = SOUND.replace("    x-tars", &format!("    env_file: {file}\n    x-tars"));
            let folder = files(&[("compose.yaml", &text), (file, &format!("{line}\n"))]);
            let attack = Attack::new(format!("{name} in {file}"), folder, &["config"]);
            attacks.push(if name == "REBUILD" { attack.or_taken() } else { attack });
        }
        let folder = files(&[("compose.yaml", SOUND), (".env", &format!("{line}\n"))]);
        let attack = Attack::new(format!("{name} in .env"), folder, &["config"]);
        // Where nothing asks for it, a `.env` may hold it.
        attacks.push(if name == "REBUILD" { attack.or_taken() } else { attack });
    }
    for host in
        ["tcp://user:S@h:1", "tcp://user:S@", "ssh://user:S@h", "http://S@h:x", "unix://S\u{1b}[2J", "S"]
    {
        let attack = Attack::new(format!("DOCKER_HOST={host}"), files(&[("compose.yaml", SOUND)]), &["plan"]);
        let secret = if host.contains('@') { SECRET } else { "plain" };
        attacks.push(attack.with("DOCKER_HOST", &host.replace('S', secret)));
    }
    all_hold("lines with secrets", 45, attacks);
}

#[test]
fn numbers_and_durations_beyond_everything_are_refused() {
    let huge = [
        "99999999999999999999999",
        "-99999999999999999999999",
        "1e308",
        "-1e308",
        "18446744073709551616",
        "9223372036854775808",
        ".inf",
        ".nan",
        "9999999999999999999h",
        "1e400s",
        "\"\"",
        "0x",
        "-",
    ];
    let keys = [
        "cpus: V",
        "mem_limit: V",
        "memswap_limit: V",
        "shm_size: V",
        "pids_limit: V",
        "stop_grace_period: V",
        "healthcheck: {interval: V, test: [CMD, x]}",
        "healthcheck: {retries: V, test: [CMD, x]}",
        "ulimits: {nofile: V}",
        "ports: [V]",
        "ports: [\"V:1\"]",
        "oom_score_adj: V",
        "cpu_shares: V",
        "mem_swappiness: V",
        "sysctls: {a: V}",
        "expose: [V]",
    ];
    let mut attacks = Vec::new();
    for key in keys {
        for value in huge {
            let attack = with(format!("{key} = {value}"), &format!("    {}", key.replace('V', value)));
            // The value of a sysctl is any text.
            attacks.push(if key.starts_with("sysctls") { attack.or_taken() } else { attack });
        }
    }
    for key in [
        "batch",
        "gate_timeout",
        "services_timeout",
        "dwell",
        "client_refresh",
        "drain_timeout",
        "keep_parked",
        "keep_images",
    ] {
        for value in ["99999999999999999999999", "-1", "1e308", ".nan", "9999999999999999999h", "\"\"", "[1]"]
        {
            attacks.push(
                config(format!("{key} = {value}"), &format!("{SOUND}x-tars: {{{key}: {value}}}\n"))
                    .or_taken(),
            );
        }
    }
    all_hold("numbers", 200, attacks);
}

#[test]
fn ports_files_and_chains_without_end_are_refused() {
    let many: String = (1..20_001).map(|port| format!("      - \"{}:80\"\n", 20_000 + port)).collect();
    let mut chain = String::new();
    for number in 0..40 {
        let _ = writeln!(chain, "  s{number}: {{image: x, extends: {{service: s{}}}}}", number + 1);
    }
    let chain = |end: &str| format!("services:\n{chain}  s40: {{image: x{end}}}\n");
    let deep = "a/".repeat(10_000);
    let dots = "../".repeat(10_000);
    let mut attacks = vec![
        with("all ports twice", "    ports: [\"1-65535:1-65535\", \"1-65535:1-65535/udp\"]"),
        with("20,000 ports on one", &format!("    ports:\n{many}")),
        with("ports that do not match", "    ports: [\"1-65535:1-3\"]"),
        with("ports backwards", "    ports: [\"9-1:1-9\"]"),
        with("expose of all", "    expose: [\"1-65535\"]"),
        config("a chain of extends", &chain("")).taken(),
        config("a circle of extends", &chain(", extends: {service: s0}")).saying("s0"),
        config("extends of itself", "services: {a: {image: x, extends: {service: a}}}\n"),
        with("a volume 10,000 deep", &format!("    volumes: [\"./{deep}:/data\"]")),
        with("a target 10,000 deep", &format!("    volumes: [\"data:/{deep}\"]")),
        with("a volume far above", &format!("    volumes: [\"./{dots}:/data/tars\"]")).or_taken(),
        with("an env_file 10,000 deep", &format!("    env_file: {deep}x")),
        with("a device 10,000 deep", &format!("    devices: [\"/{deep}:/dev/x\"]")).or_taken(),
        with("a working folder 10,000 deep", &format!("    working_dir: /{deep}")).or_taken(),
        with("a host name of 1 MB", &format!("    hostname: {}", "h".repeat(1 << 20))).or_taken(),
        with("a container name of 1 MB", &format!("    container_name: {}", "h".repeat(1 << 20))).or_taken(),
        with("an image name of 1 MB", &format!("    image: {}", "h".repeat(1 << 20))),
        with("a label of 3 MB", &format!("    labels: {{a: {}}}", "h".repeat(3 << 20))).or_taken(),
        with("10,000 networks", &format!("    dns: [{}]", vec!["10.0.0.1"; 10_000].join(","))).or_taken(),
    ];
    // Files that are none.
    for kind in kinds::KINDS {
        for (name, text) in [
            ("compose.yaml", SOUND.to_owned()),
            (".env", SOUND.to_owned()),
            ("compose.override.yaml", SOUND.to_owned()),
            ("values", SOUND.replace("    x-tars", "    env_file: values\n    x-tars")),
            (
                "other.yaml",
                SOUND.replace("    x-tars", "    extends: {file: other.yaml, service: a}\n    x-tars"),
            ),
            ("tarsup.lock", SOUND.to_owned()),
        ] {
            let folder = files(&[("compose.yaml", &text)]);
            let at = folder.path().join(name);
            let _ = fs::remove_file(&at);
            kinds::make(kind, &at);
            let command: &[&str] = if name == "tarsup.lock" { &["plan"] } else { &["config"] };
            let attack = Attack::new(format!("{name} is {kind}"), folder, command);
            // Compose finds its files by asking whether they are files: what is none is as if absent there.
            let lenient = matches!(name, "compose.override.yaml");
            let attack = if lenient { attack.or_taken() } else { attack };
            attacks.push(attack.with("DOCKER_HOST", "unix:///nowhere.sock"));
        }
    }
    all_hold("ports, files, chains", 45, attacks);
}

#[test]
fn floods_of_variables_end_soon() {
    let mut doubling = "A0=0123456789\n".to_owned();
    let mut chained = "A0=x\n".to_owned();
    let mut many = String::new();
    for number in 1..32 {
        let _ = writeln!(doubling, "A{number}=$A{0}$A{0}", number - 1);
    }
    for number in 1..60_000 {
        let _ = writeln!(chained, "A{number}=$A{}", number - 1);
        let _ = writeln!(many, "B{number}=v");
    }
    let nested = |depth: usize| "${A:-".repeat(depth) + &"}".repeat(depth);
    let of = |name: &str, dotenv: &str, value: &str| {
        let text = SOUND.replace("DOMAIN: 172", &format!("K: '{value}', DOMAIN: 172"));
        Attack::new(name, files(&[("compose.yaml", &text), (".env", dotenv)]), &["config"])
    };
    let file = |name: &str, content: &str| {
        let text = SOUND.replace("    x-tars", "    env_file: values\n    x-tars");
        Attack::new(name, files(&[("compose.yaml", &text), ("values", content)]), &["config"])
    };
    let long = format!("A={}\n", "v".repeat(60_000));
    all_hold(
        "floods of variables",
        14,
        vec![
            of("a value that doubles", &doubling, "$A31"),
            file("a value that doubles in an env_file", &doubling),
            of("60,000 lines that refer to the one before", &chained, "x").or_taken(),
            file("60,000 such lines in an env_file", &chained).or_taken(),
            of("60,000 lines", &many, "x").or_taken(),
            of("a long value a thousand times", &long, &"$A".repeat(1000)),
            of("a long value in braces a thousand times", &long, &"${A}".repeat(1000)),
            of("nested defaults", "", &nested(500)),
            of("nested defaults within bounds", "", &nested(30)).or_taken(),
            of("defaults that are never closed", "", &"${A:-".repeat(5000)),
            of("a million dollars", "", &"$$".repeat(1_000_000)).or_taken(),
            of("a name of 1 MB", "", &format!("${{{}}}", "A".repeat(1 << 20))).or_taken(),
            of(".env of quotes", &"\"".repeat(100_000), "x"),
            of(".env of one quote", &format!("A=\"{}", "\\\"".repeat(500_000)), "x"),
            of(".env of nul", "A=\0b\n", "$A"),
            of(".env with escapes", "A\u{1b}[2J=1\n", "$A"),
            file("nul in an env_file", "A=\0b\n"),
        ],
    );
}
