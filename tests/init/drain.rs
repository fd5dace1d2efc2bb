//! Servers taken out of what registries hand out, and given back: in one transaction with the record of it, and only what serves
//! elsewhere too.

use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tarsup::tars::registry::{self, Endpoint, Endpoints};
use tarsup::tars::wire::{self, Request};

use crate::container::Container;
use crate::server::Server;

/// A database with a service on two nodes and one on the first alone, as upstream's schema has it.
fn cluster(server: &Server) -> Container {
    let asker = Container::framework(server);
    assert_eq!(asker.call(&["migrate"]).status.code(), Some(0));
    server.run(&[
        "ALTER TABLE db_tars.t_server_conf ADD flow_state ENUM('active','inactive') NOT NULL DEFAULT 'active', ADD bak_flag INT NOT NULL \
         DEFAULT 0, ADD registry_timestamp TIMESTAMP NULL",
        "ALTER TABLE db_tars.t_adapter_conf ADD servant VARCHAR(128), ADD protocol VARCHAR(64) DEFAULT 'tars', ADD allow_ip VARCHAR(255) \
         NOT NULL DEFAULT ''",
    ]);
    for node in ["a", "b"] {
        server.run(&[&format!(
            "INSERT INTO db_tars.t_node_info (node_name, last_reg_time, last_heartbeat) VALUES ('{node}', NOW(), NOW())"
        )]);
        deploy(server, "Hello", node);
    }
    deploy(server, "Alone", "a");
    asker
}

fn deploy(server: &Server, name: &str, node: &str) {
    server.run(&[
        &format!(
            "INSERT INTO db_tars.t_server_conf (application, server_name, node_name, setting_state, present_state) VALUES \
             ('Demo', '{name}', '{node}', 'active', 'active')"
        ),
        &format!(
            "INSERT INTO db_tars.t_adapter_conf (application, server_name, node_name, adapter_name, endpoint, servant) VALUES \
             ('Demo', '{name}', '{node}', 'Demo.{name}Adapter', 'tcp -h {node} -t 60000 -p 9001', 'Demo.{name}.Obj')"
        ),
    ]);
}

