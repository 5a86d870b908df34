//! The listening sockets: bound anew, taken over from the daemon before, or kept by systemd.
//!
//! Accepted connections belong to the cgroup of the socket that listened. Where the successor cannot join the
//! incumbent's group (another container), pieces are therefore served on a socket of its own beside the inherited one
//! (`SO_REUSEPORT`), and new connections are steered to it, so that none is met by a socket that is about to close.
//!
//! Invariant: a socket that is taken over listens where the configuration says, or is not taken.

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Mirror,
    Peer,
    Metrics,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Mirror, Self::Peer, Self::Metrics];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Peer => "peer",
            Self::Metrics => "metrics",
        }
    }
}

/// Sockets that listen already.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    sockets: Mutex<HashMap<Place, OwnedFd>>,
}

impl Listeners {
    /// By name; what has none that is known is closed.
    pub(crate) fn named(sockets: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        let place = |name: &str| Place::ALL.into_iter().find(|place| place.name() == name);
        let sockets = sockets.into_iter().filter_map(|(name, socket)| Some((place(&name)?, socket)));
        Self { sockets: Mutex::new(sockets.collect()) }
    }

    /// The one for `place` that listens at `wanted`, else a new one.
    pub(crate) fn tcp(&self, place: Place, wanted: SocketAddr) -> io::Result<TcpListener> {
        match self.inherited(place, wanted)? {
            Some(listener) => Ok(listener),
            None => bind(wanted, false),
        }
    }

    /// As [`Self::tcp`], but of this process's own cgroup.
    pub(crate) fn own_tcp(&self, place: Place, wanted: SocketAddr) -> io::Result<TcpListener> {
        match self.inherited(place, wanted)? {
            Some(inherited) => beside(&inherited),
            None => bind(wanted, false),
        }
    }

    fn inherited(&self, place: Place, wanted: SocketAddr) -> io::Result<Option<TcpListener>> {
        let Some(socket) = self.sockets.lock().remove(&place) else { return Ok(None) };
        let listener = TcpListener::from(socket);
        let is = listener.local_addr()?;
        let fits = is.ip() == wanted.ip() && (wanted.port() == 0 || is.port() == wanted.port());
        if !fits {
            tracing::info!(place = place.name(), %is, %wanted, "listening elsewhere from now on");
            return Ok(None);
        }
        listener.set_nonblocking(true)?;
        Ok(Some(listener))
    }
}

/// A new listening socket.
pub(crate) fn bind(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket beside one that listens already; all new connections come to it.
///
/// `inherited` is closed here; whoever else has it goes on accepting what was on its way until it closes it, too.
fn beside(inherited: &TcpListener) -> io::Result<TcpListener> {
    SockRef::from(inherited).set_reuse_port(true)?;
    let own = bind(inherited.local_addr()?, true)?;
    steer(&own, 1)?;
    Ok(own)
}

/// Sends new connections of the group to the socket of this number: the order is that of listening.
fn steer(member: &TcpListener, number: u32) -> io::Result<()> {
    /// `BPF_RET | BPF_K`: the classic filter that returns a constant.
    const RETURN_CONSTANT: u16 = 0x06;
    use nix::libc::{SO_ATTACH_REUSEPORT_CBPF, SOL_SOCKET, setsockopt, sock_filter, sock_fprog, socklen_t};
    let mut filter = sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: number };
    let program = sock_fprog { len: 1, filter: &raw mut filter };
    let size = socklen_t::try_from(size_of::<sock_fprog>()).map_err(io::Error::other)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(member);
    #[expect(unsafe_code, reason = "no crate has this option")]
    // SAFETY: the program and its one instruction live across the call, and the size is theirs.
    let result =
        unsafe { setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, (&raw const program).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn localhost() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn a_socket_is_taken_where_it_listens_as_configured() {
        let first = bind(localhost(), false).unwrap();
        let addr = first.local_addr().unwrap();
        let listeners = |socket: &TcpListener| {
            Listeners::named([("mirror".to_owned(), socket.try_clone().unwrap().into())])
        };
        assert!(bind(addr, false).is_err(), "it is taken");
        assert_eq!(listeners(&first).tcp(Place::Mirror, addr).unwrap().local_addr().unwrap(), addr);
        assert_eq!(listeners(&first).tcp(Place::Mirror, localhost()).unwrap().local_addr().unwrap(), addr);
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], 0));
        assert_ne!(listeners(&first).tcp(Place::Mirror, elsewhere).unwrap().local_addr().unwrap(), addr);
        // A port of its own, since nothing of that name was inherited.
        assert_ne!(listeners(&first).tcp(Place::Peer, localhost()).unwrap().local_addr().unwrap(), addr);
    }

    /// Three generations: each new socket gets all new connections, none is refused or lost.
    #[test]
    fn beside_the_old_socket_the_new_one_gets_every_connection() {
        let mut current = bind(localhost(), false).unwrap();
        let addr = current.local_addr().unwrap();
        for _ in 0..3 {
            let waiting = TcpStream::connect(addr).unwrap();
            let inherited = Listeners::named([("peer".to_owned(), current.try_clone().unwrap().into())]);
            let own = inherited.own_tcp(Place::Peer, addr).unwrap();
            let streams: Vec<_> = (0..32).map(|_| TcpStream::connect(addr).unwrap()).collect();
            for _ in &streams {
                own.accept().unwrap();
            }
            // What came before is the former's to accept.
            let (accepted, _) = current.accept().unwrap();
            assert_eq!(accepted.peer_addr().unwrap(), waiting.local_addr().unwrap());
            assert!(current.accept().is_err());
            current = own;
        }
    }
}
