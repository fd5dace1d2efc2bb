//! Servers of run type `container`, as the real tarsnode has them: each in a container beside the node, named like the server, started
//! through the engine's socket with the node's own image, and read from there.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Failure;

/// `/tars/container<socket>`, as upstream ships it.
const SOCKET: &str = "/var/run/docker.sock";
/// Where the node's volume lies for the engine.
const HOST_PATH: &str = "TARS_HOSTPATH";
const PATIENCE: Duration = Duration::from_secs(10);

/// The process of its container, while that runs.
pub fn process(server: &str) -> Option<u32> {
    let found = ask("GET", &format!("/containers/{server}/json"), &Value::Null).ok()?;
    let state = &found["State"];
    state["Pid"].as_u64().filter(|_| state["Running"] == true)?.try_into().ok()
}

/// Makes its container anew and starts it, by the script in its folder.
pub fn start(server: &str, folder: &Path, script: &Path) -> Result<(), Failure> {
    let _ = ask("DELETE", &format!("/containers/{server}?force=true"), &Value::Null);
    let own = fs::read_to_string("/etc/hostname")?;
    let image = ask("GET", &format!("/containers/{}/json", own.trim()), &Value::Null)?["Image"].clone();
    // In the node's own words where nobody says how the host calls them: that is what goes wrong then.
    let below = std::env::var(HOST_PATH)
        .map_or_else(|_| folder.display().to_string(), |host| format!("{host}/tarsnode-data/{server}"));
    let body = json!({
        "Image": image,
        "Entrypoint": [script],
        "HostConfig": {
            "Binds": [format!("{below}:{}", folder.display())],
            "NetworkMode": "host",
            "AutoRemove": true,
        },
    });
    ask("POST", &format!("/containers/create?name={server}"), &body)?;
    ask("POST", &format!("/containers/{server}/start"), &Value::Null).map(drop)
}

/// One question to the engine. HTTP/1.0: its answer ends with the connection.
fn ask(method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    let mut engine = UnixStream::connect(SOCKET)?;
    engine.set_read_timeout(Some(PATIENCE))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        engine,
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    engine.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer of HTTP")?;
    let code = head.split(' ').nth(1).unwrap_or_default();
    if !code.starts_with('2') {
        return Err(format!("{method} {path}: {code} {body}").into());
    }
    Ok(serde_json::from_str(body).unwrap_or(Value::Null))
}
