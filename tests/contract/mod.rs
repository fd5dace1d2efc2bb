//! What every engine must do, the real one and the one in memory: the same assertions for both.
//!
//! `contract_tests!(setting)` makes a test of each behaviour; `setting` answers a [`Setting`] of its own for each.
#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tarsup::engine::{
    Attached, Change, ChangeKind, CreateBody, Engine, EngineError, Printed, RestartPolicy, Status,
};
use tokio::io::AsyncWriteExt as _;

/// An engine, and what a test may use of it.
pub struct Setting {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// An image whose command `sleep` runs until it is stopped, and which has `/` and `/data`.
    pub image: String,
    /// What every name begins with, so that tests can share an engine.
    pub prefix: String,
    /// The first two numbers of a subnet that nobody else uses, such as `10.71`.
    pub subnet: String,
}

impl Setting {
    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn address(&self, host: u8) -> String {
        format!("{}.0.{host}", self.subnet)
    }

    fn body(&self) -> Value {
        json!({
            "Image": self.image,
            "Cmd": ["sleep"],
            "Env": ["GREETING=hello", "EMPTY="],
            "Labels": {"io.tarsup.deployment": self.prefix},
            "HostConfig": {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}},
        })
    }

    fn body_at(&self, network: &str, host: u8) -> Value {
        let mut body = self.body();
        body["HostConfig"]["NetworkMode"] = json!(network);
        body["NetworkingConfig"] = json!({
            "EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": self.address(host)}}}
        });
        body
    }

    async fn create(&self, name: &str, body: Value) -> Result<String, EngineError> {
        let Value::Object(body) = body else { panic!("a body is an object") };
        self.engine.create_container(&self.name(name), &CreateBody(body)).await
    }

    async fn network(&self, name: &str) -> String {
        let name = self.name(name);
        let subnet = format!("{}.0.0/24", self.subnet);
        let body = json!({
            "Name": name, "Driver": "bridge", "Labels": {"made": "here"},
            "IPAM": {"Config": [{
                "Subnet": subnet, "IPRange": format!("{}.0.128/25", self.subnet), "Gateway": self.address(1),
            }]},
        });
        self.engine.create_network(&body).await.unwrap();
        name
    }

    async fn status(&self, container: &str) -> Status {
        self.engine.inspect_container(container).await.unwrap().expect("it is there").status
    }
}

/// Makes a test of each behaviour of the contract.
macro_rules! contract_tests {
    ($setting:path) => {
        contract_tests!(@each $setting:
            created_container_shows_what_it_was_created_with
            first_words_and_an_image_tell_what_info_tells
            container_is_listed_by_its_labels
            list_shows_what_inspect_shows
            name_is_given_to_one_of_four_at_once
            absent_thing_is_none_or_not_found
            started_container_runs_until_it_is_stopped
            running_container_is_not_removed
            rename_to_a_taken_name_is_a_conflict
            restart_policy_changes_on_running_and_stopped
            address_is_claimed_at_start
            host_port_is_claimed_at_start
            archive_is_written_and_read_before_the_first_start
            own_layer_of_a_container_is_what_changed_and_a_volume_is_not
            exec_needs_a_running_container
            network_is_made_once_and_joined
            volume_keeps_the_labels_of_its_first_create
            volume_is_listed_by_its_labels
            volume_is_removed_only_when_no_container_mounts_it
            volume_that_a_container_names_is_made_without_labels
            volume_that_a_mount_describes_is_made_with_its_labels
            file_below_a_volume_outlives_the_container
            logs_that_no_driver_keeps_are_an_error
            attached_streams_carry_what_is_said_and_read
            image_gets_a_second_tag
            image_loses_a_name_and_is_gone_with_its_last
        );
    };
    (@each $setting:path: $($behaviour:ident)+) => {
        $(#[tokio::test]
        async fn $behaviour() {
            let setting = $setting(stringify!($behaviour)).await;
            crate::contract::$behaviour(&setting).await;
        })+
    };
}

pub async fn first_words_and_an_image_tell_what_info_tells(s: &Setting) {
    let (info, first) = (s.engine.info().await.unwrap(), s.engine.greeting());
    assert_eq!((first.version, first.is_near), (Some(info.version), info.is_near));
    let image = s.engine.inspect_image(&s.image).await.unwrap().expect("the image is there");
    assert_eq!(image.store(), Some(info.image_store), "{}", image.raw);
}

