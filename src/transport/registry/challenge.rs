//! What a registry wants to be shown: the `WWW-Authenticate` header (RFC 9110, 11.6.1), and where its tokens are had.

use std::collections::BTreeMap;

/// A way to authenticate that a registry offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from somewhere else.
    Bearer {
        /// Where.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// For what, where the registry says it.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first challenge that is understood; tokens before passwords.
    pub fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut found: Vec<Self> = headers.flat_map(Self::parse).collect();
        found.sort_by_key(|challenge| *challenge == Self::Basic);
        found.into_iter().next()
    }

    /// One header may hold several challenges.
    fn parse(header: &str) -> Vec<Self> {
        let mut challenges: Vec<(String, BTreeMap<String, String>)> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let trimmed = after.trim_start_matches([' ', '\t']);
            match trimmed.strip_prefix('=') {
                // A parameter of the challenge before it.
                Some(value) if !word.is_empty() => {
                    let (value, after) = parameter(value.trim_start_matches([' ', '\t']));
                    if let Some((_, parameters)) = challenges.last_mut() {
                        parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                    }
                    rest = after;
                }
                Some(_) => rest = &trimmed[1..],
                None => {
                    challenges.push((word.to_ascii_lowercase(), BTreeMap::new()));
                    rest = after;
                }
            }
        }
        let understood = |(scheme, mut parameters): (String, BTreeMap<String, String>)| match scheme.as_str()
        {
            "basic" => Some(Self::Basic),
            "bearer" => Some(Self::Bearer {
                realm: parameters.remove("realm")?,
                service: parameters.remove("service"),
                scope: parameters.remove("scope"),
            }),
            _ => None,
        };
        challenges.into_iter().filter_map(understood).collect()
    }
}

/// A quoted or a bare value, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: &str| text.to_owned();
        Challenge::Bearer { realm: owned(realm), service: service.map(owned), scope: scope.map(owned) }
    }

    #[test]
    fn challenge_is_read_however_it_is_written() {
        for (headers, wanted) in [
            (&[r#"Basic realm="x, y=z""#][..], Some(Challenge::Basic)),
            (
                &[r#"Bearer realm="https://a/t",service="a",scope="repository:x:pull,push""#],
                Some(bearer("https://a/t", Some("a"), Some("repository:x:pull,push"))),
            ),
            (&[r#"bearer  realm = "https://a/t" , service=b"#], Some(bearer("https://a/t", Some("b"), None))),
            (&[r#"Basic realm="a", Bearer realm="https://b\"/""#], Some(bearer("https://b\"/", None, None))),
            (&["Negotiate", r#"Basic realm="a""#], Some(Challenge::Basic)),
            (&["Bearer service=x"], None),
            (&["", "=,=", "\"", "Bearer realm=\"cut"][..3], None),
        ] {
            assert_eq!(Challenge::choose(headers.iter().copied()), wanted, "{headers:?}");
        }
    }
}
