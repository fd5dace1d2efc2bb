//! Declarations that contradict themselves, or what runs: refused in the plan, or shown as what they are.

use super::*;
use crate::fake::{Call, Fault, Moment};
use tarsup::deploy::guard;
use tarsup::deploy::observed::LABEL_SPEC;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::Engine as _;
use tarsup::engine::{CreateBody, Variable};
use tarsup::tars::catalogue::IMAGE_ROLE_LABEL;
use tarsup::upgrade::render;

/// Sets one part of a service's `HostConfig`.
fn host(service: &mut Service, key: &str, value: Value) {
    edit_body(service, |body| {
        body["HostConfig"].as_object_mut().unwrap().insert(key.to_owned(), value);
    });
}

fn environment(service: &mut Service, entries: &[&str]) {
    edit_body(service, |body| drop(body.insert("Env".to_owned(), json!(entries))));
}

/// A deployment with one service changed.
fn with(name: &str, change: impl FnOnce(&mut Service)) -> Desired {
    let mut desired = desired();
    edit(&mut desired, name, change);
    desired
}

fn declare_volume(engine: &FakeEngine, image: &str, path: &str) {
    engine.edit_image(image, |image| image.raw["Config"]["Volumes"] = json!({ path: {} }));
}

/// What `up` says to a declaration, on an engine on which nothing runs.
async fn refused(engine: &FakeEngine, desired: &Desired) -> Refusal {
    let refusal = planned(engine, desired, 9, &Intent::Up).await.unwrap_err();
    assert_eq!(refusal.exit(), Exit::Refused, "{refusal}");
    assert!(refusal.place().is_some(), "{refusal}");
    refusal
}

