//! PID 1 of the images: signals, children, database, configuration, health.
