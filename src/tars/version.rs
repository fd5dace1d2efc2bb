//! Versions of the framework, and which of two is newer.

use std::cmp::Ordering;

/// Two versions by the numbers that they begin with; what follows those (`-patched`) tells nothing of which is newer.
pub fn compared(one: &str, other: &str) -> Ordering {
    fn numbers(version: &str) -> Vec<u64> {
        let version = version.strip_prefix('v').unwrap_or(version);
        let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
        let mut numbers: Vec<u64> = version[..end].split('.').map_while(|part| part.parse().ok()).collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        numbers
    }
    numbers(one).cmp(&numbers(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (one, other, expected) in [
            ("3.0.17", "2.4.17", Ordering::Greater),
            ("3.0.9", "3.0.17", Ordering::Less),
            ("3.0.17-patched", "3.0.17", Ordering::Equal),
            ("v3.0", "3.0.0", Ordering::Equal),
            ("3.0.17.1", "3.0.17", Ordering::Greater),
            ("stable", "latest", Ordering::Equal),
        ] {
            assert_eq!(compared(one, other), expected, "{one} {other}");
        }
    }
}
