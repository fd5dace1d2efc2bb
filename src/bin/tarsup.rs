//! The tarsup command.

fn main() {}
