//! Which node a container is: by the interface that upstream's image would have gone by, and by what its volume knows.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::container::Container;
use crate::server::Server;

const OLD: &str = "172.25.0.5";
const OTHER: &str = "10.0.0.7";

/// What upstream's tarsnode leaves of a server in the volume.
fn deploy(container: &Container, server: &str, localip: &str) {
    let folder = container.path(&format!("data/tars/tarsnode-data/{server}/conf"));
    fs::create_dir_all(&folder).unwrap();
    let text =
        format!("<tars>\n<application>\n<server>\n  localip={localip}\n</server>\n</application>\n</tars>\n");
    fs::write(folder.join(format!("{server}.config.conf")), text).unwrap();
}

/// A node that is made to ask nobody, on a network of its own with two interfaces: `eth0` as upstream's image knows it.
fn on_two_networks(container: &Container) -> Output {
    let networks = format!(
        "for one in 'eth0 {OLD}/24' 'eth1 {OTHER}/24'; do set -- $one; ip link add $1 type bridge && ip link set $1 up && \
         ip addr add $2 brd + dev $1; done && timeout 2 tars-init node"
    );
    let call = container.prepare(&["node"]);
    let mut command = Command::new("unshare");
    let folder = Path::new(call.get_program()).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    command.args(["--net", "sh", "-c", &networks]).env_clear();
    command.envs(call.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", path);
    command.output().unwrap()
}

/// A node whose name goes by interfaces.
fn by_interface(inet: &str) -> Container {
    let mut node = Container::node("127.0.0.1");
    node.unset("DOMAIN").set("INET", inet);
    node
}

#[test]
fn node_that_upstreams_image_knew_by_another_interface_is_asked_for_its_name() {
    let mut node = by_interface("eth1");
    deploy(&node, "Shop.Cart", OLD);

    let refused = on_two_networks(&node);

    assert_eq!(refused.status.code(), Some(64), "{}", String::from_utf8_lossy(&refused.stderr));
    let said =
        String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    for word in [OLD, OTHER, "DOMAIN"] {
        assert!(said.contains(word), "{said}");
    }
    assert!(!node.path("data/tars/.tarsup-node.json").exists(), "nothing is settled");

    // The answer; and an interface that is named by a part of its name, as upstream's start takes it.
    for (name, value, own) in [("DOMAIN", OLD, OLD), ("INET", "eth0", OLD), ("INET", "h1", OTHER)] {
        let mut node = by_interface("eth0");
        node.set(name, value);
        deploy(&node, "Shop.Cart", own);
        let going_on = on_two_networks(&node);
        let said = String::from_utf8_lossy(&going_on.stdout).into_owned()
            + &String::from_utf8_lossy(&going_on.stderr);
        assert!(said.contains(&format!("node at {own}")) && said.contains("starting tarsnode"), "{said}");
        assert!(!said.contains("to the database that is another node"), "{said}");
    }
    // A volume without services has no name to lose.
    node = by_interface("eth1");
    let going_on = on_two_networks(&node);
    let said =
        String::from_utf8_lossy(&going_on.stdout).into_owned() + &String::from_utf8_lossy(&going_on.stderr);
    assert!(said.contains(&format!("node at {OTHER}")), "{said}");
}

#[test]
fn node_that_comes_back_under_another_name_says_what_it_was_called_once() {
    let mut node = Container::node("127.0.0.1");
    deploy(&node, "Shop.Cart", OLD);
    let own = node.address.clone();
    let mut start = |name: &str| {
        node.set("DOMAIN", name);
        node.start();
        node.await_words("starting tarsnode");
        node.stop();
        node.log()
    };

    let log = start(&own);

    assert!(
        log.contains(&format!("this node was {OLD} as its services' configuration has it and is {own} now")),
        "{log}"
    );
    assert!(log.contains(&format!("`tarsup readdress {OLD} {own}`")), "{log}");
    assert!(!start(&own).contains("to the database that is another node"), "it is known by that name now");
    let log = start("127.200.0.7");
    assert!(log.contains(&format!("this node was {own} at the last start and is 127.200.0.7 now")), "{log}");
}

#[test]
fn master_on_a_volume_of_upstreams_with_another_address_takes_its_former_name_for_nobodys_wish() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    let old = container.address.clone();
    // The volume as upstream's start leaves it, and the heartbeat of a moment ago.
    fs::remove_file(container.path("data/tars/.tarsup-database.json")).unwrap();
    deploy(&container, "tars.tarslog", &old);
    server.run(&["UPDATE db_tars.t_node_info SET last_heartbeat = NOW()"]);
    let new = "127.200.0.8";
    container.set("DOMAIN", new);

    let log = container.run_once();

    assert!(log.contains(&format!("`tars-init readdress {old} {new}`")), "{log}");
    assert!(!log.contains("as an administrator wants it"), "nobody stopped anything: {log}");
    assert!(!log.contains("another master lives"), "{log}");
}
