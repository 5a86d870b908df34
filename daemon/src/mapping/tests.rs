//! Real faults: files cut short while they are looked at, and faults that are nobody's business here, in processes
//! of their own.

use super::*;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

const MIB: u64 = 1 << 20;
/// Tells a test that it is the child that is to die.
const CHILD: &str = "HAWKER_TEST_FAULTS";

fn file(bytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    file.write_all_at(&content, 0).unwrap();
    file
}

fn sum(window: &Window, range: &Range<u64>) -> io::Result<u64> {
    let mut sum = 0;
    window.look(range, |bytes| sum = bytes.iter().map(|byte| u64::from(*byte)).sum())?;
    Ok(sum)
}

#[test]
fn it_shows_what_the_file_holds() {
    let file = file(3 * MIB);
    for range in [0..3 * MIB, 1..2, 4095..8193, MIB + 17..2 * MIB + 5] {
        let window = Window::of(&file, range.clone()).unwrap();
        let part = range.start..range.start.midpoint(range.end).max(range.start + 1);
        assert_eq!(sum(&window, &part).unwrap(), part.clone().map(|at| at % 251).sum::<u64>(), "{range:?}");
        assert!(window.look(&(range.start..range.end + 1), |_| ()).is_err(), "beyond the window");
    }
    assert!(Window::of(&file, 5..5).is_err());
    let long = Window::of(&file, 0..u64::MAX).unwrap();
    assert_eq!(*long.range(), 0..MAX_WINDOW_BYTES);
}

#[test]
fn a_file_cut_short_is_an_error_and_no_crash() {
    let file = file(4 * MIB);
    let window = Window::of(&file, 0..4 * MIB).unwrap();
    let other = Window::of(&file, 0..MIB).unwrap();
    sum(&window, &(0..4 * MIB)).unwrap();
    file.set_len(MIB).unwrap();
    // The pages that are gone read as nothing, also those that had been there.
    assert!(sum(&window, &(2 * MIB..3 * MIB)).is_err());
    assert!(sum(&window, &(0..MIB)).is_err(), "once damaged it stays so");
    sum(&other, &(0..MIB)).unwrap();
    drop(window);
    let again = Window::of(&file, 0..MIB).unwrap();
    assert_eq!(sum(&again, &(0..251)).unwrap(), (0..251).sum::<u64>(), "a slot used again is clean");
}

#[test]
fn it_is_cut_short_while_many_look() {
    let cuts = (0..8u64).map(|number| {
        std::thread::spawn(move || {
            let file = file(4 * MIB);
            let cut = file.try_clone().unwrap();
            let window = Window::of(&file, 0..4 * MIB).unwrap();
            let cutting = std::thread::spawn(move || cut.set_len(number * 65_536).unwrap());
            let mut looks = 0u64;
            while sum(&window, &(0..4 * MIB)).is_ok() {
                looks += 1;
            }
            cutting.join().unwrap();
            assert!(sum(&window, &(3 * MIB..4 * MIB)).is_err());
            looks
        })
    });
    for cut in cuts.collect::<Vec<_>>() {
        cut.join().unwrap();
    }
}

#[test]
fn windows_run_out_and_come_back() {
    // In a process of its own: other tests need windows too.
    if std::env::var_os(CHILD).is_none() {
        assert!(child("windows_run_out_and_come_back").success());
        return;
    }
    let file = file(MIB);
    let windows: Vec<_> = (0..MAX_WINDOWS).map(|_| Window::of(&file, 0..MIB).unwrap()).collect();
    assert!(Window::of(&file, 0..MIB).is_err());
    drop(windows);
    Window::of(&file, 0..MIB).unwrap();
}

#[test]
fn a_fault_elsewhere_still_kills() {
    if std::env::var_os(CHILD).is_none() {
        let ended = child("a_fault_elsewhere_still_kills");
        assert_eq!(ended.signal(), Some(libc::SIGBUS), "{ended:?}");
        return;
    }
    let file = file(MIB);
    let window = Window::of(&file, 0..MIB).unwrap();
    // SAFETY: reading it after the cut faults, which is what is tested; nothing else uses it.
    let foreign = unsafe { Mmap::map(&file).unwrap() };
    file.set_len(0).unwrap();
    assert!(sum(&window, &(0..MIB)).is_err());
    std::hint::black_box(foreign[4096]);
}

#[test]
fn a_signal_that_was_sent_still_kills() {
    if std::env::var_os(CHILD).is_none() {
        let ended = child("a_signal_that_was_sent_still_kills");
        assert_eq!(ended.signal(), Some(libc::SIGBUS), "{ended:?}");
        return;
    }
    // As in a program that has no handler of the language's runtime.
    // SAFETY: sets no handler.
    unsafe { signal::signal(Signal::SIGBUS, SigHandler::SigDfl).unwrap() };
    Window::of(&file(MIB), 0..MIB).unwrap();
    signal::raise(Signal::SIGBUS).unwrap();
}

/// Runs one test of this file in a process of its own.
fn child(test: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("mapping::tests::{test}"), "--exact", "--test-threads=1"]).env(CHILD, "1");
    command.output().unwrap().status
}
