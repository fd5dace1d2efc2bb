//! The refusal of `REBUILD`, before anything else is looked at or touched.

use std::env::VarError;

use crate::tars::rebuild::{self, DROPPED_SCHEMAS, REBUILD};

use super::failure::{Code, Failure};

/// Passes where `REBUILD` is unset, empty or exactly `false`; refuses everything else with exit code 77.
pub fn check() -> Result<(), Failure> {
    match std::env::var(REBUILD) {
        Ok(value) => judge(Some(&value)),
        Err(VarError::NotPresent) => judge(None),
        Err(VarError::NotUnicode(value)) => Err(refusal(&value.to_string_lossy())),
    }
}

fn judge(value: Option<&str>) -> Result<(), Failure> {
    match value {
        Some(value) if !rebuild::is_allowed(Some(value)) => Err(refusal(value)),
        _ => Ok(()),
    }
}

fn refusal(value: &str) -> Failure {
    Failure::new(
        Code::Guard,
        format!(
            "refused to start: {REBUILD} is {value:?}. The start of TARS's own images reads such a value as an order to \
             drop {} at every start of the container, with all services, configuration, users and statistics in \
             them. Nothing was touched.",
            DROPPED_SCHEMAS.join(", "),
        ),
        format!(
            "Remove {REBUILD} from the compose file, its .env or env_file, or the command line (unset, empty and \
             `false` pass). On an empty server it is not needed; to start over, drop the schemas in MySQL yourself."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebuild_true_is_refused_with_what_it_would_have_destroyed() {
        let failure = judge(Some(" true")).unwrap_err();
        assert_eq!(failure.code, Code::Guard);
        let text = failure.to_string();
        assert!(
            text.contains("\" true\"") && text.contains("db_user_system") && text.contains("touched"),
            "{text}"
        );
    }

    #[test]
    fn rebuild_false_empty_and_unset_pass() {
        for value in [None, Some(""), Some("false")] {
            assert!(judge(value).is_ok(), "{value:?}");
        }
    }
}
