//! What a person asks first of an image's parts, in the history entry of their list: an engine tells its history at once, and what is
//! in a layer only through a container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Offers, Part, npm};
use crate::oci::sizes;

/// The parts of an image by name: the `comment` of the history entry, as JSON. `tarsup inspect` shows it, and nothing is built by it.
pub type Summaries = BTreeMap<String, Summary>;

/// What is told of a part without its list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Bytes of the files that are visible; of a base nobody knows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes in its layers that later ones cover.
    #[serde(skip_serializing_if = "super::is_default")]
    pub covered: u64,
    /// The build id of its own program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Path → what lets a program do more than who starts it, in words.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub privileges: BTreeMap<String, String>,
    /// Of what is an npm package itself, as the web console: its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Summary {
    /// A part whose files have so many bytes, and what they offer.
    pub fn new(name: &str, size: u64, covered: u64, offers: Option<&Offers>) -> Self {
        let mut programs = offers.into_iter().flat_map(|offers| &offers.programs);
        let own = programs.find(|(path, _)| is_own_program(name, path.as_str()));
        let build_id = own.and_then(|(_, program)| program.build_id.clone());
        let version = offers.and_then(|offers| npm::own(&offers.modules)).map(|own| own.version.clone());
        Self { size: Some(size), covered, build_id, privileges: BTreeMap::new(), version }
    }

    /// A part that is at hand.
    pub fn of(name: &str, part: &Part) -> Self {
        let summary = Self::new(name, part.size(), part.covered, part.offers.as_ref());
        Self { privileges: privileges(part), ..summary }
    }
}

/// Path → what lets a program of this part do more than who starts it.
pub fn privileges(part: &Part) -> BTreeMap<String, String> {
    part.entries.iter().filter_map(|(path, entry)| Some((format!("/{path}"), entry.privileges()?))).collect()
}

/// True for the place of the program that a part is about: `BIN/NAME`, as `.../tarsstat/bin/tarsstat`.
pub fn is_own_program(name: &str, path: &str) -> bool {
    path.strip_suffix(name).is_some_and(|folder| folder.ends_with("/bin/"))
}

/// The comment.
///
/// # Errors
/// None that a person can bring about.
pub fn to_comment(parts: &Summaries) -> serde_json::Result<String> {
    serde_json::to_string(parts)
}

/// What a comment tells; `None` for what no tarsup wrote.
pub fn from_comment(comment: &str) -> Option<Summaries> {
    let parts: Summaries = serde_json::from_str(comment).ok()?;
    let sizes = parts.values().flat_map(|part| [part.size.unwrap_or(0), part.covered]);
    sizes::sum(sizes).map(|_| parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::Program;
    use crate::paths::ImagePathBuf;

    #[test]
    fn comment_tells_what_was_written_and_is_silent_of_what_is_none() {
        let program = Program { build_id: Some("5f3c".to_owned()), ..Program::default() };
        let at = |path: &str| ImagePathBuf::parse(path).unwrap();
        let mut offers = Offers::default();
        offers.programs.insert(at("usr/local/app/tars/a/bin/a"), program.clone());
        offers.programs.insert(at("usr/local/app/tars/a/bin/other"), Program::default());
        let parts = Summaries::from([
            ("a".to_owned(), Summary::new("a", 7, 3, Some(&offers))),
            ("base".to_owned(), Summary::default()),
            ("other".to_owned(), Summary::new("tool", 1, 0, Some(&offers))),
        ]);
        let comment = to_comment(&parts).unwrap();
        assert_eq!(comment, r#"{"a":{"size":7,"covered":3,"build_id":"5f3c"},"base":{},"other":{"size":1}}"#);
        assert_eq!(from_comment(&comment), Some(parts));
        assert_eq!(from_comment("a text"), None);
        let lie = format!(r#"{{"a":{{"size":{0}}},"b":{{"covered":{0}}}}}"#, u64::MAX / 2 + 1);
        assert_eq!(from_comment(&lie), None);
    }

    #[test]
    fn own_program_is_known_by_its_place() {
        assert!(is_own_program("tarsstat", "usr/local/app/tars/tarsstat/bin/tarsstat"));
        assert!(is_own_program("tars-init", "usr/local/bin/tars-init"));
        for other in ["bin/tarsstat", "usr/bin/xtarsstat", "usr/tarsstat", "usr/bin/tarsstat.sh"] {
            assert!(!is_own_program("tarsstat", other), "{other}");
        }
    }
}
