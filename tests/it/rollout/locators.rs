//! Nodes of other hosts that know no registry but one that is stopped: their connections tell.

use super::batches::{address, tell, with_nodes};
use super::*;
use crate::fake::Behaviour;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::upgrade::render;

const KNOWN: &str = "nodes that know no other registry than one that is stopped, and ask nobody meanwhile: ";
const UNKNOWN: &str =
    "nobody here can tell whether they know another registry than the one that is stopped: ";

/// Question and note about the nodes of other hosts, where a plan has them.
async fn told(engine: &FakeEngine, desired: &Desired, services: &[&str]) -> [Option<String>; 2] {
    let services = services.iter().map(|&service| service.to_owned()).collect();
    let intent = Intent::Restart { services, ask_with: None };
    let offer = deploy(engine, &Machine::new(), desired).offer(&request(&id(9), &intent)).await.unwrap();
    let text = render::offer(&offer);
    [KNOWN, UNKNOWN].map(|words| {
        let (_, rest) = text.split_once(words)?;
        rest.lines().next().map(str::to_owned)
    })
}

#[tokio::test(start_paused = true)]
async fn node_of_another_host_that_is_connected_to_one_registry_alone_is_a_gap() {
    let mut desired = with_nodes();
    let engine = running(&desired).await;
    // Of four on other hosts one is connected to both, one to each of them, one to none.
    tell(&engine, &[("Demo.A", &[0, 6, 7, 8, 9])]);
    engine.link("tars-framework", &[address(6), address(7)]);
    engine.link("tars-slave", &[address(6), address(8), "172.25.99.9".to_owned()]);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        told(&engine, &desired, &["framework", "slave"]).await,
        [
            some(
                "172.25.0.17 (connected to framework alone), 172.25.0.18 (connected to slave alone). Go on?"
            ),
            some("172.25.0.19")
        ]
    );
    assert_eq!(
        told(&engine, &desired, &["slave"]).await,
        [some("172.25.0.18 (connected to slave alone). Go on?"), some("172.25.0.19")]
    );
    assert_eq!(told(&engine, &desired, &["node0"]).await, [None, None], "no registry is stopped");
    desired.policy.refuses_gaps = true;
    let slave = Intent::Restart { services: vec!["slave".to_owned()], ask_with: None };
    let refused =
        deploy(&engine, &Machine::new(), &desired).offer(&request(&id(9), &slave)).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Refused);
    assert!(refused.to_string().contains("172.25.0.18 (connected to slave alone)"), "{refused}");
    desired.policy.refuses_gaps = false;

    // What is not seen proves nothing where there is a registry elsewhere, or one here does not tell; what is seen does.
    tell(&engine, &[("Demo.A", &[0, 6, 7, 8, 9]), ("tars.tarsregistry", &[9])]);
    assert_eq!(told(&engine, &desired, &["slave"]).await, [None, some("172.25.0.18, 172.25.0.19")]);
    tell(&engine, &[("Demo.A", &[0, 6, 7, 8, 9])]);
    engine.behave_named("tars-framework", Behaviour { protocol: 1, ..Behaviour::default() });
    assert_eq!(
        told(&engine, &desired, &["slave"]).await,
        [None, some("172.25.0.16, 172.25.0.17, 172.25.0.18, 172.25.0.19")]
    );
}
