//! A secret from the environment, or from a file that the environment names: `NAME` or `NAME_FILE`, never both.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::process::Command;

use super::failure::Failure;
use super::lean;

/// No password is longer; whoever names a larger file has named another one.
const LARGEST: u64 = 4096;

/// Takes the secrets, where they lie, and what is for tars-init alone out of what a program is started with: what it starts
/// would inherit them.
pub fn keep_from(command: &mut Command) {
    lean::keep_from(command);
    for name in ["MYSQL_ROOT_PASSWORD", "TARS_ADMIN_PASSWORD"] {
        command.env_remove(name).env_remove(format!("{name}_FILE"));
    }
}

/// Shorter ones would blot out half of every text, and keep no secret.
const SHORTEST: usize = 3;

/// What a program printed, without these secrets: one that dies of its account may repeat it.
pub fn masked(text: &str, secrets: &[&str]) -> String {
    let hidden = secrets.iter().filter(|secret| secret.len() >= SHORTEST);
    hidden.fold(text.to_owned(), |text, secret| text.replace(*secret, "***"))
}

/// The secret, where one is given; an empty `NAME` beside `NAME_FILE` counts as not set, as the database's images have it.
pub fn read(get: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<String>, Failure> {
    let not_text = |what: &str| Failure::environment(format!("{what} is not UTF-8 text."));
    let in_file = format!("{name}_FILE");
    let Some(path) = get(&in_file).filter(|path| !path.is_empty()) else {
        return get(name).map(|value| value.into_string().map_err(|_| not_text(name))).transpose();
    };
    if get(name).is_some_and(|value| !value.is_empty()) {
        return Err(Failure::environment(format!(
            "{name} and {in_file} are both set; one of them is right."
        )));
    }
    let shown = path.to_string_lossy().into_owned();
    let unreadable = |why: String| Failure::environment(format!("{in_file} is {shown:?}, which {why}."));
    let of_system = |error: io::Error| unreadable(format!("cannot be read: {error}"));
    let found = fs::metadata(&path).map_err(of_system)?;
    if found.is_dir() {
        let why = "is a folder: where the file of a bind mount is missing on the host, the engine makes one";
        return Err(unreadable(why.to_owned()));
    }
    if !found.is_file() || found.len() > LARGEST {
        return Err(unreadable(format!("is no file of at most {LARGEST} bytes")));
    }
    let text = String::from_utf8(fs::read(&path).map_err(of_system)?).map_err(|_| not_text(&in_file))?;
    // Editors and `echo` end a line; a secret's own end is nobody's business.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(unreadable("holds nothing".to_owned()));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(vars: &[(&str, &str)]) -> Result<Option<String>, Failure> {
        let get = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        read(&get, "SECRET")
    }

    #[test]
    fn secret_comes_from_the_variable_or_the_file_and_both_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let named = path.to_string_lossy().into_owned();
        for (content, expected) in
            [("hidden", "hidden"), ("hidden\n", "hidden"), ("hidden\r\n", "hidden"), ("a\n\n", "a\n")]
        {
            fs::write(&path, content).unwrap();
            assert_eq!(read_of(&[("SECRET_FILE", &named)]).unwrap().as_deref(), Some(expected));
        }
        assert_eq!(read_of(&[]).unwrap(), None);
        assert_eq!(read_of(&[("SECRET", "x")]).unwrap().as_deref(), Some("x"));
        assert_eq!(read_of(&[("SECRET", "x"), ("SECRET_FILE", "")]).unwrap().as_deref(), Some("x"));
        assert!(read_of(&[("SECRET", ""), ("SECRET_FILE", &named)]).is_ok());
        let both = read_of(&[("SECRET", "x-of-both"), ("SECRET_FILE", &named)]).unwrap_err();
        assert!(both.message.contains("SECRET and SECRET_FILE are both set"), "{both}");
        assert!(!both.message.contains("x-of-both"), "{both}");
    }

    #[test]
    fn words_of_a_program_show_no_secret() {
        assert_eq!(masked("mysql://root:abc@db, abcd", &["abcd", "abc"]), "mysql://root:***@db, ***");
        assert_eq!(masked("a table", &["a", ""]), "a table");
    }

    #[test]
    fn file_that_is_none_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, empty) = (folder.path().join("missing"), folder.path().join("empty"));
        fs::write(&empty, "\n").unwrap();
        for (path, why) in [
            (missing.as_path(), "No such file"),
            (folder.path(), "is a folder"),
            (empty.as_path(), "holds nothing"),
            ("/dev/zero".as_ref(), "is no file"),
        ] {
            let path = path.to_string_lossy();
            let failure = read_of(&[("SECRET_FILE", &path)]).unwrap_err();
            assert!(failure.message.contains(&*path) && failure.message.contains(why), "{failure}");
        }
    }
}
