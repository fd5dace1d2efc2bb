//! A small framework of our own: configuration templates, SQL of the true shape, stand-in services.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tarsup::tars::Service;

use crate::container::make_program;

const DEPLOY: &str = "usr/local/tars/cpp/deploy/framework";

/// A dump as mysqldump writes it, `DROP TABLE`s and all; the columns that matter bear upstream's names.
pub const DB_TARS: &str = "\
-- a dump
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
DROP TABLE IF EXISTS `t_config_files`;
CREATE TABLE `t_config_files` (`id` int NOT NULL AUTO_INCREMENT PRIMARY KEY, `config` longtext) ENGINE=InnoDB;
DROP TABLE IF EXISTS `t_adapter_conf`;
CREATE TABLE `t_adapter_conf` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY, `application` varchar(50), `server_name` varchar(128),
  `node_name` varchar(50), `adapter_name` varchar(100), `thread_num` int DEFAULT 1, `endpoint` varchar(128),
  UNIQUE KEY (`application`,`server_name`,`node_name`,`adapter_name`)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
DROP TABLE IF EXISTS `t_server_conf`;
CREATE TABLE `t_server_conf` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY, `application` varchar(128), `server_name` varchar(128),
  `node_name` varchar(50), `exe_path` varchar(128) NOT NULL DEFAULT '',
  `template_name` varchar(128) NOT NULL DEFAULT '',
  `setting_state` enum('active','inactive') NOT NULL DEFAULT 'inactive',
  `present_state` enum('active','inactive','activating','deactivating','destroyed') NOT NULL DEFAULT 'inactive',
  `tars_version` varchar(128) NOT NULL DEFAULT '', `patch_version` varchar(128) NOT NULL DEFAULT '',
  UNIQUE KEY (`application`,`server_name`,`node_name`)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
DROP TABLE IF EXISTS `t_node_info`;
CREATE TABLE `t_node_info` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY, `node_name` varchar(128) UNIQUE, `last_reg_time` datetime,
  `last_heartbeat` datetime, `group_id` int DEFAULT '-1',
  `setting_state` enum('active','inactive') DEFAULT 'inactive', `tars_version` varchar(128) NOT NULL DEFAULT '')
  ENGINE=InnoDB DEFAULT CHARSET=utf8;
DROP TABLE IF EXISTS `t_profile_template`;
CREATE TABLE `t_profile_template` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY, `template_name` varchar(128) UNIQUE, `parents_name` varchar(128),
  `profile` text NOT NULL, `posttime` datetime, `lastuser` varchar(30)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
DROP TABLE IF EXISTS `t_registry_info`;
CREATE TABLE `t_registry_info` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY, `locator_id` varchar(128), `servant` varchar(128),
  `endpoint` varchar(128), `last_heartbeat` datetime, `present_state` enum('active','inactive')) ENGINE=InnoDB;
/*!40101 SET SQL_MODE=@OLD_SQL_MODE */;
";

const DB_USER_SYSTEM: &str = "\
# users
/*!40101 set global innodb_large_prefix=1 */;
CREATE TABLE `t_user` (`id` int NOT NULL PRIMARY KEY, `name` varchar(20)) ENGINE=InnoDB;
LOCK TABLES `t_user` WRITE;
INSERT INTO `t_user` VALUES (1,'a;dmin'); -- one; only
UNLOCK TABLES;
CREATE TABLE `t_setting` (`id` int NOT NULL PRIMARY KEY) ENGINE=InnoDB;
";

const UPGRADE: &str = "\
<upgrades>
  <upgrade1>
    database = db_tars
    table = t_server_conf
    field = run_type
    sql = ALTER TABLE `t_server_conf` ADD `run_type` VARCHAR(128) DEFAULT '';
  </upgrade1>
  <upgrade1>
    database = db_tars
    table = t_server_conf
    field = sha
    sql = ALTER TABLE `t_server_conf` ADD `sha` VARCHAR(255) DEFAULT '';
  </upgrade1>
</upgrades>
";

/// Templates, SQL and programs below a container's root.
pub fn lay_out(root: &Path) {
    let write = |below: &str, text: &str| {
        let path = root.join(DEPLOY).join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("sql/db_tars.sql", DB_TARS);
    write("sql/db_user_system.sql", DB_USER_SYSTEM);
    write("sql/db_base.sql", "DROP TABLE IF EXISTS `t_station`;\nCREATE TABLE `t_station` (id int);\n");
    write("sql/tars_upgrade.conf", UPGRADE);
    write("sql/tars_servers_logs.sql", &rows(&["tarslog"]));
    write(
        "sql/tars_servers_master.sql",
        &rows(&["tarspatch", "tarsAdminRegistry", "tarsstat", "tarsproperty"]),
    );
    let both = rows(&["tarsregistry", "tarsqueryproperty", "tarsconfig", "tarsnotify", "tarsquerystat"]);
    write(
        "sql/tars_servers.sql",
        &format!(
            "{both}delete from t_adapter_conf where application = 'tars' and server_name = 'tarsstat' and \
             adapter_name = 'Old';\n"
        ),
    );
    write(
        "sql/tars_node_init.sql",
        "replace into `t_node_info` (`node_name`, `last_reg_time`, `last_heartbeat`, `setting_state`, \
         `tars_version`) VALUES ('localip.tars.com', now(), now(), 'active', '2.1.0');\n",
    );
    write("sql/template/tars.default", "<tars>\n  # default\n</tars>\n");
    write("sql/template/tars.framework-db", "<tars>\n<db>\ndbhost=db.tars.com\n</db>\n</tars>\n");
    write("sql/template/tars.tarsregistry", "<tars>\n</tars>\n");
    for service in Service::ALL {
        write(&format!("conf/{service}/conf/tars.{service}.config.conf"), &configuration(service));
        let program = root.join(format!("usr/local/app/tars/{service}/bin/{service}"));
        make_program(&program, include_str!("service.pl"));
    }
}

/// Upstream's statements for these servers, shortened.
fn rows(servers: &[&str]) -> String {
    let statements: Vec<_> = servers.iter().map(|server| server_rows(server)).collect();
    statements.concat()
}

fn server_rows(server: &str) -> String {
    format!(
        "-- {server}\nreplace into `t_adapter_conf` (`application`, `server_name`, `node_name`, `adapter_name`, \
         `thread_num`, `endpoint`) VALUES ('tars','{server}','localip.tars.com','{server}Adapter',5,'tcp -h \
         localip.tars.com');\nreplace into `t_server_conf` (`application`, `server_name`, `node_name`, `exe_path`, \
         `setting_state`, `tars_version`, `patch_version`) VALUES ('tars','{server}','localip.tars.com',\
         '/usr/local/app/tars/{server}/bin/{server}','active','2.1.0','2.1.0');\n"
    )
}

fn configuration(service: Service) -> String {
    let mut adapters = String::new();
    for servant in service.servants() {
        let object = servant.object;
        let _ = write!(
            adapters,
            "<{object}Adapter>\n  endpoint=tcp -h localip.tars.com -p {} -t 60000\n</{object}Adapter>\n",
            servant.port
        );
    }
    format!(
        "<tars>\n<server>\nlocalip=localip.tars.com\nlogpath=TARS_PATH/app_log\n{adapters}</server>\n<client>\n\
         locator=tars.tarsregistry.QueryObj@registryAddress\n</client>\n<db>\ndbhost=db.tars.com\ndbuser=tars\n\
         dbpass=tars2015\ndbport=3306\n</db>\n</tars>\n"
    )
}
