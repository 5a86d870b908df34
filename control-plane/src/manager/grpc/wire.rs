//! Messages of `manager.proto` to and from our own types.

use super::unusable;
use crate::manager::directory::Assigned;
use crate::manager::host::{Peer, PeerKind, Pin, SchedulerHost, Wish, refused};
use hawker_api::v1;
use tonic::Status;

pub(super) fn peer(request: v1::PlaceRequest) -> Result<(Peer, Wish), Status> {
    let host = request.host.ok_or_else(|| Status::invalid_argument("the request has no host"))?;
    let wish = Wish {
        pin: pin(request.cluster_id, request.seed_peer_cluster_id)?,
        accept_default: request.accept_default,
    };
    let bad = |field, problem| unusable(&refused(&host.hostname, field, problem));
    let ip = host.ip.parse().map_err(|_| {
        let shown: String = host.ip.chars().take(64).collect();
        bad("host.ip", format!("`{shown}` is not an IP address"))
    })?;
    let piece_port = u16::try_from(host.piece_port)
        .map_err(|_| bad("host.piece_port", format!("{} is not a TCP port", host.piece_port)))?;
    let kind = match v1::HostKind::try_from(host.kind) {
        Ok(v1::HostKind::Peer) => PeerKind::Peer,
        Ok(v1::HostKind::Seed) => PeerKind::Seed,
        Err(_) => return Err(bad("host.kind", format!("{} is not known", host.kind))),
    };
    let peer = Peer {
        id: host.id,
        hostname: host.hostname,
        ip,
        piece_port,
        idc: host.idc,
        location: host.location,
        kind,
        version: host.version,
        engine: host.engine,
        shaper: host.shaper,
    };
    Ok((peer.checked().map_err(|error| unusable(&error))?, wish))
}

pub(super) fn scheduler(registration: v1::SchedulerRegistration) -> Result<SchedulerHost, Status> {
    let host = SchedulerHost {
        hostname: registration.hostname,
        addr: registration.advertise_addr,
        scheduler_cluster_id: registration.scheduler_cluster_id,
        version: registration.version,
    };
    host.checked().map_err(|error| unusable(&error))
}

pub(super) fn placement(assigned: Assigned) -> v1::Placement {
    let endpoints = assigned.schedulers.into_iter().map(|endpoint| v1::SchedulerEndpoint {
        id: endpoint.id,
        hostname: endpoint.hostname,
        addr: endpoint.addr,
    });
    v1::Placement {
        cluster_id: assigned.cluster_id,
        cluster_name: assigned.cluster_name,
        reason: assigned.reason,
        scheduler_cluster_id: assigned.scheduler_cluster_id,
        seed_peer_cluster_id: assigned.seed_peer_cluster_id,
        schedulers: endpoints.collect(),
        fell_back: assigned.fell_back,
        matched_cluster_id: assigned.matched_cluster_id,
    }
}

fn pin(cluster_id: u64, seed_peer_cluster_id: u64) -> Result<Option<Pin>, Status> {
    match (cluster_id, seed_peer_cluster_id) {
        (0, 0) => Ok(None),
        (0, seed) => Ok(Some(Pin::SeedPeerCluster(seed))),
        // A cluster and its seed peer cluster have the same id.
        (id, seed) if seed == 0 || seed == id => Ok(Some(Pin::Cluster(id))),
        (id, seed) => Err(Status::invalid_argument(format!(
            "pinned to two clusters: cluster.id {id} and seedPeer.clusterID {seed}"
        ))),
    }
}
