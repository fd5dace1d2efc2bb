//! Where a reader stands in a statement's tokens.

use super::table;
use crate::tars::sql::Token;

/// What keeps a statement from being sent, in a few words.
pub type Reason = String;

/// Reads one token after the other.
pub struct Cursor<'a> {
    pub tokens: &'a [Token],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    pub fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at);
        self.at += 1;
        token
    }

    /// True, and past it, where the next token is this keyword.
    pub fn takes(&mut self, keyword: &str) -> bool {
        self.takes_if(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword)))
    }

    pub fn takes_sign(&mut self, sign: char) -> bool {
        self.takes_if(|token| *token == Token::Sign(sign))
    }

    pub fn takes_text(&mut self) -> bool {
        self.takes_if(|token| matches!(token, Token::Text(_)))
    }

    pub fn takes_number(&mut self) -> bool {
        self.takes_if(|token| matches!(token, Token::Number(_)))
    }

    fn takes_if(&mut self, fits: impl Fn(&Token) -> bool) -> bool {
        let fits = self.peek().is_some_and(fits);
        self.at += usize::from(fits);
        fits
    }

    /// What was read since it stood at `from`, as SQL.
    pub fn text_since(&self, from: usize) -> String {
        table::text(&self.tokens[from..self.at.min(self.tokens.len())])
    }

    pub fn take_word(&mut self) -> Option<&'a str> {
        let Some(Token::Word(word)) = self.peek() else { return None };
        self.at += 1;
        Some(word)
    }

    pub fn expect(&mut self, keyword: &str) -> Result<(), Reason> {
        if self.takes(keyword) { Ok(()) } else { Err(format!("{keyword} was expected{}", self.instead())) }
    }

    pub fn expect_sign(&mut self, sign: char) -> Result<(), Reason> {
        if self.takes_sign(sign) { Ok(()) } else { Err(format!("`{sign}` was expected{}", self.instead())) }
    }

    pub fn expect_name(&mut self) -> Result<String, Reason> {
        match self.peek() {
            Some(Token::Word(name) | Token::Name(name)) => {
                self.at += 1;
                Ok(name.clone())
            }
            _ => Err(format!("a name was expected{}", self.instead())),
        }
    }

    /// A table of the schema that the file is for, and of no other.
    pub fn expect_table(&mut self) -> Result<String, Reason> {
        let table = self.expect_name()?;
        if self.takes_sign('.') {
            return Err(format!("it names another schema, `{table}`"));
        }
        Ok(table)
    }

    pub fn expect_end(&self) -> Result<(), Reason> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(format!("it goes on{}", self.instead())),
        }
    }

    pub fn instead(&self) -> String {
        match self.peek() {
            None => ", and it ends".to_owned(),
            Some(Token::Text(_)) => " with a text".to_owned(),
            Some(Token::Sign(sign)) => format!(" with `{sign}`"),
            Some(Token::Name(word) | Token::Word(word) | Token::Number(word) | Token::Variable(word)) => {
                format!(" with `{word}`")
            }
        }
    }

    /// Something between parentheses, once or more, with commas between.
    pub fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Reason>) -> Result<(), Reason> {
        self.expect_sign('(')?;
        loop {
            item(self)?;
            if !self.takes_sign(',') {
                return self.expect_sign(')');
            }
        }
    }

    pub fn names(&mut self) -> Result<Vec<String>, Reason> {
        let mut names = Vec::new();
        self.list(|cursor| {
            names.push(cursor.expect_name()?);
            Ok(())
        })?;
        Ok(names)
    }
}
