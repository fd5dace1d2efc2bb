//! The engine in memory keeps the real one's rules: names, addresses, ports, faults.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use crate::fake::{Behaviour, Call, FakeEngine, Fault, Moment};
use serde_json::json;
use tarsup::engine::{CreateBody, Engine as _, EngineError, RestartPolicy, Status};

async fn engine() -> FakeEngine {
    let engine = FakeEngine::new();
    engine.add_image("tars/framework:1", "one", &["PATH=/bin"]);
    let subnet = json!({"Name": "tars", "IPAM": {"Config": [{"Subnet": "172.25.0.0/16"}]}});
    engine.create_network(&subnet).await.unwrap();
    engine
}

fn body(address: &str, port: &str) -> CreateBody {
    let body = json!({
        "Image": "tars/framework:1",
        "HostConfig": {"NetworkMode": "tars", "PortBindings": {"3000/tcp": [{"HostPort": port}]}},
        "NetworkingConfig": {"EndpointsConfig": {"tars": {"IPAMConfig": {"IPv4Address": address}}}},
    });
    CreateBody(body.as_object().unwrap().clone())
}

#[tokio::test]
async fn create_under_a_taken_name_is_a_conflict_and_without_an_image_not_found() {
    let engine = engine().await;
    engine.create_container("aa", &body("172.25.0.3", "1")).await.unwrap();
    let taken = engine.create_container("aa", &body("172.25.0.3", "1")).await.unwrap_err();
    assert!(matches!(taken, EngineError::Conflict { .. }), "{taken}");
    let mut unknown = body("172.25.0.3", "1");
    unknown.0.insert("Image".to_owned(), json!("tars/framework:2"));
    let missing = engine.create_container("bb", &unknown).await.unwrap_err();
    assert!(matches!(missing, EngineError::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn start_claims_address_and_port_and_leaves_a_loser_created() {
    let engine = engine().await;
    for (name, address, port) in
        [("aa", "172.25.0.3", "1"), ("bb", "172.25.0.3", "2"), ("cc", "172.25.0.4", "1")]
    {
        engine.create_container(name, &body(address, port)).await.unwrap();
    }
    engine.start_container("aa").await.unwrap();
    let address = engine.start_container("bb").await.unwrap_err().to_string();
    assert!(address.contains("Address already in use"), "{address}");
    let port = engine.start_container("cc").await.unwrap_err().to_string();
    assert!(port.contains("port is already allocated"), "{port}");
    let loser = engine.inspect_container("bb").await.unwrap().unwrap();
    assert_eq!(loser.status, Status::Created);
    assert!(loser.error.contains("Address already in use"));
    engine.stop_container("aa", Duration::ZERO).await.unwrap();
    engine.start_container("bb").await.unwrap();
    assert_eq!(engine.inspect_container("bb").await.unwrap().unwrap().addresses["tars"], "172.25.0.3");
}

#[tokio::test]
async fn lost_answer_leaves_the_effect_and_a_crash_never_returns() {
    let engine = engine().await;
    engine.fault(Call::First("create aa".to_owned()), Moment::After, Fault::Lost);
    assert!(matches!(
        engine.create_container("aa", &body("172.25.0.3", "1")).await,
        Err(EngineError::Lost { .. })
    ));
    assert!(engine.inspect_container("aa").await.unwrap().is_some());
    engine.fault(Call::Nth(0), Moment::Before, Fault::Crash);
    tokio::select! {
        _ = engine.start_container("aa") => panic!("a crashed call returned"),
        () = engine.crashed() => {}
    }
    assert_eq!(engine.inspect_container("aa").await.unwrap().unwrap().status, Status::Created);
}

#[tokio::test(start_paused = true)]
async fn death_follows_the_behaviour_and_the_restart_policy() {
    let engine = engine().await;
    engine.behave(
        "tars/framework:1",
        Behaviour { dies: Some((Duration::from_secs(5), 3)), ..Behaviour::default() },
    );
    engine.create_container("aa", &body("172.25.0.3", "1")).await.unwrap();
    engine.start_container("aa").await.unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    let dead = engine.inspect_container("aa").await.unwrap().unwrap();
    assert_eq!((dead.status, dead.exit_code), (Status::Exited, 3));
    let always = RestartPolicy { name: "always".to_owned(), maximum_retry_count: 0 };
    engine.update_restart("aa", &always).await.unwrap();
    engine.start_container("aa").await.unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    let again = engine.inspect_container("aa").await.unwrap().unwrap();
    assert_eq!((again.status, again.restart_count), (Status::Running, 1));
}

#[tokio::test]
async fn archive_put_into_a_created_container_comes_back() {
    let engine = engine().await;
    engine.create_container("aa", &body("172.25.0.3", "1")).await.unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    tar.append_data(&mut header, "tarsup/lease", b"42".as_slice()).unwrap();
    engine.put_archive("aa", "/", tar.into_inner().unwrap()).await.unwrap();
    let got = engine.get_archive("aa", "/tarsup/lease").await.unwrap().unwrap();
    let mut archive = tar::Archive::new(got.as_slice());
    let names: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names, [std::path::PathBuf::from("lease")]);
    assert!(engine.get_archive("aa", "/tarsup/none").await.unwrap().is_none());
}
