//! Where images come from and go to: each file a source and a sink.
