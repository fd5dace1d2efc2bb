//! `DockerEngine` keeps the contract, and what only a real engine can show.

use std::time::Duration;

use serde_json::json;
use tarsup::engine::{ByteStream, ConnectOptions, CreateBody, DockerEngine, Engine, EngineError, Status};

use crate::contract::Setting;
use crate::tiny;

async fn setting(behaviour: &str) -> Setting {
    let engine = tiny::engine().await;
    let prefix = behaviour.replace('_', "-");
    let image = tiny::actor_image(&engine, &format!("contract-{prefix}")).await;
    for container in engine.list_containers(&[format!("io.tarsup.deployment={prefix}")]).await.unwrap() {
        tiny::remove_container(&container.id).await;
    }
    tiny::remove_network(&format!("{prefix}-net")).await;
    // What a run that was cut off left behind; most tests make none.
    let _ = engine.remove_volume(&format!("{prefix}-data")).await;
    Setting {
        engine: Box::new(engine),
        image: image.to_string(),
        prefix,
        // Of the name, so that tests in processes of their own do not meet either.
        subnet: format!(
            "10.{}",
            behaviour.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(7).wrapping_add(byte))
        ),
    }
}

contract_tests!(setting);

/// A container of the actor, created with this command, under this name.
async fn actor(engine: &DockerEngine, name: &str, command: &[&str], more: serde_json::Value) -> String {
    tiny::remove_container(name).await;
    let image = tiny::actor_image(engine, name).await;
    let mut body = json!({"Image": image.to_string(), "Cmd": command});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    engine.create_container(name, &CreateBody(body.as_object().unwrap().clone())).await.unwrap()
}

#[tokio::test]
async fn info_names_version_and_store() {
    let info = tiny::engine().await.info().await.unwrap();
    assert!(!info.id.is_empty() && info.data_root.starts_with('/'), "{info:?}");
    assert!(info.version.starts_with(|first: char| first.is_ascii_digit()), "{info:?}");
    assert!(["amd64", "arm64"].contains(&info.architecture.as_str()), "{info:?}");
}

#[tokio::test]
async fn wait_gives_the_exit_code_and_logs_both_streams() {
    let engine = tiny::engine().await;
    let id = actor(&engine, "wait-logs", &["say", "one\ntwo\n", "oops\n", "3"], json!({})).await;
    engine.start_container(&id).await.unwrap();
    assert_eq!(engine.wait_container(&id).await.unwrap(), 3);
    let container = engine.inspect_container(&id).await.unwrap().unwrap();
    assert_eq!((container.status, container.exit_code), (Status::Exited, 3));
    let logs = engine.logs(&id, 100).await.unwrap();
    assert!(logs.contains("one\ntwo\n") && logs.contains("oops\n"), "{logs:?}");
    assert_eq!(engine.logs(&id, 1).await.unwrap().lines().count(), 1);
    engine.remove_container(&id).await.unwrap();
}

#[tokio::test]
async fn logs_of_a_terminal_have_no_frames() {
    let engine = tiny::engine().await;
    let id = actor(&engine, "tty-logs", &["say", "\u{1}plain", "", "0"], json!({"Tty": true})).await;
    engine.start_container(&id).await.unwrap();
    engine.wait_container(&id).await.unwrap();
    assert_eq!(engine.logs(&id, 100).await.unwrap(), "\u{1}plain");
    engine.remove_container(&id).await.unwrap();
}

#[tokio::test]
async fn exec_gives_output_and_exit_code_or_times_out() {
    let engine = tiny::engine().await;
    let id = actor(&engine, "exec", &["sleep"], json!({})).await;
    engine.start_container(&id).await.unwrap();
    let minute = Duration::from_mins(1);
    let said = engine.exec(&id, &["/actor", "say", "out", "err", "7"], minute).await.unwrap();
    assert_eq!((said.exit_code, said.stdout.as_str(), said.stderr.as_str()), (7, "out", "err"));
    let absent = engine.exec(&id, &["/absent", "--password=s3cret"], minute).await;
    match absent {
        Ok(output) => assert!([126, 127].contains(&output.exit_code), "{output:?}"),
        Err(error) => assert!(!error.to_string().contains("s3cret"), "{error}"),
    }
    let late = engine.exec(&id, &["/actor", "sleep"], Duration::from_millis(200)).await;
    assert!(matches!(late, Err(EngineError::TimedOut { .. })), "{late:?}");
    engine.stop_container(&id, Duration::ZERO).await.unwrap();
    engine.remove_container(&id).await.unwrap();
}

#[tokio::test]
async fn inspect_keeps_every_field_of_the_answer() {
    let engine = tiny::engine().await;
    let sysctls = json!({"HostConfig": {"Sysctls": {"net.core.somaxconn": "512"}, "OomScoreAdj": 7}});
    let id = actor(&engine, "raw", &["sleep"], sysctls).await;
    let raw = engine.inspect_container(&id).await.unwrap().unwrap().raw;
    assert_eq!(raw["HostConfig"]["Sysctls"]["net.core.somaxconn"], "512");
    assert_eq!(raw["HostConfig"]["OomScoreAdj"], 7);
    assert!(raw["HostConfig"]["MaskedPaths"].is_array(), "a field that no model here knows");
    engine.remove_container(&id).await.unwrap();
}

#[tokio::test]
async fn refused_environment_does_not_show_in_the_error() {
    let engine = tiny::engine().await;
    let image = tiny::actor_image(&engine, "bad-env").await;
    let body = json!({"Image": image.to_string(), "Env": ["=s3cret"]});
    let refused = engine.create_container("bad-env", &CreateBody(body.as_object().unwrap().clone())).await;
    let text = format!("{:?}", refused.unwrap_err());
    assert!(text.contains("invalid environment variable") && !text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn load_of_no_archive_is_the_engines_error() {
    let engine = tiny::engine().await;
    let bytes: ByteStream =
        Box::pin(futures_util::stream::iter([Ok(crate::contract::tar("x", b"y").into())]));
    let refused = engine.load_image(bytes).await.unwrap_err();
    assert!(matches!(refused, EngineError::Answered { .. }), "{refused:?}");
}

#[tokio::test]
async fn absent_engine_is_unreachable_at_its_address() {
    for host in ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"] {
        let options = ConnectOptions { host: Some(host.to_owned()), context: None };
        match DockerEngine::connect(&options).await {
            Err(EngineError::Unreachable { address, why }) => {
                assert_eq!(address, host);
                assert!(!why.is_empty());
            }
            other => panic!("{host}: {other:?}"),
        }
    }
}
