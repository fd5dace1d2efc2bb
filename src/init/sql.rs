//! Upstream's SQL dumps as single statements: comments, quotes and MySQL's version comments understood.

/// What a statement does, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A session or server setting. It may fail: servers drop settings, and the tables after it must still be made.
    Set,
    /// `DROP ...`, `TRUNCATE ...`: never sent.
    Drop,
    /// `CREATE TABLE` of this name.
    CreateTable(String),
    /// `REPLACE INTO` this table.
    Replace(String),
    /// `DELETE FROM` this table.
    Delete(String),
    /// Anything else.
    Other,
}

/// One statement, without its semicolon and its ordinary comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What is sent.
    pub text: String,
    /// The line of the file that it begins on, counted from 1.
    pub line: usize,
    /// What it does.
    pub kind: Kind,
}

/// Splits a dump. `DELIMITER` is not understood: none of upstream's files has it.
pub fn split(dump: &str) -> Vec<Statement> {
    let mut splitter = Splitter { rest: dump, line: 1, text: String::new(), begun: 1, out: Vec::new() };
    while splitter.step() {}
    splitter.end_statement();
    splitter.out
}

struct Splitter<'a> {
    rest: &'a str,
    line: usize,
    text: String,
    begun: usize,
    out: Vec<Statement>,
}

impl Splitter<'_> {
    /// Takes the next piece (a comment, a quoted text, or one character); false at the end.
    fn step(&mut self) -> bool {
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return false };
        match first {
            '#' => self.skip(end_of_line(rest)),
            '-' if is_dash_comment(rest) => self.skip(end_of_line(rest)),
            '/' if rest.starts_with("/*!") => self.keep(end_of_comment(rest)),
            '/' if rest.starts_with("/*") => {
                self.skip(end_of_comment(rest));
                self.text.push(' ');
            }
            '\'' | '"' | '`' => self.keep(end_of_quote(rest, first)),
            ';' => {
                self.skip(1);
                self.end_statement();
            }
            other => self.keep(other.len_utf8()),
        }
        true
    }

    fn skip(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }

    fn keep(&mut self, length: usize) {
        let taken = &self.rest[..length];
        if self.text.trim().is_empty() {
            self.begun = self.line;
        }
        self.text.push_str(taken);
        self.skip(length);
    }

    fn end_statement(&mut self) {
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        if !text.is_empty() {
            self.out.push(Statement { text: text.to_owned(), line: self.begun, kind: kind(text) });
        }
    }
}

fn end_of_line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// MySQL wants white space after the dashes; `a--1` is arithmetic.
fn is_dash_comment(text: &str) -> bool {
    text.strip_prefix("--").is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace))
}

fn end_of_comment(text: &str) -> usize {
    text.find("*/").map_or(text.len(), |at| at + 2)
}

/// The length of a quoted text: a doubled quote stays inside, a backslash escapes except between backticks.
fn end_of_quote(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote != '`' {
            chars.next();
        } else if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return at + quote.len_utf8();
            }
        }
    }
    text.len()
}

fn kind(text: &str) -> Kind {
    let mut words = Words { rest: inside_version_comment(text) };
    match words.keyword().as_str() {
        "SET" => Kind::Set,
        "DROP" | "TRUNCATE" => Kind::Drop,
        "CREATE" if words.keyword() == "TABLE" => {
            let mut name = words.name();
            if name.eq_ignore_ascii_case("IF") {
                // IF NOT EXISTS
                words.keyword();
                words.keyword();
                name = words.name();
            }
            Kind::CreateTable(name)
        }
        "REPLACE" if words.keyword() == "INTO" => Kind::Replace(words.name()),
        "DELETE" if words.keyword() == "FROM" => Kind::Delete(words.name()),
        _ => Kind::Other,
    }
}

/// `/*!40101 SET x=1 */` is `SET x=1` to a server of that version.
fn inside_version_comment(text: &str) -> &str {
    text.strip_prefix("/*!").map_or(text, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    fn keyword(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_ascii_uppercase()
    }

    fn name(&mut self) -> String {
        self.rest = self.rest.trim_start();
        if let Some(quoted) = self.rest.strip_prefix('`') {
            let end = quoted.find('`').unwrap_or(quoted.len());
            self.rest = quoted.get(end + 1..).unwrap_or_default();
            return quoted[..end].to_owned();
        }
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }
}

/// A text between single quotes, as a literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(dump: &str) -> Vec<String> {
        split(dump).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_in_quotes_comments_and_names_split_nothing() {
        let dump = "INSERT INTO t VALUES ('a;b', \"c;d\", 'it''s; \\'x;');\n\
                    CREATE TABLE `odd;name` (a int); -- done; really\n# one; more\n/* and; this */ SELECT 1;";
        assert_eq!(
            texts(dump),
            [
                "INSERT INTO t VALUES ('a;b', \"c;d\", 'it''s; \\'x;')",
                "CREATE TABLE `odd;name` (a int)",
                "SELECT 1",
            ]
        );
    }

    #[test]
    fn version_comments_are_statements_and_ordinary_ones_are_not() {
        let dump = "/*!40101 SET NAMES utf8 */;\n-- /*!40101 SET a=1 */;\n--\n/* no */;\nSELECT 1 -- tail\n";
        let statements = split(dump);
        assert_eq!(statements.len(), 2);
        assert_eq!((statements[0].kind.clone(), statements[0].line), (Kind::Set, 1));
        assert_eq!((statements[1].text.as_str(), statements[1].line), ("SELECT 1", 5));
    }

    #[test]
    fn dashes_without_a_space_are_arithmetic() {
        assert_eq!(texts("SELECT 2--1; SELECT 3 --\n;"), ["SELECT 2--1", "SELECT 3"]);
    }

    #[test]
    fn kinds_are_told_whatever_the_case_and_the_quotes() {
        let kinds: Vec<Kind> = split(
            "drop table if exists `a`; /*!40000 DROP TABLE b */; TRUNCATE c; create table d(x int); \
             CREATE TABLE IF NOT EXISTS `e` (x int); replace into `f` (x) values (1); delete from g where 1; \
             ALTER TABLE h ADD x int; set global innodb_large_prefix=1; replace(1,2)",
        )
        .into_iter()
        .map(|statement| statement.kind)
        .collect();
        assert_eq!(
            kinds,
            [
                Kind::Drop,
                Kind::Drop,
                Kind::Drop,
                Kind::CreateTable("d".to_owned()),
                Kind::CreateTable("e".to_owned()),
                Kind::Replace("f".to_owned()),
                Kind::Delete("g".to_owned()),
                Kind::Other,
                Kind::Set,
                Kind::Other,
            ]
        );
    }

    #[test]
    fn unfinished_quotes_and_comments_end_with_the_file() {
        assert_eq!(texts("SELECT 'a; b"), ["SELECT 'a; b"]);
        assert_eq!(texts("SELECT 1 /* never closed; "), ["SELECT 1"]);
        assert_eq!(texts("; ;; \n"), Vec::<String>::new());
    }

    #[test]
    fn names_outside_ascii_survive() {
        assert_eq!(
            texts("CREATE TABLE t (a int COMMENT '应用;名');"),
            ["CREATE TABLE t (a int COMMENT '应用;名')"]
        );
    }

    #[test]
    fn quote_closes_no_literal() {
        assert_eq!(quote("a'b\\"), "'a''b\\\\'");
    }
}
