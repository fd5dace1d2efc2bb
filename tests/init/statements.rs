//! What of the image's SQL files reaches a database, and what does not.

use std::fs;

use crate::container::Container;
use crate::server::Server;

const SQL: &str = "usr/local/tars/cpp/deploy/framework/sql";

fn append(container: &Container, file: &str, text: &str) {
    let path = container.path(SQL).join(file);
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{before}\n{text}\n")).unwrap();
}

#[test]
fn refused_statement_ends_with_78_and_nothing_of_any_file_is_sent() {
    let server = Server::start();
    // The last of the schemas' files: those before it are good.
    for (file, statement, shown) in [
        (
            "db_base.sql",
            "ALTER TABLE t_station DROP COLUMN id;",
            "db_base.sql, line 4: `ALTER TABLE t_station DROP COLUMN id`",
        ),
        ("db_base.sql", "UPDATE t_station SET id = 1;", "`UPDATE t_station SET id = 1` is refused"),
        ("tars_upgrade.conf", "<upgrades><u>\n</u></upgrades>", "tars_upgrade.conf"),
    ] {
        let mut container = Container::framework(&server);
        append(&container, file, statement);
        let migrated = container.call(&["migrate"]);
        let said = String::from_utf8_lossy(&migrated.stderr).into_owned();
        assert_eq!(migrated.status.code(), Some(78), "{said}");
        assert!(said.contains(shown) && said.contains("Nothing was sent to the database"), "{said}");
        assert_eq!(container.run_to_end().code(), Some(78), "{}", container.log());
    }
    assert_eq!(server.everything(), []);
    assert_eq!(server.number("SELECT COUNT(*) FROM mysql.user WHERE user = 'tarsAdmin'"), 0);
}

#[test]
fn delete_that_an_or_widens_is_refused_and_no_row_is_lost() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    let before = server.everything();
    for statement in [
        "delete from t_adapter_conf where application = 'x' and server_name = 'x' and adapter_name = 'x' or 1 = 1;",
        "delete from t_adapter_conf where application = 'x' and server_name = 'x' and adapter_name = 'x' --/**/ ;",
        "delete from t_server_conf;",
    ] {
        let mut next = Container::framework(&server);
        append(&next, "tars_servers.sql", statement);
        assert_eq!(next.run_to_end().code(), Some(78), "{statement}: {}", next.log());
        assert!(next.log().contains("tars_servers.sql, line"), "{}", next.log());
        assert_eq!(server.everything(), before, "{statement}");
    }
}

#[test]
fn server_whose_modes_read_quotes_in_another_way_gets_what_was_judged() {
    let server = Server::start();
    server.run(&["SET GLOBAL sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'"]);
    let container = Container::framework(&server);
    let text = "CREATE TABLE t_station (id int, name varchar(20));\n\
                INSERT INTO t_station VALUES (1, \"a'b\"), (2, 'c\\'d'), (3, '\\\\');";
    fs::write(container.path(SQL).join("db_base.sql"), text).unwrap();
    let migrated = container.call(&["migrate"]);
    assert_eq!(migrated.status.code(), Some(0), "{}", String::from_utf8_lossy(&migrated.stderr));
    let names: Vec<String> = server.rows("SELECT name FROM db_base.t_station ORDER BY id");
    assert_eq!(names, ["a'b", "c'd", "\\"]);
}