pub async fn created_container_shows_what_it_was_created_with(s: &Setting) {
    let id = s.create("a", s.body()).await.unwrap();
    let container = s.engine.inspect_container(&s.name("a")).await.unwrap().expect("found by name");
    assert_eq!((container.id.as_str(), container.name.as_str()), (id.as_str(), s.name("a").as_str()));
    assert_eq!((container.status, container.restart_count), (Status::Created, 0));
    assert_eq!(container.restart, RestartPolicy::no());
    assert_eq!(container.image, s.image);
    assert_eq!(container.labels["io.tarsup.deployment"], s.prefix);
    assert!(
        container.env.value("GREETING").is_some_and(|value| *value == "hello"),
        "the environment is there"
    );
    let image = s.engine.inspect_image(&s.image).await.unwrap().expect("the image is there");
    assert_eq!(container.image_id, image.id);
    assert_eq!(s.engine.inspect_container(&id).await.unwrap().expect("found by id").id, id);
    s.engine.remove_container(&id).await.unwrap();
    assert!(s.engine.inspect_container(&id).await.unwrap().is_none());
}

pub async fn container_is_listed_by_its_labels(s: &Setting) {
    let id = s.create("a", s.body()).await.unwrap();
    let ids = async |labels: &[String]| -> Vec<String> {
        s.engine.list_containers(labels).await.unwrap().into_iter().map(|found| found.id).collect()
    };
    let pair = format!("io.tarsup.deployment={}", s.prefix);
    assert_eq!(ids(std::slice::from_ref(&pair)).await, std::slice::from_ref(&id));
    assert!(ids(&["io.tarsup.deployment".to_owned()]).await.contains(&id));
    assert!(ids(&[]).await.contains(&id));
    assert!(ids(&[pair, "absent".to_owned()]).await.is_empty());
    assert!(ids(&[format!("io.tarsup.deployment={}x", s.prefix)]).await.is_empty());
    s.engine.remove_container(&id).await.unwrap();
}

pub async fn list_shows_what_inspect_shows(s: &Setting) {
    let network = s.network("net").await;
    let mut body = s.body_at(&network, 5);
    body["HostConfig"]["Binds"] = json!([format!("{}:/data", s.name("data"))]);
    let id = s.create("a", body).await.unwrap();
    let label = [format!("io.tarsup.deployment={}", s.prefix)];
    let compare = async || {
        let found = s.engine.inspect_container(&id).await.unwrap().expect("it is there");
        // A list may lag a moment behind.
        let listed = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let listed = s.engine.list_containers(&label).await.unwrap().pop().expect("it is listed");
                if listed.status == found.status {
                    return listed;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the list tells the same in the end");
        assert_eq!((listed.id, listed.name, listed.image), (found.id, found.name, found.image));
        assert_eq!((listed.image_id, listed.labels), (found.image_id, found.labels));
        assert_eq!((listed.status, listed.health), (found.status, found.health));
        assert_eq!(listed.addresses, found.addresses);
        for key in ["Type", "Name", "Destination"] {
            assert_eq!(listed.mounts[0][key], found.raw["Mounts"][0][key], "{key}");
        }
        listed.status
    };
    assert_eq!(compare().await, Status::Created);
    s.engine.start_container(&id).await.unwrap();
    assert_eq!(compare().await, Status::Running);
    s.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(compare().await, Status::Exited);
    s.engine.remove_container(&id).await.unwrap();
    s.engine.remove_volume(&s.name("data")).await.unwrap();
    let image = s.engine.inspect_image(&s.image).await.unwrap().expect("it is there");
    let listed = s.engine.list_images().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == image.id).expect("it is listed");
    assert!(listed.tags.contains(&s.image), "{:?}", listed.tags);
    assert_eq!(listed.labels, image.labels);
    let (repository, _) = s.image.rsplit_once(':').expect("it has a tag");
    let of_it = s.engine.list_images_of(repository).await.unwrap();
    assert!(of_it.iter().any(|one| one.id == image.id && one.labels == image.labels));
    let others = s.engine.list_images_of(&format!("{repository}-none")).await.unwrap();
    assert!(others.is_empty(), "{others:?}");
    let to_the_second = |time: &str| time.get(..19).map(str::to_owned);
    // An image without a date has none with containerd, and the epoch in its list.
    if !image.created.is_empty() {
        assert_eq!(to_the_second(&listed.created), to_the_second(&image.created));
    }
}

