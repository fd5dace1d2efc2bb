//! JSON of somebody else, written again with each number as it stood there: a `Value` has 64 bits for one, and would round the others.

use serde_json::{Number, Value};

/// What a string begins with that stands for a number, as it is written. No name or value of a config has a nul byte: a process could
/// not be given it.
const MARK: &[u8] = br#""\u0000number "#;

/// Reads a document. Numbers that a `Value` would change are strings in it, until it is written.
///
/// # Errors
/// What is no JSON.
pub fn read(document: &[u8]) -> serde_json::Result<Value> {
    let mut marked = Vec::with_capacity(document.len());
    let mut rest = document;
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'"' => string(rest),
            b'-' | b'0'..=b'9' => number(rest),
            _ => 1,
        };
        let (token, behind) = rest.split_at(length);
        if byte != b'"' && is_changed(token) {
            marked.extend_from_slice(MARK);
            marked.extend_from_slice(token);
            marked.push(b'"');
        } else {
            marked.extend_from_slice(token);
        }
        rest = behind;
    }
    serde_json::from_slice(&marked)
}

/// Writes a document that was read here.
///
/// # Errors
/// None that a person can bring about.
pub fn write(document: &Value) -> serde_json::Result<Vec<u8>> {
    let marked = serde_json::to_vec(document)?;
    let mut written = Vec::with_capacity(marked.len());
    let mut rest = marked.as_slice();
    while let Some(&byte) = rest.first() {
        let length = if byte == b'"' { string(rest) } else { 1 };
        let (token, behind) = rest.split_at(length);
        let marked = token.strip_prefix(MARK).and_then(|token| token.strip_suffix(b"\""));
        written.extend_from_slice(marked.filter(|token| is_changed(token)).unwrap_or(token));
        rest = behind;
    }
    Ok(written)
}

/// The length of the string that a text begins with, with both its quotes.
fn string(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// The length of the number that a text begins with.
fn number(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count()
}

/// True for a number that is written otherwise than it stands here.
fn is_changed(token: &[u8]) -> bool {
    let number = serde_json::from_slice::<Number>(token);
    number.is_ok_and(|number| number.to_string().as_bytes() != token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_whatever_their_size() {
        let text = r#"{"a":[18446744073709551616,-9223372036854775809,0.1000000000000000055511151231257827,1e3,-0,7],"b":"5e1 \" 1e1\\","c":1.5}"#;
        let read = read(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(write(&read).unwrap()).unwrap(), text);
        assert_eq!((&read["a"][5], &read["c"]), (&7.into(), &1.5.into()), "what is exact is a number");
    }

    #[test]
    fn what_is_no_number_is_none_afterwards() {
        for text in ["{\"a\":01}", "{\"a\":1.2.3}", "{\"a\":-}", "{\"a\":1e999}", "{\"a", "[1", "\"\\"] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        // A string of somebody who knows the mark stays a string, unless it is a number.
        let text = r#"["\u0000number 1,2","\u0000number x","\u0000number 1"]"#;
        let value = read(text.as_bytes()).unwrap();
        assert_eq!(value[0], "\0number 1,2");
        assert_eq!(String::from_utf8(write(&value).unwrap()).unwrap(), text);
    }
}
