//! The gate: whether a container is proven, decided from samples of it. Pure; `run` takes the samples.
//!
//! Two halves must agree: the container's own word ([`Probe`]: its processes, sockets, web console) and the database's
//! ([`Cluster`], asked beside it): what cannot be asked proves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::serving::{Again, Missing, Served};
use crate::deploy::facts::ClusterFacts;
use crate::engine::{Health, Status};
use crate::tars::Role;

/// One look at a container.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since the gate began.
    pub at: Duration,
    /// `State.Status`.
    pub status: Status,
    /// `State.ExitCode`.
    pub exit_code: i64,
    /// `RestartCount`.
    pub restart_count: u64,
    /// `State.Health.Status`, where there is a health check.
    pub health: Option<Health>,
    /// What the probe inside said; an error in words where it said nothing.
    pub probe: Option<Result<Probe, String>>,
    /// What was said beside it of the database, and of the container from outside; an error in words where nothing was.
    pub cluster: Option<Result<Cluster, String>>,
}

/// What `tars-init probe --json` says, as far as the gate asks.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Probe {
    /// Every servant of the role answers, from a process of the container; so do the web console and a node's registry.
    pub healthy: bool,
    /// The name by which the database knows it.
    #[serde(default)]
    pub address: String,
    /// The hosts of the registries that a node goes by.
    #[serde(default)]
    pub registries: Vec<String>,
    /// What is wrong, in words.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What its start changed in the database, as a migration tells it; null where that is nothing.
    #[serde(default)]
    pub changes: Value,
    /// What is deployed there and must run; nothing where nobody could tell.
    #[serde(default)]
    pub deployed: Option<Vec<Served>>,
    /// Why nobody could tell; empty where its tars-init is older, and never does.
    #[serde(default)]
    pub deployed_unknown: String,
}

/// What `tars-init cluster --json` says, as far as the gate asks.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Cluster {
    /// The version of the document.
    #[serde(default)]
    pub protocol: u32,
    /// Whether the database can be asked, and holds TARS.
    pub database: Database,
    /// Why it cannot be asked.
    #[serde(default)]
    pub detail: String,
    /// The nodes that it knows.
    #[serde(default)]
    pub nodes: Vec<Registration>,
    /// The container, asked from outside.
    #[serde(default)]
    pub asked: Option<Asked>,
    /// The framework's services that somebody stopped or drained; nothing where nobody could tell.
    #[serde(default)]
    pub stopped: Option<Vec<Stopped>>,
    /// What is asked before an upgrade alone.
    #[serde(default)]
    pub facts: Option<ClusterFacts>,
}

/// A service of the framework that is not to run, or not to be handed out, on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Stopped {
    /// The service.
    pub server: String,
    /// The node's name.
    pub node: String,
    /// It is not to run.
    #[serde(default)]
    pub setting: bool,
    /// It is not handed out.
    #[serde(default)]
    pub flow: bool,
}

/// Whether the database can be asked, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Database {
    /// TARS is installed.
    Exists,
    /// It answers, and holds no TARS.
    Absent,
    /// Nobody knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A node's row, by the database's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Registration {
    /// The node's name.
    pub node: String,
    /// When its tarsnode registered last.
    pub last_reg_time: Option<String>,
    /// When it was heard of last.
    pub last_heartbeat: Option<String>,
}

/// A container without tars-init, asked from outside.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Asked {
    /// Its servants and its web console answer.
    pub healthy: bool,
    /// What is wrong, in words.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What else is deployed there and must run, as far as it answers from outside.
    #[serde(default)]
    pub deployed: Vec<Served>,
    /// What runs there by the word of its tarsnode, and answers nobody outside.
    #[serde(default)]
    pub untold: Vec<String>,
}

/// Node → when it registered last: what a registration is compared with.
pub type Registrations = BTreeMap<String, Option<String>>;

impl Cluster {
    /// When each node registered last; nothing where the database could not be asked.
    pub fn registrations(&self) -> Option<Registrations> {
        let rows = self.nodes.iter().map(|row| (row.node.clone(), row.last_reg_time.clone()));
        (self.database != Database::Unknown).then(|| rows.collect())
    }
}