pub async fn name_is_given_to_one_of_four_at_once(s: &Setting) {
    let results = join_all((0..4).map(|_| s.create("lock", s.body()))).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    let lost = results.iter().filter(|result| matches!(result, Err(EngineError::Conflict { .. }))).count();
    assert_eq!((won, lost), (1, 3), "{results:?}");
    s.engine.remove_container(&s.name("lock")).await.unwrap();
}

pub async fn absent_thing_is_none_or_not_found(s: &Setting) {
    let engine = &s.engine;
    let name = s.name("absent");
    assert!(engine.inspect_container(&name).await.unwrap().is_none());
    assert!(engine.inspect_image(&format!("{name}:1")).await.unwrap().is_none());
    assert!(engine.inspect_network(&name).await.unwrap().is_none());
    assert!(engine.inspect_volume(&name).await.unwrap().is_none());
    let mut body = s.body();
    body["Image"] = json!(format!("{name}:1"));
    for (call, result) in [
        ("start", engine.start_container(&name).await),
        ("stop", engine.stop_container(&name, Duration::ZERO).await),
        ("rename", engine.rename_container(&name, &s.name("other")).await),
        ("update", engine.update_restart(&name, &RestartPolicy::no()).await),
        ("remove", engine.remove_container(&name).await),
        ("wait", engine.wait_container(&name).await.map(drop)),
        ("logs", engine.logs(&name, 1).await.map(drop)),
        ("exec", engine.exec(&name, &["sleep"], Duration::from_secs(1)).await.map(drop)),
        ("put", engine.put_archive(&name, "/", tar("x", b"")).await),
        ("get", engine.get_archive(&name, "/").await.map(drop)),
        ("tag", engine.tag_image(&format!("{name}:1"), &name, "2").await),
        ("remove volume", engine.remove_volume(&name).await),
        ("create", s.create("of-absent-image", body).await.map(drop)),
    ] {
        assert!(matches!(result, Err(EngineError::NotFound { .. })), "{call}: {result:?}");
    }
}

pub async fn started_container_runs_until_it_is_stopped(s: &Setting) {
    let id = s.create("a", s.body()).await.unwrap();
    s.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(s.status(&id).await, Status::Created, "a container that never ran is not stopped");
    for _ in 0..2 {
        s.engine.start_container(&id).await.unwrap();
        assert_eq!(s.status(&id).await, Status::Running);
    }
    for _ in 0..2 {
        s.engine.stop_container(&id, Duration::from_secs(10)).await.unwrap();
        assert_eq!(s.status(&id).await, Status::Exited);
    }
    s.engine.start_container(&id).await.unwrap();
    assert_eq!(s.status(&id).await, Status::Running);
    s.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    s.engine.remove_container(&id).await.unwrap();
}

pub async fn running_container_is_not_removed(s: &Setting) {
    let id = s.create("a", s.body()).await.unwrap();
    s.engine.start_container(&id).await.unwrap();
    let refused = s.engine.remove_container(&id).await;
    assert!(matches!(refused, Err(EngineError::Conflict { .. })), "{refused:?}");
    assert_eq!(s.status(&id).await, Status::Running);
    s.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    s.engine.remove_container(&id).await.unwrap();
}

pub async fn rename_to_a_taken_name_is_a_conflict(s: &Setting) {
    let a = s.create("a", s.body()).await.unwrap();
    let b = s.create("b", s.body()).await.unwrap();
    let taken = s.engine.rename_container(&a, &s.name("b")).await;
    assert!(matches!(taken, Err(EngineError::Conflict { .. })), "{taken:?}");
    assert!(s.engine.rename_container(&a, &s.name("a")).await.is_err(), "a name is not changed to itself");
    s.engine.rename_container(&s.name("a"), &s.name("a.old.1")).await.unwrap();
    assert!(s.engine.inspect_container(&s.name("a")).await.unwrap().is_none());
    assert_eq!(s.engine.inspect_container(&s.name("a.old.1")).await.unwrap().expect("renamed").id, a);
    s.engine.start_container(&b).await.unwrap();
    s.engine.rename_container(&b, &s.name("a")).await.unwrap();
    assert_eq!(s.status(&s.name("a")).await, Status::Running, "a running container is renamed as well");
    s.engine.stop_container(&b, Duration::ZERO).await.unwrap();
    for id in [a, b] {
        s.engine.remove_container(&id).await.unwrap();
    }
}

