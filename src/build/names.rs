//! Names that no image can hold, whoever made them up: a package, a base, a recipe.

/// What a Linux file system takes of one name, in bytes.
const LONGEST_PART: usize = 255;
/// What the kernel takes of a path, without the zero at its end.
const LONGEST_PATH: usize = 4095;
/// In a layer such a name takes a file away from the layers below (image-spec, layer.md, Whiteouts).
const WHITEOUT: &[u8] = b".wh.";

/// Why no image can hold a file of this name: words that follow the name.
pub fn unfit(path: &[u8]) -> Option<String> {
    if path.len() > LONGEST_PATH {
        return Some(format!("has a name of {} bytes; no path has more than {LONGEST_PATH}", path.len()));
    }
    if path.contains(&0) {
        return Some("has a nul byte in its name".to_owned());
    }
    path.split(|byte| *byte == b'/').find_map(|part| {
        if part.len() > LONGEST_PART {
            return Some(format!(
                "has a part of {} bytes in its name; no file system takes more than {LONGEST_PART}",
                part.len()
            ));
        }
        part.starts_with(WHITEOUT).then(|| "has a name that deletes files in an image (`.wh.`)".to_owned())
    })
}

/// The same for where a link points: it may name what deletes nothing there.
pub fn unfit_target(path: &[u8]) -> Option<String> {
    unfit(path).filter(|_| path.len() > LONGEST_PATH || path.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_up_to_the_byte() {
        let part = |length| "x".repeat(length);
        let path = |length: usize| "a/".repeat(length / 2) + &part(length % 2);
        for fits in [part(255), format!("a/{}", part(255)), path(4095), "a.wh.b".to_owned(), ".w".to_owned()]
        {
            assert_eq!(unfit(fits.as_bytes()), None, "{fits}");
        }
        for (wrong, why) in [
            (part(256), "256 bytes"),
            (format!("a/{}/b", part(256)), "256 bytes"),
            (path(4096), "4096 bytes"),
            ("a\0b".to_owned(), "nul"),
            ("a/.wh.b".to_owned(), ".wh."),
            ("a/.wh..wh..opq".to_owned(), ".wh."),
        ] {
            assert!(unfit(wrong.as_bytes()).is_some_and(|said| said.contains(why)), "{wrong}");
        }
    }
}
