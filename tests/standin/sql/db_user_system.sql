-- The users of the web console. No DROP here, as in the real file: a second import fails on what exists.

CREATE TABLE `t_auth` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `flag` VARCHAR(128) DEFAULT NULL,
  `role` VARCHAR(128) DEFAULT NULL,
  `uid` VARCHAR(128) DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

LOCK TABLES `t_auth` WRITE;
INSERT INTO `t_auth` (`id`, `role`, `uid`) VALUES (8, 'admin', 'admin');
UNLOCK TABLES;

-- MariaDB 10.11 and MySQL 8 refuse these two: the tables below must be made all the same.
/*!40101 SET GLOBAL innodb_large_prefix=1 */;
/*!40101 SET GLOBAL innodb_file_format=BARRACUDA */;

CREATE TABLE `t_token` (
  `id` INT(11) UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `uid` VARCHAR(128) DEFAULT NULL,
  `token` VARCHAR(255) DEFAULT NULL,
  KEY `token` (`token`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE `t_setting` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `title` VARCHAR(128) DEFAULT NULL,
  `info` TEXT,
  `valid` INT(11) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

CREATE TABLE `t_user_info` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `uid` VARCHAR(128) DEFAULT NULL,
  `password` VARCHAR(128) NOT NULL,
  UNIQUE KEY `user_name` (`uid`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

INSERT INTO `t_user_info` (`id`, `uid`, `password`) VALUES (1, 'admin', '');
