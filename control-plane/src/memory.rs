//! Large blocks that are freed go back to the kernel at once.
//!
//! Left alone, glibc learns from the first large block that is freed (the 19 MiB of an argon2id hash) to keep blocks of
//! that size for ever: a manager that somebody signed in at would be twice as large as one just started.

/// From this size on a block has a mapping of its own. Larger than whatever is asked for often.
const MAPPED_FROM_BYTES: i32 = 1 << 20;

/// To be called before the first thread is started. Other C libraries than glibc do so anyway.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    set_mapping_threshold();
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc has no other way to set it for this process alone")]
fn set_mapping_threshold() {
    use nix::libc::{M_MMAP_THRESHOLD, mallopt};
    // SAFETY: it takes two numbers, and must not run beside another thread's first allocation: there is none yet. It
    // fails for values out of range alone, and then everything stays as it was.
    let _ = unsafe { mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES) };
}
