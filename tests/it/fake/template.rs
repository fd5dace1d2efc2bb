//! The only template of the fake engine's database, with one key: who brings a value into it, and what a person has made of it.

use serde_json::{Value, json};

use super::Behaviour;
use super::world::World;

/// What the database holds.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// The value.
    pub value: String,
    /// The value that an image shipped last.
    shipped: String,
}

impl Template {
    /// What an image brings: its value in the place of the one that was shipped last; one that somebody has edited stays.
    pub fn bring(&mut self, behaviour: &Behaviour) {
        let Some(ships) = behaviour.ships else { return };
        if self.value == self.shipped {
            ships.clone_into(&mut self.value);
        }
        ships.clone_into(&mut self.shipped);
    }

    /// The document of `tars-init migrate`, done or not.
    pub fn document(&self, behaviour: &Behaviour) -> Value {
        let key = |ships| json!([{"template": "tars.default", "key": "tars/x", "own": self.value, "shipped": ships}]);
        match behaviour.ships {
            Some(ships) if self.shipped != ships && self.value == self.shipped => {
                json!({"version": 1, "templates": {"changed": key(ships)}})
            }
            Some(ships) if self.shipped != ships => {
                json!({"version": 1, "templates": {"conflicts": key(ships)}})
            }
            _ => json!({"version": 1, "templates": {}}),
        }
    }

    /// `tars-init templates take-back`: what the first image of ours found comes back, which is nothing.
    pub fn take_back(&mut self) -> Value {
        let (value, shipped) = (std::mem::take(&mut self.value), std::mem::take(&mut self.shipped));
        let key = json!([{"template": "tars.default", "key": "tars/x", "own": value, "shipped": ""}]);
        let is_edited = value != shipped;
        if is_edited {
            self.value = value;
        }
        json!({"version": 1, "templates": {if is_edited { "stays" } else { "back" }: key}})
    }
}

/// `tars-init migrate` and its dry run, asked in a container that runs.
pub(super) fn migrate(world: &mut World, behaviour: &Behaviour, is_dry: bool) -> (i64, String) {
    if world.database_is_away {
        return (69, "tars-init: the database does not answer.".to_owned());
    }
    let document = world.template.document(behaviour);
    if !is_dry {
        world.template.bring(behaviour);
    }
    (0, document.to_string())
}
