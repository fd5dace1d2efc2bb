//! Tests of tars-init with real processes and a real MariaDB.
