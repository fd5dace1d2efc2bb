//! What is sent, confined, left out and refused, and whether a tokenizer can be fooled.

use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn kinds(dump: &str) -> Vec<StatementKind> {
    judge(dump, FilePurpose::Schema).unwrap().into_iter().map(|statement| statement.kind).collect()
}

fn refusal(dump: &str, purpose: FilePurpose) -> SqlRefusal {
    judge(dump, purpose).expect_err(dump)
}

fn assert_refused(statements: &[&str]) {
    for statement in statements {
        for purpose in [FilePurpose::Schema, FilePurpose::Registration] {
            assert!(judge(statement, purpose).is_err(), "sent, or left out in silence: {statement}");
        }
    }
}

/// Upstream's data beside the project. CI has it, so its absence there is a failure and not a pass.
fn shared(below: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tars").join(below);
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is not there: upstream's own files are not tested",
        path.display()
    );
    eprintln!("LEFT OUT: {} is not there", path.display());
    None
}

fn purpose(file: &str) -> FilePurpose {
    if file.starts_with("tars_") { FilePurpose::Registration } else { FilePurpose::Schema }
}

/// The kinds of each of a folder's files, as letters: settings, tables, inserts, replaces, deletes, left out.
fn outline(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .filter(|path| {
            path.extension().is_some_and(|end| end == "sql") && !path.ends_with("tars_upgrade.sql")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let dump = std::fs::read_to_string(path).unwrap();
            let judged = judge(&dump, purpose(&name))
                .unwrap_or_else(|refusal| panic!("{}, {refusal}", path.display()));
            let count = |fits: fn(&StatementKind) -> bool| {
                judged.iter().filter(|statement| fits(&statement.kind)).count()
            };
            let counts = [
                ('T', count(|kind| matches!(kind, StatementKind::CreateTable { .. }))),
                ('I', count(|kind| matches!(kind, StatementKind::Insert(_)))),
                ('R', count(|kind| matches!(kind, StatementKind::Replace(_)))),
                ('D', count(|kind| matches!(kind, StatementKind::Delete(_)))),
                ('-', count(|kind| *kind == StatementKind::LeftOut)),
            ];
            let text: Vec<_> = counts
                .iter()
                .filter(|(_, number)| *number > 0)
                .map(|(kind, number)| format!("{kind}{number}"))
                .collect();
            (name, text.join(" "))
        })
        .collect()
}

