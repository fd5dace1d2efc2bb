#!/bin/sh
# Starts MariaDB in the foreground; before that, sets up an empty data directory, once.
#
# MYSQL_ROOT_PASSWORD (or MARIADB_ROOT_PASSWORD, each also as ..._FILE) is needed for an empty directory only, as in the
# official images, and becomes the password of root@localhost and root@%. A directory that is not empty is never
# written to: without a MariaDB in it, it is the wrong mount, and the container says so and exits.
# Arguments go to the server. Other variables of the official images (MYSQL_DATABASE, MYSQL_USER...) are refused.
set -eu
umask 027

data=/var/lib/mysql
begun=$data/.tarsup-setting-up # there from the first byte to the last one of the setup, and never while serving
run=/run/mysqld

say() { printf 'database: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

for variable in MYSQL_DATABASE MYSQL_USER MYSQL_PASSWORD MARIADB_DATABASE MARIADB_USER MARIADB_PASSWORD; do
    eval "value=\${$variable:-}"
    [ -z "$value" ] || die "$variable is set, but this image creates no schemas or accounts: tars-init does, as root"
done

root_password() {
    for variable in MYSQL_ROOT_PASSWORD MARIADB_ROOT_PASSWORD; do
        eval "value=\${$variable:-} file=\${${variable}_FILE:-}"
        if [ -z "$value" ] && [ -n "$file" ]; then value=$(cat "$file"); fi
        if [ -n "$value" ]; then printf %s "$value"; return; fi
    done
    die "MYSQL_ROOT_PASSWORD is not set: the empty directory $data cannot be set up without one"
}

# SQL text in single quotes: a backslash and a quote are doubled.
quoted() { printf %s "$1" | sed -e 's/\\/\\\\/g' -e "s/'/''/g"; }

# The password goes in by standard input, never by an argument that a process list shows.
set_up() {
    password=$(root_password) # by itself, so that its failure ends this script
    password=$(quoted "$password")
    say "the directory $data is empty: setting up a new server"
    : >"$begun"
    log=$(mktemp)
    chown mysql:mysql "$data"
    mariadb-install-db --user=mysql --datadir="$data" --skip-test-db --skip-name-resolve --auth-root-authentication-method=normal >"$log" 2>&1 ||
        { cat "$log" >&2; die "the server could not be set up"; }
    mariadbd --user=mysql --datadir="$data" --bootstrap --skip-name-resolve --log-warnings=0 <<SQL >"$log" 2>&1 || { cat "$log" >&2; die "the server could not be set up"; }
-- The setup leaves accounts without a password for the addresses that the container happens to have.
DELETE FROM mysql.global_priv WHERE NOT (User IN ('root', 'mariadb.sys') AND Host = 'localhost');
DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';
FLUSH PRIVILEGES;
ALTER USER 'root'@'localhost' IDENTIFIED BY '$password';
CREATE USER 'root'@'%' IDENTIFIED BY '$password';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION;
CREATE USER 'tarsup_health'@'localhost';
SQL
    rm "$log"
    sync
    rm "$begun"
    say "set up"
}

if [ -e "$begun" ]; then
    # A setup that was cut off: no server ever served from here, and the directory was empty before.
    say "an earlier setup was cut off: it starts again"
    find "$data" -mindepth 1 -maxdepth 1 ! -name lost+found ! -path "$begun" -exec rm -rf {} +
    set_up
elif [ -z "$(find "$data" -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ]; then
    set_up
elif [ ! -d "$data/mysql" ]; then
    die "$data is not empty and holds no MariaDB: is the right folder mounted? Nothing was changed"
fi

mkdir -p "$run"
chown mysql:mysql "$run"
unset MYSQL_ROOT_PASSWORD MARIADB_ROOT_PASSWORD password
exec mariadbd --user=mysql --datadir="$data" --socket="$run/mysqld.sock" --skip-name-resolve --bind-address=0.0.0.0 "$@"
