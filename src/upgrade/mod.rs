//! Plan, step, journal, progress, gate and policy: pure; `run` is the one loop that acts.
