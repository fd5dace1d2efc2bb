//! `tars_upgrade.conf`: columns that a newer version adds to an installed schema.

use crate::tars::conf;

use super::columns::{self, TakesBack};
use super::database::{DatabaseError, Server, Session};
use super::lock;
use super::schema_report::Report;
use super::sql::{self, FilePurpose, SqlRefusal, StatementKind, quote};
use super::start_log::StartLog;

const DUPLICATE_COLUMN: u16 = 1060;

/// One block: a column, and the statement that adds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    schema: String,
    table: String,
    column: String,
    statement: String,
}

/// Adds the columns that are missing; a table that is missing is left to its own SQL.
pub fn apply(
    server: &Server,
    session: &mut Session,
    upgrades: &[Upgrade],
    report: &mut Report,
    console: &TakesBack<'_>,
    log: &StartLog,
) -> Result<(), DatabaseError> {
    for upgrade in upgrades {
        if !upgrade.is_due(session, report)? || upgrade.is_left_out(console) {
            continue;
        }
        let Upgrade { schema, table, column, statement } = upgrade;
        // Before it is asked for again: what an earlier start began may be adding it just now.
        let mut own = lock::connect_to_work(server, schema)?;
        if !upgrade.is_due(session, report)? {
            continue;
        }
        // What comes and goes with each start is no news.
        if !columns::is_mistake(schema, table, column) {
            log.say(format!("{schema}.{table} lacks the column {column}: adding"));
        }
        match own.run(&format!("adding {schema}.{table}.{column}"), statement) {
            Err(error) if error.number() == Some(DUPLICATE_COLUMN) => {}
            added => added?,
        }
        report.added.push(upgrade.words());
        if !report.made.contains_key(&format!("{schema}.{table}").to_lowercase()) {
            report.touched.table(schema, table);
        }
    }
    Ok(())
}

impl Upgrade {
    /// True where the web console drops the column again at once.
    fn is_left_out(&self, console: &TakesBack<'_>) -> bool {
        console.is_left_out() && console.drops(&self.schema, &self.table, &self.column)
    }

    fn words(&self) -> String {
        format!("{}.{}: the column {}", self.schema, self.table, self.column)
    }

    fn is_due(&self, session: &mut Session, report: &Report) -> Result<bool, DatabaseError> {
        // Where nothing is sent, what would have been added before cannot be found.
        if session.only_asks() && report.added.contains(&self.words()) {
            return Ok(false);
        }
        if let Some(columns) = report.made.get(&format!("{}.{}", self.schema, self.table).to_lowercase())
            && session.only_asks()
        {
            return Ok(!columns.contains(&self.column.to_lowercase()));
        }
        let act = format!("asking for {}.{}.{}", self.schema, self.table, self.column);
        let query = format!(
            "SELECT COUNT(*), COALESCE(SUM(column_name = {}), 0) FROM information_schema.columns \
             WHERE table_schema = ? AND table_name = ?",
            quote(&self.column)
        );
        let rows: Vec<(u64, u64)> = session.rows(&act, &query, (&self.schema, &self.table))?;
        Ok(rows.first().is_some_and(|(columns, same)| *columns > 0 && *same == 0))
    }
}

/// Reads and judges the file. Both of two blocks of one name count: upstream's own file has `upgrade3` twice.
pub fn read(text: &str) -> Result<Vec<Upgrade>, SqlRefusal> {
    let refusal =
        |line: usize, begins: &str, why: String| SqlRefusal { line, begins: begins.to_owned(), why };
    let root = conf::parse(text).map_err(|error| refusal(1, "tars_upgrade.conf", error.to_string()))?;
    let Some(upgrades) = root.at(&["upgrades"]) else { return Ok(Vec::new()) };
    upgrades
        .domains()
        .map(|block| {
            let key = |name: &str| {
                block.get(name).filter(|value| !value.is_empty()).map(str::to_owned).ok_or_else(|| {
                    let opening = format!("<{}>", block.name);
                    refusal(line_of(text, &opening), &opening, format!("it has no `{name}`"))
                })
            };
            let (schema, table, column) = (key("database")?, key("table")?, key("field")?);
            let sql = key("sql")?;
            let line = line_of(text, &sql);
            let mut judged =
                sql::judge(&sql, FilePurpose::Schema).map_err(|refusal| SqlRefusal { line, ..refusal })?;
            match judged.pop().map(|statement| statement.kind) {
                Some(StatementKind::Add { table: of, columns, text: statement })
                    if judged.is_empty() && of == table && columns.contains(&column) =>
                {
                    Ok(Upgrade { schema, table, column, statement })
                }
                _ => Err(refusal(
                    line,
                    &sql,
                    format!("it is no ALTER TABLE that adds `{column}` to `{table}`"),
                )),
            }
        })
        .collect()
}

/// The configuration's grammar keeps no lines.
fn line_of(text: &str, words: &str) -> usize {
    text.lines().position(|line| line.contains(words)).map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, column: &str, sql: &str) -> String {
        format!("<{name}>\ndatabase = d\ntable = t\nfield = {column}\nsql = {sql}\n</{name}>\n")
    }

    fn parse(blocks: &[String]) -> Result<Vec<Upgrade>, SqlRefusal> {
        read(&format!("<upgrades>\n{}</upgrades>\n", blocks.concat()))
    }

    #[test]
    fn two_blocks_of_one_name_both_count() {
        let upgrades = parse(&[
            block("upgrade3", "sha", "ALTER TABLE `t` ADD `sha` VARCHAR(255) DEFAULT '';"),
            block("upgrade3", "result", "ALTER TABLE `t` ADD `result` TEXT;"),
        ])
        .unwrap();
        assert_eq!(
            upgrades.iter().map(|upgrade| upgrade.column.as_str()).collect::<Vec<_>>(),
            ["sha", "result"]
        );
        assert_eq!(upgrades[1].statement, "ALTER TABLE `t` ADD `result` TEXT");
    }

    #[test]
    fn statements_that_do_more_than_add_their_column_are_refused_with_their_line() {
        for sql in [
            "DROP TABLE t",
            "ALTER TABLE t DROP COLUMN a",
            "ALTER TABLE t ADD a int, DROP COLUMN b",
            "ALTER TABLE t ADD a int; DROP TABLE t",
            "ALTER TABLE t ADD b int",
            "ALTER TABLE u ADD a int",
            "ALTER TABLE mysql.t ADD a int",
            "ALTER TABLE t MODIFY a char(1)",
            "UPDATE t SET a = 1",
            "x",
        ] {
            let refusal = parse(&[block("u", "a", sql)]).expect_err(sql);
            assert_eq!(refusal.line, 6, "{refusal}");
        }
        let refusal = parse(&["<u>\ntable = t\n</u>\n".to_owned()]).unwrap_err();
        assert_eq!(refusal.to_string(), "line 2: `<u>` is refused: it has no `database`");
    }
}