pub async fn restart_policy_changes_on_running_and_stopped(s: &Setting) {
    let mut body = s.body();
    body["HostConfig"]["RestartPolicy"]["Name"] = json!("always");
    let id = s.create("a", body).await.unwrap();
    let policy = async || s.engine.inspect_container(&id).await.unwrap().expect("it is there").restart;
    assert_eq!(policy().await.name, "always");
    s.engine.start_container(&id).await.unwrap();
    s.engine.update_restart(&id, &RestartPolicy::no()).await.unwrap();
    assert_eq!(policy().await, RestartPolicy::no());
    s.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    let on_failure = RestartPolicy { name: "on-failure".to_owned(), maximum_retry_count: 3 };
    s.engine.update_restart(&id, &on_failure).await.unwrap();
    assert_eq!(policy().await, on_failure);
    assert_eq!(s.status(&id).await, Status::Exited);
    s.engine.remove_container(&id).await.unwrap();
}

pub async fn address_is_claimed_at_start(s: &Setting) {
    let network = s.network("net").await;
    let old = s.create("old", s.body_at(&network, 3)).await.unwrap();
    s.engine.start_container(&old).await.unwrap();
    let new = s.create("new", s.body_at(&network, 3)).await.unwrap();
    let refused = s.engine.start_container(&new).await.unwrap_err();
    assert!(matches!(refused, EngineError::Answered { .. }), "{refused:?}");
    assert!(refused.to_string().contains("Address already in use"), "{refused}");
    assert_eq!(s.status(&new).await, Status::Created);

    s.engine.stop_container(&old, Duration::ZERO).await.unwrap();
    s.engine.start_container(&new).await.unwrap();
    let container = s.engine.inspect_container(&new).await.unwrap().expect("it is there");
    assert_eq!(container.addresses[&network], s.address(3));
    let members = s.engine.inspect_network(&network).await.unwrap().expect("it is there").addresses;
    assert_eq!(members, BTreeMap::from([(new.clone(), format!("{}/24", s.address(3)))]));
    s.engine.stop_container(&new, Duration::ZERO).await.unwrap();
    let stopped = s.engine.inspect_container(&new).await.unwrap().expect("it is there").addresses;
    assert!(stopped.values().all(String::is_empty), "{stopped:?}");
    for id in [old, new] {
        s.engine.remove_container(&id).await.unwrap();
    }
}

pub async fn host_port_is_claimed_at_start(s: &Setting) {
    let mut body = s.body();
    body["ExposedPorts"] = json!({"80/tcp": {}});
    body["HostConfig"]["PortBindings"] = json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28080"}]});
    let old = s.create("old", body.clone()).await.unwrap();
    let new = s.create("new", body).await.unwrap();
    s.engine.start_container(&old).await.unwrap();
    let refused = s.engine.start_container(&new).await.unwrap_err();
    assert!(refused.to_string().contains("port is already allocated"), "{refused}");
    assert_eq!(s.status(&new).await, Status::Created);
    s.engine.stop_container(&old, Duration::ZERO).await.unwrap();
    s.engine.start_container(&new).await.unwrap();
    s.engine.stop_container(&new, Duration::ZERO).await.unwrap();
    for id in [old, new] {
        s.engine.remove_container(&id).await.unwrap();
    }
}

pub async fn archive_is_written_and_read_before_the_first_start(s: &Setting) {
    let id = s.create("a", s.body()).await.unwrap();
    s.engine.put_archive(&id, "/data", tar("lease.json", b"{\"owner\":1}")).await.unwrap();
    s.engine.put_archive(&id, "/data", tar("lease.json", b"{\"owner\":2}")).await.unwrap();
    let archive = s.engine.get_archive(&id, "/data/lease.json").await.unwrap().expect("it was written");
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut content = String::new();
    std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
    assert_eq!(content, "{\"owner\":2}");
    assert_eq!(s.engine.get_archive(&id, "/data/absent").await.unwrap(), None);
    assert_eq!(s.status(&id).await, Status::Created);
    s.engine.remove_container(&id).await.unwrap();
}

