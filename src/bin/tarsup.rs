//! The tarsup command: see `tarsup --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tarsup::cli::main(std::env::args_os()) as u8)
}
