//! PID 1 of the images that tarsup builds.

fn main() {}
