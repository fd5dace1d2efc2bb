-- The web console's tables, as far as tests look at them.

DROP TABLE IF EXISTS `t_patch_task`;
CREATE TABLE `t_patch_task` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `server` VARCHAR(50) DEFAULT NULL,
  `tgz` TEXT,
  `task_id` VARCHAR(64) DEFAULT NULL
) ENGINE=InnoDB CHARSET=utf8;

DROP TABLE IF EXISTS `t_tars_files`;
CREATE TABLE `t_tars_files` (
  `f_id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `application` VARCHAR(64) NOT NULL DEFAULT '',
  `server_name` VARCHAR(128) NOT NULL DEFAULT '',
  `context` MEDIUMTEXT
) ENGINE=InnoDB CHARSET=utf8;
