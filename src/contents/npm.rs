//! What a `package.json` says of the npm package that it lies in: name, version and licence.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::paths::{ImagePath, ImagePathBuf};

/// The file that describes a package (npm, package.json).
pub const MANIFEST: &str = "package.json";
/// The folder that packages are installed in, at any depth.
const INSTALLED: &str = "node_modules";
/// The most of a `package.json`, in bytes; the largest of the real console has 41,393.
pub const LARGEST: u64 = 1 << 20;
/// What npm takes of a name, and more than any version or licence has, in bytes.
const LONGEST_NAME: usize = 214;
const LONGEST_VERSION: usize = 256;
const LONGEST_LICENSE: usize = 1024;

/// A package as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// With its scope: `@babel/core`. Whoever installed it may have given its folder another name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The licence as written, mostly an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

impl Module {
    /// What its `package.json` says; `None` for one that tells no name and version, or is none.
    pub fn read(manifest: &[u8]) -> Option<Self> {
        // npm reads over a byte order mark.
        let manifest = manifest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(manifest);
        let Manifest { name, version, license, licenses } = serde_json::from_slice(manifest).ok()?;
        let short = |text: &String, longest: usize| {
            !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
        };
        let plain = |told: Told, longest| match told {
            Told::Text(text) => Some(text).filter(|text| short(text, longest)),
            _ => None,
        };
        let license = [license, licenses].into_iter().find_map(Told::licence);
        Some(Self {
            name: plain(name, LONGEST_NAME)?,
            version: plain(version, LONGEST_VERSION)?,
            license: license.filter(|text| short(text, LONGEST_LICENSE)),
        })
    }

    /// Bytes of its texts.
    pub fn text_length(&self) -> usize {
        self.name.len() + self.version.len() + self.license.as_ref().map_or(0, String::len)
    }
}

/// The folder of a package that is installed, where a path is its `package.json`: any other one belongs to what is inside of a
/// package.
pub fn installed(path: ImagePath<'_>) -> Option<ImagePath<'_>> {
    (path.name().as_str() == MANIFEST && is_installed(path.folder())).then(|| path.folder())
}

/// True for a folder that npm installs a package in: `node_modules/NAME` or `node_modules/@SCOPE/NAME`, wherever that lies.
pub fn is_installed(folder: ImagePath<'_>) -> bool {
    let above = folder.folder();
    if above.name().as_str() == INSTALLED {
        return !folder.name().starts_with('@');
    }
    above.name().starts_with('@') && above.folder().name().as_str() == INSTALLED
}

/// What a part is itself, where it is a package: the one that nobody installed.
pub fn own(modules: &BTreeMap<ImagePathBuf, Module>) -> Option<&Module> {
    modules.iter().find(|(folder, _)| !is_installed(folder.path())).map(|(_, module)| module)
}

/// The keys that count; of one that is written twice the last, as JavaScript has it.
#[derive(Default)]
struct Manifest {
    name: Told,
    version: Told,
    license: Told,
    licenses: Told,
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Manifest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Manifest, A::Error> {
                let mut read = Manifest::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => read.name = map.next_value()?,
                        "version" => read.version = map.next_value()?,
                        "license" => read.license = map.next_value()?,
                        "licenses" => read.licenses = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(read)
            }
        }
        deserializer.deserialize_map(Reading)
    }
}

/// A value, as far as it counts.
#[derive(Default)]
enum Told {
    /// A text.
    Text(String),
    /// `{"type": "MIT"}`, or several that one may choose from: how licences were written before SPDX.
    Old(Vec<String>),
    /// Anything else.
    #[default]
    Nothing,
}

impl Told {
    fn licence(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Old(types) => Some(types.join(" OR ")),
            Self::Nothing => None,
        }
        .filter(|text| !text.is_empty())
    }

    fn types(self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text],
            Self::Old(types) => types,
            Self::Nothing => Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Told;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Told, E> {
                Ok(Told::Text(text.to_owned()))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Told, E> {
                Ok(Told::Nothing)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Told, E> {
                Ok(Told::Nothing)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Told, E> {
                Ok(Told::Nothing)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Told, E> {
                Ok(Told::Nothing)
            }

            fn visit_unit<E>(self) -> Result<Told, E> {
                Ok(Told::Nothing)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Told, A::Error> {
                let mut types = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "type" {
                        types = map.next_value::<Told>()?.types();
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Told::Old(types))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Told, A::Error> {
                let mut types = Vec::new();
                while let Some(value) = values.next_element::<Told>()? {
                    types.extend(value.types());
                }
                Ok(Told::Old(types))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, String, Option<String>)> {
        Module::read(text.as_bytes()).map(|module| (module.name, module.version, module.license))
    }

    #[test]
    fn package_tells_its_licence_in_every_form_that_npm_has_had() {
        for (license, told) in [
            (r#""license":"(MIT OR Apache-2.0)""#, Some("(MIT OR Apache-2.0)")),
            (r#""license":{"type":"MIT","url":"x"}"#, Some("MIT")),
            (r#""licenses":[{"url":"x","type":"MIT"},{"type":"BSD-3-Clause"}]"#, Some("MIT OR BSD-3-Clause")),
            (r#""licenses":["MIT"]"#, Some("MIT")),
            (r#""license":null,"licenses":["ISC"]"#, Some("ISC")),
            (r#""license":false"#, None),
            (r#""license":"""#, None),
            (r#""license":["\n"]"#, None),
            (r#""x":[[{"license":"MIT"}]]"#, None),
        ] {
            let text = format!(r#"{{"name":"@a/b","version":"1.0.0-rc.1",{license}}}"#);
            let expected = ("@a/b".to_owned(), "1.0.0-rc.1".to_owned(), told.map(str::to_owned));
            assert_eq!(read(&text), Some(expected), "{text}");
        }
    }

    #[test]
    fn package_without_name_and_version_is_none() {
        let long = "x".repeat(LONGEST_NAME + 1);
        let deep = "[".repeat(100_000);
        for text in [
            "",
            "[]",
            "{",
            r#"{"name":"a"}"#,
            r#"{"name":"a","version":1}"#,
            r#"{"name":"a","version":{"type":"1"}}"#,
            r#"{"name":"","version":"1"}"#,
            r#"{"name":"a\u0007","version":"1"}"#,
            r#"{"name":"a","version":"1"} x"#,
            &format!(r#"{{"name":"{long}","version":"1"}}"#),
            &format!(r#"{{"name":"a","version":"1","x":{deep}"#),
        ] {
            assert_eq!(read(text), None, "{text:.80}");
        }
        let twice = "\u{feff}{\"name\":\"a\",\"name\":\"b\",\"version\":\"1\"}";
        assert_eq!(read(twice).map(|(name, ..)| name).as_deref(), Some("b"));
    }

    #[test]
    fn package_is_installed_at_the_top_of_node_modules_and_nowhere_else() {
        for (path, folder) in [
            ("w/node_modules/a/package.json", Some("w/node_modules/a")),
            ("node_modules/@s/a/package.json", Some("node_modules/@s/a")),
            ("w/node_modules/a/node_modules/b/package.json", Some("w/node_modules/a/node_modules/b")),
            ("w/node_modules/@s/package.json", None),
            ("w/node_modules/a/esm/package.json", None),
            ("w/node_modules/a/@s/b/package.json", None),
            ("w/node_modules/package.json", None),
            ("w/node_modules/a/package.json5", None),
            ("package.json", None),
        ] {
            let path = ImagePathBuf::parse(path).unwrap();
            assert_eq!(installed(path.path()).map(ImagePath::as_str), folder, "{}", &*path);
        }
    }
}