fn unpacked(archive: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--wildcards", "-xzf"]).arg(archive).arg("-C").arg(folder.path()).arg("*/sql/*");
    assert!(tar.status().unwrap().success());
    folder
}

const WEB: [(&str, &str); 4] = [
    ("db_base.sql", "T6 -6"),
    ("db_cache_web.sql", "T11"),
    ("db_tars_web.sql", "T6 -6"),
    ("db_user_system.sql", "T5 I2 -8"),
];

fn as_text(outline: &[(String, String)]) -> Vec<(&str, &str)> {
    outline.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect()
}

#[test]
fn upstreams_files_pass() {
    let Some(folder) = shared("framework/sql") else { return };
    let expected = [
        ("db_base.sql", "T6 -6"),
        ("db_cache_web.sql", "T11"),
        ("db_tars.sql", "T19 -19"),
        ("db_tars_web.sql", "T6 -6"),
        ("db_user_system.sql", "T5 I2 -8"),
        ("tars_node_init.sql", "R1"),
        ("tars_servers.sql", "R11 D2"),
        ("tars_servers_logs.sql", "R3"),
        ("tars_servers_master.sql", "R8"),
    ];
    assert_eq!(as_text(&outline(&folder)), expected);
    // No start of upstream's reads it, and no server takes it: an `IF` outside of a procedure.
    let stray = std::fs::read_to_string(folder.join("tars_upgrade.sql")).unwrap();
    let refusal = refusal(&stray, FilePurpose::Schema);
    assert_eq!(refusal.line, 3);
}

#[test]
fn files_of_both_releases_and_of_the_web_pass() {
    for (release, tables, node) in [("v3.0.17", "T19 -19", "R1"), ("v2.4.17", "T18 -18", "R2")] {
        let Some(archive) = shared(&format!("real/{release}/deploy.tgz")) else { return };
        let folder = unpacked(&archive);
        let outline = outline(&folder.path().join("deploy/framework/sql"));
        let logs = if release == "v3.0.17" { "R3" } else { "R2" };
        assert_eq!(
            as_text(&outline),
            [
                ("db_tars.sql", tables),
                ("tars_node_init.sql", node),
                ("tars_servers.sql", "R11 D2"),
                ("tars_servers_logs.sql", logs),
                ("tars_servers_master.sql", "R8"),
            ],
            "{release}"
        );
    }
    let Some(archive) = shared("real/v3.0.17/deploy.tgz") else { return };
    let folder = unpacked(&archive);
    let conf = std::fs::read_to_string(folder.path().join("deploy/framework/sql/tars_upgrade.conf")).unwrap();
    assert_eq!(super::super::upgrade_conf::read(&conf).unwrap().len(), 4);
    let Some(archive) = shared("real/web.tgz") else { return };
    let folder = unpacked(&archive);
    assert_eq!(as_text(&outline(&folder.path().join("web/sql"))), WEB);
}

#[test]
fn statements_that_add_are_sent() {
    let sent = kinds(
        "/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n\
         /*!40101 set global innodb_large_prefix=1 */;\n\
         CREATE TABLE IF NOT EXISTS `a``b` (x int, KEY (x)) ENGINE=InnoDB; -- a; comment\n\
         /*!50503 create table c (x enum('1','2') default '1') */;\n\
         BEGIN; INSERT IGNORE INTO t (a) VALUES (1), (-2, 'x''y\\';', now()); COMMIT;\n\
         ALTER TABLE `t` ADD `c` VARCHAR(128) NOT NULL DEFAULT '' COMMENT 'x' AFTER `b`, ADD KEY `k` (`c`(20));",
    );
    assert!(
        matches!(&sent[0], StatementKind::Setting(text) if text.starts_with("/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE="))
    );
    assert!(matches!(&sent[1], StatementKind::Setting(_)));
    assert!(matches!(&sent[2], StatementKind::CreateTable { table, .. } if table == "a`b"));
    assert!(
        matches!(&sent[3], StatementKind::CreateTable { table, text, .. } if table == "c" && text.ends_with(" */"))
    );
    assert_eq!(sent[4], StatementKind::Transaction("BEGIN".to_owned()));
    assert_eq!(
        sent[5],
        StatementKind::Insert("INSERT IGNORE INTO t (a) VALUES (1), (-2, 'x''y\\';', now())".to_owned())
    );
    assert!(
        matches!(&sent[7], StatementKind::Add { table, columns, .. } if table == "t" && columns == &["c".to_owned()])
    );
}

#[test]
fn drops_locks_and_keys_are_left_out() {
    let left_out = kinds(
        "drop table if exists `a`; /*!40000 DROP TABLE b */; TRUNCATE c; LOCK TABLES `d` WRITE; UNLOCK TABLES;\n\
         /*!40000 ALTER TABLE `d` DISABLE KEYS */; alter table d enable keys;\n# DROP TABLE e;\n-- x;\n/* y; */;",
    );
    assert_eq!(left_out, vec![StatementKind::LeftOut; 7]);
}

#[test]
fn transaction_of_a_registration_is_ours_alone() {
    let judged = judge("START TRANSACTION; COMMIT;", FilePurpose::Registration).unwrap();
    assert!(judged.iter().all(|statement| statement.kind == StatementKind::LeftOut));
    assert_eq!(refusal("CREATE TABLE t (x int)", FilePurpose::Registration).line, 1);
}

#[test]
fn replace_becomes_an_insert_that_keeps_what_is_there() {
    let sql = "replace into `t` (`a`, b) VALUES ('x,(',now()),(NULL, -1)";
    let StatementKind::Replace(rows) = kinds(sql).remove(0) else { panic!("no REPLACE") };
    assert_eq!(
        rows.kept(None),
        "INSERT INTO `t` (`a`,`b`) VALUES ('x,(',CURRENT_TIMESTAMP()),(NULL,-1) ON DUPLICATE KEY UPDATE `a` = `a`"
    );
    assert!(rows.kept(Some("b = VALUES(b)")).ends_with("ON DUPLICATE KEY UPDATE b = VALUES(b)"));
    assert_refused(&[
        "REPLACE INTO t VALUES (1)",
        "REPLACE INTO t (a, b) VALUES (1)",
        "REPLACE INTO t SELECT * FROM u",
    ]);
}

