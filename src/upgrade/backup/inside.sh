# shellcheck shell=sh
# Runs inside a container that has the server's own tools: ask SQL, dump OPTION... , or restore.
#
# Standard input begins with an option file for them, up to a line "#end": so a password is in no argument, no
# environment and on no disk. What follows is the SQL of a restore. Exit code 127: a tool is missing.
set -u
conf=
while IFS= read -r line && [ "$line" != '#end' ]; do
    conf="$conf$line
"
done
exec 4<&0
# What the image or its caller set up for somebody else.
unset MYSQL_HOST MYSQL_TCP_PORT MYSQL_UNIX_PORT MYSQL_PWD MYSQL_HOME MYSQL_TEST_LOGIN_FILE
export HOME=/nonexistent
where=

tool() {
    for name in "$@"; do
        if command -v "$name" >/dev/null 2>&1; then
            printf %s "$name"
            return
        fi
    done
    echo "there is no $1 in it, nor $2" >&2
    return 127
}

# The option file comes over a pipe, which is opened once; standard input stays the caller's.
with_account() {
    printf %s "$conf" | {
        exec 3<&0 <&4 4<&-
        program=$1
        shift
        # shellcheck disable=SC2086 # no or one option
        exec "$program" --defaults-extra-file=/proc/self/fd/3 $where "$@"
    }
}

client=$(tool mariadb mysql) || exit 127
case $1 in
    ask | dump) dump=$(tool mariadb-dump mysqldump) || exit 127 ;;
esac

# Beside the server its socket is nearer than any address; where it wants none of the account there, it is asked as others do.
case $conf in
    *'
host='*) ;;
    *)
        if ! refused=$(with_account "$client" -e 'SELECT 1' 2>&1 </dev/null >/dev/null 4</dev/null); then
            where=--host=127.0.0.1
            if ! with_account "$client" -e 'SELECT 1' >/dev/null 2>&1 4</dev/null; then
                printf '%s\n' "$refused" >&2
                exit 1
            fi
        fi
        ;;
esac

mode=$1
shift
case $mode in
    ask) with_account "$client" --batch --skip-column-names -e "$1" 4</dev/null ;;
    dump)
        with_account "$dump" "$@" 4</dev/null &
        dumping=$!
        # Where nobody listens any more the input ends: it must not hold on to tables for nobody. An engine begins each
        # command in a group of its own.
        read -r stat </proc/$$/stat
        # shellcheck disable=SC2086 # state, parent, group
        set -- ${stat##*)}
        watching=
        if [ "$3" = $$ ]; then
            {
                cat
                kill -TERM 0
            } <&4 >/dev/null 2>&1 &
            watching=$!
        fi
        wait "$dumping"
        code=$?
        [ -z "$watching" ] || kill "$watching" 2>/dev/null
        exit "$code"
        ;;
    restore) with_account "$client" --batch "$@" ;;
esac
