//! What the node's uplinks carry in all, by their own counters, and what waits in their queues.
//!
//! Invariant: an interface that is renamed goes on being counted, one that is gone takes nothing of its total along, and
//! one that comes is found within [`super::controller::PROBE_EVERY`].

use super::netlink::{LinkBytes, Netlink};
use super::uplinks;
use std::collections::HashMap;
use std::io;

/// The uplinks, and what they counted since the daemon started.
#[derive(Default)]
pub(super) struct Links {
    links: Vec<Link>,
    /// Of those that are no more.
    gone: LinkBytes,
    netlink: Option<Netlink>,
    drops: HashMap<u32, u32>,
}

pub(super) struct Link {
    index: u32,
    pub(super) name: String,
    /// `None`: not read yet, or not there.
    raw: Option<LinkBytes>,
    pub(super) total: LinkBytes,
    counts_whole: bool,
}

/// What is in the way of what is to leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) bytes: u64,
    /// Packets dropped since the last look.
    pub(super) drops: u64,
}

impl Links {
    /// Looks for the uplinks anew; those that are known keep their totals.
    pub(super) fn find(&mut self) {
        let found = uplinks::find();
        for link in self
            .links
            .extract_if(.., |link| link.raw.is_none() && !found.iter().any(|(index, _)| *index == link.index))
        {
            tracing::info!(uplink = link.name, "an uplink is gone");
            self.gone = sum(self.gone, link.total);
        }
        for (index, name) in found {
            match self.links.iter_mut().find(|link| link.index == index) {
                Some(link) if link.name == name => {}
                Some(link) => {
                    tracing::info!(from = link.name, to = name, "an uplink was renamed");
                    link.name = name;
                }
                None => {
                    let counts_whole = uplinks::counts_whole(index, &name);
                    tracing::info!(uplink = name, counts_whole, "an uplink");
                    self.links.push(Link {
                        index,
                        name,
                        raw: None,
                        total: LinkBytes::default(),
                        counts_whole,
                    });
                }
            }
        }
    }

    /// Brings the totals up to date.
    pub(super) fn read(&mut self) {
        for at in 0..self.links.len() {
            let index = self.links[at].index;
            match self.ask(|netlink| netlink.counted(index)) {
                Ok(now) => self.links[at].absorb(now),
                Err(error) => tracing::debug!(%error, "read an uplink's counters"),
            }
        }
    }

    /// What waits in the uplinks' queues.
    pub(super) fn backlog(&mut self) -> Backlog {
        let queues = match self.ask(Netlink::queues) {
            Ok(queues) => queues,
            Err(error) => {
                tracing::debug!(%error, "read the uplinks' queues");
                return Backlog::default();
            }
        };
        let mut backlog = Backlog::default();
        for queue in queues {
            let uplink = self.links.iter().any(|link| link.index == queue.interface);
            // Whatever stands below the root is in its figures.
            if !uplink || queue.parent != super::netlink::ROOT {
                continue;
            }
            backlog.bytes += u64::from(queue.backlog);
            let before = self.drops.insert(queue.interface, queue.drops).unwrap_or(queue.drops);
            backlog.drops += u64::from(queue.drops.saturating_sub(before));
        }
        backlog
    }

    fn ask<T>(&mut self, question: impl FnOnce(&mut Netlink) -> io::Result<T>) -> io::Result<T> {
        if self.netlink.is_none() {
            self.netlink = Some(Netlink::open()?);
        }
        let Some(netlink) = &mut self.netlink else { return Err(io::ErrorKind::NotConnected.into()) };
        let answer = question(netlink);
        if answer.is_err() {
            self.netlink = None;
        }
        answer
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    /// Index and name of those that are there.
    pub(super) fn present(&self) -> Vec<(u32, String)> {
        let present = self.links.iter().filter(|link| link.raw.is_some());
        present.map(|link| (link.index, link.name.clone())).collect()
    }

    /// What they carry one way together, bytes per second, where every one's driver knows.
    pub(super) fn speed(&self) -> Option<u64> {
        let speeds = self.present().into_iter().map(|(index, name)| uplinks::speed(index, &name));
        speeds.sum::<Option<u64>>().filter(|speed| *speed > 0)
    }

    /// All of them together.
    pub(super) fn total(&self) -> LinkBytes {
        self.links.iter().fold(self.gone, |total, link| sum(total, link.total))
    }

    /// Whether they count packets as software does, one that is yet to be segmented as one. Of several, all must.
    pub(super) fn count_whole(&self) -> bool {
        self.links.iter().all(|link| link.counts_whole)
    }
}

fn sum(a: LinkBytes, b: LinkBytes) -> LinkBytes {
    LinkBytes { sent: a.sent + b.sent, received: a.received + b.received }
}

impl Link {
    fn absorb(&mut self, now: Option<LinkBytes>) {
        if let (Some(now), Some(raw)) = (now, self.raw) {
            // Counters begin anew where a driver was loaded again.
            let more = |now: u64, raw: u64| if now < raw { now } else { now - raw };
            self.total.sent += more(now.sent, raw.sent);
            self.total.received += more(now.received, raw.received);
        }
        self.raw = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_the_growth_since_the_start() {
        let mut link =
            Link { index: 1, name: "a".into(), raw: None, total: LinkBytes::default(), counts_whole: true };
        let counted = |sent| Some(LinkBytes { sent, received: 2 * sent });
        for (now, total) in [
            (counted(1000), 0),
            (counted(1700), 700),
            // Gone, and made anew.
            (None, 700),
            (counted(5), 700),
            (counted(10), 705),
            // The driver began anew.
            (counted(3), 708),
        ] {
            link.absorb(now);
            assert_eq!((link.total.sent, link.total.received), (total, 2 * total));
        }
    }

    #[test]
    fn loopback_is_no_uplink_and_no_uplinks_are_no_trouble() {
        let mut links = Links::default();
        links.read();
        assert_eq!((links.total(), links.backlog(), links.speed()), Default::default());
        links.find();
        assert!(links.links().iter().all(|link| link.name != "lo"));
    }
}