fn drain(asker: &Container, act: &str, nodes: &[&str], more: &Value) -> Value {
    let mut order = json!({"deployment": "tars", "host": "one", "nodes": nodes});
    for (key, value) in more.as_object().unwrap() {
        order[key] = value.clone();
    }
    let output = asker.call(&["drain", act, &order.to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn flows(server: &Server) -> Vec<String> {
    server.rows("SELECT CONCAT(server_name, ' ', node_name, ' ', flow_state) FROM db_tars.t_server_conf WHERE application = 'Demo' ORDER BY 1")
}

const ALL_FLOW: [&str; 3] = ["Alone a active", "Hello a active", "Hello b active"];

#[test]
fn what_serves_elsewhere_is_drained_once_and_given_back() {
    let server = Server::start();
    let asker = cluster(&server);
    let hello = |node: &str| json!({"server": "Demo.Hello", "node": node});
    // Ahead, while the other node is stopped: nothing would serve.
    let ahead = drain(&asker, "begin", &["a"], &json!({"besides": ["b"]}));
    assert_eq!(ahead["drained"], json!([]));
    assert_eq!(flows(&server), ALL_FLOW);
    let begun = drain(&asker, "begin", &["a"], &json!({}));
    assert_eq!(begun["drained"], json!([hello("a")]));
    assert_eq!(
        begun["gaps"],
        json!([{"server": "Demo.Alone", "node": "a", "why": "it is the only instance"}])
    );
    assert_eq!(flows(&server), ["Alone a active", "Hello a inactive", "Hello b active"]);
    // Once more, after it was cut off: nothing is drained twice.
    assert_eq!(drain(&asker, "begin", &["a"], &json!({}))["drained"], json!([hello("a")]));
    // Another host that rolls at once sees it.
    let other = drain(&asker, "begin", &["b"], &json!({"host": "two"}));
    assert_eq!(other["drained"], json!([]));
    assert_eq!(
        other["gaps"],
        json!([{"server": "Demo.Hello", "node": "b", "why": "no other instance serves", "held": true}]),
        "the first host will give it back"
    );
    assert_eq!(
        drain(&asker, "end", &[], &json!({"host": "two"}))["ended"],
        json!([]),
        "it is not that one's"
    );
    // An administrator's restart sets the flow by itself.
    server.run(&["UPDATE db_tars.t_server_conf SET flow_state = 'active' WHERE server_name = 'Hello'"]);
    let looked = drain(&asker, "look", &["a"], &json!({}));
    assert_eq!((&looked["again"], &looked["drained"]), (&json!([hello("a")]), &json!([hello("a")])));
    let listens = json!({"server": "Demo.Hello", "node": "a", "port": 9001, "is_udp": false});
    assert_eq!(looked["listens"], json!([listens]));
    assert_eq!(flows(&server)[1], "Hello a inactive");
    // The other one crashes, and is soon back; then an administrator stops it.
    server.run(&["UPDATE db_tars.t_server_conf SET flow_state = 'active', present_state = 'inactive' WHERE server_name = 'Hello' AND node_name = 'b'"]);
    assert_eq!(drain(&asker, "look", &["a"], &json!({}))["alone"], Value::Null);
    server.run(&["UPDATE db_tars.t_server_conf SET flow_state = 'inactive', present_state = 'active' WHERE server_name = 'Hello' AND node_name = 'b'"]);
    assert_eq!(drain(&asker, "look", &["a"], &json!({}))["alone"], json!([hello("a")]));
    server.run(&["UPDATE db_tars.t_server_conf SET flow_state = 'active' WHERE server_name = 'Hello' AND node_name = 'b'"]);
    assert_eq!(drain(&asker, "end", &["b"], &json!({}))["ended"], json!([]), "of another node");
    assert_eq!(drain(&asker, "end", &[], &json!({}))["ended"], json!([hello("a")]));
    assert_eq!(flows(&server), ALL_FLOW);
    assert_eq!(server.number("SELECT COUNT(*) FROM tarsup.t_drain"), 0);
}

#[test]
fn what_an_administrator_had_stopped_is_never_turned_on() {
    let server = Server::start();
    let asker = cluster(&server);
    server.run(&["UPDATE db_tars.t_server_conf SET flow_state = 'inactive' WHERE node_name = 'a'"]);
    let before = flows(&server);
    assert_eq!(drain(&asker, "begin", &["a"], &json!({}))["drained"], json!([]));
    drain(&asker, "end", &[], &json!({}));
    assert_eq!(flows(&server), before);
    // With that, node b has the only one that flows.
    let gaps = drain(&asker, "begin", &["b"], &json!({}))["gaps"].clone();
    assert_eq!(gaps, json!([{"server": "Demo.Hello", "node": "b", "why": "no other instance serves"}]));
}

#[test]
fn node_that_is_dead_stands_in_for_nobody() {
    let server = Server::start();
    let asker = cluster(&server);
    server.run(&[
        "UPDATE db_tars.t_node_info SET last_heartbeat = NOW() - INTERVAL 300 SECOND WHERE node_name = 'b'",
    ]);
    assert_eq!(drain(&asker, "begin", &["a"], &json!({}))["drained"], json!([]));
}

#[test]
fn database_without_drains_says_so_and_is_left_as_it_is() {
    let server = Server::start();
    let asker = cluster(&server);
    server.run(&["DROP TABLE tarsup.t_drain"]);
    let begun = drain(&asker, "begin", &["a"], &json!({}));
    assert_eq!(begun["unable"], "this database has no drains yet; an upgrade brings them");
    assert_eq!(drain(&asker, "end", &[], &json!({}))["ended"], json!([]));
    assert_eq!(flows(&server), ALL_FLOW);
    assert_eq!(
        server.number("SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 't_drain'"),
        0
    );
    let wrong = asker.call(&["drain", "begin", "{\"nodes\": 1}"]);
    assert_eq!(wrong.status.code(), Some(64), "{}", String::from_utf8_lossy(&wrong.stderr));
}

/// A registry that hands out what it is told.
fn registry(server: &Server, address: &str) -> Arc<Mutex<Endpoints>> {
    let handed_out = Arc::new(Mutex::new(Endpoints::default()));
    let listener = TcpListener::bind((address, 17890)).unwrap();
    server.run(&[&format!(
        "INSERT INTO db_tars.t_registry_info (locator_id, servant, endpoint, last_heartbeat, present_state) VALUES \
         ('{address}:17890', 'tars.tarsregistry.QueryObj', 'tcp -h {address} -p 17890 -t 60000', NOW(), 'active')"
    )]);
    let told = Arc::clone(&handed_out);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok(body) = wire::read_frame(&mut stream, wire::LARGEST_FRAME) else { continue };
            let request = Request::parse(&body).unwrap();
            assert_eq!(request.function, registry::FIND_ANY);
            let results = registry::encode_endpoints(&told.lock().unwrap());
            let _ = stream.write_all(&wire::response(request.id, 0, &results));
        }
    });
    handed_out
}

#[test]
fn every_registry_that_answers_must_have_taken_notice() {
    let server = Server::start();
    let asker = cluster(&server);
    let at = |host: &str| Endpoint { host: host.to_owned(), port: 9001, is_tcp: true };
    let both = || Endpoints { active: vec![at("a"), at("b")], inactive: Vec::new() };
    let one = || Endpoints { active: vec![at("b")], inactive: vec![at("a")] };
    let (first, second) = (registry(&server, "127.77.1.1"), registry(&server, "127.77.1.2"));
    // One more has died without a word: clients are told nothing by it.
    server.run(&["INSERT INTO db_tars.t_registry_info (locator_id, servant, endpoint, last_heartbeat, present_state) VALUES \
                  ('127.77.1.3:17890', 'tars.tarsregistry.QueryObj', 'tcp -h 127.77.1.3 -p 17890 -t 60000', NOW(), 'active')"]);
    *first.lock().unwrap() = both();
    *second.lock().unwrap() = both();
    drain(&asker, "begin", &["a"], &json!({}));
    let late = || {
        let looked = drain(&asker, "look", &["a"], &json!({}));
        looked["late"]
            .as_array()
            .unwrap()
            .iter()
            .map(|late| late["registry"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (of_first, of_second) = ("tcp -h 127.77.1.1 -p 17890", "tcp -h 127.77.1.2 -p 17890");
    assert_eq!(late(), [of_first, of_second]);
    *first.lock().unwrap() = one();
    assert_eq!(late(), [of_second]);
    *second.lock().unwrap() = one();
    assert_eq!(late(), Vec::<String>::new());
    drain(&asker, "end", &["a"], &json!({}));
    let back = |act: &str| {
        drain(&asker, act, &["a"], &json!({"servers": ["Demo.Hello"]}))["late"].as_array().unwrap().len()
    };
    assert_eq!(back("back"), 2);
    *first.lock().unwrap() = both();
    assert_eq!(back("back"), 1);
    *second.lock().unwrap() = both();
    assert_eq!(back("back"), 0);
}
