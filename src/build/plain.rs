//! What an image's config may hold: values that no engine takes, or each in its own way, are found before they are built in.

use super::recipe::StartCommand;
use crate::paths::{ImagePathBuf, Unfit};

/// A value that cannot be: the key that it belongs to, the value, and why not.
pub(super) struct Misfit {
    /// The key of the recipe.
    pub key: &'static str,
    /// The value, or the name in it that is wrong.
    pub value: String,
    /// Which item of the key's list it is, where it is one.
    pub index: Option<usize>,
    /// Why not.
    pub why: &'static str,
    /// What to do.
    pub hint: &'static str,
}

const NUL: &str = "it holds a nul byte, which ends a text for the kernel";

fn misfit(key: &'static str, value: &str, why: &'static str, hint: &'static str) -> Misfit {
    Misfit { key, value: value.to_owned(), index: None, why, hint }
}

/// Names and values of `env`.
pub(super) fn variable(name: &str, value: &str) -> Option<Misfit> {
    if name.is_empty() || name.contains(['=', '\0']) {
        let why = "the name of a variable is not empty, and holds no `=`";
        return Some(misfit("env", name, why, "write NAME: value"));
    }
    value.contains('\0').then(|| misfit("env", name, NUL, "write a text"))
}

/// Names and values of `labels`.
pub(super) fn label(name: &str, value: &str) -> Option<Misfit> {
    let nameless = name.is_empty() || name.chars().any(char::is_control);
    if nameless {
        return Some(misfit("labels", name, "the name of a label is a word", "write NAME: value"));
    }
    value.contains('\0').then(|| misfit("labels", name, NUL, "write a text"))
}

/// Where a file goes; otherwise why not, and what to do.
pub(super) fn place(written: &str) -> Result<ImagePathBuf, (String, &'static str)> {
    let plain = written.starts_with('/') && !written.chars().any(char::is_control);
    match ImagePathBuf::parse(written) {
        Ok(path) if plain && !path.path().is_root() => Ok(path),
        Ok(_) | Err(Unfit::Climbs | Unfit::Nul) => {
            let why =
                "where a file goes is an absolute path in the image, without `..` and control characters";
            Err((why.to_owned(), "begin it with `/`"))
        }
        Err(why) => Err((format!("it {why}"), "give it a name that fits")),
    }
}

/// A path of the image that containers start in or mount something at: its root too.
pub(super) fn path(key: &'static str, path: &str) -> Option<Misfit> {
    let why = if !path.starts_with('/') {
        "a path in the image is absolute"
    } else if path.chars().any(char::is_control) {
        "a path in the image has no control characters"
    } else {
        match ImagePathBuf::parse(path) {
            Ok(_) => return None,
            Err(Unfit::Climbs) => "a path in the image has no `..`",
            Err(Unfit::Long(_) | Unfit::LongPart(_)) => "it is longer than a path can be",
            Err(_) => "it has a name that deletes files in an image (`.wh.`)",
        }
    };
    Some(misfit(key, path, why, "begin it with `/`, and write where it leads"))
}

/// `user` and the words of a start.
pub(super) fn text(key: &'static str, text: &str) -> Option<Misfit> {
    text.contains('\0').then(|| misfit(key, text, NUL, "write a text"))
}

/// `stop_signal`: a name with or without `SIG`, or a number (signal(7); real-time signals by number).
pub(super) fn signal(text: &str) -> Option<Misfit> {
    const NAMES: [&str; 33] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
        "POLL", "PROF", "PWR", "QUIT", "RTMIN", "RTMAX", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP",
        "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH",
    ];
    let number = text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let real_time = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    let known = NAMES.contains(&name)
        || real_time.is_some_and(|offset| offset.parse::<u8>().is_ok_and(|of| of <= 30));
    (!number && !known).then(|| {
        misfit("stop_signal", text, "there is no such signal", "write one such as SIGTERM, or its number")
    })
}

/// `healthcheck.test` (compose specification, healthcheck).
pub(super) fn test(test: &StartCommand) -> Option<Misfit> {
    let StartCommand::Words(words) = test else { return None };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let well = match words.as_slice() {
        ["NONE"] | ["CMD-SHELL", _] => true,
        ["CMD", program, ..] => !program.is_empty(),
        _ => false,
    };
    let hint = "write [CMD, PROGRAM, ARGUMENT...], [CMD-SHELL, LINE], [NONE], or the line itself";
    (!well).then(|| {
        misfit("healthcheck", &words.join(" "), "its `test` begins with CMD, CMD-SHELL or NONE", hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_those_of_the_system() {
        for known in ["SIGTERM", "TERM", "9", "64", "SIGRTMIN+3", "RTMAX-2", "SIGWINCH"] {
            assert!(signal(known).is_none(), "{known}");
        }
        for unknown in ["", "0", "65", "SIGWHAT", "sigterm", "SIGRTMIN+99", "-1"] {
            assert!(signal(unknown).is_some(), "{unknown}");
        }
    }
}
