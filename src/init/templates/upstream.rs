//! Keys of profile templates whose value upstream changed between its releases 1.0 to 3.0.17, with a digest of each value
//! that was shipped: how an upstream database, which has no record of what was installed, tells an edit from an old value.
//!
//! Of every other key all these releases ship one value alone. The digest is the first 16 hexadecimal digits of the SHA-256
//! of `TEMPLATE\nBLOCK/.../KEY\nVALUE`, the value as in [`super::merge::Marks`].

use sha2::{Digest as _, Sha256};

/// Template, key, digests.
const CHANGED: &[(&str, &str, &[&str])] = &[
    ("tars.default", "tars/application/server/activating-timeout", &["3fe10c3fa328ee40", "bfd73ae4d29b5d09"]),
    ("tars.tarsjava.default", "tars/application/server/jvmparams", &["16748871812318d0", "636547f0b4c94025"]),
    ("tars.tarsnode", "tars/node/keepalive/heartTimeout", &["53e7b18edf270ec5", "787df37217ada314"]),
    ("tars.tarsnode", "tars/node/keepalive/monitorInterval", &["2177a38ab65d1930", "5b23a576ac29fc33"]),
    ("tars.tarsnode", "tars/node/keepalive/synStatInterval", &["adf3abbd4a012282", "c805ae7bf9d96684"]),
    ("tars.tarsnode", "tars/node/registryObj", &["0cb03d1698d35554", "ad63077e107c4c13"]),
    (
        "tars.tarsproperty",
        "tars/hashmap/size",
        &["a13e15375234eb24", "b2620fcce2e60f77", "c09ace6c15e9f854", "fc1a5e8e72e98439"],
    ),
    ("tars.tarsstat", "tars/hashmap/size", &["10cd646c093385ab", "5ffaf197d7942e94", "aa7e3cf67d179837"]),
];

/// True where a release of upstream's shipped this value.
pub fn shipped(template: &str, path: &[String], value: &str) -> bool {
    let path = path.join("/");
    let mut known = CHANGED.iter().filter(|(name, key, _)| *name == template && *key == path).peekable();
    if known.peek().is_none() {
        return false;
    }
    let digest = digest(template, &path, value);
    known.any(|(.., digests)| digests.contains(&digest.as_str()))
}

fn digest(template: &str, path: &str, value: &str) -> String {
    let whole = Sha256::digest(format!("{template}\n{path}\n{value}"));
    let first = whole[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{first:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_former_releases_are_known_and_edits_are_not() {
        let path: Vec<String> =
            "tars/application/server/activating-timeout".split('/').map(str::to_owned).collect();
        for (value, expected) in [("10000", true), ("60000", true), ("20000", false)] {
            assert_eq!(shipped("tars.default", &path, value), expected, "{value}");
        }
        assert!(!shipped("tars.other", &path, "10000"));
    }
}