/// What proves a container, beside the engine's own facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its image's health check, where it has one: a service of no role, or the database.
    HealthCheck,
    /// Its probe, and a registration that changed, or else a heartbeat that moves while its tarsnode answers.
    Registration {
        /// When each node had registered before the container was stopped; `None` where nobody could be asked then: it is
        /// proven by a heartbeat that moves.
        before: Option<Registrations>,
    },
    /// Its probe alone, which asks a registry: nodes without an account at the database.
    Registry,
    /// Its servants asked from outside and a heartbeat that moves, because it has no tars-init.
    Outside {
        /// Its address, or its name in the database; `None` where the engine knows neither.
        node: Option<String>,
    },
}

/// What the samples so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet, and why.
    Wait(String),
    /// Healthy, but not yet for long enough.
    Dwell,
    /// Proven.
    Pass,
    /// It will not be proven, and why.
    Fail(String),
}

/// Judges one container.
#[derive(Clone, Debug)]
pub struct Gate {
    proof: Proof,
    timeout: Duration,
    dwell: Duration,
    restarts: Option<u64>,
    healthy_since: Option<Duration>,
    /// It was healthy once.
    was_healthy: bool,
    /// The heartbeat that was first seen once its tarsnode answered.
    first_heartbeat: Option<String>,
    /// Since when it answers without having registered.
    answers_since: Option<Duration>,
    /// It has run all the time: its heartbeat need not be waited for.
    is_untouched: bool,
    /// What served there must serve again.
    services: Option<Again>,
}

/// How late a registry may write a heartbeat that it was told before the stop.
const LATE_HEARTBEAT: Duration = Duration::from_secs(15);
/// How many problems a person is shown.
const SHOWN: usize = 2;

impl Proof {
    /// What a container of that role is proven by, where the deployment has an account at the database or not.
    pub fn of(role: Option<Role>, before: Option<Registrations>, has_account: bool) -> Self {
        match role {
            Some(Role::Node) if !has_account => Self::Registry,
            Some(Role::Master | Role::Slave | Role::Node) => Self::Registration { before },
            Some(Role::Database) | None => Self::HealthCheck,
        }
    }
}

impl Gate {
    /// A gate for a container that may take `timeout` to be proven and must stay so for `dwell`.
    pub fn new(proof: Proof, timeout: Duration, dwell: Duration) -> Self {
        Self {
            proof,
            timeout,
            dwell,
            restarts: None,
            healthy_since: None,
            was_healthy: false,
            first_heartbeat: None,
            answers_since: None,
            is_untouched: false,
            services: None,
        }
    }

    /// A gate for a container that has not been stopped: it answers and is registered, within `timeout`.
    pub fn untouched(proof: Proof, timeout: Duration) -> Self {
        Self { is_untouched: true, ..Self::new(proof, timeout, Duration::ZERO) }
    }

    /// The same, and what served there before must serve again.
    #[must_use]
    pub fn with_services(self, again: Again) -> Self {
        Self { services: Some(again), ..self }
    }

    /// What proves the container.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// True where the container is asked from the inside.
    pub fn asks_inside(&self) -> bool {
        matches!(self.proof, Proof::Registration { .. } | Proof::Registry)
    }

    /// True where the database is asked, beside the container.
    pub fn asks_cluster(&self) -> bool {
        matches!(self.proof, Proof::Registration { .. } | Proof::Outside { .. })
    }

    /// The container turns out to have no tars-init: from now on it is asked from outside.
    pub fn ask_from_outside(&mut self, node: Option<String>) {
        self.proof = Proof::Outside { node };
    }

    /// Judges by one more sample.
    pub fn judge(&mut self, sample: &Sample) -> Verdict {
        let restarts = *self.restarts.get_or_insert(sample.restart_count);
        match sample.status {
            Status::Exited | Status::Dead | Status::Removing => {
                return Verdict::Fail(format!("it exited with {}", sample.exit_code));
            }
            _ if sample.restart_count > restarts => {
                return Verdict::Fail(format!(
                    "it died and was started again, exit code {}",
                    sample.exit_code
                ));
            }
            _ => {}
        }
        match self.complaint(sample) {
            None if let Some(missing) = self.missing(sample) => {
                self.healthy_since = None;
                match missing {
                    Missing::Yet(why) => Verdict::Wait(why),
                    Missing::ForGood(why) => Verdict::Fail(why),
                }
            }
            None => {
                let since = *self.healthy_since.get_or_insert(sample.at);
                if sample.at.saturating_sub(since) >= self.dwell { Verdict::Pass } else { Verdict::Dwell }
            }
            Some(complaint) => {
                // A dwell that is broken begins anew, within the same time.
                self.was_healthy |= self.healthy_since.take().is_some();
                if sample.at < self.timeout {
                    return Verdict::Wait(complaint);
                }
                let seconds = self.timeout.as_secs();
                Verdict::Fail(if self.was_healthy {
                    format!("it was healthy and is no more: {complaint}")
                } else {
                    format!("it was not healthy within {seconds} s: {complaint}")
                })
            }
        }
    }