#[test]
fn delete_names_application_server_and_adapter_and_nothing_else() {
    let upstream =
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'a'";
    assert!(judge(upstream, FilePurpose::Registration).is_ok());
    assert!(judge(upstream, FilePurpose::Schema).is_err(), "no node to confine it to");
    for refused in [
        "delete from t_adapter_conf",
        "delete from t_adapter_conf where application = 'tars'",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'a' or 1 = 1",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'a' or '1' = '1'",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'a' || 1",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and (adapter_name = 'a')",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name != 'a'",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name like '%'",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = adapter_name",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'a' limit 1",
        "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'a' --/**/ ",
        "delete from t_adapter_conf where application = 'a' and application = 'tars' and adapter_name = 'a'",
        "delete from t_adapter_conf where application='tars' and server_name='s' and adapter_name='a' and node_name='n'",
        "delete from t_adapter_conf where application = 'tars' and server_name = (select 1) and adapter_name = 'a'",
        "delete from t_server_conf where application = 'tars' and server_name = 's' and adapter_name = 'a'",
        "delete from mysql.t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'a'",
        "delete a from t_adapter_conf a where application = 'tars' and server_name = 's' and adapter_name = 'a'",
        "delete t_adapter_conf from t_adapter_conf, t_server_conf where application = 'tars'",
        "delete low_priority from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'a'",
        "with x as (select 1) delete from t_adapter_conf where application = 'tars'",
    ] {
        assert!(judge(refused, FilePurpose::Registration).is_err(), "{refused}");
    }
}

#[test]
fn statements_that_take_away_change_or_reach_elsewhere_are_refused() {
    assert_refused(&[
        "UPDATE t SET a = 1",
        "GRANT ALL ON *.* TO x",
        "CREATE USER x",
        "CREATE DATABASE d",
        "CREATE OR REPLACE TABLE t (x int)",
        "CREATE TEMPORARY TABLE t (x int)",
        "CREATE TABLE t LIKE u",
        "CREATE TABLE t (LIKE u)",
        "CREATE TABLE t (x int) SELECT * FROM u",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TABLE mysql.t (x int)",
        "CREATE TABLE t (x int) ENGINE=CONNECT FILE_NAME='/etc/passwd'",
        "CREATE TABLE t (x int) DATA DIRECTORY='/tmp'",
        "CREATE TABLE t (x int DEFAULT (sleep(9)))",
        "CREATE TABLE t (x int, CHECK (x > (SELECT 1)))",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW DELETE FROM u",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DROP TABLE t",
        "CREATE PROCEDURE p() DROP TABLE t",
        "ALTER TABLE t DROP COLUMN a",
        "ALTER TABLE t ADD a int, DROP COLUMN b",
        "ALTER TABLE t ADD a int, DROP b",
        "ALTER TABLE t MODIFY a char(1)",
        "ALTER TABLE t CHANGE a b int",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE t ADD a int, RENAME u",
        "ALTER TABLE t ADD a int REMOVE PARTITIONING",
        "ALTER TABLE t ADD PARTITION (PARTITION p VALUES IN (1))",
        "ALTER TABLE t TRUNCATE PARTITION p",
        "ALTER TABLE t ENGINE=BLACKHOLE",
        "ALTER TABLE t DISABLE KEYS, DROP COLUMN a",
        "ALTER TABLE t ADD INDEX (a)",
        "ALTER TABLE mysql.t ADD a int",
        "ALTER IGNORE TABLE t ADD UNIQUE KEY k (a)",
        "ALTER DATABASE d CHARACTER SET latin1",
        "ALTER USER x IDENTIFIED BY 'y'",
        "RENAME TABLE t TO u",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
        "CALL p()",
        "DO sleep(9)",
        "SELECT 1",
        "SELECT 'x' INTO OUTFILE '/tmp/x'",
        "INSERT INTO t SELECT * FROM u",
        "INSERT INTO t (a) SELECT 1",
        "INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 2",
        "INSERT INTO t VALUES ((SELECT password FROM mysql.user))",
        "INSERT INTO t VALUES (load_file('/etc/passwd'))",
        "INSERT INTO t VALUES (1) RETURNING a",
        "INSERT INTO t SET a = 1",
        "INSERT INTO mysql.global_priv VALUES ('%', 'x', '{}')",
        "INSERT INTO t VALUES (@a)",
        "SET PASSWORD = 'x'",
        "SET GLOBAL general_log_file = '/etc/cron.d/x'",
        "SET @@GLOBAL.read_only = 0",
        "SET GLOBAL innodb_file_format = BARRACUDA, GLOBAL read_only = 0",
        "SET STATEMENT max_statement_time = 9 FOR DROP TABLE t",
        "SET ROLE admin",
        "SET sql_mode = (SELECT 'x')",
        "SET autocommit = 0",
        "SET @a = 'ANSI_QUOTES'",
        "SET @a = (SELECT 1)",
        "USE mysql",
        "BEGIN NOT ATOMIC DROP TABLE t",
        "COMMIT AND CHAIN",
        "ROLLBACK",
        "XA START 'x'",
        "PREPARE s FROM 'DROP TABLE t'",
        "EXECUTE IMMEDIATE 'DROP TABLE t'",
        "HANDLER t OPEN",
        "FLUSH TABLES",
        "SHUTDOWN",
        "LOCK INSTANCE FOR BACKUP",
        "(SELECT 1)",
        "DELIMITER //",
    ]);
}

