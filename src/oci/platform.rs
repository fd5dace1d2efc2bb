//! What an image is for: linux, an architecture, and perhaps a variant of it (image-spec, image-index.md).

use std::fmt;
use std::str::FromStr;

use super::manifest;

/// A platform of linux, such as `linux/amd64` or `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `amd64`, `arm64`, ... in Go's words.
    pub architecture: String,
    /// `v3`, ...; none where any will do, and the usual one is the best.
    pub variant: Option<String>,
}

/// A text that is no platform of linux.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no platform of linux")]
pub struct NoPlatform(String);

impl Platform {
    /// Linux on this architecture, in Go's words.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), variant: None }
    }

    /// That of this machine.
    pub fn of_machine() -> Self {
        Self::linux(manifest::architecture())
    }

    /// True where something for this system, architecture and variant is for this platform.
    pub fn is_that_of(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        os == "linux" && self.fit(architecture, variant).is_some()
    }

    /// How well something for this architecture and variant fits: the lowest number best, `None` where it does not.
    ///
    /// What names no variant is the usual one (containerd, platforms/database.go).
    pub fn fit(&self, architecture: &str, variant: Option<&str>) -> Option<u8> {
        let variant = variant.filter(|variant| !variant.is_empty());
        if architecture != self.architecture {
            return None;
        }
        let usual = match architecture {
            "amd64" => "v1",
            "arm" => "v7",
            "arm64" => "v8",
            _ => "",
        };
        match (self.variant.as_deref(), variant) {
            (Some(wanted), Some(found)) => (wanted == found).then_some(0),
            (Some(wanted), None) => (wanted == usual).then_some(1),
            (None, None) => Some(0),
            (None, Some(found)) if found == usual => Some(1),
            (None, Some(_)) => Some(2),
        }
    }
}

/// `linux/amd64`, `linux/arm/v7`, whatever it is.
pub fn shown(os: &str, architecture: &str, variant: Option<&str>) -> String {
    let variant = variant.filter(|variant| !variant.is_empty());
    [Some(os), Some(architecture), variant].into_iter().flatten().collect::<Vec<_>>().join("/")
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown("linux", &self.architecture, self.variant.as_deref()))
    }
}

impl FromStr for Platform {
    type Err = NoPlatform;

    fn from_str(text: &str) -> Result<Self, NoPlatform> {
        let is_word = |word: &&str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        match text.split('/').collect::<Vec<_>>().as_slice() {
            ["linux", rest @ ..] if (1..=2).contains(&rest.len()) && rest.iter().all(is_word) => {
                Ok(Self { architecture: rest[0].to_owned(), variant: rest.get(1).map(ToString::to_string) })
            }
            _ => Err(NoPlatform(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_is_written_as_it_is_read_and_nothing_else_is_one() {
        for text in ["linux/amd64", "linux/arm/v7", "linux/amd64/v3", "linux/386"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "linux",
            "linux/",
            "amd64",
            "linux/arm/",
            "linux//v7",
            "linux/arm/v7/x",
            "windows/amd64",
            "linux/AMD64",
            "linux/a\n",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn variant_that_is_asked_for_is_the_one_and_the_usual_one_need_not_be_named() {
        let fit = |wanted: &str, architecture: &str, variant: &str| {
            wanted.parse::<Platform>().unwrap().fit(architecture, Some(variant))
        };
        assert_eq!(fit("linux/amd64/v3", "amd64", "v3"), Some(0));
        for (wanted, architecture, variant) in [
            ("linux/amd64/v3", "amd64", ""),
            ("linux/amd64/v3", "amd64", "v1"),
            ("linux/arm/v7", "arm64", "v7"),
        ] {
            assert_eq!(fit(wanted, architecture, variant), None, "{wanted}");
        }
        for (wanted, architecture) in
            [("linux/amd64/v1", "amd64"), ("linux/arm64/v8", "arm64"), ("linux/arm/v7", "arm")]
        {
            assert!(fit(wanted, architecture, "").is_some(), "{wanted}");
        }
        assert!(fit("linux/riscv64", "riscv64", "") < fit("linux/riscv64", "riscv64", "x"));
    }
}
