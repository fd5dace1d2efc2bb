//! Whether standard output was open when the process began: the one thing that Rust's own start makes impossible to see.
//!
//! Before `main`, the standard library opens `/dev/null` in the place of a standard stream that is closed, so that no file
//! comes to lie there. `tarsup --json >&-` would then lose its document with exit code 0. What looks before that is an entry of
//! `.init_array` (System V ABI, "Initialization and Termination Functions"), for which Rust has no safe word: this crate is the
//! island for it, so that `tarsup` itself stays without unsafe code.

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

// SAFETY: an entry of this section is a pointer to a function of the C ABI, called once by the loader with arguments that it
// need not take. The function allocates nothing, and needs nothing that Rust's start brings.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    let closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err();
    WAS_CLOSED.store(closed, Ordering::Relaxed);
}

/// True where nobody can read what this process prints: standard output was closed when it began.
pub fn was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}
