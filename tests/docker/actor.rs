//! The program in the containers of these tests: built static, from this file alone, by whatever builds the tests.

use std::io::Write as _;
use std::{env, fs, process, thread, time::Duration};

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sleep", ..] => thread::sleep(Duration::from_secs(600)),
        ["exit", code] => process::exit(code.parse().expect("a number")),
        ["say", out, err, code] => {
            print!("{out}");
            std::io::stdout().flush().expect("stdout is open");
            eprint!("{err}");
            process::exit(code.parse().expect("a number"));
        }
        ["hear"] => {
            for line in std::io::stdin().lines() {
                println!("heard {}", line.expect("text"));
            }
            eprintln!("the end");
            process::exit(3);
        }
        ["cat", files @ ..] => files.iter().for_each(|file| match fs::read_to_string(file) {
            Ok(text) => print!("{text}"),
            Err(error) => {
                eprintln!("{file}: {error}");
                process::exit(1);
            }
        }),
        _ => process::exit(64),
    }
}
