//! PID 1 of the images that tarsup builds.

use std::process::ExitCode;

fn main() -> ExitCode {
    tarsup::init::main()
}
