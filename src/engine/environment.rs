//! The variables of a container or an image, as the API has them, with values that no text shows.

use std::collections::BTreeSet;
use std::fmt;

use crate::secretive::Secretive;

/// Variables, in the order in which they are given. Its `Debug` shows the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(pub Vec<Variable>);

/// One variable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value; `None` takes it away from what the image brings.
    pub value: Option<Secretive>,
}

impl Variable {
    /// An entry of the API: `NAME=value`, or the name alone.
    pub fn of(entry: &str) -> Self {
        match entry.split_once('=') {
            Some((name, value)) => Self { name: name.to_owned(), value: Some(Secretive::new(name, value)) },
            None => Self { name: entry.to_owned(), value: None },
        }
    }

    /// The same the other way round: what the engine is given.
    pub fn expose(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={}", self.name, value.expose()),
            None => self.name.clone(),
        }
    }
}

impl Environment {
    /// Entries as the API has them.
    pub fn of<E: AsRef<str>>(entries: impl IntoIterator<Item = E>) -> Self {
        Self(entries.into_iter().map(|entry| Variable::of(entry.as_ref())).collect())
    }

    /// The same the other way round: what the engine is given.
    pub fn expose(&self) -> Vec<String> {
        self.0.iter().map(Variable::expose).collect()
    }

    /// What is said of a variable: the last entry counts, as in the engine.
    pub fn get(&self, name: &str) -> Option<&Variable> {
        self.0.iter().rev().find(|variable| variable.name == name)
    }

    /// The value of a variable that has one.
    pub fn value(&self, name: &str) -> Option<&Secretive> {
        self.get(name)?.value.as_ref()
    }

    /// The value of a variable that has one and is not empty.
    pub fn filled(&self, name: &str) -> Option<&Secretive> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// Every value, with the name of its variable.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Secretive)> {
        self.0.iter().filter_map(|variable| Some((variable.name.as_str(), variable.value.as_ref()?)))
    }

    /// The names.
    pub fn names(&self) -> BTreeSet<&str> {
        self.0.iter().map(|variable| variable.name.as_str()).collect()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_as_they_went_in_and_the_last_of_a_name_counts() {
        let entries = ["A=1", "B", "A=2=3", "C="];
        let environment = Environment::of(entries);
        assert_eq!(environment.expose(), entries);
        assert_eq!(environment.value("A").map(Secretive::expose), Some("2=3"));
        assert_eq!(environment.get("B").map(|variable| variable.value.is_none()), Some(true));
        assert!(environment.value("C").is_some() && environment.filled("C").is_none());
        assert_eq!(format!("{environment:?}"), r#"["A", "B", "A", "C"]"#);
    }
}
