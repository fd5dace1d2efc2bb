//! A value that came from an environment, `.env`, an `env_file` or interpolation: no text shows it, unless the code says so.
//!
//! Which variable holds a password, nobody can tell from its name, so all are treated alike. The value is reached by
//! [`Secretive::expose`] alone, and `tests/it/house.rs` lists the files that may.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A value that is shown as `***(NAME)`, or as `***` where no name is known, by `Display` and `Debug` alike.
///
/// It has no `Serialize`. Two are equal, and in order, by their values: where one comes from says nothing of what it is.
#[derive(Clone, Default)]
pub struct Secretive {
    value: Box<str>,
    name: Option<Arc<str>>,
}

impl Secretive {
    /// The value of the variable `name`.
    pub fn new(name: &str, value: impl Into<Box<str>>) -> Self {
        Self::from(value.into()).named(name)
    }

    /// The same, as the value of this variable: what it is shown as.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The value itself. Whoever asks for it answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// True for an empty value.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// True where white space stands anywhere in it.
    pub fn has_white_space(&self) -> bool {
        self.value.contains(char::is_whitespace)
    }

    /// `NAME=value` as the name and the value; `None` where there is no `=`.
    pub fn assignment(&self) -> Option<(&str, Self)> {
        let (name, value) = self.value.split_once('=')?;
        Some((name, Self::new(name, value)))
    }
}

/// True for what is taken for a secret, where the name of a key or variable and its value are all that is known: what
/// `adopt` writes into a file that only its owner reads, and `diff` does not show.
pub fn is_secret(name: &str, value: &str) -> bool {
    const WORDS: [&str; 8] = ["PASS", "PWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH", "PRIVATE"];
    // Who wrote an image is no secret (image-spec, annotations.md).
    let name = name.to_uppercase().replace("AUTHORS", "");
    let has_account = match value.split_once("://") {
        Some((_, rest)) => rest.split('/').next().is_some_and(|host| host.contains('@')),
        // As drivers without a scheme have it: `root:pw@tcp(db:3306)/db_tars`.
        None => value.rsplit_once('@').is_some_and(|(account, _)| {
            account.split_once(':').is_some_and(|(user, password)| !user.is_empty() && !password.is_empty())
                && !account.contains(char::is_whitespace)
        }),
    };
    // It names a file with a secret.
    let is_path = name.ends_with("_FILE") && value.starts_with('/');
    !value.is_empty() && !is_path && (WORDS.iter().any(|word| name.contains(word)) || has_account)
}

impl From<Box<str>> for Secretive {
    fn from(value: Box<str>) -> Self {
        Self { value, name: None }
    }
}

impl From<String> for Secretive {
    fn from(value: String) -> Self {
        value.into_boxed_str().into()
    }
}

impl From<&str> for Secretive {
    fn from(value: &str) -> Self {
        Box::<str>::from(value).into()
    }
}

impl fmt::Display for Secretive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "***({name})"),
            None => f.write_str("***"),
        }
    }
}

impl fmt::Debug for Secretive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Secretive {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Secretive {}

impl PartialEq<str> for Secretive {
    fn eq(&self, other: &str) -> bool {
        *self.value == *other
    }
}

impl PartialEq<&str> for Secretive {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl PartialOrd for Secretive {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Secretive {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_shown_by_the_name_of_its_variable_alone() {
        let value = Secretive::new("DB_KEY", "hunter2");
        for shown in [format!("{value}"), format!("{value:?}"), format!("{value:#?}")] {
            assert_eq!(shown, "***(DB_KEY)");
        }
        assert_eq!(format!("{:?}", Secretive::from("hunter2")), "***");
        assert_eq!(format!("{:?}", Some(value.clone().named("OTHER"))), "Some(***(OTHER))");
        assert_eq!(value.expose(), "hunter2");
    }

    #[test]
    fn values_are_equal_and_in_order_whatever_they_are_called() {
        let (one, other) = (Secretive::new("A", "1"), Secretive::from("1"));
        assert_eq!((one.cmp(&other), one == other), (Ordering::Equal, true));
        assert!(Secretive::new("B", "0") < one && one == "1" && one != "2");
    }

    #[test]
    fn assignment_is_split_at_its_first_sign() {
        let pair = Secretive::from("A=b=c");
        let (name, value) = pair.assignment().unwrap();
        assert_eq!((name, value.expose(), value.to_string()), ("A", "b=c", "***(A)".to_owned()));
        assert!(Secretive::from("A").assignment().is_none());
    }

    #[test]
    fn secrets_are_told_by_their_names_and_by_an_account_in_an_address() {
        for (name, value, secret) in [
            ("MYSQL_ROOT_PASSWORD", "x", true),
            ("MYSQL_PASS", "x", true),
            ("api_token", "x", true),
            ("URL", "mysql://u:p@h/d", true),
            ("URL", "http://h/a@b", false),
            ("DRIVER", "u:p@tcp(h:3306)/d", true),
            ("MAIL", "ops@example.org", false),
            ("NOTE", "mail: ops@example.org", false),
            ("HOST", "h:3306", false),
            ("MYSQL_ROOT_PASSWORD", "", false),
            ("MYSQL_ROOT_PASSWORD_FILE", "/run/secrets/root", false),
            ("MYSQL_ROOT_PASSWORD_FILE", "r00t", true),
            ("MYSQL_HOST", "172.25.0.2", false),
            ("org.opencontainers.image.authors", "x", false),
            ("AUTHORIZATION", "x", true),
        ] {
            assert_eq!(is_secret(name, value), secret, "{name}={value}");
        }
    }
}
