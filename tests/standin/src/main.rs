//! Stand-ins for the TARS services.

fn main() {}
