//! What a `CREATE TABLE` defines: columns and keys, as far as an installed table is compared with it.

use std::fmt;

use super::name;
use crate::tars::sql::Token;

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name, without quotes.
    pub name: String,
    /// Its type.
    pub kind: Type,
    /// Its type as a statement of ours may send it.
    pub type_text: String,
    /// What stands behind its type, as a statement of ours may send it.
    pub attributes: String,
    /// Its default, as it stands in the file; `None` where it has none, or `NULL`.
    pub default: Option<String>,
    /// True where it is a key by itself (`PRIMARY KEY`, `UNIQUE`, `AUTO_INCREMENT` behind the type).
    pub is_key: bool,
}

/// A type, such as `varchar(32)` or `int(11) unsigned`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Type {
    /// Its word, in lower case.
    pub word: String,
    /// Lengths, digits or values, as they stand in the file.
    pub arguments: Vec<String>,
    /// True for numbers without a sign.
    pub unsigned: bool,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is for.
    pub kind: KeyKind,
    /// Its name; a primary key has none, and another need not.
    pub name: Option<String>,
    /// Its columns, each with the length of its prefix where only that is in the key.
    pub columns: Vec<(String, Option<String>)>,
    /// Its definition, as a statement of ours may send it.
    pub text: String,
}

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    Primary,
    Unique,
    FullText,
    Plain,
}

impl Column {
    /// Its definition, name included.
    pub fn text(&self) -> String {
        format!("{} {} {}", name(&self.name), self.type_text, self.attributes).trim_end().to_owned()
    }
}

impl Key {
    /// True where there can be no second one like it: it bears a name, or is the primary key.
    pub fn has_one_name(&self) -> bool {
        self.name.is_some() || self.kind == KeyKind::Primary
    }
}

impl Type {
    /// True where it has a character set.
    pub fn is_text(&self) -> bool {
        matches!(self.width(), Width::Text(_)) && self.word != "json"
    }

    /// What of this type can be compared with another.
    fn width(&self) -> Width {
        let length = || self.arguments.first().and_then(|length| length.parse().ok());
        match self.word.as_str() {
            "bool" | "boolean" | "tinyint" => Width::Integer(1),
            "smallint" => Width::Integer(2),
            "mediumint" => Width::Integer(3),
            "int" | "integer" => Width::Integer(4),
            "bigint" => Width::Integer(8),
            "float" => Width::Real(4),
            "double" | "real" => Width::Real(8),
            "char" | "varchar" | "nvarchar" => Width::Text(length().unwrap_or(1)),
            "tinytext" => Width::Text((1 << 8) - 1),
            "text" => Width::Text((1 << 16) - 1),
            "mediumtext" => Width::Text((1 << 24) - 1),
            "longtext" | "json" => Width::Text((1 << 32) - 1),
            "binary" | "varbinary" => Width::Bytes(length().unwrap_or(1)),
            "tinyblob" => Width::Bytes((1 << 8) - 1),
            "blob" => Width::Bytes((1 << 16) - 1),
            "mediumblob" => Width::Bytes((1 << 24) - 1),
            "longblob" => Width::Bytes((1 << 32) - 1),
            _ => Width::Other,
        }
    }

    /// How this type, an installed column's, stands to the one that is shipped.
    pub fn compared_with(&self, shipped: &Self) -> Comparison {
        let wide_enough = |own: u64, other: u64| {
            if own >= other { Comparison::WideEnough } else { Comparison::Narrower }
        };
        match (self.width(), shipped.width()) {
            // A number without a sign holds none below zero, and one with a sign none of the upper half.
            (Width::Integer(own), Width::Integer(other)) if self.unsigned != shipped.unsigned => {
                if shipped.unsigned && own > other { Comparison::WideEnough } else { Comparison::Different }
            }
            (Width::Integer(own), Width::Integer(other))
            | (Width::Real(own), Width::Real(other))
            | (Width::Text(own), Width::Text(other))
            | (Width::Bytes(own), Width::Bytes(other)) => wide_enough(own, other),
            _ if self == shipped => Comparison::WideEnough,
            // `datetime` and `datetime(0)`, `enum`s of which one has more values.
            _ if self.word == shipped.word && matches!(self.word.as_str(), "enum" | "set") => {
                let has = |value: &String| self.arguments.contains(value);
                if shipped.arguments.iter().all(has) { Comparison::WideEnough } else { Comparison::Different }
            }
            _ if self.word == shipped.word && shipped.arguments.is_empty() => Comparison::WideEnough,
            _ => Comparison::Different,
        }
    }
}

