//! The rules that `shaper` must meet.
//!
//! Invariant: a limit that exists lets a piece through before its reader gives up.

use super::check::{Problem, choice};
use super::raw::{RawPeerRule, RawShaper};
use super::{PeerRule, ShaperConfig, ShaperMode};
use hawker_api::units::Rate;
use ipnet::IpNet;
use std::net::IpAddr;

/// Smallest limit, bytes per second: below it connections stall longer than their other end waits.
const MIN_LIMIT: u64 = 8_000;
/// Most rules for peers.
const MAX_RULES: usize = 1024;

pub(super) fn shaper(raw: &RawShaper) -> Result<ShaperConfig, Problem> {
    let known = [("auto", ShaperMode::Auto), ("require", ShaperMode::Require), ("off", ShaperMode::Off)];
    Ok(ShaperConfig {
        mode: choice("shaper.mode", &raw.mode, &known)?,
        upload_limit: limit("shaper.uploadLimit", raw.upload_limit)?,
        per_peer_limit: limit("shaper.perPeerLimit", raw.per_peer_limit)?,
        download_limit: limit("shaper.downloadLimit", raw.download_limit)?,
        origin_limit: limit("shaper.originLimit", raw.origin_limit)?,
        yield_to_others: raw.yield_to_others,
        peers: rules(&raw.peers)?,
    })
}

fn limit(key: &str, rate: Rate) -> Result<Rate, Problem> {
    if rate.0 != 0 && rate.0 < MIN_LIMIT {
        let problem = format!("{rate} is too little to be of use: at least 64kbps, or 0 for no limit");
        return Err(Problem::new(key, problem));
    }
    Ok(rate)
}

fn rules(raw: &[RawPeerRule]) -> Result<Vec<PeerRule>, Problem> {
    if raw.len() > MAX_RULES {
        return Err(Problem::new("shaper.peers", format!("has {} entries, at most {MAX_RULES}", raw.len())));
    }
    let mut rules: Vec<PeerRule> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let key = format!("shaper.peers[{index}]");
        let network = network(&format!("{key}.network"), &raw.network)?;
        if rules.iter().any(|rule| rule.network == network) {
            return Err(Problem::new(key, format!("`{network}` is listed twice")));
        }
        if !(1..=PeerRule::MAX_WEIGHT).contains(&raw.weight) {
            let problem = format!("{} is no weight: 1 to {}", raw.weight, PeerRule::MAX_WEIGHT);
            return Err(Problem::new(format!("{key}.weight"), problem));
        }
        rules.push(PeerRule {
            network,
            limit: limit(&format!("{key}.limit"), raw.limit)?,
            weight: raw.weight,
        });
    }
    Ok(rules)
}

fn network(key: &str, text: &str) -> Result<IpNet, Problem> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = parsed.map_err(|_| {
        Problem::new(key, format!("`{text}` is no network or address, for example 10.1.0.0/16 or fd00::7"))
    })?;
    Ok(network.trunc())
}
