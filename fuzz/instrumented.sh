#!/bin/sh
# What cargo calls in place of rustc for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER): every branch is counted for
# libFuzzer. `-Z` and a nightly toolchain are not needed for it, and what tarsup depends on is taken as its tests compile it.
exec "$@" --cfg fuzzing -Copt-level="${TARSUP_FUZZ_LEVEL:-0}" -Ccodegen-units=4 -Cdebuginfo=line-tables-only \
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
