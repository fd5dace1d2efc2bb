//! What tarsregistry knows of servers: who is deployed on a node, asked of the database each time, and where objects are served, from
//! a copy that it loads anew every other second.
//!
//! As the real one it loads all of it once, and from then on only what has changed lately *by its own local time*: where its clock or
//! its zone is ahead of the database's, it misses what changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use tarsup::tars::registry::{self, Adapter, Endpoint, Endpoints, Server};
use tarsup::tars::wire::{self, Fields, Request};

use crate::config::Account;
use crate::serve::Stage;
use crate::{Failure, database};

/// How often it looks; the real one every 10 to 13 s.
const RELOAD: Duration = Duration::from_secs(2);
/// How far back it looks for changes, in seconds; the real one half a minute.
const WINDOW: u32 = 8;
/// A node that has said nothing for so long is dead, with all that is on it.
const NODE_GONE: u32 = 250;
/// What is asked for the objects of clients in one set: the object, and the set.
const IN_SET: &str = "findObjectByIdInSameSet";
/// What clients ask, answered by the group of the asker.
const FIND_ALL: &str = "findObjectById4All";

type ServedRow = (String, String, bool, String, String, String, String);
type ServerRow = (String, String, String, String, String, String, String, String, String);

/// A server's object on one node.
#[derive(Clone, Debug)]
struct Served {
    object: String,
    endpoint: Endpoint,
    node: String,
    is_active: bool,
    group: String,
    set: String,
}

/// The copy: server and node → what is served there.
#[derive(Debug, Default)]
pub struct Directory(Mutex<BTreeMap<(String, String), Vec<Served>>>);

impl Directory {
    /// Loads everything, and goes on loading what changes until told to stop.
    pub fn keep(stage: &Arc<Stage>, account: &Account) -> Result<Arc<Self>, Failure> {
        let directory = Arc::new(Self::default());
        directory.load(account, None)?;
        let (own, stage, account) = (Arc::clone(&directory), Arc::clone(stage), account.clone());
        thread::spawn(move || {
            while !stage.is_told_to_stop() {
                stage.pause(RELOAD);
                let loaded = local_time().and_then(|now| own.load(&account, Some(&now)));
                if let Err(failure) = loaded {
                    stage.say(&format!("cannot load what is served: {failure}"));
                }
            }
        });
        Ok(directory)
    }

