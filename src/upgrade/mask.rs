//! What a container printed, without the values that its environment holds.
//!
//! A service that dies may print its password. Its last lines go into errors, journals and saved logs only through here.

use std::collections::BTreeSet;

use crate::deploy::desired::Service;
use crate::deploy::{Desired, Observed};
use crate::engine::percent_encoded;

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
const MASKED: &str = "********";
/// What stands where tars-init has cut a line.
const CUT: &str = "…";

/// The values to be masked, the longest first.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    values: Vec<String>,
}

/// True for a variable whose value is no secret.
pub fn is_plain(name: &str) -> bool {
    PLAIN.contains(&name)
}

fn entries(service: &Service) -> Vec<String> {
    service.declaration.environment.entries()
}

impl Mask {
    /// Every value that the deployment knows from environments: the declared ones and those of its containers.
    pub fn of(desired: &Desired, observed: &Observed) -> Self {
        let declared = desired.services.iter().flat_map(entries);
        let running = observed.containers.iter().flat_map(|container| container.env.clone());
        let account = desired.database.iter().flat_map(|account| account.0.clone());
        Self::of_entries(declared.chain(running).chain(account))
    }

    /// The values of `NAME=value` entries.
    pub fn of_entries(entries: impl IntoIterator<Item = String>) -> Self {
        let mut values = BTreeSet::new();
        for entry in entries {
            let Some((name, value)) = entry.split_once('=') else { continue };
            if is_plain(name) {
                continue;
            }
            // As a JSON text and as a part of a URL it looks otherwise.
            let quoted = serde_json::to_string(value).unwrap_or_default();
            for form in [value.to_owned(), quoted.trim_matches('"').to_owned(), percent_encoded(value)] {
                // A value of several lines may be printed line by line.
                values.extend(
                    form.lines().map(str::trim).filter(|line| line.len() >= SHORTEST).map(str::to_owned),
                );
                if form.len() >= SHORTEST {
                    values.insert(form);
                }
            }
        }
        let mut values: Vec<String> = values.into_iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values }
    }

    /// The text without them.
    pub fn hide(&self, text: &str) -> String {
        let text =
            self.values.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), MASKED));
        if !text.contains(CUT) {
            return text;
        }
        let pieces: Vec<String> = text.split(CUT).map(|piece| self.without_beginning(piece)).collect();
        pieces.join(CUT)
    }

    /// A line that was cut may end in the middle of a value.
    fn without_beginning(&self, piece: &str) -> String {
        let begun = |value: &String| {
            let lengths = value.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
            lengths.filter(|length| piece.ends_with(&value[..*length])).max()
        };
        match self.values.iter().filter_map(begun).max() {
            Some(length) => format!("{}{MASKED}", &piece[..piece.len() - length]),
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
        let mask = Mask::of_entries(entries.map(str::to_owned));
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
        let mask = Mask::of_entries(["A=secret-of-a".to_owned(), "B=séc".to_owned()]);
        assert_eq!(mask.hide("x A=secret-…\ny B=sé…\nz…"), "x A=********…\ny B=********…\nz…");
        assert_eq!(mask.hide("A=secret-of-a…"), "A=********…");
        assert_eq!(mask.hide("secret-"), "secret-", "nothing was cut");
    }

    #[test]
    fn mask_hides_each_line_of_a_key() {
        let mask = Mask::of_entries(["KEY=-----BEGIN\nMIIEow\n-----END".to_owned()]);
        assert_eq!(mask.hide("first MIIEow then"), "first ******** then");
    }
}
