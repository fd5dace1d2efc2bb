//! Arguments, settings, wiring, reports and exit codes: one file a command family.
