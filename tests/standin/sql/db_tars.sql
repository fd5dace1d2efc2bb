-- The framework's tables, as far as the stand-ins and tars-init need them. Like the real file, it empties what is there.

DROP TABLE IF EXISTS `t_adapter_conf`;
CREATE TABLE `t_adapter_conf` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `application` VARCHAR(50) DEFAULT '',
  `server_name` VARCHAR(128) DEFAULT '',
  `node_name` VARCHAR(50) DEFAULT '',
  `adapter_name` VARCHAR(100) DEFAULT '',
  `registry_timestamp` TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  `thread_num` INT(11) DEFAULT '1',
  `endpoint` VARCHAR(128) DEFAULT '',
  `max_connections` INT(11) DEFAULT '1000',
  `allow_ip` VARCHAR(255) NOT NULL DEFAULT '',
  `servant` VARCHAR(128) DEFAULT '',
  `queuecap` INT(11) DEFAULT NULL,
  `queuetimeout` INT(11) DEFAULT NULL,
  `posttime` DATETIME DEFAULT NULL,
  `lastuser` VARCHAR(30) DEFAULT NULL,
  `protocol` VARCHAR(64) DEFAULT 'tars',
  `handlegroup` VARCHAR(64) DEFAULT '',
  UNIQUE KEY `one_adapter` (`application`, `server_name`, `node_name`, `adapter_name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

DROP TABLE IF EXISTS `t_config_files`;
CREATE TABLE `t_config_files` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `server_name` VARCHAR(128) DEFAULT '',
  `set_name` VARCHAR(16) NOT NULL DEFAULT '',
  `set_area` VARCHAR(16) NOT NULL DEFAULT '',
  `set_group` VARCHAR(16) NOT NULL DEFAULT '',
  `host` VARCHAR(50) NOT NULL DEFAULT '',
  `filename` VARCHAR(128) DEFAULT NULL,
  `config` LONGTEXT,
  `posttime` DATETIME DEFAULT NULL,
  `lastuser` VARCHAR(50) DEFAULT NULL,
  `level` INT(11) DEFAULT '2',
  `config_flag` INT(10) NOT NULL DEFAULT '0',
  UNIQUE KEY `one_file` (`server_name`, `filename`, `host`, `level`, `set_name`, `set_area`, `set_group`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

DROP TABLE IF EXISTS `t_config_history_files`;
CREATE TABLE `t_config_history_files` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `configid` INT(11) DEFAULT NULL,
  `reason` VARCHAR(128) DEFAULT '',
  `content` LONGTEXT,
  `posttime` DATETIME DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

DROP TABLE IF EXISTS `t_node_info`;
CREATE TABLE `t_node_info` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `node_name` VARCHAR(128) DEFAULT '',
  `node_obj` VARCHAR(128) DEFAULT '',
  `endpoint_ip` VARCHAR(50) DEFAULT '',
  `endpoint_port` INT(11) DEFAULT '0',
  `data_dir` VARCHAR(128) DEFAULT '',
  `last_reg_time` DATETIME DEFAULT NULL,
  `last_heartbeat` DATETIME DEFAULT NULL,
  `setting_state` ENUM('active', 'inactive') DEFAULT 'inactive',
  `present_state` ENUM('active', 'inactive') DEFAULT 'inactive',
  `tars_version` VARCHAR(128) NOT NULL DEFAULT '',
  `template_name` VARCHAR(128) NOT NULL DEFAULT '',
  `modify_time` TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  `group_id` INT(11) DEFAULT '-1',
  UNIQUE KEY `node_name` (`node_name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

DROP TABLE IF EXISTS `t_profile_template`;
CREATE TABLE `t_profile_template` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `template_name` VARCHAR(128) DEFAULT '',
  `parents_name` VARCHAR(128) DEFAULT '',
  `profile` TEXT NOT NULL,
  `posttime` DATETIME DEFAULT NULL,
  `lastuser` VARCHAR(30) DEFAULT NULL,
  UNIQUE KEY `template_name` (`template_name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

DROP TABLE IF EXISTS `t_registry_info`;
CREATE TABLE `t_registry_info` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `locator_id` VARCHAR(128) NOT NULL DEFAULT '',
  `servant` VARCHAR(128) NOT NULL DEFAULT '',
  `endpoint` VARCHAR(128) NOT NULL DEFAULT '',
  `last_heartbeat` DATETIME DEFAULT NULL,
  `present_state` ENUM('active', 'inactive') DEFAULT 'inactive',
  `tars_version` VARCHAR(128) NOT NULL DEFAULT '',
  `modify_time` TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  `enable_group` CHAR(1) DEFAULT 'N',
  UNIQUE KEY `locator_id` (`locator_id`, `servant`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

DROP TABLE IF EXISTS `t_server_conf`;
CREATE TABLE `t_server_conf` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `application` VARCHAR(128) DEFAULT '',
  `server_name` VARCHAR(128) DEFAULT '',
  `node_group` VARCHAR(50) NOT NULL DEFAULT '',
  `node_name` VARCHAR(50) NOT NULL DEFAULT '',
  `registry_timestamp` TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  `base_path` VARCHAR(128) DEFAULT '',
  `start_script_path` VARCHAR(128) NOT NULL DEFAULT '',
  `exe_path` VARCHAR(128) NOT NULL DEFAULT '',
  `template_name` VARCHAR(128) NOT NULL DEFAULT '',
  `bak_flag` INT(11) NOT NULL DEFAULT '0',
  `flow_state` ENUM('active', 'inactive') NOT NULL DEFAULT 'active',
  `enable_set` CHAR(1) DEFAULT 'N',
  `set_name` VARCHAR(16) DEFAULT NULL,
  `set_area` VARCHAR(16) DEFAULT NULL,
  `set_group` VARCHAR(64) DEFAULT NULL,
  `enable_group` CHAR(1) DEFAULT 'N',
  `ip_group_name` VARCHAR(64) DEFAULT NULL,
  `setting_state` ENUM('active', 'inactive') NOT NULL DEFAULT 'inactive',
  `present_state` ENUM('active', 'inactive', 'activating', 'deactivating', 'destroyed') NOT NULL DEFAULT 'inactive',
  `process_id` INT(11) NOT NULL DEFAULT '0',
  `patch_version` VARCHAR(128) NOT NULL DEFAULT '',
  `patch_time` DATETIME DEFAULT NULL,
  `patch_user` VARCHAR(128) NOT NULL DEFAULT '',
  `tars_version` VARCHAR(128) NOT NULL DEFAULT '',
  `posttime` DATETIME DEFAULT NULL,
  `lastuser` VARCHAR(30) DEFAULT NULL,
  `server_type` ENUM('tars_cpp', 'not_tars', 'tars_java', 'tars_nodejs', 'tars_php', 'tars_go') NOT NULL DEFAULT 'tars_cpp',
  `profile` TEXT,
  `async_thread_num` INT(11) DEFAULT '3',
  UNIQUE KEY `application` (`application`, `server_name`, `node_name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

DROP TABLE IF EXISTS `t_server_patchs`;
CREATE TABLE `t_server_patchs` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `server` VARCHAR(50) DEFAULT NULL,
  `version` VARCHAR(1000) DEFAULT '',
  `tgz` TEXT,
  `md5` VARCHAR(40) DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8;
