//! What nodes moved in some interval, as both the scheduler and the manager count it; from and to the messages of
//! either service.
//!
//! Invariant: sums saturate: no report, however large, turns into a small figure.

use hawker_api::v1;

/// Bytes one way and the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    pub sent: u64,
    pub received: u64,
}

/// Bytes by class of traffic, and those given to runtimes by where they came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub upload: Moved,
    pub download: Moved,
    pub origin: Moved,
    pub control: Moved,
    /// Not Hawker's; 0 also where it is not known.
    pub others: Moved,
    pub delivered: Delivered,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    pub local: u64,
    pub peer_same_zone: u64,
    pub peer_cross_zone: u64,
    pub seed: u64,
    pub origin: u64,
}

impl Usage {
    pub fn add(&mut self, more: &Self) {
        for (sum, more) in self.fields_mut().into_iter().zip((*more).fields()) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Every figure, in the order of the declaration, sent before received.
    pub fn fields(self) -> [u64; 15] {
        let mut copy = self;
        copy.fields_mut().map(|field| *field)
    }

    pub fn from_fields(fields: [u64; 15]) -> Self {
        let mut usage = Self::default();
        for (field, value) in usage.fields_mut().into_iter().zip(fields) {
            *field = value;
        }
        usage
    }

    fn fields_mut(&mut self) -> [&mut u64; 15] {
        let Self { upload, download, origin, control, others, delivered } = self;
        let Delivered { local, peer_same_zone, peer_cross_zone, seed, origin: from_origin } = delivered;
        [
            &mut upload.sent,
            &mut upload.received,
            &mut download.sent,
            &mut download.received,
            &mut origin.sent,
            &mut origin.received,
            &mut control.sent,
            &mut control.received,
            &mut others.sent,
            &mut others.received,
            local,
            peer_same_zone,
            peer_cross_zone,
            seed,
            from_origin,
        ]
    }
}

impl From<v1::Usage> for Usage {
    fn from(usage: v1::Usage) -> Self {
        let moved = |traffic: Option<v1::Traffic>| {
            let v1::Traffic { sent, received } = traffic.unwrap_or_default();
            Moved { sent, received }
        };
        let v1::Delivered { local, peer_same_zone, peer_cross_zone, seed, origin } =
            usage.delivered.unwrap_or_default();
        Self {
            upload: moved(usage.upload),
            download: moved(usage.download),
            origin: moved(usage.origin),
            control: moved(usage.control),
            others: moved(usage.others),
            delivered: Delivered { local, peer_same_zone, peer_cross_zone, seed, origin },
        }
    }
}

impl From<Usage> for v1::Usage {
    fn from(usage: Usage) -> Self {
        let traffic = |Moved { sent, received }| Some(v1::Traffic { sent, received });
        let Delivered { local, peer_same_zone, peer_cross_zone, seed, origin } = usage.delivered;
        Self {
            upload: traffic(usage.upload),
            download: traffic(usage.download),
            origin: traffic(usage.origin),
            control: traffic(usage.control),
            others: traffic(usage.others),
            delivered: Some(v1::Delivered { local, peer_same_zone, peer_cross_zone, seed, origin }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_place_and_sums_saturate() {
        let numbers: [u64; 15] = std::array::from_fn(|at| at as u64 + 1);
        let usage = Usage::from_fields(numbers);
        assert_eq!((usage.upload.sent, usage.others.received, usage.delivered.origin), (1, 10, 15));
        assert_eq!(Usage::from(v1::Usage::from(usage)).fields(), numbers);
        let mut sum = usage;
        sum.add(&Usage::from_fields([u64::MAX; 15]));
        assert_eq!(sum.fields(), [u64::MAX; 15]);
    }
}
