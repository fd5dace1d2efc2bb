//! What a start of the web console takes back of what a fresh installation has: columns that its models do not have, types
//! and defaults that these have otherwise. Added at each start, it would be gone a second later.

use std::cell::OnceCell;

use super::super::sql;
use super::known::{KnownColumns, KnownTable};

/// The web console of this image, asked once and only where something is lacking.
pub struct TakesBack<'a> {
    ask: &'a dyn Fn() -> Option<KnownColumns>,
    known: OnceCell<KnownColumns>,
    /// It starts right after this.
    starts_now: bool,
}

/// What a table lacks of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// The whole of it.
    Column,
    /// A type as wide as the shipped one.
    Type,
    /// Its default.
    Default,
}

impl<'a> TakesBack<'a> {
    /// `ask` gives nothing where there is no console, or where it does not tell: then it takes nothing back.
    pub fn new(ask: &'a dyn Fn() -> Option<KnownColumns>, starts_now: bool) -> Self {
        Self { ask, known: OnceCell::new(), starts_now }
    }

    /// True where what it takes back is not made at all.
    pub fn is_left_out(&self) -> bool {
        self.starts_now
    }

    /// True where it takes this back.
    pub fn takes(&self, schema: &str, table: &str, column: &sql::Column, lacking: Lacking) -> bool {
        self.table(schema, table).is_some_and(|known| takes(known, column, lacking))
    }

    /// True where it drops this column.
    pub fn drops(&self, schema: &str, table: &str, column: &str) -> bool {
        self.table(schema, table).is_some_and(|known| !known.has(column))
    }

    fn table(&self, schema: &str, table: &str) -> Option<&KnownTable> {
        self.known.get_or_init(|| (self.ask)().unwrap_or_default()).of(schema, table)
    }
}

fn takes(known: &KnownTable, shipped: &sql::Column, lacking: Lacking) -> bool {
    if !known.has(&shipped.name) {
        return true;
    }
    let Some(made) = known.makes(&shipped.name) else { return false };
    match lacking {
        Lacking::Column => false,
        Lacking::Type => made.kind.compared_with(&shipped.kind) == sql::Comparison::Narrower,
        Lacking::Default => !sql::same_default(made.default.as_deref(), shipped.default.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_models_have_otherwise_is_taken_back() {
        let known: KnownTable = serde_json::from_str(
            "{\"id\": null, \"ip\": \"VARCHAR(16) DEFAULT ''\", \"n\": \"INTEGER(11)\", \"odd\": \"GEOMETRY\"}",
        )
        .unwrap();
        let column = |text: &str| sql::column(text).unwrap();
        for (text, lacking, taken) in [
            ("gone int", Lacking::Column, true),
            ("ip varchar(50)", Lacking::Column, false),
            ("ip varchar(50) DEFAULT ''", Lacking::Type, true),
            ("ip varchar(16) DEFAULT ''", Lacking::Type, false),
            ("ip varchar(50) DEFAULT ''", Lacking::Default, false),
            ("ip varchar(50) DEFAULT 'x'", Lacking::Default, true),
            ("n int DEFAULT 0", Lacking::Default, true),
            ("n bigint", Lacking::Type, true),
            ("id bigint", Lacking::Type, false),
            ("odd varchar(50)", Lacking::Type, false),
        ] {
            assert_eq!(takes(&known, &column(text), lacking), taken, "{text} {lacking:?}");
        }
    }
}
