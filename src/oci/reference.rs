//! Image references as docker writes them: `[registry/]repository[:tag][@digest]` (distribution/reference grammar).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Digest;

/// A parsed image reference. `Display` gives docker's familiar form: no `docker.io/library/`, tag always present
/// unless there is a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// The registry's host and port; `docker.io` where none is written.
    pub registry: String,
    /// The repository below the registry, such as `library/debian` or `tars/framework`.
    pub repository: String,
    /// The tag; `latest` where neither tag nor digest is written.
    pub tag: Option<String>,
    /// The digest of the manifest.
    pub digest: Option<Digest>,
}

/// A text that is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {why}")]
pub struct InvalidReference {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Reference {
    /// The repository as docker shows it: without `docker.io/` and `library/`, but where it would then be another registry's.
    pub fn familiar_name(&self) -> String {
        let path = self.familiar_path();
        if self.registry == "docker.io" && named_registry(&path).is_none() {
            path
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// The repository without its registry, as docker shows it: `debian`, `tars/framework`; `library/a/b` stays as it is.
    pub fn familiar_path(&self) -> String {
        let short = self.repository.strip_prefix("library/").filter(|name| !name.contains('/'));
        short.unwrap_or(&self.repository).to_owned()
    }

    /// The canonical name with its tag, such as `docker.io/library/debian:12`: the key of containerd's image store.
    pub fn canonical(&self) -> String {
        let tag = self.tag.as_deref().unwrap_or("latest");
        format!("{}/{}:{tag}", self.registry, self.repository)
    }

    /// The same repository with another tag and no digest.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// True where both name the same repository of the same registry.
    pub fn same_repository(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidReference { text: text.to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| invalid("what follows `@` is no sha256 digest"))?))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if let Some(tag) = &tag
            && !is_tag(tag)
        {
            return Err(invalid(
                "a tag is up to 128 letters, digits, `_`, `.` and `-`, and does not begin with `.` or `-`",
            ));
        }
        let (registry, repository) = named_registry(name).unwrap_or(("docker.io", name));
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        // Written out or not: `docker.io/debian` is `debian` as well.
        let is_official = registry == "docker.io" && !repository.contains('/');
        let repository = if is_official { format!("library/{repository}") } else { repository.to_owned() };
        if !is_host(registry) {
            return Err(invalid("what stands before the first `/` is no registry's host and port"));
        }
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(invalid("a name has at most 255 bytes"));
        }
        if !repository.split('/').all(is_component) {
            return Err(invalid(
                "a repository is lower-case letters and digits, joined by `.`, `_`, `__` or `-`",
            ));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// The registry that a name begins with, and the rest: docker tells it from a repository by a dot, a colon or `localhost`.
fn named_registry(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost")
}

/// True for a text that may be a tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
pub fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// What docker takes of registry and repository together, in bytes.
const LONGEST_NAME: usize = 255;

/// Labels of letters, digits and `-` joined by `.`, or an IPv6 address in brackets; then a port, where one is written.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.chars().all(inner)
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    (is_address || host.split('.').all(is_label)) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alnum)
        && text.ends_with(alnum)
        && text
            .split(alnum)
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_is_normalised_and_shown_in_the_familiar_form() {
        for (text, registry, repository, shown) in [
            ("debian", "docker.io", "library/debian", "debian:latest"),
            ("tars/framework:3.0.17", "docker.io", "tars/framework", "tars/framework:3.0.17"),
            ("localhost:5000/tars/node:1", "localhost:5000", "tars/node", "localhost:5000/tars/node:1"),
            ("docker.io/library/mysql:8", "docker.io", "library/mysql", "mysql:8"),
            ("docker.io/mysql:8", "docker.io", "library/mysql", "mysql:8"),
            ("index.docker.io/mysql:8", "docker.io", "library/mysql", "mysql:8"),
            ("library/a/b:1", "docker.io", "library/a/b", "library/a/b:1"),
            ("docker.io/lib.io/a:1", "docker.io", "lib.io/a", "docker.io/lib.io/a:1"),
            ("docker.io/localhost/a:1", "docker.io", "localhost/a", "docker.io/localhost/a:1"),
            ("[::1]:5000/tars/node:1", "[::1]:5000", "tars/node", "[::1]:5000/tars/node:1"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.registry.as_str(), reference.repository.as_str()), (registry, repository));
            assert_eq!(reference.to_string(), shown);
        }
    }

    #[test]
    fn reference_that_docker_refuses_is_refused() {
        for text in [
            "",
            "Tars/framework",
            "tars//framework",
            "tars/framework:",
            "tars/framework:-x",
            "a@sha256:12",
            "-a",
            "a__b___c",
            "../x",
            "a..b/x",
            "h:port/x",
            "h:99999/x",
            "-h.x/y",
            &"a".repeat(256),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
