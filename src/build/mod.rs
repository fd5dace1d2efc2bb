//! Recipe → packages → layers → image; the pipeline in order.
