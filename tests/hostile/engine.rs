//! An engine that answers nonsense to each call that tarsup makes, not to the first alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tarsup::diagnose::{Diagnose as _, Exit, harmless};
use tarsup::engine::{
    Attached, ConnectOptions, CreateBody, DockerEngine, Engine as _, EngineError, RestartPolicy,
};
use tempfile::TempDir;

use crate::attack::{Attack, End, SECRET, all_hold};
use crate::packages::Workshop;

/// What an engine may do wrong, and a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// Words that are no JSON.
    NoJson,
    /// JSON of another type.
    Number,
    /// A list of what is none.
    List,
    /// An object with nothing that is asked for.
    Object,
    /// A success without a body.
    Empty,
    /// A failure that says megabytes, with what a terminal obeys.
    Failure,
    /// Less than it says, and the end.
    Cut,
    /// Headers without an end.
    Headers,
    /// No HTTP.
    Noise,
    /// A byte now and then.
    Drip,
    /// A head, and nothing more.
    Stall,
    /// Nothing at all.
    Silence,
    /// A body without an end.
    Endless,
}

/// Those that are over at once.
pub const QUICK: [Nonsense; 9] = [
    Nonsense::NoJson,
    Nonsense::Number,
    Nonsense::List,
    Nonsense::Object,
    Nonsense::Empty,
    Nonsense::Failure,
    Nonsense::Cut,
    Nonsense::Headers,
    Nonsense::Noise,
];
/// Those that are waited for.
pub const SLOW: [Nonsense; 4] = [Nonsense::Drip, Nonsense::Stall, Nonsense::Silence, Nonsense::Endless];

const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/// A connection of either kind.
pub trait Line: Read + Write {
    /// Ends it.
    fn end(&self) -> std::io::Result<()>;
}

