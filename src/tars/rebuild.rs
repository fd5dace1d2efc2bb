//! The rule for `REBUILD`: an allow list. Unset, empty or exactly `false` pass; everything else is refused.
//!
//! Upstream's shell turns ` true `, `-n true` and others into `true`, and an exact `true` drops six databases at every
//! start, so a deny list can never be complete.

/// The variable's name.
pub const REBUILD: &str = "REBUILD";

/// The schemas that upstream's installer drops when `REBUILD` is `true`.
pub const DROPPED_SCHEMAS: [&str; 6] =
    ["db_tars", "tars_stat", "tars_property", "db_tars_web", "db_user_system", "db_cache_web"];

/// Variables that upstream's scripts hand on unquoted: white space shifts the arguments, and the next word becomes
/// `REBUILD`. `SLAVE` is among them because `true ` makes a master.
pub const UNQUOTED: [&str; 7] =
    ["DOMAIN", "TARS_DOMAIN", "MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_ROOT_PASSWORD", "SLAVE"];

/// True where a container may be started with this value of `REBUILD` (`None`: the variable is not set).
pub fn is_allowed(value: Option<&str>) -> bool {
    matches!(value, None | Some("" | "false"))
}

/// True for what looks like a switch: such a value may be quoted. Any other may be what was meant for another variable.
pub fn is_switch(value: &str) -> bool {
    const WORDS: [&str; 12] = ["true", "false", "yes", "no", "on", "off", "y", "n", "1", "0", "-n", "-e"];
    let is_word = |word: &str| WORDS.contains(&word.trim_matches(['"', '\'']).to_lowercase().as_str());
    value.split_whitespace().all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebuild_only_unset_empty_and_false_pass() {
        for value in [None, Some(""), Some("false")] {
            assert!(is_allowed(value), "{value:?}");
        }
        for value in [
            "true", " true", "true\n", "-n true", "-e true", "TRUE", "1", "yes", "False", " false", "0", "no",
        ] {
            assert!(!is_allowed(Some(value)), "{value:?}");
        }
    }
}
