//! What a container printed, without the values that its environment holds.
//!
//! A service that dies may print its password. Its last lines go into errors, journals and saved logs only through here.

use std::collections::BTreeSet;

use crate::deploy::{Desired, Observed};
use crate::engine::{Environment, percent_encoded};
use crate::secretive::Secretive;

/// Variables whose values are no secret and stand in every useful message: addresses, switches, names.
const PLAIN: [&str; 19] = [
    "DOMAIN",
    "HOME",
    "HOSTNAME",
    "INET",
    "LANG",
    "MYSQL_HOST",
    "MYSQL_PORT",
    "MYSQL_ROOT_PASSWORD_FILE",
    "MYSQL_SSL",
    "MYSQL_SSL_CA",
    "MYSQL_USER",
    "PATH",
    "REBUILD",
    "SLAVE",
    "TARS_ADMIN_PASSWORD_FILE",
    "TARS_DOMAIN",
    "TARS_REGISTRY_ADDRESS",
    "TZ",
    "WEB_HOST",
];
/// Shorter values would blot out half of every text, and keep no secret.
const SHORTEST: usize = 3;
/// What stands where tars-init has cut a line.
const CUT: &str = "…";

/// The values to be masked, the longest first.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    values: Vec<Secretive>,
}

/// A part of a text: what has been hidden is not looked at again.
enum Part<'t> {
    Said(&'t str),
    Hidden(&'t Secretive),
}

impl<'t> Part<'t> {
    /// Its parts without that value.
    fn without(self, value: &'t Secretive) -> Vec<Self> {
        let Self::Said(text) = self else { return vec![self] };
        let mut parts = Vec::new();
        for said in text.split(value.expose()) {
            parts.extend([Self::Said(said), Self::Hidden(value)]);
        }
        parts.pop();
        parts
    }
}

/// True for a variable whose value is no secret.
pub fn is_plain(name: &str) -> bool {
    PLAIN.contains(&name)
}

impl Mask {
    /// Every value that the deployment knows from environments: the declared ones and those of its containers.
    pub fn of(desired: &Desired, observed: &Observed) -> Self {
        let declared = desired.services.iter().map(|service| &service.declaration.environment);
        let running = observed.containers.iter().map(|container| &container.env);
        let account = desired.database.iter().map(|account| &account.0);
        Self::of_environments(declared.chain(running).chain(account))
    }

    /// The values of these environments.
    pub fn of_environments<'e>(environments: impl IntoIterator<Item = &'e Environment>) -> Self {
        Self::of_values(environments.into_iter().flat_map(Environment::values))
    }

    /// These values, each with the name of its variable.
    pub fn of_values<'v>(known: impl IntoIterator<Item = (&'v str, &'v Secretive)>) -> Self {
        let mut values = BTreeSet::new();
        for (name, value) in known {
            if is_plain(name) {
                continue;
            }
            let value = value.expose();
            // As a JSON text and as a part of a URL it looks otherwise.
            let quoted = serde_json::to_string(value).unwrap_or_default();
            for form in [value.to_owned(), quoted.trim_matches('"').to_owned(), percent_encoded(value)] {
                // A value of several lines may be printed line by line.
                let lines = form.lines().map(str::trim).chain([form.as_str()]);
                values.extend(
                    lines.filter(|line| line.len() >= SHORTEST).map(|line| Secretive::new(name, line)),
                );
            }
        }
        let mut values: Vec<Secretive> = values.into_iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values }
    }

    /// The text without them.
    pub fn hide(&self, text: &str) -> String {
        let mut parts = vec![Part::Said(text)];
        for value in &self.values {
            parts = parts.into_iter().flat_map(|part| part.without(value)).collect();
        }
        let mut out = String::with_capacity(text.len());
        for part in parts {
            match part {
                Part::Hidden(value) => out.push_str(&value.to_string()),
                Part::Said(text) => {
                    let pieces: Vec<&str> = text.split(CUT).collect();
                    let (last, cut) = pieces.split_last().unwrap_or((&"", &[]));
                    for piece in cut {
                        out.push_str(&self.without_beginning(piece));
                        out.push_str(CUT);
                    }
                    out.push_str(last);
                }
            }
        }
        out
    }

    /// A line that was cut may end in the middle of a value.
    fn without_beginning(&self, piece: &str) -> String {
        let begun = |value: &Secretive| {
            let value = value.expose();
            let lengths = value.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
            lengths.filter(|length| piece.ends_with(&value[..*length])).max()
        };
        match self
            .values
            .iter()
            .filter_map(|value| Some((begun(value)?, value)))
            .max_by_key(|(length, _)| *length)
        {
            Some((length, value)) => format!("{}{value}", &piece[..piece.len() - length]),
            None => piece.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_hides_every_value_and_every_form_of_it() {
        let entries = [
            "MYSQL_ROOT_PASSWORD=p@ss \"word",
            "TOKEN=p@ss \"word-and-more",
            "MYSQL_HOST=10.0.0.2",
            "MYSQL_USER=root",
            "N=1",
        ];
        let mask = Mask::of_environments([&Environment::of(entries)]);
        let said = "Access denied: p@ss \"word; \"p@ss \\\"word\"; mysql://root:p%40ss%20%22word@10.0.0.2; \
                    token p@ss \"word-and-more; 1";
        let hidden = mask.hide(said);
        assert!(
            !hidden.contains("p@ss") && !hidden.contains("p%40ss") && !hidden.contains("and-more"),
            "{hidden}"
        );
        assert!(
            hidden.contains("://root:") && hidden.contains("10.0.0.2") && hidden.ends_with("; 1"),
            "{hidden}"
        );
    }

    #[test]
    fn mask_hides_the_beginning_of_a_value_where_a_line_was_cut() {
        let mask = Mask::of_environments([&Environment::of(["A=secret-of-a", "B=séc"])]);
        assert_eq!(mask.hide("x A=secret-…\ny B=sé…\nz…"), "x A=***(A)…\ny B=***(B)…\nz…");
        assert_eq!(mask.hide("A=secret-of-a…"), "A=***(A)…");
        assert_eq!(mask.hide("secret-"), "secret-", "nothing was cut");
    }

    #[test]
    fn mask_hides_each_line_of_a_key() {
        let mask = Mask::of_environments([&Environment::of(["KEY=-----BEGIN\nMIIEow\n-----END"])]);
        assert_eq!(mask.hide("first MIIEow then"), "first ***(KEY) then");
    }
}
