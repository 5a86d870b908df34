//! What the two daemons say to each other: JSON in packets of a unix socket, with descriptors beside it.
//!
//! Invariant: a packet is at most [`MAX_PACKET_BYTES`] with at most [`MAX_DESCRIPTORS`] descriptors; unknown fields are
//! ignored, so that a newer daemon may say more.

use super::{ANSWER_LIMIT, HandoverError};
use crate::lifetime::Totals;
use hawker_abi::{Limit, Settings};
use hawker_api::protocol::Protocol;
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect,
    recvmsg, sendmsg, socket,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

pub(super) const MAX_PACKET_BYTES: usize = 64 << 10;
/// Four sockets, three links and two maps, and room for what later versions add.
pub(super) const MAX_DESCRIPTORS: usize = 32;

/// One packet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    Hello(Hello),
    Welcome(Box<Welcome>),
    Refused { reason: String },
    Take,
    Yours,
    Counting,
    Totals(Totals),
    Serving { pid: u32 },
}

/// Who wants to follow.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: Protocol,
    pub(crate) version: String,
}

/// Who runs, and what its descriptors are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Welcome {
    pub(crate) protocol: Protocol,
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// In the order of the descriptors.
    pub(crate) descriptors: Vec<String>,
    /// Where its programs hang; none without eBPF.
    pub(crate) cgroup: Option<PathBuf>,
    /// The group it will leave that one for.
    pub(crate) former: Option<PathBuf>,
    pub(crate) orders: Option<KernelOrders>,
    pub(crate) yielded: KernelYield,
}

/// How far it gave way, bytes per second; 0: not at all, or not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KernelYield {
    pub(crate) limit: u64,
    pub(crate) capacity: u64,
}

/// What the programs go by: the new ones begin with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelOrders {
    pub(crate) mode: u32,
    pub(crate) piece_port: u32,
    pub(crate) burst_ns: u64,
    pub(crate) total_rate: u64,
    pub(crate) level: u64,
    pub(crate) default_rate: u64,
    pub(crate) default_weight: u32,
}

impl From<Settings> for KernelOrders {
    fn from(settings: Settings) -> Self {
        let Settings { mode, piece_port, burst_ns, total_rate, level, default_limit } = settings;
        let (default_rate, default_weight) = (default_limit.rate, default_limit.weight);
        Self { mode, piece_port, burst_ns, total_rate, level, default_rate, default_weight }
    }
}

impl From<KernelOrders> for Settings {
    fn from(orders: KernelOrders) -> Self {
        let KernelOrders { mode, piece_port, burst_ns, total_rate, level, default_rate, default_weight } =
            orders;
        let default_limit = Limit { rate: default_rate, weight: default_weight, reserved: 0 };
        Self { mode, piece_port, burst_ns, total_rate, level, default_limit }
    }
}

/// For the runtime to tell when something comes.
pub(super) fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    // SAFETY: the value owns the descriptor and is given away with it: it is open until that is dropped.
    let watched = unsafe { AsyncFd::register(socket) };
    Ok(watched?)
}

/// One side of the talk.
pub(crate) struct Conversation {
    socket: AsyncFd<OwnedFd>,
}

impl Conversation {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: watched(socket)? })
    }

    /// With whoever listens at `path`.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Self::new(fd)
    }

    pub(crate) async fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HandoverError> {
        let failed = |source| HandoverError::Talk { act: "tell", source };
        let text = serde_json::to_vec(message).map_err(|error| failed(error.into()))?;
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let sending = self.socket.async_io(Interest::WRITABLE, |socket| {
            let rights = [ControlMessage::ScmRights(&raw)];
            let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
            let flags = MsgFlags::MSG_NOSIGNAL;
            sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&text)], rights, flags, None)
                .map_err(io::Error::from)
        });
        let sent =
            timeout(ANSWER_LIMIT, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        sent.map(drop).map_err(failed)
    }

    /// The next packet, within [`ANSWER_LIMIT`].
    pub(crate) async fn hear(&self) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        let late = |_| Err(HandoverError::Talk { act: "hear", source: io::ErrorKind::TimedOut.into() });
        timeout(ANSWER_LIMIT, self.next()).await.unwrap_or_else(late)
    }

    /// The next packet; an end of the talk is `UnexpectedEof`.
    pub(crate) async fn next(&self) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        let failed = |source| HandoverError::Talk { act: "hear", source };
        let mut buffer = vec![0; MAX_PACKET_BYTES];
        let received = self.socket.async_io(Interest::READABLE, |socket| receive(socket, &mut buffer));
        let (bytes, descriptors) = received.await.map_err(failed)?;
        if bytes == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let message = serde_json::from_slice(&buffer[..bytes]).map_err(|error| failed(error.into()))?;
        Ok((message, descriptors))
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            #[expect(unsafe_code, reason = "the kernel gives descriptors as numbers")]
            // SAFETY: made for this process by this very call, and nobody else has seen them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet that is too long"));
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::socketpair;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    fn pair() -> (Conversation, Conversation) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        (Conversation::new(one).unwrap(), Conversation::new(other).unwrap())
    }

    #[tokio::test]
    async fn descriptors_arrive_with_their_names() {
        let (one, other) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"listening").unwrap();
        let welcome = Welcome { descriptors: vec!["mirror".to_owned()], pid: 7, ..Welcome::default() };
        one.send(&Message::Welcome(Box::new(welcome)), &[file.as_fd()]).await.unwrap();
        let (message, mut descriptors) = other.hear().await.unwrap();
        let Message::Welcome(welcome) = message else { panic!("{message:?}") };
        assert_eq!((welcome.descriptors, welcome.pid), (vec!["mirror".to_owned()], 7));
        let (mut text, mut got) = (String::new(), std::fs::File::from(descriptors.remove(0)));
        got.rewind().unwrap();
        got.read_to_string(&mut text).unwrap();
        assert_eq!(text, "listening");
    }

    #[tokio::test]
    async fn unknown_fields_are_ignored_and_an_end_is_an_error() {
        let (one, other) = pair();
        let text = br#"{"hello":{"protocol":{"major":1,"minor":9},"version":"9","more":[1]}}"#;
        nix::sys::socket::send(one.socket.get_ref().as_raw_fd(), text, MsgFlags::empty()).unwrap();
        let (message, _) = other.hear().await.unwrap();
        let Message::Hello(hello) = message else { panic!("{message:?}") };
        assert_eq!(hello.protocol.minor, 9);
        drop(one);
        assert!(other.hear().await.is_err());
    }

    #[test]
    fn the_programs_orders_come_through() {
        let settings = Settings { mode: 1, piece_port: 4000, total_rate: 5, level: 6, ..Settings::default() };
        assert_eq!(Settings::from(KernelOrders::from(settings)), settings);
    }
}
