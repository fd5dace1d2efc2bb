//! The SQL of a framework in words of our own: schemas, a node's rows, profile templates, upgrades.

use std::collections::BTreeMap;
use std::fmt::Write;

use tarsup::tars::Service;

use super::configuration::{adapters, is_everywhere};

/// The version that upstream's SQL carries for the framework's.
const VERSION: &str = "2.1.0";

/// Every file below `deploy/`, by its name there.
pub fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut add = |name: &str, text: String| files.insert(format!("framework/sql/{name}"), text);
    add("db_tars.sql", include_str!("../../sql/db_tars.sql").to_owned());
    add("db_tars_web.sql", include_str!("../../sql/db_tars_web.sql").to_owned());
    add("db_base.sql", include_str!("../../sql/db_base.sql").to_owned());
    add("db_user_system.sql", include_str!("../../sql/db_user_system.sql").to_owned());
    add("db_cache_web.sql", include_str!("../../sql/db_cache_web.sql").to_owned());
    add("tars_upgrade.conf", include_str!("../../sql/tars_upgrade.conf").to_owned());
    let common =
        Service::ALL.into_iter().filter(|service| is_everywhere(*service) && *service != Service::Node);
    let mut both: String = common.map(rows).collect();
    for service in [Service::QueryStat, Service::QueryProperty] {
        let _ = writeln!(
            both,
            "DELETE FROM `t_adapter_conf` WHERE application = 'tars' AND server_name = '{service}' AND adapter_name = 'tars.{service}.NoTarsObjAdapter';"
        );
    }
    add("tars_servers.sql", both);
    let master =
        Service::ALL.into_iter().filter(|service| !is_everywhere(*service) && *service != Service::Log);
    add("tars_servers_master.sql", master.map(rows).collect());
    add("tars_servers_logs.sql", rows(Service::Log));
    add("tars_node_init.sql", node_row());
    for (name, profile) in templates() {
        add(&format!("template/{name}"), profile);
    }
    files
}

/// The rows of one service on the node `localip.tars.com`.
fn rows(service: Service) -> String {
    let mut text = format!(
        "REPLACE INTO `t_server_conf` (`application`, `server_name`, `node_group`, `node_name`, `registry_timestamp`, `base_path`, \
         `exe_path`, `template_name`, `bak_flag`, `setting_state`, `present_state`, `process_id`, `patch_version`, `patch_time`, \
         `patch_user`, `tars_version`, `posttime`, `lastuser`, `server_type`) VALUES ('tars', '{service}', '', 'localip.tars.com', \
         now(), '', '/usr/local/app/tars/{service}/bin/{service}', 'tars.{service}', 0, 'active', 'active', 0, '{VERSION}', now(), \
         '', '{VERSION}', now(), 'admin', 'tars_cpp');\n"
    );
    for (adapter, servant, port) in adapters(service) {
        let _ = writeln!(
            text,
            "REPLACE INTO `t_adapter_conf` (`application`, `server_name`, `node_name`, `adapter_name`, `registry_timestamp`, \
             `thread_num`, `endpoint`, `max_connections`, `allow_ip`, `servant`, `queuecap`, `queuetimeout`, `posttime`, `lastuser`, \
             `protocol`, `handlegroup`) VALUES ('tars', '{service}', 'localip.tars.com', '{adapter}', now(), 5, \
             'tcp -h localip.tars.com -t 60000 -p {port}', 100000, '', '{servant}', 100000, 60000, now(), 'admin', 'tars', '');"
        );
    }
    text
}

fn node_row() -> String {
    format!(
        "REPLACE INTO `t_node_info` (`node_name`, `node_obj`, `endpoint_ip`, `endpoint_port`, `data_dir`, `last_reg_time`, \
         `last_heartbeat`, `setting_state`, `present_state`, `tars_version`, `template_name`, `modify_time`, `group_id`) VALUES \
         ('localip.tars.com', 'tars.tarsnode.NodeObj@tcp -h localip.tars.com -p 19385 -t 60000', 'localip.tars.com', 19385, \
         '/usr/local/app/tars/tarsnode/data', now(), now(), 'active', 'active', '{VERSION}', '', now(), -1);\n"
    )
}

/// The profile templates, by name.
fn templates() -> BTreeMap<String, String> {
    let mut templates: BTreeMap<String, String> = Service::ALL
        .into_iter()
        .map(|service| {
            let threads = service.servants().len() + 2;
            (format!("tars.{service}"), format!("<tars>\n  <application>\n    <client>\n      asyncthread={threads}\n    </client>\n  </application>\n</tars>\n"))
        })
        .collect();
    let default = "<tars>\n  <application>\n    enableset=${enableset}\n    setdivision=${setdivision}\n    <client>\n      \
                   locator=${locator}\n      asyncthread=${asyncthread}\n      modulename=${modulename}\n      \
                   refresh-endpoint-interval=60000\n    </client>\n    <server>\n      app=${app}\n      server=${server}\n      \
                   localip=${localip}\n      local=${local}\n      basepath=${basepath}\n      datapath=${datapath}\n      \
                   logpath=${logpath}\n    </server>\n  </application>\n</tars>\n";
    let account =
        "dbhost=db.tars.com\n    dbuser=tars\n    dbpass=tars2015\n    dbport=3306\n    charset=utf8\n";
    let database = format!("<tars>\n  <db>\n    dbname=db_tars\n    {account}  </db>\n</tars>\n");
    templates.insert("tars.default".to_owned(), default.to_owned());
    templates.insert("tars.framework-db".to_owned(), database);
    for language in ["cpp", "tarsjava", "tarsphp", "nodejs", "go"] {
        templates.insert(format!("tars.{language}.default"), "<tars>\n</tars>\n".to_owned());
    }
    templates.insert("tars.springboot".to_owned(), "<tars>\n</tars>\n".to_owned());
    templates
}
