//! Sends the lines of an answer that grows: few bytes, now and then, so that every engine leaves it to
//! a task of the runtime.
//!
//! Invariant: it ends when the lines end, when the peer hangs up, or when it takes nothing for [`SEND_LIMIT`].

use super::limits::SEND_LIMIT;
use super::{Lines, Service};
use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends `head`, then lines as they come.
pub(super) async fn send(
    socket: &mut TcpStream,
    (peer, service): (IpAddr, &dyn Service),
    head: &[u8],
    mut lines: Box<dyn Lines>,
) -> io::Result<()> {
    send_bytes(socket, (peer, service), head).await?;
    let mut unexpected = [0; 1];
    loop {
        let next = tokio::select! {
            next = lines.next() => next,
            // The child closed (or sent what it must not): nobody listens any more.
            _ = socket.read(&mut unexpected) => return Ok(()),
        };
        let Some(bytes) = next else { return Ok(()) };
        send_bytes(socket, (peer, service), &bytes).await?;
    }
}

/// Sends bytes from memory.
pub(super) async fn send_bytes(
    socket: &mut TcpStream,
    (peer, service): (IpAddr, &dyn Service),
    bytes: &[u8],
) -> io::Result<()> {
    timeout(SEND_LIMIT, socket.write_all(bytes)).await??;
    service.sent(peer, bytes.len() as u64);
    Ok(())
}
