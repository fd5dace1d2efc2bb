//! How a command fails: the error as a person and as a script reads it.

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::quoted::{self, Syntax};
use super::ui::Ui;
use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::limits;

/// What a command returns: the exit code when it is done, or the error that ended it.
pub type Outcome = Result<Exit, Failure>;

/// An expected error on its way to the user.
#[derive(Debug)]
pub struct Failure(Box<dyn Diagnose>);

impl<E: Diagnose> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl Failure {
    /// The error itself.
    pub fn error(&self) -> &dyn Diagnose {
        self.0.as_ref()
    }

    /// Prints it, on standard error or as JSON on standard output; the exit code to end with.
    pub fn report(&self, ui: &Ui) -> Exit {
        if ui.is_json() {
            ui.json(&json!({ "error": self.document() }));
        } else {
            self.say(ui);
        }
        self.0.exit()
    }

    /// Prints it on standard error, each of its findings.
    pub fn say(&self, ui: &Ui) {
        let parts = self.0.parts();
        if parts.is_empty() {
            ui.error(&self.to_string());
        }
        for part in parts {
            ui.error(&text(part));
        }
    }

    /// What scripts may rely on of it.
    pub fn document(&self) -> Value {
        let mut error = document(self.0.as_ref());
        let parts: Vec<Value> = self.0.parts().into_iter().map(document).collect();
        if !parts.is_empty() {
            error["findings"] = json!(parts);
        }
        error
    }
}

/// What scripts may rely on of an error.
fn document(error: &dyn Diagnose) -> Value {
    let place = error.place();
    json!({
        "message": chain(error),
        "hint": error.hint().map(bounded),
        "file": place.as_ref().map(|place| shown(&place.file).to_string()),
        "line": place.and_then(|place| place.line),
        "exit": error.exit() as u8,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self.0.as_ref()))
    }
}

/// Several lines: the message with its sources, the place with its line, the hint.
fn text(error: &dyn Diagnose) -> String {
    let mut text = chain(error);
    if let Some(place) = error.place() {
        let _ = write!(text, "\n  at {place}");
        if let Some(line) = source_line(&place).filter(|_| error.quotes_its_line()) {
            let _ = write!(text, "\n     | {line}");
        }
    }
    if let Some(hint) = error.hint().map(bounded) {
        let _ = write!(text, "\n  hint: {hint}");
    }
    text
}

/// More of a message than this says nothing more: what it quotes may be as long as its input.
const LONGEST: usize = 4000;

/// The message and those of its sources, joined by `: ` as texts do not repeat their source.
fn chain(error: &dyn Diagnose) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = Error::source(error);
    }
    bounded(text)
}

/// Its beginning and its end, where it is long.
fn bounded(text: String) -> String {
    if text.len() <= LONGEST {
        return text;
    }
    let (head, tail) =
        (text.floor_char_boundary(LONGEST / 2), text.ceil_char_boundary(text.len() - LONGEST / 4));
    format!("{} [... {} bytes ...] {}", &text[..head], tail - head, &text[tail..])
}

/// The line itself, with nothing in it that may be a secret.
fn source_line(place: &Place) -> Option<String> {
    let number = usize::try_from(place.line?).ok()?.checked_sub(1)?;
    let text = limits::read_text(&place.file, &limits::TEXT).ok()?;
    let is_yaml = place.file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    quoted::line(text.lines().nth(number)?, if is_yaml { Syntax::Yaml } else { Syntax::Assignments })
}

/// Wrong usage, as JSON.
pub(super) fn report_usage_json(ui: &Ui, message: &str) {
    ui.json(&json!({ "error": {
        "message": message, "hint": "see `tarsup --help`", "file": null, "line": null, "exit": Exit::Usage as u8,
    }}));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[derive(Debug, thiserror::Error)]
    #[error("REBUILD is `true`")]
    struct Refused(std::path::PathBuf, u64);

    impl Diagnose for Refused {
        fn exit(&self) -> Exit {
            Exit::Refused
        }
        fn hint(&self) -> Option<String> {
            Some("remove it".to_owned())
        }
        fn place(&self) -> Option<Place> {
            Some(Place::line(&self.0, self.1))
        }
    }

    #[test]
    fn failure_shows_the_line_but_never_a_password() {
        let mut file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        write!(file, "environment:\n  REBUILD: \"true\"\n  MYSQL_ROOT_PASSWORD: hunter2\n").unwrap();
        let path = file.path().to_owned();
        let shown = Failure::from(Refused(path.clone(), 2)).to_string();
        assert!(shown.contains("     | REBUILD: \"true\"\n  hint: remove it"), "{shown}");
        let shown = Failure::from(Refused(path, 3)).to_string();
        assert!(shown.contains(":3\n     | MYSQL_ROOT_PASSWORD: ***\n  hint"), "{shown}");

        let mut file = tempfile::NamedTempFile::with_suffix(".env").unwrap();
        write!(file, "DB_KEY=hunter$\nREBUILD=true\n").unwrap();
        let shown = |line| Failure::from(Refused(file.path().to_owned(), line)).to_string();
        assert!(!shown(1).contains("hunter"), "{}", shown(1));
        assert!(shown(2).contains("| REBUILD=true"), "{}", shown(2));
    }
}
