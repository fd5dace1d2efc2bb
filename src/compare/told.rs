//! What a diff tells of names and values that others wrote: nothing that a terminal obeys, and no secret.

use crate::diagnose::shown;
use crate::secretive::is_secret;

/// What stands in the place of a secret.
pub(super) const MASKED: &str = "***";
/// Words after which, in the middle of a value, a secret follows: `--password=x`, `user=u;pwd=x`, `"token": "x"`.
const WORDS: [&str; 7] = ["pass", "pwd", "secret", "token", "key", "credential", "private"];

/// A name or text, without what a terminal would obey.
pub(super) fn text(written: &str) -> String {
    shown(written).to_string()
}

/// The value of a key, or `***`.
pub(super) fn value(key: &str, value: &str) -> String {
    if is_secret(key, value) || holds_secret(value) { MASKED.to_owned() } else { text(value) }
}

/// True for the name of something that holds a secret, whatever it is.
pub(super) fn is_of_secret(name: &str) -> bool {
    is_secret(name, "?")
}

/// True where a value seems to have a secret somewhere within.
pub(super) fn holds_secret(value: &str) -> bool {
    if value.contains("-----BEGIN ") {
        return true;
    }
    let lower = value.to_ascii_lowercase();
    let follows = |rest: &str| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-".contains(c));
        let sign = rest.trim_start_matches(['"', '\'', ' ']);
        let is_quoted = rest.starts_with(['"', '\'']);
        let after = match sign.chars().next() {
            Some('=') => &sign[1..],
            // A list of folders is none of it.
            Some(':') if !sign.starts_with(":/") => &sign[1..],
            Some(',') if is_quoted => &sign[1..],
            _ => "",
        };
        !after.trim_matches(['"', '\'', ' ', ']', '}', ',', ';']).is_empty()
    };
    WORDS.iter().any(|word| lower.match_indices(word).any(|(at, _)| follows(&lower[at + word.len()..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_by_their_key_and_within_a_value() {
        for (key, written, shown) in [
            ("Env.DB_PASSWORD", "hunter2", "***"),
            ("Env.REBUILD", "false", "false"),
            ("Env.PATH", "/usr/bin:/bin", "/usr/bin:/bin"),
            ("Env.ROOT_PASSWORD_FILE", "/run/secrets/root", "/run/secrets/root"),
            ("Env.DSN", "mysql://u:hunter2@h/d", "***"),
            ("Cmd", r#"["run","--password=hunter2"]"#, "***"),
            ("Cmd", r#"["run","--password","hunter2"]"#, "***"),
            ("Cmd", r#"["run","--port","80"]"#, r#"["run","--port","80"]"#),
            ("conn", "host=h;user=u;Pwd = hunter2", "***"),
            ("Env.PATH", "/opt/keys:/bin", "/opt/keys:/bin"),
            ("note", "keep the password safe", "keep the password safe"),
            ("pem", "-----BEGIN RSA", "***"),
            ("Labels.x", "a\u{1b}[1mb", "a\\u{1b}[1mb"),
        ] {
            assert_eq!(value(key, written), shown, "{key}={written}");
        }
    }
}
