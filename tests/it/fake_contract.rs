//! The engine in memory keeps the contract that the real one keeps.

use crate::fake::FakeEngine;

use crate::contract::Setting;

#[expect(clippy::unused_async, reason = "a real engine must be asked")]
async fn setting(behaviour: &str) -> Setting {
    let engine = FakeEngine::new();
    engine.add_image("actor:1", behaviour, &["PATH=/"]);
    Setting {
        engine: Box::new(engine),
        image: "actor:1".to_owned(),
        prefix: behaviour.replace('_', "-"),
        subnet: "10.1".to_owned(),
    }
}

contract_tests!(setting);
