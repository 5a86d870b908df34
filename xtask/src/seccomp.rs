//! Runs a program to which the kernel refuses `bpf(2)`, as seccomp profiles and locked-down kernels do.
//!
//! Invariant: nothing else is refused.

use anyhow::{Context, Result, bail};
use nix::libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, EPERM, PR_SET_SECCOMP, SECCOMP_MODE_FILTER,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SYS_bpf, prctl, sock_filter, sock_fprog,
};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Becomes the program.
pub(crate) fn without_bpf(words: &[String]) -> Result<ExitCode> {
    let (program, arguments) = words.split_first().context("no program is named")?;
    refuse_bpf()?;
    let error = Command::new(program).args(arguments).exec();
    bail!("run {program}: {error}");
}

fn refuse_bpf() -> Result<()> {
    let instruction = |code: u32, k: u32, jt, jf| -> Result<sock_filter> {
        Ok(sock_filter { code: u16::try_from(code)?, jt, jf, k })
    };
    let number = u32::try_from(SYS_bpf).context("the number of bpf(2)")?;
    let mut filter = [
        // `seccomp_data.nr`
        instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0)?,
        instruction(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1)?,
        instruction(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM.cast_unsigned(), 0, 0)?,
        instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0)?,
    ];
    let program = sock_fprog { len: u16::try_from(filter.len())?, filter: filter.as_mut_ptr() };
    #[expect(unsafe_code, reason = "no crate here has this call")]
    // SAFETY: the program and its instructions live across the call.
    let result = unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("set a seccomp filter");
    }
    Ok(())
}
