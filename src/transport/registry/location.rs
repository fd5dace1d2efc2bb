//! Addresses, as registries write them: absolute, of the same host, or relative, with queries that must stay.

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stays as it is in a query's value.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b',');

/// What `reference` means, seen from `base` (RFC 3986, 5.2, without `..`).
pub(super) fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.trim().split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let whole =
        if reference.contains("://") && reference.find("://") < reference.find(['/', '?']).map(|at| at + 1) {
            reference.to_owned()
        } else if let Some(rest) = reference.strip_prefix("//") {
            format!("{scheme}://{rest}")
        } else if reference.starts_with('/') {
            format!("{scheme}://{authority}{reference}")
        } else if reference.starts_with('?') {
            format!("{scheme}://{authority}{}{reference}", base.path())
        } else {
            let folder = base.path().rfind('/').map_or("", |at| &base.path()[..at]);
            format!("{scheme}://{authority}{folder}/{reference}")
        };
    let found: Uri = whole.parse().ok()?;
    let is_web = matches!(found.scheme_str(), Some("http" | "https"));
    (is_web
        && found.host().is_some_and(|host| !host.is_empty())
        && !found.authority()?.as_str().contains('@'))
    .then_some(found)
}

/// The address with more in its query.
pub(super) fn with_query(uri: &Uri, more: &[(&str, &str)]) -> Option<Uri> {
    let more = query(more);
    let (scheme, authority, path) = (uri.scheme_str()?, uri.authority()?, uri.path());
    match uri.query() {
        _ if more.is_empty() => Some(uri.clone()),
        Some(query) if !query.is_empty() => {
            format!("{scheme}://{authority}{path}?{query}&{more}").parse().ok()
        }
        _ => format!("{scheme}://{authority}{path}?{more}").parse().ok(),
    }
}

/// `a=b&c=d`.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pair = |(key, value): &(&str, &str)| format!("{key}={}", utf8_percent_encode(value, VALUE));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// True where scheme, host and port are the same.
pub(super) fn same_origin(one: &Uri, other: &Uri) -> bool {
    let of = |uri: &Uri| {
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        (uri.scheme_str().map(ToOwned::to_owned), host, uri.port_u16().unwrap_or(usual))
    };
    of(one) == of(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn location_is_joined_as_browsers_do() {
        let base = uri("https://a:5000/v2/x/blobs/uploads/1?_state=s");
        for (reference, wanted) in [
            ("https://b/c?d=e%2Ff", Some("https://b/c?d=e%2Ff")),
            ("//b/c", Some("https://b/c")),
            ("/v2/y?_state=t", Some("https://a:5000/v2/y?_state=t")),
            ("2?q", Some("https://a:5000/v2/x/blobs/uploads/2?q")),
            ("?q=http://x", Some("https://a:5000/v2/x/blobs/uploads/1?q=http://x")),
            ("/v2/y?to=http://x#part", Some("https://a:5000/v2/y?to=http://x")),
            ("file:///etc/passwd", None),
            ("https://user:secret@b/", None),
            ("https://", None),
            ("\u{7f}", None),
        ] {
            assert_eq!(join(&base, reference), wanted.map(uri), "{reference}");
        }
    }

    #[test]
    fn query_grows_and_keeps_what_it_has() {
        let digest = [("digest", "sha256:ab"), ("x", "a b&c")];
        assert_eq!(
            with_query(&uri("http://a/b?_state=x%3D"), &digest),
            Some(uri("http://a/b?_state=x%3D&digest=sha256:ab&x=a%20b%26c"))
        );
        assert_eq!(with_query(&uri("http://a/b"), &digest[..1]), Some(uri("http://a/b?digest=sha256:ab")));
        assert_eq!(with_query(&uri("http://a/b"), &[]), Some(uri("http://a/b")));
    }

    #[test]
    fn origin_is_scheme_host_and_port() {
        for (one, other, wanted) in [
            ("https://a/x", "https://A:443/y", true),
            ("http://a/", "https://a/", false),
            ("https://a/", "https://a:5000/", false),
            ("https://a/", "https://a.evil/", false),
        ] {
            assert_eq!(same_origin(&uri(one), &uri(other)), wanted, "{one} {other}");
        }
    }
}