/// What another reading of quotes and comments would make of a file.
#[test]
fn text_that_servers_may_read_in_another_way_is_refused() {
    assert_refused(&[
        // A statement in a version comment of another one, and what follows one.
        "CREATE TABLE t (x int) /*!50000 ; DROP TABLE t */",
        "INSERT INTO t VALUES (1) /*!50000 ON DUPLICATE KEY UPDATE a = 1 */",
        "CREATE TABLE t (x int /*!99999 , y int */)",
        "/*!40101 SET sql_notes=0 */ DROP TABLE t",
        "/*!40101 SET sql_notes=0; DROP TABLE t */",
        "/*!40101 SET sql_notes=0 /* */ */",
        "/*!40101 SET sql_notes=0",
        "/*!40101SET sql_notes=0 */",
        "/*!4010 SET sql_notes=0 */",
        "/*!40101 UPDATE t SET a = 1 */",
        "/*M!100100 UPDATE t SET a = 1 */",
        // Two dashes that become a comment once the comment between them is gone, and those that are one to a few.
        "INSERT INTO t VALUES (1--/**/1)",
        "INSERT INTO t VALUES (1--1)",
        "INSERT INTO t VALUES (1) --\u{a0}x",
        // Never closed.
        "INSERT INTO t VALUES ('a",
        "INSERT INTO t VALUES ('a\\')",
        "CREATE TABLE `t (x int)",
        "INSERT INTO t VALUES (1) /* x",
        // Character sets in which a backslash is half of a character, modes in which it is none, or quotes are names.
        "SET NAMES gbk",
        "SET NAMES 'sjis'",
        "SET character_set_client = big5",
        "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ansi_quotes'",
        "SET sql_mode = 4",
        "SET @a = @@GLOBAL.sql_mode",
        // Commands of a client, and characters that end a statement early.
        "\\! rm -rf /",
        "INSERT INTO t VALUES (1) \\g",
        "INSERT INTO t VALUES (1)\0",
        "INSERT INTO t VALUES ('a\0b')",
        "INSERT\u{a0}INTO t VALUES (1)",
        "INSERT INTO t VALUES ('a' 'b')",
        "SET @`a` = @@sql_mode",
    ]);
}

#[test]
fn quotes_and_comments_hide_nothing_and_split_nothing() {
    let dump = "INSERT INTO t VALUES ('a;b', \"c;d\", 'it''s; \\'x;', '\\\\');\n\
                CREATE TABLE `odd;name` (a int /* , b int */ COMMENT '应用;名'); -- done; really\n# one; more\n\
                /* and; this */ insert/**/into t values(1);";
    let texts: Vec<String> = kinds(dump)
        .into_iter()
        .map(|kind| match kind {
            StatementKind::Insert(text) | StatementKind::CreateTable { text, .. } => text,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        texts,
        [
            "INSERT INTO t VALUES ('a;b', \"c;d\", 'it''s; \\'x;', '\\\\')",
            "CREATE TABLE `odd;name` (a int COMMENT '应用;名')",
            "insert into t values(1)",
        ]
    );
    assert_eq!(kinds("/*M!999999\\- enable the sandbox mode */\n; ;; \n\u{c}\r\n"), []);
    assert_eq!(kinds("\u{feff}/*! set sql_notes=0 */").len(), 1);
}

#[test]
fn refusal_names_line_statement_and_reason() {
    let dump =
        "-- a dump\nCREATE TABLE t (x int);\n\n  # more\n ALTER TABLE `t_server_conf`\n DROP COLUMN `sha`;\n";
    let refusal = refusal(dump, FilePurpose::Schema);
    assert_eq!(refusal.line, 5);
    assert_eq!(
        refusal.to_string(),
        "line 5: `ALTER TABLE `t_server_conf` DROP COLUMN `sha`` is refused: of ALTER TABLE only ADD is sent, and it goes on \
         with `DROP`"
    );
    let long = format!("INSERT INTO t (a, b) VALUES ('{}', sleep(1))", "secret ".repeat(40));
    assert!(super::judge(&long, FilePurpose::Schema).unwrap_err().begins.len() < 70);
}

#[test]
fn quote_closes_no_literal() {
    assert_eq!(quote("a'b\\"), "'a''b\\\\'");
}

/// Pieces that a tokenizer stumbles over.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "'",
            "\"",
            "`",
            "\\",
            "--",
            "-- ",
            "#",
            "/*",
            "*/",
            "/*!",
            "/*!40101 ",
            "/*M!100100 ",
            ";",
            "\n",
            " ",
            "(",
            ")",
            ",",
            "=",
            ".",
            "@",
            "@@",
            "0x",
            "''",
            "\\'",
            "DROP TABLE t",
            "delete from t_adapter_conf where",
            "application",
            "'a'",
            " or ",
            " and ",
            "INSERT INTO t VALUES ",
            "(1)",
            "REPLACE INTO t (a) VALUES ",
            "ALTER TABLE t ADD ",
            "a int",
            "SET ",
            "sql_mode",
            "SELECT",
            "CREATE TABLE t (a int)",
            "应",
            "\u{a0}",
            "\r",
            "\u{c}",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,6}",
    ]
}

