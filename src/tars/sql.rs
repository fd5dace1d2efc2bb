//! A dump as tokens, strictly: whatever our reading and a server's could differ on is refused, and what is sent is made
//! of the very tokens that were judged, so that a comment can neither hide a statement nor cut one off.

/// Why a file is not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{begins}` is refused: {why}")]
pub struct SqlRefusal {
    /// The line of the file, counted from 1.
    pub line: usize,
    /// The statement's first words.
    pub begins: String,
    /// What it has that is not allowed.
    pub why: String,
}

/// How much of a statement a refusal shows, in characters; the values of an insert are further on.
const SHOWN: usize = 60;

impl SqlRefusal {
    /// With what a refusal shows of the statement.
    pub fn new(line: usize, statement: &str, why: &str) -> Self {
        let mut begins: String = statement.chars().take(SHOWN).collect();
        if begins.len() < statement.len() {
            begins.push('…');
        }
        Self { line, begins, why: why.to_owned() }
    }
}

/// One word of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// An unquoted word, as it stands in the file: a keyword or a name.
    Word(String),
    /// A name in backticks, without them.
    Name(String),
    /// A literal in single or double quotes, quotes and escapes included.
    Text(String),
    /// A number, such as `10`, `1.5`, `0x1F`.
    Number(String),
    /// `@name` or `@@name`.
    Variable(String),
    /// Anything else, one character each.
    Sign(char),
}

/// What stands between two semicolons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence {
    /// Its words.
    pub tokens: Vec<Token>,
    /// Those words as one line, comments gone: what is sent.
    pub text: String,
    /// The line of the file that it begins on, counted from 1.
    pub line: usize,
}

/// Splits a dump.
pub fn read(dump: &str) -> Result<Vec<Sentence>, SqlRefusal> {
    let dump = dump.strip_prefix('\u{feff}').unwrap_or(dump);
    let mut lexer = Lexer { rest: dump, line: 1, ..Lexer::default() };
    if let Some(at) = dump.find('\0') {
        lexer.skip(at);
        return Err(lexer.refuse("a NUL byte, where some servers stop to read"));
    }
    while lexer.step()? {}
    if lexer.version_comment == VersionComment::Open {
        return Err(lexer.refuse("a version comment that is never closed"));
    }
    lexer.end_sentence();
    Ok(lexer.out)
}

/// A statement may be one version comment as a whole: then it reads the same to a server that skips it and to one that
/// does not. One in the middle of a statement would make two statements of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum VersionComment {
    #[default]
    No,
    Open,
    Closed,
}

#[derive(Default)]
struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    current: Sentence,
    version_comment: VersionComment,
    after_gap: bool,
    out: Vec<Sentence>,
}

