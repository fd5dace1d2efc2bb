#!/bin/sh
# Starts MariaDB in the foreground; before that, sets up an empty data directory, once.
#
# MYSQL_ROOT_PASSWORD (or MARIADB_ROOT_PASSWORD, each also as ..._FILE) is needed for an empty directory only, as in the
# official images, and becomes the password of root@localhost and root@%. A directory that is not empty is never
# written to: without a MariaDB in it, it is the wrong mount, and the container says so and exits.
# Arguments go to the server. Other variables of the official images (MYSQL_DATABASE, MYSQL_USER...) are refused.
#
# A setup happens in a folder of its own, below the data directory, and is moved up when it is complete. So nothing that
# ever served is in a place that this script removes, whatever was cut off, and whatever a disk had forgotten of it.
set -eu
umask 027

data=/var/lib/mysql
run=/run/mysqld
setup=$data/.tarsup-setting-up # ours alone, with everything in it
fresh=$setup/data              # the new server, before it is complete
complete=$setup/complete       # there once it is complete, until it has been moved up

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

# What is on the disk, and not only in memory, before anything relies on it.
settle() { sync -f "$data" 2>/dev/null || sync; }

# What the directory holds besides the setup's folder, as names; lost+found is the file system's own.
held() { find "$data" -mindepth 1 -maxdepth 1 ! -name lost+found ! -path "$setup"; }

# The password goes in by standard input, never by an argument that a process list shows.
make_fresh() {
    password=$(root_password) # by itself, so that its failure ends this script
    password=$(quoted "$password")
    say "the directory $data is empty: setting up a new server"
    chown mysql:mysql "$data"
    rm -rf "$setup"
    mkdir "$setup" "$fresh"
    chown mysql:mysql "$setup" "$fresh"
    log=$(mktemp)
    mariadb-install-db --user=mysql --datadir="$fresh" --skip-test-db --skip-name-resolve --auth-root-authentication-method=normal >"$log" 2>&1 ||
        { cat "$log" >&2; die "the server could not be set up"; }
    mariadbd --user=mysql --datadir="$fresh" --bootstrap --skip-name-resolve --log-warnings=0 <<SQL >"$log" 2>&1 || { cat "$log" >&2; die "the server could not be set up"; }
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
    settle
    : >"$complete"
    settle
}

# May be cut off anywhere and done again. The server's own schema comes last: with it, the directory counts as set up.
move_up() {
    for entry in "$fresh"/* "$fresh"/.[!.]*; do
        if [ ! -e "$entry" ] || [ "$entry" = "$fresh/mysql" ]; then continue; fi
        [ ! -e "$data/${entry##*/}" ] || die "$data/${entry##*/} is in the way of the new server's: is the right folder mounted?"
        mv "$entry" "$data/"
    done
    settle
    if [ -d "$fresh/mysql" ]; then mv "$fresh/mysql" "$data/"; fi
    settle
}

# True where a schema has tables that no setup makes.
holds_tables() {
    [ -n "$(find "$data" -mindepth 2 -maxdepth 2 \( -name '*.frm' -o -name '*.ibd' \) ! -path "$data/mysql/*" ! -path "$data/sys/*" ! -path "$data/performance_schema/*" ! -path "$setup/*" -print -quit)" ]
}

if [ -f "$setup" ]; then
    # Of an earlier image, which marked by a file what it set up in place. Without tables it may never have had its
    # password; with some, it has served.
    if [ ! -d "$data/mysql" ] || ! holds_tables; then
        die "an earlier image was cut off while it set up $data. If nothing of yours is in it, empty it by hand; nothing was changed"
    fi
    say "a mark of an earlier setup was left behind, and $data holds tables: they are kept"
    rm "$setup"
    settle
elif [ -e "$complete" ] && [ ! -d "$data/mysql" ]; then
    say "a setup was cut off when it was complete: it is taken into use"
    move_up
elif [ -z "$(held)" ]; then
    make_fresh
    move_up
    say "set up"
elif [ ! -d "$data/mysql" ]; then
    die "$data is not empty and holds no MariaDB: is the right folder mounted? Nothing was changed"
fi
if [ -d "$setup" ]; then
    rm -rf "$setup"
    settle
fi

mkdir -p "$run"
chown mysql:mysql "$run"
unset MYSQL_ROOT_PASSWORD MARIADB_ROOT_PASSWORD password
exec mariadbd --user=mysql --datadir="$data" --socket="$run/mysqld.sock" --skip-name-resolve --bind-address=0.0.0.0 "$@"
