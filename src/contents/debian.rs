//! Which Debian package brings a library, by its name (Debian policy, 8.1): a guess, and a good one.

use std::collections::BTreeMap;

/// Libraries whose packages are not called as they are.
const OTHERS: [(&str, &str); 17] = [
    ("libz.so.1", "zlib1g"),
    ("libc.so.6", "libc6"),
    ("libm.so.6", "libc6"),
    ("libpthread.so.0", "libc6"),
    ("libdl.so.2", "libc6"),
    ("librt.so.1", "libc6"),
    ("libresolv.so.2", "libc6"),
    ("libutil.so.1", "libc6"),
    ("libnsl.so.1", "libc6"),
    ("libanl.so.1", "libc6"),
    ("libmvec.so.1", "libc6"),
    ("libthread_db.so.1", "libc6"),
    ("ld-linux-x86-64.so.2", "libc6"),
    ("ld-linux-aarch64.so.1", "libc6"),
    ("libcrypto.so.3", "libssl3"),
    ("libcrypto.so.1.1", "libssl1.1"),
    ("libcrypto.so.1.0.0", "libssl1.0.0"),
];

/// The package of a library; `None` where its name tells none.
pub fn package_of(library: &str) -> Option<String> {
    if let Some((_, package)) = OTHERS.iter().find(|(known, _)| *known == library) {
        return Some((*package).to_owned());
    }
    let (name, version) = library.split_once(".so.")?;
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "+-_.".contains(c));
    if !name.starts_with("lib") || version.is_empty() || !is_plain(name) || !is_plain(version) {
        return None;
    }
    // One package has all of ICU.
    let name = if name.starts_with("libicu") { "libicu" } else { name };
    let name = name.to_ascii_lowercase().replace('_', "-");
    let joint = if name.ends_with(|c: char| c.is_ascii_digit()) { "-" } else { "" };
    Some(format!("{name}{joint}{version}"))
}

/// The package of a library, with its version, among those that are installed. What was built anew for 64 bits of time has a name that
/// ends with `t64`.
pub fn installed<'p>(
    library: &str,
    packages: &'p BTreeMap<String, String>,
) -> Option<(&'p String, &'p String)> {
    let name = package_of(library)?;
    packages.get_key_value(&name).or_else(|| packages.get_key_value(&format!("{name}t64")))
}

/// True for a path, without leading slash, in a folder of which packages have what lies there: none puts anything into `/usr/local` or
/// `/opt` (Debian policy, 9.1.2).
pub fn is_packaged(path: &str) -> bool {
    let path = path.strip_prefix("usr/").unwrap_or(path);
    ["lib/", "lib32/", "lib64/", "libx32/"].iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_is_in_the_package_that_policy_names() {
        for (library, package) in [
            ("libmariadb.so.3", Some("libmariadb3")),
            ("libstdc++.so.6", Some("libstdc++6")),
            ("libgcc_s.so.1", Some("libgcc-s1")),
            ("libz.so.1", Some("zlib1g")),
            ("libssl.so.1.1", Some("libssl1.1")),
            ("libcrypto.so.3", Some("libssl3")),
            ("libnghttp2.so.14", Some("libnghttp2-14")),
            ("libbz2.so.1.0", Some("libbz2-1.0")),
            ("libicui18n.so.72", Some("libicu72")),
            ("libgssapi_krb5.so.2", Some("libgssapi-krb5-2")),
            ("libprivate.so", None),
            ("x.so.1", None),
            ("lib x.so.1", None),
        ] {
            assert_eq!(package_of(library).as_deref(), package, "{library}");
        }
    }

    #[test]
    fn package_is_one_that_is_installed_under_either_name() {
        let packages = ["libssl3t64", "libcurl4"].map(|name| (name.to_owned(), "1".to_owned())).into();
        for (library, package) in
            [("libssl.so.3", Some("libssl3t64")), ("libcurl.so.4", Some("libcurl4")), ("libz.so.1", None)]
        {
            assert_eq!(installed(library, &packages).map(|(name, _)| name.as_str()), package, "{library}");
        }
    }

    #[test]
    fn packages_have_what_lies_in_the_systems_own_folders() {
        for path in ["usr/lib/x86_64-linux-gnu/libx.so.1", "lib/libx.so.1", "usr/lib64/libx.so.1"] {
            assert!(is_packaged(path), "{path}");
        }
        for path in ["usr/local/lib/libx.so.1", "opt/lib/libx.so.1", "usr/libexec/libx.so.1"] {
            assert!(!is_packaged(path), "{path}");
        }
    }
}
