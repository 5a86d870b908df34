//! The successor's side: the store's lock, and with it what the daemon before gives.
//!
//! Invariant: with the lock in hand nobody else writes into the store.

use super::wire::{Hello, KernelOrders, KernelYield, Welcome};
use super::{ANSWER_LIMIT, Conversation, HandoverError, Listeners, Lock, Message, give, systemd};
use crate::lifetime::Totals;
use hawker_abi::Settings;
use hawker_api::protocol::Protocol;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A daemon that ends keeps its store for this long at most.
const ENDING_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// What was taken over.
#[derive(Default)]
pub(crate) struct Heritage {
    pub(crate) listeners: Listeners,
    pub(crate) shaper: Option<ShaperHeritage>,
    /// With the daemon before; `None`: it was this process.
    pub(crate) conversation: Option<Conversation>,
}

/// Programs to be replaced.
pub(crate) struct ShaperHeritage {
    pub(crate) links: Vec<OwnedFd>,
    pub(crate) settings: Settings,
    /// The maps of limits and of peers; none from a daemon that did not hand them over.
    pub(crate) maps: Vec<OwnedFd>,
    pub(crate) yielded: KernelYield,
    pub(crate) cgroup: PathBuf,
    pub(crate) former: Option<PathBuf>,
}

impl Heritage {
    /// Name of the descriptors that are links: each three are those of one cgroup.
    pub(crate) const LINK: &str = "link";
    /// And of those that are maps: limits, peers.
    pub(crate) const MAP: &str = "map";

    /// Of nobody; sockets may be the service manager's.
    pub(crate) fn alone() -> Self {
        Self { listeners: systemd::given(), ..Self::default() }
    }

    /// The lock of the store, and what its holder gives where there is one.
    pub(crate) async fn claim(dir: &Path) -> Result<(Lock, Option<Self>), HandoverError> {
        let deadline = Instant::now() + ENDING_LIMIT;
        let conversation = loop {
            if let Some(lock) = Lock::try_take(dir)? {
                return Ok((lock, None));
            }
            match Conversation::connect(&give::door(dir)) {
                Ok(conversation) => break conversation,
                // It ends, or has not opened its door yet.
                Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                Err(source) => {
                    let detail = format!("{}: {source}", give::door(dir).display());
                    return Err(HandoverError::Held { dir: dir.to_owned(), detail });
                }
            }
        };
        let hello = Hello { protocol: Protocol::spoken(), version: env!("CARGO_PKG_VERSION").to_owned() };
        conversation.send(&Message::Hello(hello), &[]).await?;
        let (welcome, descriptors) = match conversation.hear().await? {
            (Message::Welcome(welcome), descriptors) => (*welcome, descriptors),
            (Message::Refused { reason }, _) => return Err(HandoverError::Refused(reason)),
            (other, _) => return Err(HandoverError::Confused(format!("{other:?} for a welcome"))),
        };
        tracing::info!(version = welcome.version, pid = welcome.pid, "taking over from the daemon that runs");
        conversation.send(&Message::Take, &[]).await?;
        match conversation.hear().await? {
            (Message::Yours, _) => {}
            (other, _) => return Err(HandoverError::Confused(format!("{other:?} for the store"))),
        }
        let lock = Lock::take_within(dir, ANSWER_LIMIT).await?;
        let held = || HandoverError::Held { dir: dir.to_owned(), detail: "its lock is not free".to_owned() };
        let lock = lock.ok_or_else(held)?;
        Ok((lock, Some(Self::of(welcome, descriptors, conversation))))
    }

    fn of(welcome: Welcome, descriptors: Vec<OwnedFd>, conversation: Conversation) -> Self {
        let Welcome { descriptors: names, cgroup, former, orders, yielded, .. } = welcome;
        let (mut links, mut maps, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        for (name, descriptor) in names.into_iter().zip(descriptors) {
            match name.as_str() {
                Self::LINK => links.push(descriptor),
                Self::MAP => maps.push(descriptor),
                _ => sockets.push((name, descriptor)),
            }
        }
        let shaper =
            cgroup.zip(orders).filter(|_| !links.is_empty()).map(|(cgroup, orders): (_, KernelOrders)| {
                ShaperHeritage { links, settings: orders.into(), maps, yielded, cgroup, former }
            });
        Self { listeners: Listeners::named(sockets), shaper, conversation: Some(conversation) }
    }

    /// Of a daemon that this very process was.
    pub(crate) fn of_this_process(sockets: Vec<(String, OwnedFd)>, shaper: Option<ShaperHeritage>) -> Self {
        Self { listeners: Listeners::named(sockets), shaper, ..Self::default() }
    }

    /// What the programs before counted, once they count no more; `None`: from this process, which knows.
    pub(crate) async fn totals(&self) -> Result<Option<Totals>, HandoverError> {
        let Some(conversation) = &self.conversation else { return Ok(None) };
        conversation.send(&Message::Counting, &[]).await?;
        match conversation.hear().await? {
            (Message::Totals(totals), _) => Ok(Some(totals)),
            (other, _) => Err(HandoverError::Confused(format!("{other:?} for totals"))),
        }
    }
}

impl Conversation {
    /// Says that this daemon serves, and takes what else was counted there, until the other ends.
    pub(crate) async fn serving(&self, mut totals: impl FnMut(Totals)) -> Result<(), HandoverError> {
        self.send(&Message::Serving { pid: std::process::id() }, &[]).await?;
        loop {
            match self.next().await {
                Ok((Message::Totals(more), _)) => totals(more),
                Ok((other, _)) => tracing::debug!(?other, "the daemon before says"),
                Err(HandoverError::Talk { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}
