//! Tests that take minutes each, or half of one: of those that prove much the same, CI runs one.

use std::sync::OnceLock;
use std::time::SystemTime;

use crate::beside;

/// So many runs one after another are all that there are: groups have two, three or four.
const RUNS: u64 = 12;

/// By what they prove much alike, each by its path.
const GROUPS: &[&[&str]] = &[
    // The way back makes what is not there any more.
    &[
        "e2e::back::rollback_after_a_prune_makes_once_more_what_was_there",
        "e2e::back::locked_up_on_an_engine_without_containers_and_networks_brings_the_whole_deployment_back",
        "e2e::back::image_of_a_way_back_is_held_where_its_tag_is_removed",
    ],
    // A way back without a place to write to.
    &[
        "e2e::faults::undo_on_a_full_disk_ends_as_it_would_on_another",
        "e2e::faults::resume_on_a_read_only_disk_undoes_and_frees_the_deployment",
        "e2e::faults::upgrade_of_a_service_that_logs_nowhere_is_rolled_back",
    ],
    // Somebody else in the middle of a run.
    &[
        "e2e::faults::living_owner_whose_lock_was_taken_over_ends_and_touches_nothing_more",
        "e2e::faults::prune_after_a_kill_is_neither_nothing_to_resume_nor_a_dead_end",
        "e2e::faults::prune_in_the_middle_of_a_living_run_costs_no_more_than_the_way_back",
    ],
    // Servers are drained, and serve again.
    &[
        "e2e::odd::servers_that_cannot_be_asked_or_lie_elsewhere_serve_again_before_a_gate_passes",
        "e2e::drain::no_call_is_lost_while_the_nodes_of_a_service_are_rolled",
        "real::drain::real_upgrade_loses_no_call_of_a_service_on_two_nodes",
    ],
    // The database goes away while a new version is looked at.
    &[
        "real::dwell::real_database_stopped_in_the_slaves_dwell_proves_nothing_and_leaves_the_master_alone",
        "real::dwell::real_database_stopped_in_the_masters_dwell_commits_nothing",
    ],
    // From upstream's image and start to ours and back.
    &[
        "real::adopt::real_run_lines_of_upstream_are_adopted_and_moved_to_our_image_and_back_by_the_page",
        "real::adopt_rebuild::real_master_with_a_forbidden_rebuild_is_adopted_and_replaced_and_comes_back_as_its_twin_alone",
        "real::lines::real_upstream_start_and_ours_take_turns_on_one_database_and_volume_by_the_documented_lines",
        "real::lines::real_line_of_the_hosts_network_goes_from_upstreams_start_to_ours_and_back",
    ],
    // Over a migration of the database and back.
    &[
        "real::roll::real_upgrade_that_fails_between_migration_and_swap_puts_back_what_the_migration_changed",
        "real::roll::real_upgrade_from_2_4_17_to_3_0_17_and_back",
        "real::columns::real_rollback_to_upstream_keeps_columns_first_and_the_way_forth_puts_them_back",
    ],
    // The database is saved.
    &[
        "real::backup::real_backup_is_restored_row_for_row_and_never_over_what_nobody_named",
        "real::backup::real_backup_that_is_cut_off_leaves_nothing_and_stops_nothing",
        "real::backup::real_database_elsewhere_is_saved_from_the_image_that_is_named_or_by_the_operators_word",
    ],
    // tarsup is killed.
    &[
        "real::kills::real_upgrade_killed_at_random_moments_is_whole_after_a_resume",
        "e2e::upgrade::killed_upgrade_is_resumed",
    ],
    // Passwords through a life.
    &[
        "e2e::secrets::marked_passwords_through_a_whole_life_show_nowhere",
        "real::secrets::real_master_with_passwords_in_files_and_tls_starts_upgrades_and_shows_no_secret",
    ],
    // A service dies, or hangs.
    &[
        "real::crashes::real_service_that_crashes_again_and_again_is_back_within_seconds_and_once",
        "real::silence::real_registry_that_never_answers_is_started_again_and_tarsnode_takes_it_for_its_own",
    ],
    // A node on a machine without Docker.
    &[
        "real::machine::real_machine_without_docker_gets_a_node_the_next_version_of_it_and_loses_it_again",
        "real::machine::real_machine_with_systemd_brings_its_node_back_after_a_kill_and_a_reboot",
    ],
    // Each of a thing of its own: they are long, and share the time.
    &[
        "real::costs::real_health_check_and_an_idle_tars_init_are_cheap",
        "real::limits::a_tenth_of_every_limit_is_enough_for_the_largest_real_input",
    ],
    &[
        "real::downloads::real_node_made_the_upstream_way_comes_back_after_a_restart_and_after_a_recreate",
        "real::preflight::real_preflight_tells_all_at_once_and_touches_nothing",
    ],
    // A network namespace of several containers.
    &[
        "shapes::shape_of_a_declared_namespace_is_made_in_order_and_joined_again_by_whatever_touches_its_leader",
        "shapes::shape_of_a_shared_namespace_follows_what_it_leans_on_and_a_stranger_is_asked_about",
        "shapes::shape_of_a_shared_namespace_comes_back_with_what_it_leans_on_where_a_roll_fails",
    ],
];

/// True where the test that asks leaves this run to another of its group: which one it is differs from run to run, and `TARSUP_SEED`
/// brings a run back. All of them run with `TARSUP_EVERY` (tests/long.sh), outside of CI, and one test at a time. What does not run
/// says so in a line that tests/all.sh counts.
pub fn is_for_another_time() -> bool {
    static SEED: OnceLock<u64> = OnceLock::new();
    let set = |name| std::env::var_os(name).is_some();
    // The harness names its threads after its tests.
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main");
    let Some(test) = test.filter(|_| set("CI") && !set("TARSUP_EVERY")) else { return false };
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let said = || std::env::var("TARSUP_SEED").ok()?.parse().ok();
    let seed = *SEED.get_or_init(|| said().unwrap_or_else(clock) % RUNS);
    let turn = chosen(seed).find(|(group, _)| group.contains(&test));
    let (_, turn) = turn.unwrap_or_else(|| panic!("{test} is of no group"));
    if turn != test {
        let name = test.rsplit("::").next().unwrap_or(test);
        beside::say(&format!("ANOTHER TIME {name}: TARSUP_SEED={seed} runs {turn}"));
    }
    turn != test
}

/// Each group, and which of it runs.
fn chosen(seed: u64) -> impl Iterator<Item = (&'static [&'static str], &'static str)> {
    (seed..).zip(GROUPS).map(|(place, group)| (*group, group[usize::try_from(place).unwrap() % group.len()]))
}

#[test]
fn every_test_of_a_group_is_there_and_has_its_turn() {
    let list = std::process::Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let mut ran = Vec::new();
    for seed in 0..RUNS {
        ran.extend(chosen(seed).map(|(_, test)| test));
    }
    for test in GROUPS.concat() {
        assert!(list.lines().any(|line| line.strip_suffix(": test") == Some(test)), "{test} is no test");
        assert!(ran.contains(&test), "{test} never runs");
    }
}
