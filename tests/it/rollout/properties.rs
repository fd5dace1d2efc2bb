//! A converged plan is empty; a plan and its unwinding end where it began; planning twice gives the same plan.

use super::deploys::without_failed;
use super::*;
use crate::fake::{Call, Fault, Moment};
use proptest::prelude::*;
use tarsup::engine::Environment;

/// What somebody changes in the file between two commands.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Tag(usize),
    Environment(usize),
    Batch(usize),
    RemoveLast,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let one = prop_oneof![
        (1usize..5).prop_map(Edit::Tag),
        (1usize..5).prop_map(Edit::Environment),
        (1usize..4).prop_map(Edit::Batch),
        Just(Edit::RemoveLast),
    ];
    proptest::collection::vec(one, 0..4)
}

/// The usual deployment with a second node, and edited.
fn edited(edits: &[Edit]) -> Desired {
    let mut desired = with_two_nodes();
    for one in edits {
        match *one {
            Edit::Tag(at) => {
                if let Some(service) = desired.services.get_mut(at) {
                    service.image = service.image.with_tag("2");
                }
            }
            Edit::Environment(at) => {
                if let Some(service) = desired.services.get_mut(at) {
                    let domain = Environment::of(["DOMAIN=tars"]);
                    service.declaration.environment.0.extend(domain.0);
                }
            }
            Edit::Batch(batch) => desired.policy.batch = Some(batch),
            Edit::RemoveLast => {
                if desired.services.len() > 4 {
                    desired.services.pop();
                }
            }
        }
    }
    desired
}

fn with_two_nodes() -> Desired {
    let mut desired = desired();
    desired.services.push(service("node2", Some(Role::Node), "tars/node:1", 6));
    desired.volumes.push(Resource {
        key: "node2".to_owned(),
        name: "tars_node2".to_owned(),
        external: false,
        body: json!({"Name": "tars_node2"}),
        place: Place::file("compose.yaml"),
    });
    desired
}

fn in_paused_time<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn converged_plan_is_empty(first in edits(), second in edits()) {
        in_paused_time(async {
            let engine = running(&edited(&first)).await;
            let wanted = edited(&second);
            let plan = roll(&engine, &Machine::new(), &wanted, &id(2), &Intent::Up).await.unwrap();
            let again = planned(&engine, &wanted, 3, &Intent::Up).await.unwrap();
            prop_assert!(again.is_empty(), "{}\nafter\n{}", tarsup::upgrade::render::plan(&again),
                tarsup::upgrade::render::plan(&plan));
            Ok(())
        })?;
    }

    #[test]
    fn plan_and_its_unwinding_end_where_it_began(second in edits(), at in 0usize..80) {
        in_paused_time(async {
            let engine = running(&with_two_nodes()).await;
            let before = engine.dump();
            let wanted = edited(&second);
            let machine = Machine::killed();
            let command = deploy(&engine, &machine, &wanted);
            let offer = command.offer(&request(&id(2), &Intent::Up)).await.unwrap();
            engine.fault(Call::Nth(at), Moment::Before, Fault::Answer(500, "no".to_owned()));
            let done = command.roll(&offer).await;
            engine.clear_faults();
            // Where the fault struck the way back or the lock's removal, a resume completes it.
            resume(&engine, &Machine::new(), &wanted, false).await.unwrap();
            let again = planned(&engine, &wanted, 3, &Intent::Up).await.unwrap();
            let is_converged = again.is_empty();
            let is_as_before = without_failed(&engine.dump()) == before;
            prop_assert!(is_converged || is_as_before, "{:?}\n{}", done, engine.dump());
            let is_refused = matches!(done, Err(DeployFailure::RolledBack { .. }));
            prop_assert!(!is_refused || is_as_before, "{:?}\n{}", done, engine.dump());
            Ok(())
        })?;
    }

    #[test]
    fn planning_twice_gives_the_same_plan(second in edits()) {
        in_paused_time(async {
            let engine = running(&with_two_nodes()).await;
            let wanted = edited(&second);
            let plan = planned(&engine, &wanted, 2, &Intent::Up).await.unwrap();
            prop_assert_eq!(&plan, &planned(&engine, &wanted, 2, &Intent::Up).await.unwrap());
            let json = serde_json::to_string(&plan).unwrap();
            prop_assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
            Ok(())
        })?;
    }
}