pub async fn own_layer_of_a_container_is_what_changed_and_a_volume_is_not(s: &Setting) {
    let mut body = s.body();
    body["HostConfig"]["Binds"] = json!([format!("{}:/data", s.name("data"))]);
    let id = s.create("a", body).await.unwrap();
    s.engine.put_archive(&id, "/", tar("mine", b"1")).await.unwrap();
    s.engine.put_archive(&id, "/data", tar("lasts", b"1")).await.unwrap();
    let changes = s.engine.changes(&id).await.unwrap();
    let mine = Change { path: "/mine".to_owned(), kind: ChangeKind::Added };
    assert!(changes.contains(&mine), "{changes:?}");
    assert!(!changes.iter().any(|change| change.path.contains("lasts")), "{changes:?}");
    let absent = s.engine.changes(&s.name("absent")).await;
    assert!(matches!(absent, Err(EngineError::NotFound { .. })), "{absent:?}");
    s.engine.remove_container(&id).await.unwrap();
    s.engine.remove_volume(&s.name("data")).await.unwrap();
}

pub async fn exec_needs_a_running_container(s: &Setting) {
    let id = s.create("a", s.body()).await.unwrap();
    let refused = s.engine.exec(&id, &["true"], Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(EngineError::Conflict { .. })), "{refused:?}");
    assert_eq!(s.engine.logs(&id, 10).await.unwrap(), "");
    s.engine.remove_container(&id).await.unwrap();
}

pub async fn network_is_made_once_and_joined(s: &Setting) {
    let name = s.network("net").await;
    let again = s.engine.create_network(&json!({"Name": name, "Driver": "bridge"})).await;
    assert!(matches!(again, Err(EngineError::Conflict { .. })), "{again:?}");
    let network = s.engine.inspect_network(&name).await.unwrap().expect("it was made");
    assert_eq!((network.name.as_str(), network.driver.as_str()), (name.as_str(), "bridge"));
    assert_eq!(network.subnets, [format!("{}.0.0/24", s.subnet)]);
    assert_eq!(network.ranges, [format!("{}.0.128/25", s.subnet)], "what it hands out");
    assert_eq!(network.gateways, [s.address(1)]);
    assert_eq!(network.labels["made"], "here");
    assert!(network.addresses.is_empty());

    let id = s.create("a", s.body()).await.unwrap();
    let endpoint = json!({"IPAMConfig": {"IPv4Address": s.address(9)}, "Aliases": ["alias"]});
    s.engine.connect_network(&name, &id, &endpoint).await.unwrap();
    s.engine.start_container(&id).await.unwrap();
    let container = s.engine.inspect_container(&id).await.unwrap().expect("it is there");
    assert_eq!(container.addresses[&name], s.address(9));
    s.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    s.engine.remove_container(&id).await.unwrap();
}

pub async fn volume_keeps_the_labels_of_its_first_create(s: &Setting) {
    let name = s.name("data");
    let body = |nonce: usize| json!({"Name": name, "Labels": {"nonce": nonce.to_string()}});
    let answers = join_all((0..4).map(|nonce| {
        let body = body(nonce);
        async move { s.engine.create_volume(&body).await.unwrap() }
    }))
    .await;
    let kept = s.engine.inspect_volume(&name).await.unwrap().expect("it was made");
    assert!(answers.iter().all(|answer| *answer == kept), "everybody reads the same owner: {answers:?}");
    assert_eq!(s.engine.create_volume(&body(9)).await.unwrap(), kept);
    s.engine.remove_volume(&name).await.unwrap();
    assert_eq!(s.engine.create_volume(&body(9)).await.unwrap()["nonce"], "9");
    s.engine.remove_volume(&name).await.unwrap();
    assert!(s.engine.inspect_volume(&name).await.unwrap().is_none());
}

pub async fn volume_is_listed_by_its_labels(s: &Setting) {
    let name = s.name("data");
    let labels = BTreeMap::from([("io.tarsup.deployment".to_owned(), s.prefix.clone())]);
    let pair = format!("io.tarsup.deployment={}", s.prefix);
    assert!(s.engine.list_volumes(std::slice::from_ref(&pair)).await.unwrap().is_empty());
    s.engine.create_volume(&json!({"Name": name, "Labels": labels})).await.unwrap();
    let listed = s.engine.list_volumes(std::slice::from_ref(&pair)).await.unwrap();
    assert_eq!(listed, [(name.clone(), labels.clone())]);
    assert!(s.engine.list_volumes(&[]).await.unwrap().contains(&(name.clone(), labels)));
    assert!(s.engine.list_volumes(&[pair, "absent".to_owned()]).await.unwrap().is_empty());
    s.engine.remove_volume(&name).await.unwrap();
}