impl Type {
    /// The condition that is true for a value of an installed column which this type does not hold; nothing where it holds
    /// them all, or where how they become others is no matter of their length.
    pub fn misfit(&self, installed: &Self, column: &str) -> Option<String> {
        let column = name(column);
        match (self.width(), installed.width()) {
            (Width::Text(own), Width::Text(other)) if own < other => {
                // `text` counts bytes, `varchar` characters.
                let length = if self.word.ends_with("char") { "CHAR_LENGTH" } else { "LENGTH" };
                Some(format!("{length}({column}) > {own}"))
            }
            (Width::Bytes(own), Width::Bytes(other)) if own < other => {
                Some(format!("LENGTH({column}) > {own}"))
            }
            (Width::Integer(own), Width::Integer(other))
                if own < other || self.unsigned != installed.unsigned =>
            {
                let most =
                    if self.unsigned { (1_u128 << (8 * own)) - 1 } else { (1_u128 << (8 * own - 1)) - 1 };
                let least = if self.unsigned { "0".to_owned() } else { format!("-{}", most + 1) };
                Some(format!("{column} NOT BETWEEN {least} AND {most}"))
            }
            _ if self.word == "enum" && installed.word == "enum" => {
                let lacks = installed.arguments.iter().any(|value| !self.arguments.contains(value));
                lacks.then(|| format!("{column} NOT IN ({})", self.arguments.join(", ")))
            }
            _ => None,
        }
    }
}

/// As `information_schema` writes it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word)?;
        if !self.arguments.is_empty() {
            write!(f, "({})", self.arguments.join(","))?;
        }
        f.write_str(if self.unsigned { " unsigned" } else { "" })
    }
}

/// What holds how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Integer(u64),
    Real(u64),
    Text(u64),
    Bytes(u64),
    Other,
}

/// How an installed column's type stands to the shipped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// It holds whatever the shipped one does.
    WideEnough,
    /// It is of the same kind and holds less.
    Narrower,
    /// Neither holds all of the other.
    Different,
}

/// Tokens as SQL again.
pub fn text(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        let word = match token {
            Token::Name(word) => name(word),
            Token::Word(word) | Token::Text(word) | Token::Number(word) | Token::Variable(word) => {
                word.clone()
            }
            Token::Sign(sign) => sign.to_string(),
        };
        // `DEFAULT -1`: a sign and its number stay together, and nothing else needs a blank less.
        if !text.is_empty() && !text.ends_with('-') {
            text.push(' ');
        }
        text.push_str(&word);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Type {
        let (rest, unsigned) = text.strip_suffix(" unsigned").map_or((text, false), |rest| (rest, true));
        let (word, arguments) = rest.split_once('(').unwrap_or((rest, ""));
        let arguments = arguments.trim_end_matches(')').split(',').filter(|text| !text.is_empty());
        Type { word: word.to_owned(), arguments: arguments.map(str::to_owned).collect(), unsigned }
    }

    #[test]
    fn types_are_compared_by_what_they_hold() {
        for (own, shipped, expected) in [
            ("varchar(128)", "varchar(32)", Comparison::WideEnough),
            ("varchar(32)", "varchar(128)", Comparison::Narrower),
            ("varchar(255)", "text", Comparison::Narrower),
            ("longtext", "text", Comparison::WideEnough),
            ("int", "int(11)", Comparison::WideEnough),
            ("int(4)", "int(11)", Comparison::WideEnough),
            ("smallint(6)", "int(11)", Comparison::Narrower),
            ("int(11) unsigned", "int(11)", Comparison::Different),
            ("int(11)", "int(11) unsigned", Comparison::Different),
            ("bigint(20)", "int(11) unsigned", Comparison::WideEnough),
            ("enum('a','b','c')", "enum('a','b')", Comparison::WideEnough),
            ("enum('a')", "enum('a','b')", Comparison::Different),
            ("datetime(6)", "datetime", Comparison::WideEnough),
            ("varchar(10)", "int(11)", Comparison::Different),
            ("timestamp", "datetime", Comparison::Different),
            ("blob", "text", Comparison::Different),
        ] {
            assert_eq!(kind(own).compared_with(&kind(shipped)), expected, "{own} for {shipped}");
        }
    }

    #[test]
    fn values_that_a_type_does_not_hold_are_told_by_a_condition() {
        for (own, installed, expected) in [
            ("varchar(16)", "varchar(50)", Some("CHAR_LENGTH(`c`) > 16")),
            ("varchar(255)", "text", Some("CHAR_LENGTH(`c`) > 255")),
            ("text", "mediumtext", Some("LENGTH(`c`) > 65535")),
            ("text", "varchar(255)", None),
            ("int", "bigint(20)", Some("`c` NOT BETWEEN -2147483648 AND 2147483647")),
            ("int unsigned", "int(11)", Some("`c` NOT BETWEEN 0 AND 4294967295")),
            ("bigint(20)", "int(11)", None),
            ("enum('a')", "enum('a','b')", Some("`c` NOT IN ('a')")),
            ("enum('a','b')", "enum('a')", None),
            ("datetime", "varchar(20)", None),
        ] {
            assert_eq!(kind(own).misfit(&kind(installed), "c").as_deref(), expected, "{installed} as {own}");
        }
    }
}
