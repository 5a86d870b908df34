//! The scheduler's constants, with their arguments.

use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Parents of one download: enough to lose two and still have two.
    pub(crate) parents: usize,
    /// Children that hang their hope on one host, per task: a tree of this fan-out reaches 100,000
    /// nodes in six steps.
    pub(crate) children: usize,
    /// Pieces in one lease (64 MiB at 4 MiB): long enough to keep one connection busy, short enough
    /// that little is lost with a host.
    pub(crate) lease_pieces: u32,
    /// The next lease is given when this few pieces of the last one are left, so that the link to the
    /// origin never idles.
    pub(crate) lease_ahead: usize,
    /// Leases of one host on one task.
    pub(crate) leases_per_host: usize,
    /// Hosts that fetch one task from the origin at once.
    pub(crate) fetchers: usize,
    /// A lease without a sign of life for this long goes to somebody else.
    pub(crate) lease_stall: Duration,
    /// A host that has work, promised signs of life (one a second) and gives none for this long counts as gone. Three
    /// may be late; whoever waits for what it fetches has five seconds in all.
    pub(crate) silence: Duration,
    /// A host whose lease failed gets none on that task for this long.
    pub(crate) lease_ban: Duration,
    /// A host that lied, or that two others complained about, is no parent for this long.
    pub(crate) shun: Duration,
    /// A holder that was asked for its piece list and did not answer: ask the next one.
    pub(crate) list_answer: Duration,
    /// Whether what hosts measured has a say in who becomes whose parent.
    pub(crate) use_reports: bool,
    /// Hosts at once.
    pub(crate) hosts: usize,
    /// Tasks at once.
    pub(crate) tasks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parents: 4,
            children: 8,
            lease_pieces: 16,
            lease_ahead: 4,
            leases_per_host: 2,
            fetchers: 4,
            lease_stall: Duration::from_secs(10),
            silence: Duration::from_secs(3),
            lease_ban: Duration::from_secs(30),
            shun: Duration::from_secs(600),
            list_answer: Duration::from_secs(2),
            use_reports: true,
            hosts: 200_000,
            tasks: 1_000_000,
        }
    }
}