pub async fn volume_is_removed_only_when_no_container_mounts_it(s: &Setting) {
    let name = s.name("data");
    s.engine.create_volume(&json!({"Name": name})).await.unwrap();
    let mut bind = s.body();
    bind["HostConfig"]["Binds"] = json!([format!("{name}:/data")]);
    let mut mount = s.body();
    mount["HostConfig"]["Mounts"] = json!([{"Type": "volume", "Source": name, "Target": "/data"}]);
    for (user, body) in [("bind", bind), ("mount", mount)] {
        let id = s.create(user, body).await.unwrap();
        let refused = s.engine.remove_volume(&name).await;
        assert!(matches!(refused, Err(EngineError::Conflict { .. })), "{user}: {refused:?}");
        s.engine.remove_container(&id).await.unwrap();
        assert!(s.engine.inspect_volume(&name).await.unwrap().is_some(), "it outlives the container");
    }
    s.engine.remove_volume(&name).await.unwrap();
}

pub async fn volume_that_a_container_names_is_made_without_labels(s: &Setting) {
    let name = s.name("data");
    let mut body = s.body();
    body["HostConfig"]["Binds"] = json!([format!("{name}:/data")]);
    let id = s.create("a", body).await.unwrap();
    assert_eq!(s.engine.inspect_volume(&name).await.unwrap(), Some(BTreeMap::new()));
    let labelled = json!({"Name": name, "Labels": {"nonce": "1"}});
    assert_eq!(s.engine.create_volume(&labelled).await.unwrap(), BTreeMap::new(), "it gets none later");
    let raw = s.engine.inspect_container(&id).await.unwrap().expect("it is there").raw;
    assert_eq!(
        (raw["Mounts"][0]["Name"].as_str(), raw["Mounts"][0]["Destination"].as_str()),
        (Some(name.as_str()), Some("/data"))
    );
    s.engine.remove_container(&id).await.unwrap();
    s.engine.remove_volume(&name).await.unwrap();
}

pub async fn volume_that_a_mount_describes_is_made_with_its_labels(s: &Setting) {
    let name = s.name("data");
    let mount = |nonce: &str| {
        let mut body = s.body();
        let options = json!({"Labels": {"nonce": nonce}});
        body["HostConfig"]["Mounts"] =
            json!([{"Type": "volume", "Source": name, "Target": "/data", "VolumeOptions": options}]);
        body
    };
    let labels = |nonce: &str| Some(BTreeMap::from([("nonce".to_owned(), nonce.to_owned())]));
    let one = s.create("a", mount("1")).await.unwrap();
    assert_eq!(s.engine.inspect_volume(&name).await.unwrap(), labels("1"));
    let two = s.create("b", mount("2")).await.unwrap();
    assert_eq!(s.engine.inspect_volume(&name).await.unwrap(), labels("1"), "the first one's stay");
    for id in [one, two] {
        s.engine.remove_container(&id).await.unwrap();
    }
    s.engine.remove_volume(&name).await.unwrap();
}

pub async fn file_below_a_volume_outlives_the_container(s: &Setting) {
    let name = s.name("data");
    s.engine.create_volume(&json!({"Name": name})).await.unwrap();
    let mut body = s.body();
    body["HostConfig"]["Binds"] = json!([format!("{name}:/data")]);
    let first = s.create("a", body.clone()).await.unwrap();
    s.engine.put_archive(&first, "/data", tar("lease", b"1")).await.unwrap();
    s.engine.put_archive(&first, "/", tar("data/record", b"2")).await.unwrap();
    s.engine.remove_container(&first).await.unwrap();
    let second = s.create("a", body).await.unwrap();
    for file in ["lease", "record"] {
        let found = s.engine.get_archive(&second, &format!("/data/{file}")).await.unwrap();
        assert!(found.is_some(), "{file} lies in the volume");
    }
    s.engine.remove_container(&second).await.unwrap();
    s.engine.remove_volume(&name).await.unwrap();
}

