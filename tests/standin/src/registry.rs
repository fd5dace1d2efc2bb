//! tarsregistry: opens its ports only when its database answers, tells the nodes what is assigned to them, and clients who serves.

use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tarsup::tars::wire::Request;

use crate::config::Account;
use crate::directory::Directory;
use crate::serve::{self, Answer, Stage};
use crate::{Failure, database, wire};

/// A call of tarsnode: `standin_alive NODE VERSION`.
pub const ALIVE: &str = "standin_alive";
/// A call of tarsnode: `standin_register NODE VERSION`.
pub const REGISTER: &str = "standin_register";
/// A call of tarsnode: `standin_state NODE APPLICATION.SERVER STATE PID`.
pub const STATE: &str = "standin_state";
/// A call of tarsnode: `standin_servers NODE`.
pub const SERVERS: &str = "standin_servers";

/// Starts it: exits when `localip` is not its own, waits for the database without end.
pub fn start(stage: &Arc<Stage>) -> Result<(), Failure> {
    let own = stage.config.server("localip").ok_or("no localip in the configuration")?.to_owned();
    (own.as_str(), 0)
        .to_socket_addrs()
        .and_then(|addresses| TcpListener::bind(&addresses.collect::<Vec<_>>()[..]))
        .map_err(|error| format!("{own}: {error}"))?;
    let account = stage.config.account().ok_or("no <db> in the configuration")?;
    let stage = Arc::clone(stage);
    thread::spawn(move || {
        if wait_for_database(&stage, &account, &own) {
            let listened = Directory::keep(&stage, &account)
                .and_then(|directory| serve::listen(&stage, &answers(&account, directory)));
            if let Err(failure) = listened {
                stage.say(&format!("cannot listen: {failure}"));
                eprintln!("tarsregistry: {failure}");
                std::process::exit(255);
            }
            keep_announcing(&stage, &account, &own);
        }
    });
    Ok(())
}

/// True when the database answered, false when told to stop before.
fn wait_for_database(stage: &Stage, account: &Account, own: &str) -> bool {
    let mut said = false;
    while !stage.is_told_to_stop() {
        match database::open(account)
            .and_then(|mut connection| database::announce_registry(&mut connection, own))
        {
            Ok(()) => return true,
            Err(failure) if !said => {
                stage.say(&format!("waits for the database: {failure}"));
                said = true;
            }
            Err(_) => {}
        }
        stage.pause(Duration::from_millis(500));
    }
    false
}

fn keep_announcing(stage: &Stage, account: &Account, own: &str) {
    const PERIOD: Duration = Duration::from_secs(10);
    while !stage.is_told_to_stop() {
        stage.pause(PERIOD);
        let told = database::open(account)
            .and_then(|mut connection| database::announce_registry(&mut connection, own));
        if let Err(failure) = told {
            stage.say(&format!("the database does not answer: {failure}"));
        }
    }
}

fn answers(account: &Account, directory: Arc<Directory>) -> Answer {
    let account = account.clone();
    Arc::new(move |request: &Request, peer: IpAddr| {
        if let Some(answer) = directory.answer(&account, request, peer) {
            return Some(answer);
        }
        let mut words = request.function.split(' ');
        let (function, node) = (words.next()?, words.next()?);
        let outcome = database::open(&account).and_then(|mut connection| match function {
            REGISTER => database::register_node(&mut connection, node, words.next().unwrap_or_default())
                .map(|()| "registered".to_owned()),
            ALIVE => database::keep_node_alive(&mut connection, node, words.next().unwrap_or_default())
                .map(|()| "alive".to_owned()),
            STATE => {
                let mut word = || words.next().unwrap_or_default();
                database::note_state(&mut connection, node, word(), word(), word())
                    .map(|()| "noted".to_owned())
            }
            SERVERS => database::servers_of(&mut connection, node).map(|servers| servers.join(" ")),
            _ => Err("no such function".into()),
        });
        Some(wire::framed(match &outcome {
            Ok(answer) => answer.as_bytes(),
            Err(_) => b"!", // no server bears that name: the node sees that it was not answered
        }))
    })
}
