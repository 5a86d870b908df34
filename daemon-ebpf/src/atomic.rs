//! Read-modify-write on map values, by intrinsics.
//!
//! Invariant: where the old value is used the ordering is sequentially consistent: LLVM turns a relaxed one into an
//! instruction that does not return it (llvm/llvm-project#210280).

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Adds without looking.
///
/// # Safety
/// `to` points into a live map value, 8-byte aligned.
#[inline(always)]
pub unsafe fn add(to: *mut u64, value: u64) {
    // SAFETY: as the caller promises.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(to, value) };
}

/// As [`add`], 4 bytes; subtracts where `value` is `u32::MAX`.
///
/// # Safety
/// `to` points into a live map value, 4-byte aligned.
#[inline(always)]
pub unsafe fn add32(to: *mut u32, value: u32) {
    // SAFETY: as the caller promises.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(to, value) };
}

/// Adds and returns what was there before.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn fetch_add(to: *mut u64, value: u64) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(to, value) }
}

/// Puts `new` where `old` still stands.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn replace(at: *mut u64, old: u64, new: u64) {
    // SAFETY: as the caller promises.
    let _ =
        unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(at, old, new) };
}