impl Lexer<'_> {
    /// Takes the next piece; false at the end.
    fn step(&mut self) -> Result<bool, SqlRefusal> {
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return Ok(false) };
        match first {
            ' ' | '\t' | '\n' | '\r' | '\u{c}' => self.gap(1),
            '#' => self.comment(end_of_line(rest))?,
            '-' if rest.starts_with("--") => {
                // MySQL wants white space after the dashes. Anything else is arithmetic to a server of today, a comment
                // to an old client, and two dashes with a comment between them would become a comment once it is gone.
                if !rest[2..].chars().next().is_none_or(|next| next.is_ascii_whitespace()) {
                    return Err(self.refuse("`--` without a space after it, which servers read in two ways"));
                }
                self.comment(end_of_line(rest))?;
            }
            // Read by MariaDB's client alone; not even a statement.
            '/' if rest.starts_with("/*M!999999\\-") => self.comment(self.end_of_comment()?)?,
            '/' if rest.starts_with("/*!") => self.open_version_comment("/*!")?,
            '/' if rest.starts_with("/*M!") => self.open_version_comment("/*M!")?,
            '/' if rest.starts_with("/*") => self.comment(self.end_of_comment()?)?,
            '*' if rest.starts_with("*/") && self.version_comment == VersionComment::Open => {
                self.skip(2);
                self.current.text.push_str(" */");
                self.version_comment = VersionComment::Closed;
            }
            ';' if self.version_comment == VersionComment::Open => {
                return Err(self.refuse("a semicolon inside a version comment"));
            }
            ';' => {
                self.skip(1);
                self.end_sentence();
            }
            '\'' | '"' | '`' => self.quoted(first)?,
            '@' => self.variable()?,
            '0'..='9' => self.take(run(rest, |c| is_word(c) || c == '.'), Token::Number)?,
            'a'..='z' | 'A'..='Z' | '_' | '$' => self.take(run(rest, is_word), Token::Word)?,
            '\\' => return Err(self.refuse("a backslash outside of quotes: a command of a client, not SQL")),
            sign if sign.is_ascii_graphic() => self.take(1, |_| Token::Sign(sign))?,
            other => return Err(self.refuse(&format!("the character {other:?} outside of quotes"))),
        }
        Ok(true)
    }

    fn skip(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }

    fn gap(&mut self, length: usize) {
        self.skip(length);
        self.after_gap = true;
    }

    /// Leaves out a comment; white space stands for it, as two words around it are two words.
    fn comment(&mut self, length: usize) -> Result<(), SqlRefusal> {
        if self.version_comment == VersionComment::Open {
            return Err(self.refuse("a comment inside a version comment"));
        }
        self.gap(length);
        Ok(())
    }

    fn end_of_comment(&self) -> Result<usize, SqlRefusal> {
        let end = self.rest[2..].find("*/").ok_or_else(|| self.refuse("a comment that is never closed"))?;
        Ok(end + 4)
    }

    fn open_version_comment(&mut self, opening: &str) -> Result<(), SqlRefusal> {
        if !self.current.tokens.is_empty() || self.version_comment != VersionComment::No {
            return Err(
                self.refuse("a version comment inside a statement, which would be two statements in one")
            );
        }
        let digits = run(&self.rest[opening.len()..], |c| c.is_ascii_digit());
        let length = opening.len() + digits;
        let spaced = self.rest[length..].starts_with(|c: char| c.is_ascii_whitespace());
        if !matches!(digits, 0 | 5 | 6) || !spaced {
            return Err(self.refuse("a version comment without a version of five or six digits and a space"));
        }
        self.current.line = self.line;
        self.current.text = self.rest[..length].to_owned();
        self.version_comment = VersionComment::Open;
        self.gap(length);
        Ok(())
    }

    /// A doubled quote stays inside, a backslash escapes except between backticks. Sessions that send this have neither
    /// `ANSI_QUOTES` nor `NO_BACKSLASH_ESCAPES` (`Session::read_strings_as_judged`).
    fn quoted(&mut self, quote: char) -> Result<(), SqlRefusal> {
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == '\\' && quote != '`' {
                chars.next();
            } else if c == quote {
                if chars.peek().is_some_and(|(_, next)| *next == quote) {
                    chars.next();
                } else if quote == '`' {
                    return self.take(at + 1, |text| Token::Name(text[1..at].replace("``", "`")));
                } else {
                    return self.take(at + 1, Token::Text);
                }
            }
        }
        Err(self.refuse("a quote that is never closed"))
    }

    fn variable(&mut self) -> Result<(), SqlRefusal> {
        let ats = run(self.rest, |c| c == '@');
        let length = ats + run(&self.rest[ats..], |c| is_word(c) || c == '.');
        if ats > 2 || length == ats {
            return Err(self.refuse("an `@` without a plain name"));
        }
        self.take(length, Token::Variable)
    }

    fn take(&mut self, length: usize, token: impl FnOnce(String) -> Token) -> Result<(), SqlRefusal> {
        if self.version_comment == VersionComment::Closed {
            return Err(self.refuse("text after a version comment in the same statement"));
        }
        let text = self.rest[..length].to_owned();
        if self.current.text.is_empty() {
            self.current.line = self.line;
        } else if self.after_gap {
            self.current.text.push(' ');
        }
        self.after_gap = false;
        self.current.text.push_str(&text);
        self.skip(length);
        self.current.tokens.push(token(text));
        Ok(())
    }

    fn end_sentence(&mut self) {
        let sentence = std::mem::take(&mut self.current);
        self.version_comment = VersionComment::No;
        self.after_gap = false;
        if !sentence.tokens.is_empty() {
            self.out.push(sentence);
        }
    }

    fn refuse(&self, why: &str) -> SqlRefusal {
        SqlRefusal::new(self.line, &self.current.text, why)
    }
}

fn run(text: &str, fits: impl Fn(char) -> bool) -> usize {
    text.find(|c| !fits(c)).unwrap_or(text.len())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

fn end_of_line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}