    fn missing(&mut self, sample: &Sample) -> Option<Missing> {
        let services = self.services.as_mut()?;
        if matches!(self.proof, Proof::Outside { .. }) {
            let told = sample.cluster.as_ref().and_then(|said| said.as_ref().ok());
            return services.judge_from_outside(sample.at, told.and_then(|told| told.asked.as_ref()));
        }
        let probe = sample.probe.as_ref().and_then(|said| said.as_ref().ok());
        services.judge(sample.at, probe)
    }

    /// Judges a look that failed, because the engine did not answer.
    pub fn judge_silence(&mut self, at: Duration, why: &str) -> Verdict {
        self.was_healthy |= self.healthy_since.take().is_some();
        if at < self.timeout { Verdict::Wait(why.to_owned()) } else { Verdict::Fail(why.to_owned()) }
    }

    /// What speaks against this sample being proof.
    fn complaint(&mut self, sample: &Sample) -> Option<String> {
        if sample.status != Status::Running {
            return Some(format!("it is {}", format!("{:?}", sample.status).to_lowercase()));
        }
        match self.proof.clone() {
            Proof::HealthCheck => match sample.health {
                None | Some(Health::Healthy) => None,
                Some(Health::Starting) => Some("its health check has not passed yet".to_owned()),
                Some(Health::Unhealthy) => Some("its health check fails".to_owned()),
            },
            Proof::Registry => probed(sample).err(),
            Proof::Registration { before } => self.registration(sample, before.as_ref()).err(),
            Proof::Outside { node } => self.outside(sample, node.as_deref()).err(),
        }
    }

    fn registration(&mut self, sample: &Sample, before: Option<&Registrations>) -> Result<(), String> {
        let probe = probed(sample).inspect_err(|_| {
            self.first_heartbeat = None;
            self.answers_since = None;
        })?;
        let row = row(said(sample)?, &probe.address)?;
        let Some(before) = before else { return self.heart(row) };
        match before.get(&row.node) {
            // A tarsnode of an older release goes on with its heartbeat at a newer registry and does not register (seen: 2.4.17
            // at 3.0.17). What a registry may still write for the container before it does not count.
            Some(then) if *then == row.last_reg_time => {
                let since = *self.answers_since.get_or_insert(sample.at);
                if sample.at.saturating_sub(since) < LATE_HEARTBEAT {
                    return Err(format!("the node {} has not registered since its stop", row.node));
                }
                self.heart(row).map_err(|still| {
                    format!("the node {} has not registered since its stop, and {still}", row.node)
                })
            }
            _ => Ok(()),
        }
    }

    fn outside(&mut self, sample: &Sample, node: Option<&str>) -> Result<(), String> {
        let Some(node) = node else {
            return Err("it has no tars-init, and the engine knows no address to ask it at".to_owned());
        };
        let cluster = said(sample)?;
        match &cluster.asked {
            Some(asked) if asked.healthy => self.heart(row(cluster, node)?),
            asked => {
                self.first_heartbeat = None;
                let problems = asked.as_ref().map(|asked| asked.problems.as_slice()).unwrap_or_default();
                Err(listed(problems, "it was not asked"))
            }
        }
    }

    /// Proof without a value from before: nobody but the tarsnode that answers now moves this node's heartbeat.
    fn heart(&mut self, row: &Registration) -> Result<(), String> {
        if self.is_untouched {
            return Ok(());
        }
        let still = || format!("the heartbeat of the node {} has not moved yet", row.node);
        let beat = row.last_heartbeat.clone().ok_or_else(still)?;
        let first = self.first_heartbeat.get_or_insert_with(|| beat.clone());
        if *first == beat {
            return Err(still());
        }
        // Moved once is proven: a start of upstream's writes the row, too, and may bring the first value back.
        first.clear();
        Ok(())
    }
}

