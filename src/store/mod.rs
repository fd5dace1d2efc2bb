//! The local content store: a plain OCI layout that any other tool can read.
