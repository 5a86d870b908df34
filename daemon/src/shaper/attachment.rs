//! The links by which programs hang on cgroups, by the system call itself: they are handed from one daemon to the next,
//! which puts its own programs in the place of the former ones without a packet in between that nobody counts.
//!
//! Invariant: a link holds its program, and goes with the last descriptor of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_LINK_CREATE: u64 = 28;
const BPF_LINK_UPDATE: u64 = 29;

/// Where on a cgroup, in the order in which links are handed over; values of `enum bpf_attach_type`.
pub(super) const PLACES: [u32; 3] = [EGRESS, INGRESS, SOCK_OPS];
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const SOCK_OPS: u32 = 3;

/// `bpf_attr` of `BPF_LINK_CREATE`.
#[repr(C)]
struct Create {
    program: u32,
    target: u32,
    place: u32,
    flags: u32,
}

/// `bpf_attr` of `BPF_LINK_UPDATE`.
#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// The three links of one cgroup.
#[derive(Debug)]
pub(super) struct Attachment {
    links: [OwnedFd; 3],
}

impl Attachment {
    /// Hangs `programs`, in the order of [`PLACES`], on a cgroup. Others on it stay and run, too.
    pub(super) fn new(cgroup: BorrowedFd<'_>, programs: [BorrowedFd<'_>; 3]) -> io::Result<Self> {
        let [egress, ingress, sockets] = programs;
        let [out, into, events] = PLACES;
        let link = |program: BorrowedFd<'_>, place| create(program, cgroup, place);
        Ok(Self { links: [link(egress, out)?, link(ingress, into)?, link(sockets, events)?] })
    }

    /// Puts `programs` in the place of those of another process; `NotFound` where the cgroup is gone.
    pub(super) fn taken_over(links: [OwnedFd; 3], programs: [BorrowedFd<'_>; 3]) -> io::Result<Self> {
        for (link, program) in links.iter().zip(programs) {
            update(link.as_fd(), program)?;
        }
        Ok(Self { links })
    }

    pub(super) fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(AsFd::as_fd)
    }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("a descriptor is not negative")
}

fn create(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, place: u32) -> io::Result<OwnedFd> {
    let mut attr = Create { program: number(program), target: number(cgroup), place, flags: 0 };
    let fd = bpf(BPF_LINK_CREATE, &mut attr)?;
    #[expect(unsafe_code, reason = "the kernel gives the descriptor as a number")]
    // SAFETY: made by this very call, and nobody else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Update { link: number(link), program: number(program), flags: 0, old_program: 0 };
    match bpf(BPF_LINK_UPDATE, &mut attr) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOLINK) => Err(io::ErrorKind::NotFound.into()),
        result => result.map(drop),
    }
}

fn bpf<T>(command: u64, attr: &mut T) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "aya gives no descriptor of its links, and updates none of these kinds")]
    // SAFETY: the attribute is as large as said, and lives across the call.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
