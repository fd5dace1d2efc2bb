//! Mirrors: where the images of a registry may be had nearer. They are read, and never written to.

use std::str::FromStr;

use crate::oci::Reference;

/// `REGISTRY=MIRROR[/PREFIX]`: what is read of the registry is asked for there first, below the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    registry: String,
    host: String,
    /// With a slash behind it, or nothing.
    prefix: String,
}

/// A text that names no mirror.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no mirror: write REGISTRY=MIRROR or REGISTRY=MIRROR/PREFIX, such as docker.io=mirror.example.com:5000"
)]
pub struct InvalidMirror(String);

impl FromStr for Mirror {
    type Err = InvalidMirror;

    fn from_str(text: &str) -> Result<Self, InvalidMirror> {
        let invalid = || InvalidMirror(text.to_owned());
        // Both are what a reference may begin with.
        let of = |place: &str| {
            format!("{place}/x").parse::<Reference>().ok().filter(|of| place.starts_with(&of.registry))
        };
        let (registry, mirror) = text.split_once('=').ok_or_else(invalid)?;
        let (registry, mirror) = (of(registry).ok_or_else(invalid)?, of(mirror).ok_or_else(invalid)?);
        let is_whole = matches!(registry.repository.as_str(), "x" | "library/x");
        let prefix = mirror.repository.strip_suffix('x').filter(|_| is_whole).ok_or_else(invalid)?;
        Ok(Self { registry: registry.registry, host: mirror.registry, prefix: prefix.to_owned() })
    }
}

impl Mirror {
    /// The same image there, where it mirrors its registry.
    pub(super) fn of(&self, reference: &Reference) -> Option<Reference> {
        (self.registry == reference.registry).then(|| Reference {
            registry: self.host.clone(),
            repository: format!("{}{}", self.prefix, reference.repository),
            ..reference.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_a_registry_or_a_place_in_one() {
        let there = |mirror: &str, name: &str| {
            let mirror: Mirror = mirror.parse().unwrap();
            mirror.of(&name.parse().unwrap()).map(|reference| reference.to_string())
        };
        assert_eq!(there("docker.io=m:5000", "debian:12").unwrap(), "m:5000/library/debian:12");
        assert_eq!(there("docker.io=m.local/hub", "tars/x").unwrap(), "m.local/hub/tars/x:latest");
        assert_eq!(there("a.b=c.d", "a.b/x/y:1").unwrap(), "c.d/x/y:1");
        assert_eq!(there("a.b=c.d", "b.a/x:1"), None);
        for text in [
            "",
            "=",
            "a.b",
            "a.b=",
            "=c.d",
            "a.b=c",
            "a=c.d",
            "a.b/x=c.d",
            "a.b=https://c.d",
            "a.b=c.d/",
            "a.b=C.d/E",
        ] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }
}