/// What stands on a path of a container.
async fn volume_at(engine: &FakeEngine, container: &str, path: &str) -> String {
    let container = engine.inspect_container(container).await.unwrap().unwrap();
    let mounts = container.raw["Mounts"].as_array().unwrap();
    let mounts: Vec<&Value> = mounts.iter().filter(|mount| mount["Destination"] == path).collect();
    assert_eq!(mounts.len(), 1, "{path} of {}", container.name);
    mounts[0]["Name"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn anonymous_volumes_are_handed_on_in_every_shape() {
    type Shape = (&'static str, fn(&mut Service), bool);
    let shapes: [Shape; 5] = [
        ("a volume of the image", |_| {}, true),
        ("short form", |service| host(service, "Binds", json!(["tars_node:/data/tars", "/cache"])), false),
        (
            "long form",
            |service| host(service, "Mounts", json!([{"Type": "volume", "Target": "/cache/"}])),
            false,
        ),
        (
            "of the body",
            |service| {
                edit_body(service, |body| drop(body.insert("Volumes".to_owned(), json!({"/cache": {}}))));
            },
            false,
        ),
        (
            "long form over a volume of the image",
            |service| host(service, "Mounts", json!([{"Type": "volume", "Target": "/cache"}])),
            true,
        ),
    ];
    for (name, shape, of_image) in shapes {
        let desired = with("node", shape);
        let engine = engine();
        if of_image {
            declare_volume(&engine, "tars/node:1", "/cache");
            declare_volume(&engine, "tars/node:2", "/cache");
        }
        roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap();
        let before = volume_at(&engine, "tars-node", "/cache").await;
        roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
        assert_eq!(volume_at(&engine, "tars-node", "/cache").await, before, "{name}");
        // And on from there: by now it is a bind of the predecessor.
        let back = Intent::upgrade(&desired, Some("1"));
        roll(&engine, &Machine::new(), &desired, &id(3), &back).await.unwrap();
        assert_eq!(volume_at(&engine, "tars-node", "/cache").await, before, "{name}, twice");
    }
}

#[tokio::test(start_paused = true)]
async fn data_that_a_volume_of_the_image_would_hide_is_refused() {
    let engine = engine();
    declare_volume(&engine, "mariadb:10.11", "/var/lib/mysql");
    declare_volume(&engine, "tars/node:1", "/data/tars");
    let desired = with("mysql", |service| host(service, "Binds", json!(["/srv/lib:/var/lib"])));
    let refusal = refused(&engine, &desired).await.to_string();
    assert!(refusal.contains("declares a volume at /var/lib/mysql below"), "{refusal}");
    let desired = with("node", |service| host(service, "Binds", json!(["/srv/data:/data"])));
    let refusal = refused(&engine, &desired).await;
    assert!(refusal.to_string().contains("declares a volume at /data/tars below"), "{refusal}");
    assert!(refusal.hint().unwrap().contains("mount it at /data/tars itself"), "{refusal:?}");
    // Mounted where the image has its volume, all is well.
    let desired = with("node", |service| host(service, "Binds", json!(["/srv/data:/data/tars/"])));
    planned(&engine, &desired, 9, &Intent::Up).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn data_that_moves_is_refused_for_roles_unless_it_is_accepted_by_name() {
    let anonymous = json!([]);
    let bind = json!(["/srv/data:/data/tars"]);
    let same = json!(["/srv:/data"]);
    let named = json!(["tars_node:/data/tars"]);
    let other = json!(["tars_slave:/data/tars"]);
    for (before, after, words) in [
        (&anonymous, &named, Some(("the anonymous volume", "the volume `tars_node`"))),
        (&bind, &named, Some(("the host's /srv/data", "the volume `tars_node`"))),
        (&named, &other, Some(("the volume `tars_node`", "the volume `tars_slave`"))),
        (&named, &anonymous, Some(("the volume `tars_node`", "a new anonymous volume"))),
        (&anonymous, &anonymous, None),
        (&bind, &bind, None),
    ] {
        let engine = engine();
        declare_volume(&engine, "tars/node:1", "/data/tars");
        let binds = |value: &Value| with("node", |service| host(service, "Binds", value.clone()));
        roll(&engine, &Machine::new(), &binds(before), &id(1), &Intent::Up).await.unwrap();
        let mut desired = binds(after);
        edit(&mut desired, "node", |service| {
            edit_body(service, |body| drop(body.insert("Hostname".to_owned(), json!("n"))));
        });
        let machine = Machine::new();
        let command = deploy(&engine, &machine, &desired);
        let mut request = request(&id(2), &Intent::Up);
        let answer = command.offer(&request).await;
        let Some((from, to)) = words else {
            answer.unwrap();
            continue;
        };
        let failure = answer.unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused, "{failure}");
        let text = failure.to_string();
        assert!(text.contains(from) && text.contains(to), "{text}");
        assert!(failure.hint().unwrap().contains("--accept-data-move node"));
        request.accept_data_move.push("node".to_owned());
        let offer = command.offer(&request).await.unwrap();
        let shown = render::offer(&offer);
        assert!(shown.contains("`node` has its data at /data/tars in") && shown.contains(to), "{shown}");
        command.roll(&offer).await.unwrap();
    }
    // The same folder of the host by another mount is no move.
    let engine = engine();
    let binds = |value: &Value| with("node", |service| host(service, "Binds", value.clone()));
    let bind_below = json!(["/srv/tars:/data/tars"]);
    roll(&engine, &Machine::new(), &binds(&bind_below), &id(1), &Intent::Up).await.unwrap();
    roll(&engine, &Machine::new(), &binds(&same), &id(2), &Intent::Up).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn data_that_was_made_to_move_since_the_deploy_began_is_refused_on_the_way_on() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.fault(Call::First("create tars-slave.new".to_owned()), Moment::Before, Fault::Crash);
    let machine = Machine::killed();
    super::deploys::until_it_hangs(&engine, &machine, &desired).await;
    engine.clear_faults();
    let moved = with("framework", |service| host(service, "Binds", json!(["/srv/elsewhere:/data/tars"])));
    let next = Machine { owner: Machine::killed().owner, ..machine.next() };
    let refusal = resume(&engine, &next, &moved, true).await.unwrap_err();
    assert_eq!(refusal.exit(), Exit::Refused, "{refusal}");
    let text = refusal.to_string();
    assert!(text.contains("its data at /data/tars lies in the volume `tars_framework`"), "{text}");
    // The files as they were: it goes on.
    let fork = engine.fork();
    let again = resume(&fork, &machine.next(), &desired, true).await.unwrap();
    assert!(matches!(again, Resumed::Completed(_)), "{again:?}");
    // What the hint says is a way on, too, and only for the service that it names.
    assert!(refusal.hint().unwrap().contains("`--accept-data-move framework`"), "{refusal:?}");
    let options = |service: &str| ResumeOptions {
        forward: true,
        accept_data_move: vec![service.to_owned()],
        ..ResumeOptions::default()
    };
    let next = Machine { owner: Machine::killed().owner, ..machine.next() };
    let refusal = deploy(&engine, &next, &moved).preview(&options("slave")).await.unwrap_err();
    assert_eq!(refusal.exit(), Exit::Refused, "{refusal}");
    let shown = deploy(&engine, &next, &moved).preview(&options("framework")).await.unwrap().unwrap();
    assert!(render::plan(&shown).contains("the host's /srv/elsewhere"), "{}", render::plan(&shown));
    // Said once, it counts for whoever takes it up after this one.
    engine.fault(Call::First("start tars-framework".to_owned()), Moment::Before, Fault::Crash);
    let command = deploy(&engine, &next, &moved);
    let options = options("framework");
    tokio::select! {
        done = command.resume(&options) => panic!("{done:?}"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    let again = resume(&engine, &next.next(), &moved, true).await.unwrap();
    assert!(matches!(again, Resumed::Completed(_)), "{again:?}");
    assert!(engine.dump().contains("binds=[\"/srv/elsewhere:/data/tars\"]"), "{}", engine.dump());
}

#[tokio::test(start_paused = true)]
async fn data_of_other_services_that_moves_is_a_line_of_the_plan() {
    let mut desired = desired();
    desired.services.push(service("redis", None, "tars/node:1", 9));
    let engine = running(&desired).await;
    edit(&mut desired, "redis", |service| host(service, "Binds", json!(["/srv/redis:/data/tars"])));
    let machine = Machine::new();
    let offer = deploy(&engine, &machine, &desired).offer(&request(&id(2), &Intent::Up)).await.unwrap();
    let shown = render::offer(&offer);
    assert!(
        shown.contains("`redis` has its data at /data/tars in the volume `tars_redis`")
            && shown.contains("the host's /srv/redis"),
        "{shown}"
    );
}

#[tokio::test(start_paused = true)]
async fn role_against_slave_is_refused() {
    let engine = engine();
    for (name, entries, words) in [
        ("slave", &["SLAVE=false"][..], "makes it a master"),
        ("slave", &["SLAVE=True"], "makes it a master"),
        ("slave", &["SLAVE"], "makes it a master"),
        ("slave", &[], "makes it a master: it is not set"),
        ("framework", &["SLAVE=true"], "makes it a slave"),
        ("framework", &["SLAVE=1"], "makes it a slave"),
    ] {
        let desired = with(name, |service| environment(service, entries));
        let refusal = refused(&engine, &desired).await;
        assert!(refusal.to_string().contains(words), "{entries:?}: {refusal}");
        assert!(refusal.hint().unwrap().contains("SLAVE"), "{refusal}");
    }
    // What the image sets counts where the file says nothing.
    engine.edit_image("tars/framework:1", |image| image.env.0.push(Variable::of("SLAVE=true")));
    let desired = with("framework", |service| environment(service, &[]));
    assert!(refused(&engine, &desired).await.to_string().contains("makes it a slave"));
    let desired = with("slave", |service| environment(service, &[]));
    planned(&engine, &desired, 9, &Intent::Up).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn role_against_the_role_of_the_image_is_refused() {
    let engine = engine();
    for (name, image) in [
        ("framework", "tars/node:1"),
        ("slave", "tars/node:1"),
        ("node", "tars/framework:1"),
        ("mysql", "tars/node:1"),
    ] {
        let desired = with(name, |service| service.image = image.parse().unwrap());
        let refusal = refused(&engine, &desired).await.to_string();
        assert!(refusal.contains(&format!("image {image} is made for the role")), "{refusal}");
    }
}

#[tokio::test(start_paused = true)]
async fn image_without_our_start_is_refused_as_one_to_start_and_left_alone_where_it_runs() {
    let without = |engine: &FakeEngine, image: &str| {
        engine.edit_image(image, |image| drop(image.labels.remove(IMAGE_ROLE_LABEL)));
    };
    let desired = desired();
    for name in ["framework", "slave", "node"] {
        let engine = engine();
        engine.add_image("tarscloud/framework:v3", "upstream", &[]);
        let upstream = with(name, |service| service.image = "tarscloud/framework:v3".parse().unwrap());
        let refusal = refused(&engine, &upstream).await;
        assert!(refusal.to_string().contains("does not start with tars-init"), "{refusal}");
        assert!(refusal.hint().unwrap().contains("leave the role off"), "{refusal:?}");
        let left_off = with(name, |service| {
            service.image = "tarscloud/framework:v3".parse().unwrap();
            service.role = None;
        });
        planned(&engine, &left_off, 9, &Intent::Up).await.unwrap();
    }
    // It runs, from this very image: it is left alone, not started again, and may be replaced by ours.
    let engine = running(&desired).await;
    without(&engine, "tars/node:1");
    assert!(planned(&engine, &desired, 9, &Intent::Up).await.unwrap().is_empty());
    let restart = planned(&engine, &desired, 9, &Intent::Restart { services: Vec::new(), ask_with: None })
        .await
        .unwrap_err();
    assert!(restart.to_string().contains("does not start with tars-init"), "{restart}");
    planned(&engine, &desired, 9, &to_2(&desired)).await.unwrap();
    engine.stop_container("tars-node", Duration::ZERO).await.unwrap();
    assert!(refused(&engine, &desired).await.to_string().contains("does not start with tars-init"));
}

#[test]
fn two_roles_on_one_host_network_are_refused() {
    let on_host = |service: &mut Service| {
        host(service, "NetworkMode", json!("host"));
        edit_body(service, |body| drop(body.remove("NetworkingConfig")));
    };
    let mut desired = with("framework", on_host);
    edit(&mut desired, "mysql", on_host);
    guard::check(&desired).unwrap();
    edit(&mut desired, "node", on_host);
    let refusal = guard::check(&desired).unwrap_err();
    assert_eq!(refusal.exit(), Exit::Refused);
    assert_eq!(
        refusal.to_string(),
        "`framework` and `node` are both on the host's network and would claim the same ports: 19386"
    );
    edit(&mut desired, "node", |service| host(service, "NetworkMode", json!("tars_default")));
    edit(&mut desired, "slave", on_host);
    let refusal = guard::check(&desired).unwrap_err().to_string();
    assert!(refusal.contains("17890") && refusal.contains("19386"), "{refusal}");
}

#[test]
fn two_roles_on_the_network_of_one_container_are_refused() {
    let shares = |of: &str| {
        let mode = json!(format!("container:{of}"));
        move |service: &mut Service| {
            host(service, "NetworkMode", mode);
            edit_body(service, |body| drop(body.remove("NetworkingConfig")));
        }
    };
    // A node beside the master, by way of a third; and both beside somebody else's.
    let mut desired = with("node", shares("tars-mysql"));
    guard::check(&desired).unwrap();
    edit(&mut desired, "mysql", shares("tars-framework"));
    let refusal = guard::check(&desired).unwrap_err();
    assert_eq!(refusal.exit(), Exit::Refused);
    assert_eq!(
        refusal.to_string(),
        "`framework` and `node` are both on the network of `tars-framework` and would claim the same ports: 19386"
    );
    let mut desired = with("node", shares("vpn"));
    guard::check(&desired).unwrap();
    edit(&mut desired, "slave", shares("vpn"));
    let refusal = guard::check(&desired).unwrap_err().to_string();
    assert!(refusal.contains("`slave` and `node` are both on the network of `vpn`"), "{refusal}");
}

#[test]
fn port_that_the_framework_claims_on_the_host_network_is_published_by_nobody() {
    let mut desired = with("framework", |service| {
        host(service, "NetworkMode", json!("host"));
        edit_body(service, |body| drop(body.remove("NetworkingConfig")));
    });
    let publish = |port: &str, key: &str| {
        let (port, key) = (port.to_owned(), key.to_owned());
        move |service: &mut Service| host(service, "PortBindings", json!({key: [{"HostPort": port}]}))
    };
    for (port, key) in [("9000", "9000/tcp"), ("17890", "17890/udp"), ("", "80/tcp")] {
        edit(&mut desired, "mysql", publish(port, key));
        guard::check(&desired).unwrap();
    }
    for port in ["17890", "3000", "19386"] {
        edit(&mut desired, "mysql", publish(port, "80/tcp"));
        let refusal = guard::check(&desired).unwrap_err();
        assert_eq!(refusal.exit(), Exit::Refused);
        let words = format!("`mysql` publishes {port} on the host, where `framework`");
        assert!(refusal.to_string().contains(&words), "{refusal}");
    }
    // Of a range the engine takes any port that is free just then.
    edit(&mut desired, "mysql", publish("17880-17890", "80/tcp"));
    let refusal = guard::check(&desired).unwrap_err().to_string();
    assert!(refusal.contains("17890") && refusal.contains("`mysql`"), "{refusal}");
    for harmless in ["17900-17999", "17890-17880", "17880-", "a-b"] {
        edit(&mut desired, "mysql", publish(harmless, "80/tcp"));
        guard::check(&desired).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn image_that_took_our_label_and_starts_otherwise_is_refused() {
    let engine = engine();
    engine.edit_image("tars/framework:1", |image| image.raw["Config"]["Entrypoint"] = json!(["/bin/sh"]));
    let refusal = refused(&engine, &desired()).await.to_string();
    assert!(refusal.contains("does not start with tars-init"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn node_without_a_lasting_name_is_a_line_of_the_plan() {
    let engine = engine();
    let drift = "`node` has neither a fixed address nor `DOMAIN`";
    let shown = |desired: Desired| {
        let engine = &engine;
        async move { render::plan(&planned(engine, &desired, 9, &Intent::Up).await.unwrap()) }
    };
    let floating = |service: &mut Service| {
        edit_body(service, |body| {
            body["NetworkingConfig"] = json!({"EndpointsConfig": {"tars_default": {}}});
        });
    };
    assert!(shown(with("node", floating)).await.contains(drift));
    assert!(!shown(desired()).await.contains("DOMAIN"));
    let named = with("node", |service| {
        floating(service);
        environment(service, &["DOMAIN=node.tars"]);
    });
    assert!(!shown(named).await.contains("DOMAIN"));
    let later = with("node", |service| {
        floating(service);
        let endpoint = json!({"IPAMConfig": {"IPv4Address": "172.25.0.9"}});
        join(service, "tars_default", endpoint);
    });
    assert!(!shown(later).await.contains("DOMAIN"));
}

#[tokio::test(start_paused = true)]
async fn last_registry_is_not_swapped_in_silence() {
    let desired = desired();
    for (down, last) in [("tars-framework", "slave"), ("tars-slave", "framework")] {
        let engine = running(&desired).await;
        engine.stop_container(down, Duration::ZERO).await.unwrap();
        for intent in [to_2(&desired), Intent::Restart { services: vec![last.to_owned()], ask_with: None }] {
            let plan = planned(&engine, &desired, 9, &intent).await.unwrap();
            assert_eq!(plan.questions.len(), 1, "{}", render::plan(&plan));
            assert!(plan.questions[0].contains(&format!("`{last}`")), "{:?}", plan.questions);
            assert!(render::plan(&plan).contains("question: "), "{}", render::plan(&plan));
        }
        // `up` starts the other one before.
        let mut both = desired.clone();
        for name in ["framework", "slave"] {
            edit(&mut both, name, |service| service.image = service.image.with_tag("2"));
        }
        let plan = planned(&engine, &both, 9, &Intent::Up).await.unwrap();
        assert!(plan.questions.is_empty(), "{:?}", plan.questions);
    }
    // Nobody is asked where both run, nor where no slave is declared: that is a line of its plan.
    let plan = planned(&running(&desired).await, &desired, 9, &to_2(&desired)).await.unwrap();
    assert!(plan.questions.is_empty() && plan.notes.is_empty(), "{}", render::plan(&plan));
    let mut alone = desired.clone();
    alone.services.retain(|service| service.role != Some(Role::Slave));
    let plan = planned(&running(&alone).await, &alone, 9, &to_2(&alone)).await.unwrap();
    assert!(plan.questions.is_empty() && plan.notes.len() == 1, "{}", render::plan(&plan));
}

#[tokio::test(start_paused = true)]
async fn foreign_container_with_data_is_not_to_be_removed() {
    let desired = desired();
    // What it has, as the hint says it; nothing: it has none.
    for (image, binds, has) in [
        ("mariadb:10.11", json!(["/srv/old:/data/tars"]), Some("/data/tars in the host's /srv/old")),
        ("mariadb:10.11", json!(["old:/x"]), Some("/x in the volume `old`")),
        ("mariadb:10.11", json!(["/x"]), Some("/x in ")),
        ("somebody/mysql:5.7", json!([]), Some("/var/lib/mysql in ")),
        ("mariadb:10.11", json!([]), None),
    ] {
        let engine = engine();
        engine.add_image("somebody/mysql:5.7", "mysql", &[]);
        declare_volume(&engine, "somebody/mysql:5.7", "/var/lib/mysql");
        let body = json!({"Image": image, "HostConfig": {"Binds": binds}});
        engine.create_container("tars-slave", &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
        let hint = refused(&engine, &desired).await.hint().unwrap();
        assert_eq!(hint.contains("keeps data"), has.is_some(), "{hint}");
        if let Some(has) = has {
            assert!(hint.contains(has) && !hint.contains("remove"), "{hint}");
        }
        // The two ways: it goes on under the service's own declaration, or the service under another name.
        assert!(hint.contains("docker rename") && hint.contains("another container_name"), "{hint}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_missing_images_are_named_with_the_way_to_each() {
    let mut desired = desired();
    for name in ["framework", "slave", "node"] {
        edit(&mut desired, name, |service| service.image = service.image.with_tag("9"));
    }
    edit(&mut desired, "mysql", |service| service.image = "mysql:5.7".parse().unwrap());
    let refusal = planned(&engine(), &desired, 9, &Intent::Up).await.unwrap_err();
    assert_eq!(refusal.exit(), Exit::Usage);
    assert_eq!(
        refusal.to_string(),
        "the images `mysql:5.7` (of `mysql`), `tars/framework:9` (of `framework`, `slave`), `tars/node:9` (of `node`) \
         are neither in the engine nor in the local store"
    );
    let hint = refusal.hint().unwrap();
    for words in [
        "`tarsup build RECIPE`",
        "`tarsup copy docker-archive:FILE docker-daemon:tars/node:9`",
        "docker-daemon:mysql:5.7",
    ] {
        assert!(hint.contains(words), "{hint}");
    }
}

#[tokio::test(start_paused = true)]
async fn spec_hash_across_releases_replaces_nothing() {
    let mut desired = desired();
    let engine = running(&desired).await;
    let node = desired.service("node").unwrap().clone();
    let label = engine.inspect_container("tars-node").await.unwrap().unwrap().labels[LABEL_SPEC].clone();
    assert_eq!(label, format!("v1:{}", node.spec()));
    // As the releases before versions wrote it, as a later one might, and wrong in each form.
    for (label, same) in [
        (node.spec().to_string(), true),
        (label, true),
        ("v9:blake3:00".to_owned(), true),
        (format!("sha256:{}", "0".repeat(64)), false),
        (format!("v1:sha256:{}", "0".repeat(64)), false),
    ] {
        let engine = engine.fork();
        engine.edit_labels("tars-node", |labels| drop(labels.insert(LABEL_SPEC.to_owned(), json!(label))));
        let plan = planned(&engine, &desired, 9, &Intent::Up).await.unwrap();
        assert_eq!(plan.is_empty(), same, "{label}: {}", render::plan(&plan));
    }
    // What can be seen to differ is replaced, whoever wrote the label.
    engine.edit_labels("tars-node", |labels| drop(labels.insert(LABEL_SPEC.to_owned(), json!("v9:00"))));
    edit(&mut desired, "node", |service| {
        edit_body(service, |body| drop(body.insert("Hostname".to_owned(), json!("n"))));
    });
    assert!(!planned(&engine, &desired, 9, &Intent::Up).await.unwrap().is_empty());
}