    fn load(&self, account: &Account, now: Option<&str>) -> Result<(), Failure> {
        let mut connection = database::open(account)?;
        let since = now.map_or_else(
            || "1".to_owned(),
            |now| format!("s.registry_timestamp >= '{now}' - INTERVAL {WINDOW} SECOND"),
        );
        // A state says nothing of a node that died: that is looked up for all of them.
        let dead: Vec<String> = connection.query(format!(
            "SELECT node_name FROM t_node_info WHERE COALESCE(last_heartbeat < NOW() - INTERVAL {NODE_GONE} SECOND, 1)"
        ))?;
        let rows: Vec<ServedRow> = connection.query(format!(
            "SELECT CONCAT(s.application, '.', s.server_name), s.node_name, \
             s.setting_state = 'active' AND s.present_state = 'active' AND s.flow_state = 'active', \
             IF(s.enable_group = 'Y', s.ip_group_name, ''), \
             IF(s.enable_set = 'Y', CONCAT_WS('.', s.set_name, s.set_area, s.set_group), ''), \
             COALESCE(a.servant, ''), COALESCE(a.endpoint, '') \
             FROM t_server_conf s LEFT JOIN t_adapter_conf a \
             ON a.application = s.application AND a.server_name = s.server_name AND a.node_name = s.node_name \
             WHERE s.bak_flag = 0 AND {since}"
        ))?;
        let mut loaded: BTreeMap<(String, String), Vec<Served>> = BTreeMap::new();
        for (server, node, is_active, group, set, object, endpoint) in rows {
            let adapter = Adapter { endpoint, ..Adapter::default() };
            let served = loaded.entry((server, node.clone())).or_default();
            if let Some(listens) = adapter.listens() {
                let endpoint = Endpoint { host: listens.host, port: listens.port, is_tcp: !listens.is_udp };
                let is_active = is_active && !dead.contains(&node);
                served.push(Served { object, endpoint, node, is_active, group, set });
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(loaded);
        Ok(())
    }

    /// Answers what clients and nodes ask; nothing where it is none of that.
    pub fn answer(&self, account: &Account, request: &Request, peer: IpAddr) -> Option<Vec<u8>> {
        let arguments = Fields::parse(&request.arguments).ok()?;
        let text = |tag| arguments.text(tag).unwrap_or_default().into_owned();
        let results = match request.function.as_str() {
            registry::FIND_ANY => self.endpoints(&text(1), |_| true),
            IN_SET => {
                let set = text(2);
                self.endpoints(&text(1), |served| served.set == set)
            }
            FIND_ALL => self.by_group(&text(1), peer),
            registry::GET_SERVERS => {
                let node = text(3);
                let servers = servers(account, &node).ok()?;
                return Some(wire::response(request.id, 0, &registry::encode_servers(&node, &servers)));
            }
            _ => return None,
        };
        Some(wire::response(request.id, 0, &registry::encode_endpoints(&results)))
    }

    fn endpoints(&self, object: &str, fits: impl Fn(&Served) -> bool) -> Endpoints {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |active: bool| {
            let served = all.values().flatten().filter(|one| one.object == object && one.is_active == active);
            served.filter(|one| fits(one)).map(|one| one.endpoint.clone()).collect()
        };
        Endpoints { active: of(true), inactive: of(false) }
    }

    /// The asker's own group first, and everything where it has none or that has nobody.
    fn by_group(&self, object: &str, peer: IpAddr) -> Endpoints {
        let peer = peer.to_string();
        let group = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.values().flatten().find(|one| one.node == peer).map(|one| one.group.clone())
        };
        let group = group.filter(|group| !group.is_empty());
        let near = group.map(|group| self.endpoints(object, |one| one.group == group));
        near.filter(|near| !near.active.is_empty()).unwrap_or_else(|| self.endpoints(object, |_| true))
    }
}

/// What the clock of this container shows, in its zone.
fn local_time() -> Result<String, Failure> {
    let told = Command::new("date").arg("+%Y-%m-%d %H:%M:%S").output()?;
    Ok(String::from_utf8(told.stdout)?.trim().to_owned())
}

/// What must run on a node, as the database has it now.
fn servers(account: &Account, node: &str) -> Result<Vec<Server>, Failure> {
    let mut connection = database::open(account)?;
    let rows: Vec<ServerRow> = connection.exec(
        "SELECT application, server_name, COALESCE(base_path, ''), exe_path, CAST(setting_state AS CHAR), \
         CAST(present_state AS CHAR), CAST(server_type AS CHAR), COALESCE(start_script_path, ''), COALESCE(run_type, '') FROM t_server_conf WHERE node_name = ? ORDER BY 1, 2",
        (node,),
    )?;
    let mut servers = Vec::new();
    for (
        application,
        name,
        base_path,
        exe_path,
        setting_state,
        present_state,
        server_type,
        start_script,
        run_type,
    ) in rows
    {
        let adapters: Vec<(String, String, String, String)> = connection.exec(
            "SELECT COALESCE(endpoint, ''), allow_ip, COALESCE(servant, ''), COALESCE(protocol, '') FROM t_adapter_conf \
             WHERE application = ? AND server_name = ? AND node_name = ?",
            (&application, &name, node),
        )?;
        let adapter =
            |(endpoint, allow_ip, servant, protocol)| Adapter { endpoint, allow_ip, servant, protocol };
        servers.push(Server {
            application,
            name,
            base_path,
            exe_path,
            setting_state,
            present_state,
            server_type,
            start_script,
            run_type,
            adapters: adapters.into_iter().map(adapter).collect(),
        });
    }
    Ok(servers)
}
