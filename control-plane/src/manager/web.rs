//! How the REST API stands towards browsers and the proxies before it.
//!
//! Invariant: what a proxy says of a client is believed of the proxies named in the configuration alone.

use axum::http::HeaderMap;
use ipnet::IpNet;
use std::net::IpAddr;
use url::Url;

/// Most hops read of `X-Forwarded-For`.
const MAX_HOPS: usize = 32;

/// What the configuration says of it.
#[derive(Debug, Clone, Default)]
pub struct WebConfig {
    /// Where people reach the console; cookies are for TLS only if it begins with `https`.
    pub public_url: Option<Url>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
}

impl WebConfig {
    pub(super) fn is_secure(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    /// Where a request comes from: the last hop that is no proxy of ours.
    pub(super) fn client(&self, from: IpAddr, headers: &HeaderMap) -> IpAddr {
        let from = from.to_canonical();
        if !self.trusts(from) {
            return from;
        }
        let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<_> = hops.flat_map(|value| value.split(',')).map(str::trim).collect();
        let mut client = from;
        for hop in hops.iter().rev().take(MAX_HOPS) {
            // What is no address was not written by a proxy of ours: the last one that was counts.
            let Ok(hop) = hop.parse::<IpAddr>() else { break };
            client = hop.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_proxies_are_believed() {
        let web = WebConfig { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..WebConfig::default() };
        for (from, forwarded, client) in [
            ("192.0.2.1", "6.6.6.6", "192.0.2.1"),
            ("10.0.0.1", "6.6.6.6, 192.0.2.7", "192.0.2.7"),
            ("10.0.0.1", "192.0.2.7, 10.0.0.2", "192.0.2.7"),
            ("10.0.0.1", "192.0.2.7, nonsense", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("::ffff:10.0.0.1", "2001:db8::7", "2001:db8::7"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            let found = web.client(from.parse().unwrap(), &headers);
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{from} {forwarded}");
        }
    }
}
