-- The gateway's tables, as far as tests look at them.

DROP TABLE IF EXISTS `t_station`;
CREATE TABLE `t_station` (
  `f_id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `f_station_id` VARCHAR(64) NOT NULL,
  UNIQUE KEY `f_station_id` (`f_station_id`)
) ENGINE=InnoDB CHARSET=utf8;

DROP TABLE IF EXISTS `t_whitelist`;
CREATE TABLE `t_whitelist` (
  `f_id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `f_ip` VARCHAR(20) NOT NULL
) ENGINE=InnoDB CHARSET=utf8;