impl Line for UnixStream {
    fn end(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

impl Line for TcpStream {
    fn end(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

/// Says it. What the other side has closed meanwhile is no matter.
pub fn say(kind: Nonsense, to: &mut impl Line) -> std::io::Result<()> {
    fn sized(to: &mut impl Line, body: &str) -> std::io::Result<()> {
        write!(to, "{JSON}Content-Length: {}\r\n\r\n{body}", body.len())
    }
    match kind {
        Nonsense::NoJson => sized(to, "hello \u{1b}[2J"),
        Nonsense::Number => sized(to, "7"),
        Nonsense::List => sized(to, "[1, null, {\"a\": []}]"),
        Nonsense::Object => sized(to, "{\"Id\": 5, \"Names\": 7, \"Volumes\": \"x\", \"State\": []}"),
        Nonsense::Empty => sized(to, ""),
        Nonsense::Failure => {
            let body = json!({"message": "\u{1b}]0;x\u{7} no ".repeat(200_000)}).to_string();
            let head = "HTTP/1.1 500 No\r\nContent-Type: application/json\r\n";
            write!(to, "{head}Content-Length: {}\r\n\r\n{body}", body.len())
        }
        Nonsense::Cut => {
            write!(to, "{JSON}Content-Length: 1000\r\n\r\n{{\"Id\": ")?;
            to.end()
        }
        Nonsense::Headers => {
            for number in 0..200_000 {
                write!(to, "{}X-{number}: {}\r\n", if number == 0 { JSON } else { "" }, "y".repeat(100))?;
            }
            Ok(())
        }
        Nonsense::Noise => {
            write!(to, "\u{0}\u{1}SSH-2.0-x\r\n\r\n")?;
            to.end()
        }
        Nonsense::Drip => {
            write!(to, "{JSON}Content-Length: 100000\r\n\r\n{{")?;
            loop {
                write!(to, " ")?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Nonsense::Stall => {
            write!(to, "{JSON}Content-Length: 100000\r\n\r\n{{")?;
            wait_for_the_end(to)
        }
        Nonsense::Silence => wait_for_the_end(to),
        Nonsense::Endless => {
            write!(to, "{JSON}Transfer-Encoding: chunked\r\n\r\n")?;
            let piece = format!("10000\r\n{}\r\n", "[".repeat(0x10000));
            loop {
                to.write_all(piece.as_bytes())?;
            }
        }
    }
}

/// Until the other side has had enough.
fn wait_for_the_end(from: &mut impl Line) -> std::io::Result<()> {
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).map(drop)
}

/// What an engine with one container answers.
fn sound(method: &str, path: &str) -> (u16, Value) {
    let container = json!({"Id": "f00", "Name": "/tars", "Image": "sha256:1", "Config": {"Env": ["DOMAIN=172.25.0.3", format!("K={SECRET}")], "Image": "tars:1"},
        "State": {"Status": "running", "Running": true}, "HostConfig": {"NetworkMode": "host"}, "NetworkSettings": {"Networks": {}}, "Mounts": []});
    match (method, path) {
        ("GET", "/version") => (
            200,
            json!({"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Arch": "amd64", "Os": "linux"}),
        ),
        ("GET", "/info") => (
            200,
            json!({"ID": "STUB", "DockerRootDir": "/var/lib/docker", "Driver": "overlay2", "OSType": "linux", "Architecture": "x86_64"}),
        ),
        ("GET", "/containers/json") => (
            200,
            json!([{"Id": "f00", "Names": ["/tars"], "Image": "tars:1", "ImageID": "sha256:1", "State": "running",
            "Status": "Up 2 minutes", "Labels": {}}]),
        ),
        ("GET", "/containers/tars/json" | "/containers/f00/json") => (200, container),
        ("GET", "/images/json") => (
            200,
            json!([{"Id": "sha256:1", "RepoTags": ["tars:1"], "RepoDigests": [], "Labels": {}, "Created": 1, "Size": 1, "Containers": 0, "SharedSize": 0, "ParentId": ""}]),
        ),
        ("GET", path) if path.starts_with("/images/") => (
            200,
            json!({"Id": format!("sha256:{}", "1".repeat(64)), "RepoTags": ["tars:1"], "Config": {"Env": []}, "RootFS": {"Type": "layers", "Layers": []}, "Os": "linux", "Architecture": "amd64"}),
        ),
        ("GET", "/volumes") => (200, json!({"Volumes": []})),
        ("POST", "/images/load") => (200, json!({"stream": "Loaded image: x:1"})),
        _ => (404, json!({"message": "there is no such thing"})),
    }
}

/// A request: the method, and the path without version and query.
type Request = (String, String);

/// An engine on a socket in this folder. To one request it answers nonsense; all are taken down.
fn serve(folder: &Path, wrong: Option<(Request, Nonsense)>) -> Arc<Mutex<BTreeSet<Request>>> {
    serve_that(folder, move |asked| wrong.as_ref().filter(|(at, _)| at == asked).map(|(_, kind)| *kind))
}

/// The same, where something says which requests.
fn serve_that(
    folder: &Path,
    wrong: impl Fn(&Request) -> Option<Nonsense> + Clone + Send + 'static,
) -> Arc<Mutex<BTreeSet<Request>>> {
    let listener = UnixListener::bind(folder.join("docker.sock")).unwrap();
    let seen: Arc<Mutex<BTreeSet<Request>>> = Arc::default();
    let noted = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (noted, wrong) = (noted.clone(), wrong.clone());
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while let Some(request) = next_request(&mut stream) {
                    noted.lock().unwrap().insert(request.clone());
                    if let Some(kind) = wrong(&request) {
                        let _ = say(kind, stream.get_mut());
                        return;
                    }
                    let (status, body) = sound(&request.0, &request.1);
                    let body = body.to_string();
                    let head = format!("HTTP/1.1 {status} OK\r\nContent-Type: application/json");
                    if write!(stream.get_mut(), "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                        .is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    seen
}

/// The next request of a connection, read to its end.
fn next_request(stream: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut head = String::new();
    stream.read_line(&mut head).ok().filter(|read| *read > 0)?;
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        chunked |= line == "transfer-encoding: chunked";
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.parse().ok()?;
        }
    }
    while chunked {
        let mut size = String::new();
        stream.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        stream.read_exact(&mut vec![0; size + 2]).ok()?;
        chunked = size > 0;
    }
    stream.read_exact(&mut vec![0; length]).ok()?;
    let mut words = head.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.replacen("/v1.41", "", 1));
    Some((method, path.split('?').next().unwrap_or_default().to_owned()))
}

const COMPOSE: &str = "\
services:
  framework:
    image: tars:1
    environment: {DOMAIN: 172.25.0.3, MYSQL_HOST: 172.25.0.2}
    volumes: [data:/data/tars]
    networks: {tars: {ipv4_address: 172.25.0.3}}
    x-tars: {role: master}
volumes: {data: {}}
networks: {tars: {ipam: {config: [{subnet: 172.25.0.0/16}]}}}
";

/// Every command that asks an engine, each with other calls.
const COMMANDS: [&[&str]; 12] = [
    &["plan"],
    &["up", "--yes"],
    &["status"],
    &["images"],
    &["lock"],
    &["services"],
    &["down", "--yes"],
    &["resume"],
    &["prune", "--yes"],
    &["adopt", "tars", "-o", "adopted.yaml"],
    &["inspect", "docker-daemon:tars:1"],
    &["copy", "tars/framework:3.0.17", "docker-daemon:tars/framework:3.0.17"],
];

/// A folder with a deployment and, where it is copied, an image in the store.
fn folder(command: &[&str]) -> TempDir {
    let folder = if command[0] == "copy" {
        let workshop = Workshop::new();
        workshop.json(&["build", "framework.yaml"]);
        workshop.folder
    } else {
        TempDir::new().unwrap()
    };
    fs::write(folder.path().join("compose.yaml"), COMPOSE).unwrap();
    folder
}

fn attack(
    command: &'static [&str],
    wrong: Option<&(Request, Nonsense)>,
) -> (Attack, Arc<Mutex<BTreeSet<Request>>>) {
    let folder = folder(command);
    let seen = serve(folder.path(), wrong.cloned());
    let socket = format!("unix://{}", folder.path().join("docker.sock").display());
    let name = format!("{}: {wrong:?}", command.join(" "));
    let attack =
        Attack::new(name, folder, command).with("DOCKER_HOST", &socket).with("TARSUP_ENGINE_PATIENCE", "1");
    let attack = attack.with("TARSUP_LIMIT_IMAGE", "67108864");
    (Attack { end: End::Documented, leaves: vec![".tarsup".to_owned()], ..attack }.within(200), seen)
}

#[test]
fn nonsense_in_answer_to_any_call_is_a_sentence() {
    let mut attacks = Vec::new();
    let mut waited_for = BTreeSet::new();
    for command in COMMANDS {
        let (sane, seen) = attack(command, None);
        sane.run();
        let seen = seen.lock().unwrap().clone();
        assert!(!seen.is_empty(), "{command:?} asks nothing");
        for request in seen {
            // What is waited for costs seconds: once for each call, whichever command makes it.
            let slow: &[Nonsense] = if waited_for.insert(request.clone()) { &SLOW } else { &[] };
            for kind in QUICK.iter().chain(slow) {
                attacks.push(attack(command, Some(&(request.clone(), *kind))).0);
            }
        }
    }
    all_hold("engines", 300, attacks);
}

type Asked = Pin<Box<dyn Future<Output = Result<(), EngineError>> + Send>>;
type Ask = fn(Arc<DockerEngine>) -> Asked;

macro_rules! asks {
    ($($name:ident($($argument:expr),*)),* $(,)?) => {
        [$((
            stringify!($name),
            (|engine| Box::pin(async move { engine.$name($($argument),*).await.map(drop) })) as Ask,
        )),*]
    };
}

/// Every method of the engine, whichever command needs it.
fn every_call() -> Vec<(&'static str, Ask)> {
    asks![
        info(),
        list_containers(&[]),
        inspect_container("a"),
        create_container("a", &CreateBody::default()),
        start_container("a"),
        stop_container("a", Duration::from_secs(1)),
        rename_container("a", "b"),
        update_restart("a", &RestartPolicy::no()),
        remove_container("a"),
        wait_container("a"),
        attach_container("a"),
        processes("a"),
        changes("a"),
        logs("a", 9),
        exec("a", &["x"], Duration::from_secs(2)),
        exec_attached("a", &["x"]),
        exec_code("a"),
        put_archive("a", "/", vec![0; 1024]),
        get_archive("a", "/"),
        connect_network("a", "b", &json!({})),
        list_images(),
        list_images_of("a"),
        inspect_image("a"),
        image_history("a"),
        load_image(Box::pin(futures_util::stream::empty())),
        save_image("a"),
        remove_image("a"),
        tag_image("a", "b", "c"),
        inspect_network("a"),
        create_network(&json!({})),
        inspect_volume("a"),
        list_volumes(&[]),
        create_volume(&json!({})),
        remove_volume("a"),
    ]
    .into()
}

/// These last as long as what they wait for: what is slow to answer them has a test of its own.
const LASTING: [&str; 5] =
    ["wait_container", "attach_container", "exec_attached", "load_image", "save_image"];

/// One call and its answer: what is wrong with how it ended.
async fn ended(name: &'static str, ask: Ask, kind: Nonsense) -> Option<String> {
    let folder = TempDir::new().unwrap();
    serve_that(folder.path(), move |(_, path)| {
        (!matches!(path.as_str(), "/_ping" | "/version")).then_some(kind)
    });
    let host = Some(format!("unix://{}", folder.path().join("docker.sock").display()));
    let engine = DockerEngine::connect(&ConnectOptions { host, context: None }).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(40), ask(Arc::new(engine))).await;
    let error = match answer {
        Err(_) => return Some(format!("{name}, {kind:?}: hangs")),
        // A status alone may be an answer; a body that never ends is none.
        Ok(Ok(())) if LASTING.contains(&name) && SLOW.contains(&kind) => {
            return Some(format!("{name}, {kind:?}: counts as an answer"));
        }
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error,
    };
    let said = harmless(&error.to_string()).into_owned();
    let hint = error.hint().unwrap_or_default();
    let is_sound =
        !hint.is_empty() && said.len() < 8 << 10 && matches!(error.exit(), Exit::Failed | Exit::Usage);
    (!is_sound).then(|| format!("{name}, {kind:?}: {} bytes, {:?}, {hint}: {said}", said.len(), error.exit()))
}

/// The same of what lasts, read to its end.
fn lasting_calls() -> Vec<(&'static str, Ask)> {
    fn read(streams: Attached) -> Asked {
        Box::pin(async move {
            let mut output = streams.output;
            while let Some(piece) = output.next().await {
                piece?;
            }
            Ok(())
        })
    }
    let attach: Ask = |engine| Box::pin(async move { read(engine.attach_container("a").await?).await });
    let exec: Ask =
        |engine| Box::pin(async move { read(engine.exec_attached("a", &["x"]).await?.streams).await });
    let save: Ask = |engine| {
        Box::pin(async move {
            let mut image = engine.save_image("a").await?;
            while let Some(piece) = image.next().await {
                piece.map_err(|error| EngineError::Lost {
                    call: "save a".to_owned(),
                    why: error.to_string(),
                })?;
            }
            Ok(())
        })
    };
    let of_every =
        every_call().into_iter().filter(|(name, _)| matches!(*name, "wait_container" | "load_image"));
    of_every.chain([("attach_container", attach), ("exec_attached", exec), ("save_image", save)]).collect()
}

/// Set in the process that makes the calls: how long an engine may take is read once.
const INNER: &str = "TARSUP_ENGINE_PATIENCE";
/// In seconds.
const PATIENCE: &str = "3";
/// The same for what lasts: images have thirty times as long.
const LITTLE: &str = "0.3";

/// True in the process that makes the calls; elsewhere it is started, and has succeeded.
fn is_inner(name: &str, patience: &str) -> bool {
    if std::env::var(INNER).as_deref() == Ok(patience) {
        return true;
    }
    let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", name, "--nocapture"]).env(INNER, patience).env("TARSUP_LIMIT_IMAGE", "67108864");
    let output = inner.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("calls with nonsense"), "{said}");
    false
}

/// Makes them, so many at once that a busy machine still answers within the patience.
fn all_end(calls: Vec<(&'static str, Ask, Nonsense)>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let count = calls.len();
    let wrong: Vec<String> = runtime.block_on(async {
        let tasks = calls.into_iter().map(|(name, ask, kind)| ended(name, ask, kind));
        futures_util::stream::iter(tasks).buffer_unordered(40).filter_map(std::future::ready).collect().await
    });
    eprintln!("{count} calls with nonsense, {} with faults", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_slow_to_answer_a_call_that_lasts_has_an_end_and_a_size() {
    if !is_inner("engine::what_is_slow_to_answer_a_call_that_lasts_has_an_end_and_a_size", LITTLE) {
        return;
    }
    let calls = lasting_calls();
    assert_eq!(calls.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), BTreeSet::from(LASTING));
    all_end(calls.into_iter().flat_map(|(name, ask)| SLOW.map(|kind| (name, ask, kind))).collect());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    assert!(peak.is_some_and(|kib: u64| kib < 512 << 10), "{peak:?} KiB at most");
}

#[test]
fn nonsense_in_answer_to_each_method_is_an_error_with_a_hint() {
    if !is_inner("engine::nonsense_in_answer_to_each_method_is_an_error_with_a_hint", PATIENCE) {
        return;
    }
    let calls = every_call();
    let trait_of_engine = include_str!("../../src/engine/mod.rs");
    let methods: Vec<&str> = trait_of_engine
        .lines()
        .filter_map(|line| line.strip_prefix("    async fn ")?.split('(').next())
        .collect();
    let mut listed: Vec<&str> = calls.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed.len(), methods.len(), "{methods:?}");
    listed.retain(|name| !methods.contains(name));
    assert!(listed.is_empty(), "{listed:?}");
    let mut asked = Vec::new();
    for (name, ask) in calls {
        let slow: &[Nonsense] = if LASTING.contains(&name) { &[] } else { &SLOW };
        asked.extend(QUICK.iter().chain(slow).map(|kind| (name, ask, *kind)));
    }
    assert!(asked.len() > 350, "{}", asked.len());
    all_end(asked);
}
