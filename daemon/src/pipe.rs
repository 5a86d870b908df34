//! A pipe that moves pages between sockets and files without a copy through this process.
//!
//! Invariant: [`Pipe::held`] is what is in it.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Size asked for, bytes: 512 KiB to 1 MiB were measured best in both directions. A user without
/// `CAP_SYS_RESOURCE` has 64 of them (`fs.pipe-user-pages-soft`); after that they come small.
const PIPE_BYTES: i32 = 1 << 20;

#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    held: usize,
}

impl Pipe {
    /// An empty pipe, as large as the kernel allows.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Refused where the user's allowance is spent; then it is what it is.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let capacity = usize::try_from(fcntl(&write, FcntlArg::F_GETPIPE_SZ)?).unwrap_or(0);
        Ok(Self { read, write, capacity, held: 0 })
    }

    /// Bytes it can hold, if they come in whole pages.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn held(&self) -> usize {
        self.held
    }

    /// Where somebody else (the ring) may put bytes; they are to be told by [`Self::filled`].
    pub fn entrance(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    pub fn filled(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// Takes up to `bytes` that have arrived at a socket.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is there, or nothing fits.
    pub fn fill_from_socket(&mut self, socket: impl AsFd, bytes: usize) -> Result<usize, Errno> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let filled = splice(socket, None, &self.write, None, bytes, flags)?;
        self.held += filled;
        Ok(filled)
    }

    /// Takes up to `bytes` of a file from `offset`. Waits for the disk where they are not in memory.
    ///
    /// # Errors
    /// The read's own.
    pub fn fill_from_file(&mut self, file: &File, offset: u64, bytes: usize) -> Result<usize, Errno> {
        let mut position = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let filled = splice(file, Some(&mut position), &self.write, None, bytes, flags)?;
        self.held += filled;
        Ok(filled)
    }

    /// Sends what a socket takes of it; with `more`, a segment that is not full waits for the rest.
    ///
    /// # Errors
    /// `EAGAIN`: it takes nothing now; `ENODATA`: nothing is in it.
    pub fn drain_to_socket(&mut self, socket: &TcpStream, more: bool) -> Result<usize, Errno> {
        let more = if more { SpliceFFlags::SPLICE_F_MORE } else { SpliceFFlags::empty() };
        let flags = more | SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let drained = splice(&self.read, None, socket, None, self.held, flags)?;
        if drained == 0 {
            return Err(Errno::ENODATA);
        }
        self.held = self.held.saturating_sub(drained);
        Ok(drained)
    }

    /// Writes up to `bytes` of what is in it to `file` at `offset`, and says how many. Blocks on the disk.
    ///
    /// # Errors
    /// The write's own; what was not written stays in it.
    pub fn drain_to_file(&mut self, file: &File, offset: u64, bytes: usize) -> io::Result<usize> {
        let mut position = i64::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        loop {
            let bytes = bytes.min(self.held);
            match splice(&self.read, None, file, Some(&mut position), bytes, SpliceFFlags::SPLICE_F_MOVE) {
                Ok(0) if bytes > 0 => return Err(io::ErrorKind::WriteZero.into()),
                Ok(drained) => {
                    self.held = self.held.saturating_sub(drained);
                    return Ok(drained);
                }
                Err(Errno::EINTR) => {}
                // A file system without splice.
                Err(Errno::EINVAL) => {
                    let bytes = self.take()?;
                    file.write_all_at(&bytes, offset)?;
                    return Ok(bytes.len());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes everything in it out, by a copy.
    ///
    /// # Errors
    /// The read's own.
    pub fn take(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        File::from(self.read.try_clone()?).read_exact(&mut bytes)?;
        self.held = 0;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn bytes_come_from_a_socket_to_a_file() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        let sent: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let sending = std::thread::spawn(move || sender.write_all(&sent));
        let (mut pipe, file, mut offset) = (Pipe::new().unwrap(), tempfile::tempfile().unwrap(), 0);
        while offset < expected.len() as u64 {
            match pipe.fill_from_socket(&receiver, 1 << 20) {
                Ok(_) => {
                    while pipe.held() > 0 {
                        offset += pipe.drain_to_file(&file, offset, 100_000).unwrap() as u64;
                    }
                }
                Err(error) => assert_eq!(error, Errno::EAGAIN),
            }
            assert_eq!(pipe.held(), 0);
        }
        sending.join().unwrap().unwrap();
        let mut stored = vec![0; expected.len()];
        file.read_exact_at(&mut stored, 0).unwrap();
        assert!(stored == expected);
    }

    #[test]
    fn what_is_in_it_can_be_taken_out() {
        let mut pipe = Pipe::new().unwrap();
        nix::unistd::write(pipe.entrance(), b"seven").unwrap();
        pipe.filled(5);
        assert_eq!(pipe.take().unwrap(), b"seven");
        assert_eq!(pipe.held(), 0);
        assert!(pipe.capacity() >= 4096);
    }
}