pub async fn logs_that_no_driver_keeps_are_an_error(s: &Setting) {
    let mut body = s.body();
    body["HostConfig"]["LogConfig"] = json!({"Type": "none"});
    let id = s.create("a", body).await.unwrap();
    s.engine.start_container(&id).await.unwrap();
    let refused = s.engine.logs(&id, 10).await.unwrap_err();
    assert!(refused.to_string().contains("configured logging driver does not support reading"), "{refused}");
    assert!(matches!(refused, EngineError::Answered { status: 501, .. }), "{refused:?}");
    s.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    s.engine.remove_container(&id).await.unwrap();
}

pub async fn image_gets_a_second_tag(s: &Setting) {
    s.engine.tag_image(&s.image, &s.name("copy"), "2").await.unwrap();
    let copy =
        s.engine.inspect_image(&format!("{}:2", s.name("copy"))).await.unwrap().expect("it was tagged");
    let image = s.engine.inspect_image(&s.image).await.unwrap().expect("it is there");
    assert_eq!((&copy.id, &copy.diff_ids), (&image.id, &image.diff_ids));
    assert!(image.tags.contains(&format!("{}:2", s.name("copy"))), "{:?}", image.tags);
    let listed = s.engine.list_images().await.unwrap();
    assert_eq!(listed.iter().filter(|listed| listed.id == image.id).count(), 1);
}

pub async fn image_loses_a_name_and_is_gone_with_its_last(s: &Setting) {
    let name = s.name("held");
    s.engine.tag_image(&s.image, &name, "1").await.unwrap();
    let image = s.engine.inspect_image(&s.image).await.unwrap().expect("it is there");
    s.engine.remove_image(&format!("{name}:1")).await.unwrap();
    assert!(s.engine.inspect_image(&format!("{name}:1")).await.unwrap().is_none());
    assert_eq!(s.engine.inspect_image(&s.image).await.unwrap().map(|left| left.id), Some(image.id.clone()));
    // Not there is what was wanted.
    s.engine.remove_image(&format!("{name}:1")).await.unwrap();

    // An image that a container needs, running or not, is never gone: its last name stays.
    let id = s.create("user", json!({"Image": s.image})).await.unwrap();
    let names = s.engine.inspect_image(&s.image).await.unwrap().expect("it is there").tags.len();
    match s.engine.remove_image(&s.image).await {
        Ok(()) => assert!(names > 1, "the last name of an image that a container needs is removed"),
        Err(error) => assert!(matches!(error, EngineError::Conflict { .. }), "{error}"),
    }
    assert!(s.engine.inspect_image(&image.id).await.unwrap().is_some());
    s.engine.remove_container(&id).await.unwrap();
}

/// A tar of one file.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

pub async fn attached_streams_carry_what_is_said_and_read(s: &Setting) {
    let mut body = s.body();
    for key in ["OpenStdin", "StdinOnce", "AttachStdin"] {
        body[key] = json!(true);
    }
    body["Cmd"] = json!(["hear"]);
    body["HostConfig"]["LogConfig"] = json!({"Type": "none"});
    s.create("a", body).await.unwrap();
    let name = s.name("a");
    let Attached { mut output, mut input } = s.engine.attach_container(&name).await.unwrap();
    s.engine.start_container(&name).await.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    input.write_all(b"one\ntwo\n").await.unwrap();
    input.flush().await.unwrap();
    while stdout != b"heard one\nheard two\n" {
        match output.next().await.expect("it goes on").unwrap() {
            Printed::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Printed::Stderr(bytes) => panic!("{bytes:?}"),
        }
    }
    assert_eq!(s.status(&name).await, Status::Running);
    // It reads the end once nobody writes any more.
    input.shutdown().await.unwrap();
    while let Some(piece) = output.next().await {
        match piece.unwrap() {
            Printed::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            Printed::Stdout(bytes) => panic!("{bytes:?}"),
        }
    }
    assert_eq!(stderr, b"the end\n");
    assert_eq!(s.engine.wait_container(&name).await.unwrap(), 3);
    s.engine.remove_container(&name).await.unwrap();
    assert!(matches!(s.engine.attach_container(&name).await.map(drop), Err(EngineError::NotFound { .. })));
}
