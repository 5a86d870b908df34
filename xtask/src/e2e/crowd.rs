//! Everybody at the same moment.

use super::{has_all, image, origin_ratio};
use crate::lab::Lab;
use crate::lab::containerd::Via;
use crate::lab::network::Cluster;
use anyhow::{Result, anyhow, ensure};

/// What a cluster may cost the origin when all its nodes start at once, in image sizes.
const MAX_ORIGIN_RATIO: f64 = 1.1;

pub(super) fn at_once(lab: &Lab) -> Result<()> {
    let image = image(lab, "crowd", &[40, 9, 1])?;
    let before = lab.origin_bytes(Cluster::A)?;
    let times = std::thread::scope(|scope| {
        let pulls: Vec<_> = lab
            .peers()
            .map(|node| scope.spawn(|| node.containerd.pull(&image.reference, Via::Hawker)))
            .collect();
        let join = |pull: std::thread::ScopedJoinHandle<'_, Result<_>>| {
            pull.join().map_err(|_| anyhow!("a puller panicked"))?
        };
        pulls.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let seconds: Vec<String> = times.iter().map(|took| format!("{:.2}", took.as_secs_f64())).collect();
    println!("    {} pulls at once, seconds: {}", times.len(), seconds.join(" "));
    for node in lab.peers() {
        has_all(node, &image)?;
    }
    let ratio = origin_ratio(lab, &image, before)?;
    ensure!(ratio <= MAX_ORIGIN_RATIO, "the origin sent {ratio:.4} image sizes");
    Ok(())
}