/// A reader of its own for what is sent: quotes, and nothing else. What is outside of them, in lower case.
fn outside_of_quotes(text: &str) -> Option<String> {
    let mut outside = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !matches!(c, '\'' | '"' | '`') {
            outside.push(c.to_ascii_lowercase());
            continue;
        }
        outside.push(' ');
        loop {
            match chars.next()? {
                '\\' if c != '`' => drop(chars.next()?),
                other if other == c => match chars.peek() {
                    Some(next) if *next == c => drop(chars.next()),
                    _ => break,
                },
                _ => {}
            }
        }
    }
    Some(outside)
}

fn sent(kind: &StatementKind) -> Option<String> {
    match kind {
        StatementKind::Setting(text)
        | StatementKind::CreateTable { text, .. }
        | StatementKind::Add { text, .. }
        | StatementKind::Insert(text)
        | StatementKind::Transaction(text) => Some(text.clone()),
        StatementKind::Replace(rows) => Some(rows.kept(None)),
        StatementKind::Delete(text) => Some(format!("{text} AND node_name = 'n'")),
        StatementKind::LeftOut => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_is_sent_has_no_comment_no_second_statement_and_no_word_that_takes_away(pieces in prop::collection::vec(piece(), 0..14)) {
        let dump = pieces.concat();
        for purpose in [FilePurpose::Schema, FilePurpose::Registration] {
            let Ok(statements) = judge(&dump, purpose) else { continue };
            for text in statements.iter().filter_map(|statement| sent(&statement.kind)) {
                let outside = outside_of_quotes(&text);
                prop_assert!(outside.is_some(), "a quote stays open: {text}");
                let outside = outside.unwrap();
                let inner = match outside.strip_prefix("/*") {
                    Some(inner) => inner.strip_suffix("*/").unwrap_or("*/ is missing"),
                    None => &outside,
                };
                for mark in [";", "#", "--", "/*", "*/", "\\", "\0"] {
                    prop_assert!(!inner.contains(mark), "`{mark}` in {text}");
                }
                let words: Vec<&str> = inner.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
                for word in ["select", "or", "truncate", "load_file", "outfile"] {
                    // Plain names, where a name may stand, are the only place for them.
                    let may_be_a_name = text.starts_with("CREATE") || text.starts_with("ALTER");
                    prop_assert!(may_be_a_name || !words.contains(&word), "`{word}` in {text}");
                }
            }
        }
    }

    #[test]
    fn judging_what_is_sent_once_more_changes_nothing(pieces in prop::collection::vec(piece(), 0..10)) {
        let Ok(statements) = judge(&pieces.concat(), FilePurpose::Schema) else { return Ok(()) };
        for statement in statements {
            if let (Some(text), false) = (sent(&statement.kind), matches!(statement.kind, StatementKind::Replace(_))) {
                let again = judge(&text, FilePurpose::Schema);
                prop_assert!(again.is_ok(), "{text}");
                prop_assert_eq!(sent(&again.unwrap()[0].kind), Some(text));
            }
        }
    }

    #[test]
    fn statement_inside_of_a_literal_stays_inside(text in "[ -~应]{0,40}") {
        let dump = format!("INSERT INTO t VALUES ({});\nINSERT INTO u VALUES (1);", quote(&text));
        prop_assert_eq!(kinds(&dump).len(), 2);
    }
}
