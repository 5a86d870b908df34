//! The rules that `shaper` must meet.
//!
//! Invariant: a limit that exists lets a piece through before its reader gives up.

use super::check::{Problem, choice};
use super::raw::{RawPeerRule, RawShaper};
use super::{PeerRule, ShaperConfig, ShaperMode};
use hawker_api::policy;
use hawker_api::units::Rate;
use ipnet::IpNet;
use std::net::IpAddr;

pub(super) fn shaper(raw: &RawShaper) -> Result<ShaperConfig, Problem> {
    let known = [("auto", ShaperMode::Auto), ("require", ShaperMode::Require), ("off", ShaperMode::Off)];
    Ok(ShaperConfig {
        mode: choice("shaper.mode", &raw.mode, &known)?,
        upload_limit: limit("shaper.uploadLimit", raw.upload_limit)?,
        per_peer_limit: limit("shaper.perPeerLimit", raw.per_peer_limit)?,
        download_limit: limit("shaper.downloadLimit", raw.download_limit)?,
        origin_limit: limit("shaper.originLimit", raw.origin_limit)?,
        uplink_capacity: limit("shaper.uplinkCapacity", raw.uplink_capacity)?,
        yield_to_others: raw.yield_to_others,
        yield_target: target(raw.yield_target)?,
        yield_floor: limit("shaper.yieldFloor", raw.yield_floor)?,
        peers: rules(&raw.peers)?,
    })
}

fn limit(key: &str, rate: Rate) -> Result<Rate, Problem> {
    policy::limit(key, rate).map_err(Problem::from)
}

fn target(part: f64) -> Result<f64, Problem> {
    if (0.5..=0.99).contains(&part) {
        return Ok(part);
    }
    Err(Problem::new("shaper.yieldTarget", format!("{part} is no part of the uplink from 0.5 to 0.99")))
}

fn rules(raw: &[RawPeerRule]) -> Result<Vec<PeerRule>, Problem> {
    let rule = |(index, raw): (usize, &RawPeerRule)| {
        PeerRule::new(&format!("shaper.peers[{index}]"), &raw.network, raw.limit, raw.weight)
    };
    let rules: Vec<PeerRule> = raw.iter().enumerate().map(rule).collect::<Result<_, _>>()?;
    policy::distinct("shaper.peers", &rules)?;
    Ok(rules)
}

pub(super) fn network(key: &str, text: &str) -> Result<IpNet, Problem> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = parsed.map_err(|_| {
        Problem::new(key, format!("`{text}` is no network or address, for example 10.1.0.0/16 or fd00::7"))
    })?;
    Ok(network.trunc())
}
