//! `tars_upgrade.conf`: columns that a newer version adds to an installed schema.

use std::fs;

use crate::tars::conf::{self, Domain};

use super::database::{DatabaseError, Server, Session};
use super::paths::Paths;
use super::sql::quote;
use super::story::Story;

const DUPLICATE_COLUMN: u16 = 1060;

/// One block: a column, and the statement that adds it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Upgrade {
    schema: String,
    table: String,
    column: String,
    statement: String,
}

/// Adds the columns that are missing; a table that is missing is left to its own SQL. Without the file: nothing to do.
pub fn apply(
    server: &Server,
    session: &mut Session,
    paths: &Paths,
    story: &Story,
) -> Result<(), DatabaseError> {
    let path = paths.deploy("sql").join("tars_upgrade.conf");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let unfit = |what: String| DatabaseError::Unfit(format!("the image's {}: {what}", path.display()));
    let root = conf::parse(&text).map_err(|error| unfit(error.to_string()))?;
    for upgrade in read(&root).map_err(unfit)? {
        if upgrade.is_due(session)? {
            let Upgrade { schema, table, column, statement } = &upgrade;
            story.say(format!("{schema}.{table} lacks the column {column}: adding"));
            let added =
                server.connect(Some(schema))?.run(&format!("adding {schema}.{table}.{column}"), statement);
            match added {
                Err(error) if error.number() == Some(DUPLICATE_COLUMN) => {}
                added => added?,
            }
        }
    }
    Ok(())
}

impl Upgrade {
    fn is_due(&self, session: &mut Session) -> Result<bool, DatabaseError> {
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

/// Both of two blocks of one name count: upstream's own file has `upgrade3` twice.
fn read(root: &Domain) -> Result<Vec<Upgrade>, String> {
    let Some(upgrades) = root.at(&["upgrades"]) else { return Ok(Vec::new()) };
    upgrades
        .domains()
        .map(|block| {
            let key = |name: &str| {
                block
                    .get(name)
                    .filter(|value| !value.is_empty())
                    .map(str::to_owned)
                    .ok_or_else(|| format!("<{}> has no `{name}`", block.name))
            };
            let statement = key("sql")?.trim_end_matches(';').to_owned();
            let words: Vec<_> = statement.split_whitespace().map(str::to_ascii_uppercase).collect();
            let adds = words.starts_with(&["ALTER".to_owned(), "TABLE".to_owned()])
                && words.get(3).is_some_and(|word| word == "ADD")
                && !words.iter().any(|word| word == "DROP");
            if !adds {
                return Err(format!("<{}>: `{statement}` is no ALTER TABLE that adds", block.name));
            }
            Ok(Upgrade { schema: key("database")?, table: key("table")?, column: key("field")?, statement })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, column: &str, sql: &str) -> String {
        format!("<{name}>\ndatabase = d\ntable = t\nfield = {column}\nsql = {sql}\n</{name}>\n")
    }

    fn parse(blocks: &[String]) -> Result<Vec<Upgrade>, String> {
        read(&conf::parse(&format!("<upgrades>\n{}</upgrades>\n", blocks.concat())).unwrap())
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
    fn statements_that_do_more_than_add_are_refused() {
        for sql in
            ["DROP TABLE t", "ALTER TABLE t DROP COLUMN a", "ALTER TABLE t ADD a int, DROP COLUMN b", "x"]
        {
            assert!(parse(&[block("u", "a", sql)]).is_err(), "{sql}");
        }
    }
}
