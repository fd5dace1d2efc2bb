//! Every table of the framework's schemas, row by row, without what moves by itself: what must be the same before and after.

use std::collections::{BTreeMap, BTreeSet};

/// Tables of counters, logs and sessions.
const MOVING_TABLES: [&str; 8] = [
    "db_tars.t_server_notifys",
    "db_tars.t_registry_info",
    "db_tars.t_ecstatus",
    "db_cache_web.t_apply_server_conf",
    "db_user_system.t_login_temp_info",
    "db_tars_web.t_user_pre",
    "db_tars_web.t_idc_map",
    "db_tars_web.t_kafka_queue",
];

/// Columns that a registration, a heartbeat, a publish's end or the clock moves, or that number rows which are replaced.
const MOVING_COLUMNS: [&str; 22] = [
    "id",
    "registry_timestamp",
    "present_state",
    "process_id",
    "posttime",
    "patch_time",
    "last_reg_time",
    "last_heartbeat",
    "modify_time",
    "load_avg1",
    "load_avg5",
    "load_avg15",
    "tars_version",
    "sha",
    "group_id",
    "label",
    "endpoint_ip",
    "endpoint_port",
    "updated_at",
    "update_time",
    "updatedAt",
    "createdAt",
];

/// Table → its columns, and its rows in no order.
pub struct Tables(BTreeMap<String, (Vec<String>, Vec<Vec<String>>)>);

impl Tables {
    /// Reads them; `query` runs SQL and gives lines with tabs.
    pub fn read(query: &dyn Fn(&str) -> String) -> Self {
        Self::read_those(query, |name| !MOVING_TABLES.contains(&name))
    }

    /// The same of some tables, by `schema.table`.
    pub fn read_those(query: &dyn Fn(&str) -> String, wanted: impl Fn(&str) -> bool) -> Self {
        let columns = query(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns WHERE table_schema LIKE 'db\\_%' \
             ORDER BY 1, 2, ordinal_position",
        );
        let mut tables = BTreeMap::<String, (Vec<String>, Vec<Vec<String>>)>::new();
        for line in columns.lines() {
            let [schema, table, column] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let name = format!("{schema}.{table}");
            if wanted(&name) {
                tables.entry(name).or_default().0.push(column.to_owned());
            }
        }
        let selects: Vec<String> = tables
            .iter()
            .map(|(name, (columns, _))| {
                format!("SELECT '#', '{name}'; SELECT `{}` FROM {name}", columns.join("`, `"))
            })
            .collect();
        let mut current = String::new();
        for line in query(&selects.join(";")).lines() {
            if let Some(name) = line.strip_prefix("#\t") {
                name.clone_into(&mut current);
            } else {
                let row = line.split('\t').map(str::to_owned).collect();
                tables.get_mut(&current).unwrap().1.push(row);
            }
        }
        Self(tables)
    }

    /// The rows of a table, each as column → value, without what moves.
    pub fn of(&self, table: &str) -> impl Iterator<Item = BTreeMap<String, String>> {
        let (columns, rows) = self.0.get(table).cloned().unwrap_or_default();
        rows.into_iter().map(move |row| {
            let values = columns.iter().cloned().zip(row);
            values.filter(|(column, _)| !MOVING_COLUMNS.contains(&column.as_str())).collect()
        })
    }

    /// What differs in `after`, a line a row, but for what moves and for `may`: tables, or `table.column`.
    pub fn difference(&self, after: &Self, may: &[&str]) -> Vec<String> {
        let mut told = Vec::new();
        let names: BTreeSet<&String> = self.0.keys().chain(after.0.keys()).collect();
        for name in names.into_iter().filter(|name| !may.contains(&name.as_str())) {
            let (Some(before), Some(now)) = (self.0.get(name), after.0.get(name)) else {
                let (what, rows) = match self.0.get(name) {
                    Some((_, rows)) => ("is gone", rows.len()),
                    None => ("is new", after.0[name].1.len()),
                };
                // A table that holds nothing is nobody's.
                if rows > 0 {
                    told.push(format!("{name} {what} with {rows} rows"));
                }
                continue;
            };
            let counts = |column: &&String| {
                now.0.contains(*column)
                    && !MOVING_COLUMNS.contains(&column.as_str())
                    && !may.contains(&format!("{name}.{column}").as_str())
            };
            let columns: Vec<&String> = before.0.iter().filter(counts).collect();
            let rows = |(of, rows): &(Vec<String>, Vec<Vec<String>>)| {
                let places: Vec<usize> =
                    columns.iter().map(|column| of.iter().position(|own| own == *column).unwrap()).collect();
                let mut rows: Vec<String> = rows
                    .iter()
                    .map(|row| {
                        let cells = places.iter().map(|&at| row.get(at).map_or("", String::as_str));
                        cells.collect::<Vec<_>>().join(" | ")
                    })
                    .collect();
                rows.sort();
                rows
            };
            let (before, now) = (rows(before), rows(now));
            let short = |row: &String| row.chars().take(300).collect::<String>();
            let gone = before.iter().filter(|row| !now.contains(row));
            told.extend(gone.map(|row| format!("{name} - {}", short(row))));
            let new = now.iter().filter(|row| !before.contains(row));
            told.extend(new.map(|row| format!("{name} + {}", short(row))));
        }
        told
    }
}
