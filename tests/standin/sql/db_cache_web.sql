-- The cache's tables, as far as tests look at them.

CREATE TABLE `t_region` (
  `id` INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `region` VARCHAR(50) NOT NULL,
  UNIQUE KEY `region` (`region`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8;