/// The container's own word, where it is good.
fn probed(sample: &Sample) -> Result<&Probe, String> {
    match &sample.probe {
        None => Err("it was not asked".to_owned()),
        Some(Err(why)) => Err(why.clone()),
        Some(Ok(probe)) if probe.healthy => Ok(probe),
        Some(Ok(probe)) => Err(listed(&probe.problems, "its servants do not answer yet")),
    }
}

/// The database's word, where it has one.
fn said(sample: &Sample) -> Result<&Cluster, String> {
    match &sample.cluster {
        None => Err("the database was not asked".to_owned()),
        Some(Err(why)) => Err(format!("the database was not asked: {why}")),
        Some(Ok(cluster)) => match cluster.database {
            Database::Exists => Ok(cluster),
            Database::Absent => Err("the database holds no TARS".to_owned()),
            Database::Unknown => Err(format!("the database cannot be asked: {}", cluster.detail)),
        },
    }
}

fn row<'a>(cluster: &'a Cluster, node: &str) -> Result<&'a Registration, String> {
    let row = cluster.nodes.iter().find(|row| row.node == node && row.last_reg_time.is_some());
    row.ok_or_else(|| format!("the node {node} is not registered yet"))
}

/// A container that just starts has a dozen problems: the first ones tell enough.
fn listed(problems: &[String], otherwise: &str) -> String {
    if problems.is_empty() {
        return otherwise.to_owned();
    }
    let (shown, rest) = problems.split_at(problems.len().min(SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    shown.join("; ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "172.25.0.4";
    const BEFORE: &str = "2026-01-02 03:04:05";
    const AFTER: &str = "2026-01-02 03:05:00";

    fn cluster(registered: Option<&str>, heard: &str) -> Cluster {
        let row = Registration {
            node: NODE.to_owned(),
            last_reg_time: registered.map(str::to_owned),
            last_heartbeat: Some(heard.to_owned()),
        };
        Cluster { protocol: 2, database: Database::Exists, nodes: vec![row], ..Cluster::default() }
    }

    fn sample(at: u64) -> Sample {
        let probe =
            Probe { healthy: true, address: NODE.to_owned(), problems: Vec::new(), ..Probe::default() };
        Sample {
            at: Duration::from_secs(at),
            status: Status::Running,
            exit_code: 0,
            restart_count: 0,
            health: None,
            probe: Some(Ok(probe)),
            cluster: Some(Ok(cluster(Some(AFTER), AFTER))),
        }
    }

    fn sick(at: u64) -> Sample {
        let problems = vec!["tars.tarsregistry.QueryObj does not answer".to_owned()];
        Sample { probe: Some(Ok(Probe { healthy: false, problems, ..Probe::default() })), ..sample(at) }
    }

    fn with(at: u64, cluster: Cluster) -> Sample {
        Sample { cluster: Some(Ok(cluster)), ..sample(at) }
    }

    fn unknown(at: u64) -> Sample {
        with(at, Cluster { detail: "Connection refused".to_owned(), ..Cluster::default() })
    }

    fn gate_of(proof: Proof) -> Gate {
        Gate::new(proof, Duration::from_secs(10), Duration::from_secs(3))
    }

    fn gate() -> Gate {
        let before = Registrations::from([(NODE.to_owned(), Some(BEFORE.to_owned()))]);
        gate_of(Proof::Registration { before: Some(before) })
    }

    fn waits(verdict: &Verdict, words: &str) -> bool {
        matches!(verdict, Verdict::Wait(why) if why.contains(words))
    }

    #[test]
    fn gate_passes_only_after_the_dwell() {
        let mut gate = gate();
        assert!(matches!(gate.judge(&sick(0)), Verdict::Wait(_)));
        assert_eq!(gate.judge(&sample(1)), Verdict::Dwell);
        assert_eq!(gate.judge(&sample(3)), Verdict::Dwell);
        assert_eq!(gate.judge(&sample(4)), Verdict::Pass);
    }

    #[test]
    fn dwell_that_is_broken_begins_anew() {
        let mut gate = gate();
        assert_eq!(gate.judge(&sample(0)), Verdict::Dwell);
        assert!(matches!(gate.judge(&sick(2)), Verdict::Wait(_)));
        assert_eq!(gate.judge(&sample(3)), Verdict::Dwell);
        assert_eq!(gate.judge(&sample(6)), Verdict::Pass);
    }

    #[test]
    fn container_that_is_never_healthy_fails_at_the_timeout_and_says_why() {
        let mut gate = gate();
        assert!(matches!(gate.judge(&sick(9)), Verdict::Wait(_)));
        let expected = "it was not healthy within 10 s: tars.tarsregistry.QueryObj does not answer";
        assert_eq!(gate.judge(&sick(10)), Verdict::Fail(expected.to_owned()));
    }

    #[test]
    fn container_that_exits_fails_at_once_even_in_the_dwell() {
        let mut gate = gate();
        gate.judge(&sample(0));
        let dead = Sample { status: Status::Exited, exit_code: 77, ..sample(1) };
        assert_eq!(gate.judge(&dead), Verdict::Fail("it exited with 77".to_owned()));
    }

    #[test]
    fn container_that_was_restarted_fails_though_it_runs() {
        let mut gate = gate();
        gate.judge(&sample(0));
        assert!(matches!(gate.judge(&Sample { restart_count: 1, ..sample(1) }), Verdict::Fail(_)));
    }

    #[test]
    fn database_that_is_lost_in_the_dwell_breaks_it_and_fails_at_the_timeout() {
        let mut gate = gate();
        assert_eq!(gate.judge(&sample(0)), Verdict::Dwell);
        assert!(waits(&gate.judge(&unknown(2)), "the database cannot be asked: Connection refused"));
        assert_eq!(gate.judge(&sample(3)), Verdict::Dwell, "it begins anew");
        assert!(waits(&gate.judge(&unknown(5)), "cannot be asked"));
        assert!(matches!(gate.judge(&unknown(10)), Verdict::Fail(_)));
        assert!(waits(
            &gate_of(gate.proof)
                .judge(&with(0, Cluster { database: Database::Absent, ..Cluster::default() })),
            "no TARS"
        ));
    }

    #[test]
    fn database_that_nobody_asked_or_could_ask_proves_nothing() {
        let mut gate = gate();
        assert!(waits(&gate.judge(&Sample { cluster: None, ..sample(0) }), "the database was not asked"));
        let silent = Sample { cluster: Some(Err("no image has a tars-init".to_owned())), ..sample(1) };
        assert!(waits(&gate.judge(&silent), "no image has a tars-init"));
    }

    #[test]
    fn registration_that_did_not_change_proves_nothing_until_a_heartbeat_moves_that_is_no_late_one() {
        let mut gate = Gate { timeout: Duration::from_secs(90), ..gate() };
        let mut beats = |at, beat: &str| gate.judge(&with(at, cluster(Some(BEFORE), beat)));
        for at in [0, 1, 2, 14] {
            let verdict = beats(at, &format!("2026-01-02 03:06:{at:02}"));
            assert!(waits(&verdict, "has not registered since its stop"), "{verdict:?}");
        }
        assert!(waits(&beats(15, "2026-01-02 03:06:14"), "has not moved yet"));
        assert!(waits(&beats(60, "2026-01-02 03:06:14"), "has not moved yet"));
        assert_eq!(beats(61, "2026-01-02 03:07:02"), Verdict::Dwell);
        assert_eq!(gate.judge(&sample(62)), Verdict::Dwell, "a registration proves at once");
    }

    #[test]
    fn container_that_was_not_touched_need_not_wait_for_a_heartbeat_but_for_everything_else() {
        let mut gate = Gate::untouched(Proof::Registration { before: None }, Duration::from_secs(20));
        let silent = Sample { probe: Some(Err("refused".to_owned())), ..sample(0) };
        assert!(waits(&gate.judge(&silent), "refused"));
        assert!(waits(&gate.judge(&with(1, cluster(None, BEFORE))), "is not registered yet"));
        let away = Cluster { database: Database::Unknown, ..cluster(Some(BEFORE), BEFORE) };
        assert!(waits(&gate.judge(&with(2, away)), "cannot be asked"));
        assert_eq!(gate.judge(&with(3, cluster(Some(BEFORE), BEFORE))), Verdict::Pass);
    }

    #[test]
    fn node_that_never_registered_is_not_proven_and_a_first_registration_is() {
        let mut gate = gate_of(Proof::Registration { before: Some(Registrations::new()) });
        assert!(waits(&gate.judge(&with(0, cluster(None, BEFORE))), "is not registered yet"));
        assert!(waits(
            &gate.judge(&with(1, Cluster { nodes: vec![], ..cluster(None, "") })),
            "not registered yet"
        ));
        assert_eq!(gate.judge(&sample(2)), Verdict::Dwell);
    }

    #[test]
    fn without_a_value_from_before_a_heartbeat_that_moves_is_the_proof() {
        let mut gate = gate_of(Proof::Registration { before: None });
        assert!(waits(&gate.judge(&sick(0)), "does not answer"));
        assert!(waits(&gate.judge(&with(1, cluster(Some(AFTER), AFTER))), "has not moved"));
        assert!(waits(&gate.judge(&with(2, cluster(Some(AFTER), AFTER))), "has not moved"));
        assert_eq!(gate.judge(&with(3, cluster(Some(AFTER), "2026-01-02 03:05:10"))), Verdict::Dwell);
    }

    #[test]
    fn container_without_tars_init_is_proven_from_outside_by_a_heartbeat_that_moves_again() {
        let mut gate = gate();
        gate.ask_from_outside(Some(NODE.to_owned()));
        assert!(!gate.asks_inside() && gate.asks_cluster());
        let outside = |at, healthy, heard: &str| {
            let problems = vec!["tars.tarsnode.ServerObj (nothing listens)".to_owned()];
            let problems = if healthy { Vec::new() } else { problems };
            let asked = Asked { healthy, problems, ..Asked::default() };
            let cluster = Cluster { asked: Some(asked), ..cluster(Some(AFTER), heard) };
            Sample { probe: None, ..with(at, cluster) }
        };
        assert!(waits(&gate.judge(&outside(0, false, "a")), "tars.tarsnode.ServerObj"));
        // Its own start SQL has moved it, too: that is the first value seen.
        assert!(waits(&gate.judge(&outside(1, true, "b")), "has not moved"));
        assert_eq!(gate.judge(&outside(2, true, "c")), Verdict::Dwell);
        assert_eq!(gate.judge(&outside(2, true, "b")), Verdict::Dwell, "it has moved once");
        gate.ask_from_outside(None);
        assert!(waits(&gate.judge(&outside(3, true, "d")), "no address"));
    }

    #[test]
    fn node_without_an_account_at_the_database_is_proven_by_its_registry() {
        let mut gate = gate_of(Proof::of(Some(Role::Node), None, false));
        assert!(gate.asks_inside() && !gate.asks_cluster());
        assert_eq!(gate.judge(&Sample { cluster: None, ..sample(0) }), Verdict::Dwell);
        assert_eq!(Proof::of(Some(Role::Slave), None, false), Proof::Registration { before: None });
    }

    #[test]
    fn database_is_asked_by_its_own_health_check_where_it_has_one() {
        let proof = Proof::of(Some(Role::Database), None, true);
        let mut gate = Gate::new(proof, Duration::from_secs(10), Duration::ZERO);
        assert!(!gate.asks_inside() && !gate.asks_cluster());
        let starting = Sample { probe: None, cluster: None, health: Some(Health::Starting), ..sample(0) };
        assert!(matches!(gate.judge(&starting), Verdict::Wait(_)));
        assert_eq!(gate.judge(&Sample { health: None, ..starting }), Verdict::Pass);
    }

    #[test]
    fn documents_of_tars_init_are_read_and_a_word_that_is_not_known_is_unknown() {
        let document = r#"{"protocol":9,"database":"exists","detail":"","now":"x","more":1,"nodes":[{"node":"a",
            "last_reg_time":null,"last_heartbeat":"b","zone":"c"}],"asked":null}"#;
        let cluster: Cluster = serde_json::from_str(document).unwrap();
        assert_eq!(cluster.registrations(), Some(Registrations::from([("a".to_owned(), None)])));
        let cluster: Cluster = serde_json::from_str(r#"{"database":"not-asked"}"#).unwrap();
        assert_eq!((cluster.database, cluster.registrations()), (Database::Unknown, None));
        let older = r#"{"healthy":true,"role":"slave","address":"a","servants":[],"database":"exists","registered":true}"#;
        assert!(serde_json::from_str::<Probe>(older).unwrap().healthy);
    }
}
