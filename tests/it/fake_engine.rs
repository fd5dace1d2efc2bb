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

#[tokio::test(start_paused = true)]
async fn stop_takes_its_time_and_a_second_one_joins_it() {
    let engine = engine().await;
    let slow = Behaviour { stops_after: Duration::from_secs(5), ..Behaviour::default() };
    engine.behave("tars/framework:1", slow);
    engine.create_container("aa", &body("172.25.0.3", "1")).await.unwrap();
    engine.start_container("aa").await.unwrap();
    let minute = Duration::from_mins(1);
    // The caller is gone after two seconds.
    let cut_off = tokio::time::timeout(Duration::from_secs(2), engine.stop_container("aa", minute)).await;
    assert!(cut_off.is_err(), "it takes longer");
    assert_eq!(status(&engine, "aa").await, Status::Running);
    engine.start_container("aa").await.unwrap();
    let began = tokio::time::Instant::now();
    engine.stop_container("aa", minute).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 3, "the rest of the first");
    assert_eq!(status(&engine, "aa").await, Status::Exited, "starting what still ran changed nothing");

    engine.start_container("aa").await.unwrap();
    engine.stop_container("aa", Duration::from_secs(1)).await.unwrap();
    assert_eq!(engine.inspect_container("aa").await.unwrap().unwrap().exit_code, 137, "killed");
}

#[tokio::test(start_paused = true)]
async fn late_effect_lands_after_its_caller_is_gone() {
    let engine = engine().await;
    engine.create_container("aa", &body("172.25.0.3", "1")).await.unwrap();
    engine.start_container("aa").await.unwrap();
    engine.fault(Call::First("stop aa".to_owned()), Moment::After, Fault::Late(Duration::from_secs(4)));
    tokio::select! {
        _ = engine.stop_container("aa", Duration::ZERO) => panic!("a crashed call returned"),
        () = engine.crashed() => {}
    }
    assert_eq!(status(&engine, "aa").await, Status::Running);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(status(&engine, "aa").await, Status::Exited);
}

#[tokio::test]
async fn every_call_can_be_struck() {
    let engine = engine().await;
    engine.create_container("aa", &body("172.25.0.3", "1")).await.unwrap();
    engine.fault(Call::Every(String::new()), Moment::Before, Fault::Answer(500, "no".to_owned()));
    let nothing: tarsup::engine::ByteStream = Box::pin(futures_util::stream::empty());
    let json = json!({"Name": "x"});
    let minute = Duration::from_mins(1);
    let results = [
        engine.info().await.map(drop),
        engine.list_containers(&[]).await.map(drop),
        engine.inspect_container("aa").await.map(drop),
        engine.create_container("bb", &body("172.25.0.4", "2")).await.map(drop),
        engine.start_container("aa").await,
        engine.stop_container("aa", minute).await,
        engine.rename_container("aa", "bb").await,
        engine.update_restart("aa", &RestartPolicy::no()).await,
        engine.remove_container("aa").await,
        engine.wait_container("aa").await.map(drop),
        engine.logs("aa", 1).await.map(drop),
        engine.exec("aa", &["true"], minute).await.map(drop),
        engine.put_archive("aa", "/", Vec::new()).await,
        engine.get_archive("aa", "/").await.map(drop),
        engine.connect_network("tars", "aa", &json!({})).await,
        engine.list_images().await.map(drop),
        engine.inspect_image("tars/framework:1").await.map(drop),
        engine.image_history("tars/framework:1").await.map(drop),
        engine.list_images_of("tars/framework").await.map(drop),
        engine.load_image(nothing).await.map(drop),
        engine.save_image("tars/framework:1").await.map(drop),
        engine.tag_image("tars/framework:1", "x", "1").await,
        engine.inspect_network("tars").await.map(drop),
        engine.create_network(&json).await.map(drop),
        engine.inspect_volume("x").await.map(drop),
        engine.list_volumes(&[]).await.map(drop),
        engine.create_volume(&json).await.map(drop),
        engine.remove_volume("x").await,
    ];
    for (at, result) in results.iter().enumerate() {
        assert!(matches!(result, Err(EngineError::Answered { status: 500, .. })), "{at}: {result:?}");
    }
}

#[tokio::test]
async fn prune_takes_what_is_not_up_and_volumes_only_when_told() {
    let engine = engine().await;
    let mut with_volume = body("172.25.0.3", "1");
    with_volume.0["HostConfig"]["Binds"] = json!(["lock:/lock"]);
    engine.create_container("aa", &with_volume).await.unwrap();
    engine.create_container("bb", &body("172.25.0.4", "2")).await.unwrap();
    engine.start_container("bb").await.unwrap();
    engine.prune(false);
    assert_eq!(
        engine.dump(),
        "container bb running restart=no image=tars/framework:1 tars=172.25.0.4\nnetwork tars\nvolume lock\n"
    );
    engine.stop_container("bb", Duration::ZERO).await.unwrap();
    engine.prune(true);
    assert_eq!(engine.dump(), "\n");
}

#[tokio::test]
async fn containerd_engine_says_so_and_joins_two_networks_at_create() {
    let engine = FakeEngine::containerd();
    engine.add_image("tars/framework:1", "one", &[]);
    assert_eq!(engine.info().await.unwrap().image_store, tarsup::engine::ImageStore::Containerd);
    let mut two = body("172.25.0.3", "1");
    two.0["NetworkingConfig"]["EndpointsConfig"]["other"] = json!({});
    engine.create_container("aa", &two).await.unwrap();
}

async fn status(engine: &FakeEngine, container: &str) -> Status {
    engine.inspect_container(container).await.unwrap().unwrap().status
}
