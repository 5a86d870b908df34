//! What a worker leaves to the runtime: the service's slow answers, and feeds.
//!
//! Invariant: every task is tracked, and ends with the engine.

use super::exchange::Exchange;
use super::mailbox::{Letter, Mailbox};
use super::standing::Standing;
use crate::engine::{Answer, Lines, Service, drained, feed};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) struct Outside {
    pub(super) service: Arc<dyn Service>,
    pub(super) runtime: Handle,
    pub(super) standing: Standing,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
}

impl Outside {
    /// Waits for an answer, and sends it by letter.
    pub(super) fn answer(
        &self,
        (slot, life): (u32, u32),
        answering: BoxFuture<'static, Answer>,
        mailbox: Mailbox,
    ) {
        let answered = async move {
            let answer = answering.await;
            mailbox.send(Letter::Answered { slot, life, answer });
        };
        self.tasks.spawn_on(answered, &self.runtime);
    }

    /// Takes a connection over that carries a feed from now on.
    pub(super) fn feed(&self, exchange: Exchange, head: Vec<u8>, lines: Box<dyn Lines>) {
        let (service, cancel) = (Arc::clone(&self.service), self.cancel.clone());
        let sending = async move {
            let Exchange { socket, peer, admitted, .. } = exchange;
            let sent = async {
                let mut socket = TcpStream::from_std(socket)?;
                feed::send(&mut socket, (peer, &*service), &head, lines).await?;
                socket.shutdown().await
            };
            tokio::select! {
                () = drained(&cancel) => {}
                sent = sent => if let Err(error) = sent {
                    tracing::debug!(%peer, %error, "feed to a peer ended");
                }
            }
            drop(admitted);
        };
        self.tasks.spawn_on(sending, &self.runtime);
    }
}
