//! The rules of placement, row by row, and what must hold for any clusters and nodes.

use super::*;
use proptest::prelude::*;

/// id, cidrs, idc, location, hostnames; id 1 is the default.
type Cluster<'c> = (u64, &'c [&'c str], &'c str, &'c str, &'c [&'c str]);

fn cluster((id, cidrs, idc, location, hostnames): Cluster<'_>) -> ClusterScopes {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let raw = RawScopes {
        cidrs: texts(cidrs),
        idc: idc.to_owned(),
        location: location.to_owned(),
        hostnames: texts(hostnames),
    };
    ClusterScopes { cluster_id: id, is_default: id == 1, scopes: Scopes::check(&raw).unwrap() }
}

fn node(ip: &str, idc: &str, location: &str, hostname: &str) -> Node {
    Node {
        ip: (!ip.is_empty()).then(|| ip.parse().unwrap()),
        idc: idc.to_owned(),
        location: location.to_owned(),
        hostname: hostname.to_owned(),
    }
}

fn clusters() -> Vec<ClusterScopes> {
    [
        (1, &[] as &[&str], "", "", &[] as &[&str]),
        (2, &["10.0.0.0/8"], "idc-a", "asia", &[]),
        (3, &["10.1.0.0/16", "2001:db8::/32"], "idc-b|idc-c", "asia|cn", &[]),
        (4, &["10.1.2.0/24", "::ffff:172.16.0.0/108"], "IDC-A", "asia|cn|hangzhou", &[]),
        (5, &["10.1.0.0/16"], "", "europe|de", &["edge-*", "gold-1"]),
        (
            6,
            &["2001:db8:1::/48", "192.168.0.0/16"],
            "idc-d",
            "europe|de|berlin",
            &["edge-be-*", "*.berlin.example"],
        ),
        (7, &[], "idc-d", "us", &["edge-[0-3]", "{fra,muc}-?"]),
    ]
    .map(cluster)
    .to_vec()
}

/// ip, idc, location, hostname → cluster, what the reason says
const TABLE: &[(&str, &str, &str, &str, u64, &str)] = &[
    // Nothing known, nothing matching: the default.
    ("", "", "", "", 1, "default"),
    ("203.0.113.9", "idc-z", "africa|ke", "web-1", 1, "default"),
    ("2001:db9::1", "", "", "", 1, "default"),
    // Networks: the longest prefix, whatever the id.
    ("10.9.9.9", "", "", "", 2, "cidr 10.0.0.0/8 contains 10.9.9.9"),
    ("10.1.2.3", "", "", "", 4, "cidr 10.1.2.0/24 contains 10.1.2.3"),
    ("10.0.0.0", "", "", "", 2, "10.0.0.0/8"),
    ("10.255.255.255", "", "", "", 2, "10.0.0.0/8"),
    ("11.0.0.0", "", "", "", 1, "default"),
    // The same network in two clusters: the lowest id.
    ("10.1.9.9", "", "", "", 3, "cidr 10.1.0.0/16 contains 10.1.9.9"),
    // IPv6, and IPv4 in IPv6 clothes on either side.
    ("2001:db8:2::1", "", "", "", 3, "cidr 2001:db8::/32 contains 2001:db8:2::1"),
    ("2001:db8:1::1", "", "", "", 6, "cidr 2001:db8:1::/48 contains 2001:db8:1::1"),
    ("::ffff:10.1.2.3", "", "", "", 4, "cidr 10.1.2.0/24 contains 10.1.2.3"),
    ("172.16.3.4", "", "", "", 4, "cidr 172.16.0.0/12 contains 172.16.3.4"),
    ("::ffff:172.31.0.1", "", "", "", 4, "cidr 172.16.0.0/12 contains 172.31.0.1"),
    ("172.32.0.1", "", "", "", 1, "default"),
    ("192.168.7.7", "", "", "", 6, "192.168.0.0/16"),
    // A network beats IDC and location.
    ("10.1.2.3", "idc-b", "asia|cn", "", 4, "cidr"),
    ("10.9.9.9", "idc-d", "europe|de|berlin", "", 2, "cidr"),
    // IDC: any case, one of several, ties to the lowest id.
    ("", "idc-a", "", "", 2, "idc idc-a equals idc-a"),
    ("", "IDC-B", "", "", 3, "idc idc-b equals IDC-B"),
    ("", " idc-c ", "", "", 3, "idc idc-c equals idc-c"),
    ("", "idc-d", "", "", 6, "idc idc-d"),
    ("", "idc", "", "", 1, "default"),
    ("", "idc-b|idc-c", "", "", 1, "default"),
    // IDC beats location.
    ("", "idc-d", "asia|cn|hangzhou", "", 6, "idc"),
    ("203.0.113.9", "idc-b", "europe|de", "", 3, "idc"),
    // Location: a prefix either way, more shared elements first.
    ("", "", "asia|cn|hangzhou", "", 4, "location asia|cn|hangzhou contains asia|cn|hangzhou"),
    ("", "", "asia|cn|hangzhou|zone-a", "", 4, "location asia|cn|hangzhou contains asia|cn|hangzhou|zone-a"),
    ("", "", "asia|cn|beijing", "", 3, "location asia|cn contains asia|cn|beijing"),
    ("", "", "asia|jp", "", 2, "location asia contains asia|jp"),
    ("", "", "ASIA|CN|Hangzhou", "", 4, "location"),
    ("", "", "asia", "", 2, "location asia contains asia"),
    ("", "", "europe", "", 5, "location europe|de lies within europe"),
    ("", "", "europe|de", "", 5, "location europe|de contains europe|de"),
    ("", "", "europe|de|berlin", "", 6, "location europe|de|berlin"),
    ("", "", "us|ny", "", 7, "location us contains us|ny"),
    // Branches that part match nothing, nor do parts of an element.
    ("", "", "europe|fr", "", 1, "default"),
    ("", "", "asiatic", "", 1, "default"),
    ("", "", "as", "", 1, "default"),
    ("", "", "cn|hangzhou", "", 1, "default"),
    // Sloppy locations: spaces, a trailing bar, an element missing.
    ("", "", " asia | cn ", "", 3, "location"),
    ("", "", "asia|jp|", "", 2, "location"),
    ("", "", "asia||hangzhou", "", 2, "location asia contains asia"),
    ("", "", "|cn", "", 1, "default"),
    // Names: patterns beat IDC and location, more literal characters first, any case.
    ("", "idc-a", "asia|cn", "edge-9", 5, "hostname pattern edge-* matches edge-9"),
    ("", "", "", "edge-be-1", 6, "hostname pattern edge-be-* matches edge-be-1"),
    ("", "", "", "edge-2", 7, "hostname pattern edge-[0-3] matches edge-2"),
    ("", "", "", "EDGE-7", 5, "edge-*"),
    ("", "", "", "n1.Berlin.example.", 6, "*.berlin.example"),
    ("", "", "", "muc-4", 7, "{fra,muc}-?"),
    ("", "", "", "muc-44", 1, "default"),
    ("", "", "", "my-edge-1", 1, "default"),
    // A network beats a pattern; an exact name beats a network.
    ("10.9.9.9", "", "", "edge-be-1", 2, "cidr 10.0.0.0/8"),
    ("10.1.2.3", "", "", "gold-1", 5, "hostname pattern gold-1 matches gold-1"),
    ("10.1.2.3", "", "", "gold-10", 4, "cidr"),
];

#[test]
fn the_table() {
    let clusters = clusters();
    for (ip, idc, location, hostname, wanted, says) in TABLE {
        let placed = place(&clusters, &node(ip, idc, location, hostname)).unwrap();
        assert_eq!(placed.cluster_id, *wanted, "{ip} {idc} {location} {hostname}: {}", placed.reason);
        assert!(placed.reason.contains(says), "{ip} {idc} {location} {hostname}: {}", placed.reason);
    }
}

#[test]
fn without_a_default_there_may_be_no_cluster() {
    let others = &clusters()[1..];
    assert_eq!(place(others, &Node::default()), None);
    assert_eq!(place(others, &node("10.9.9.9", "", "", "")).unwrap().cluster_id, 2);
    assert_eq!(place(&[], &Node::default()), None);
}

#[test]
fn the_default_cluster_may_have_scopes() {
    let clusters = [cluster((1, &["10.0.0.0/8"], "", "", &[])), cluster((2, &["10.0.0.0/8"], "", "", &[]))];
    let placed = place(&clusters, &node("10.1.1.1", "", "", "")).unwrap();
    assert_eq!((placed.cluster_id, placed.reason.as_str()), (1, "cidr 10.0.0.0/8 contains 10.1.1.1"));
}

#[test]
fn scopes_that_cannot_be_are_refused_by_field_and_value() {
    let long = "x".repeat(MAX_PATTERN_BYTES + 1);
    let too_many = vec!["10.0.0.0/8".to_owned(); MAX_CIDRS + 1];
    let cidr = |text: &str| RawScopes { cidrs: vec![text.to_owned()], ..RawScopes::default() };
    let name = |text: &str| RawScopes { hostnames: vec![text.to_owned()], ..RawScopes::default() };
    let idc = |text: &str| RawScopes { idc: text.to_owned(), ..RawScopes::default() };
    let location = |text: &str| RawScopes { location: text.to_owned(), ..RawScopes::default() };
    for (raw, wanted) in [
        (cidr("10.0.0.0/33"), ["scopes.cidrs", "`10.0.0.0/33`"]),
        (cidr("10.1.0.7"), ["scopes.cidrs", "write 10.1.0.7/32"]),
        (cidr("2001:db8::1"), ["scopes.cidrs", "write 2001:db8::1/128"]),
        (cidr("300.0.0.0/8"), ["scopes.cidrs", "300.0.0.0/8"]),
        (cidr("2001:db8::/129"), ["scopes.cidrs", "/129"]),
        (cidr("10.0.0.0/-1"), ["scopes.cidrs", "/-1"]),
        (cidr("10.0.0.0/ 8"), ["scopes.cidrs", "/ 8"]),
        (cidr(""), ["scopes.cidrs", "``"]),
        (RawScopes { cidrs: too_many, ..RawScopes::default() }, ["scopes.cidrs", "1001"]),
        (name("edge-["), ["scopes.hostnames", "edge-["]),
        (name("{a"), ["scopes.hostnames", "{a"]),
        (name("[z-a]"), ["scopes.hostnames", "[z-a]"]),
        (name(" "), ["scopes.hostnames", "empty"]),
        (name(&long), ["scopes.hostnames", "253"]),
        (idc("a||b"), ["scopes.idc", "a||b"]),
        (location("asia|"), ["scopes.location", "asia|"]),
        (location(&"x".repeat(MAX_TEXT_BYTES + 1)), ["scopes.location", "1024"]),
    ] {
        let error = Scopes::check(&raw).unwrap_err().to_string();
        assert!(wanted.iter().all(|part| error.contains(part)), "{raw:?}: {error}");
    }
}

#[test]
fn networks_are_kept_without_host_bits() {
    let raw = RawScopes {
        cidrs: ["10.1.2.3/16", " 10.1.0.0/16 ", "::ffff:10.2.0.0/112", "::/0"].map(str::to_owned).to_vec(),
        ..RawScopes::default()
    };
    let scopes = Scopes::check(&raw).unwrap().to_raw();
    assert_eq!(scopes.cidrs, ["10.1.0.0/16", "10.2.0.0/16", "::/0"]);
    assert_eq!(Scopes::check(&scopes).unwrap().to_raw(), scopes);
}

fn any_element() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "B", "c"]).prop_map(str::to_owned)
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(any_element(), 0..4).prop_map(|parts| parts.join("|"))
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        // Few distinct addresses, so that networks do match.
        (0u8..4, 0u8..4).prop_map(|(a, b)| IpAddr::from([10, a, b, 1])),
        (0u8..4, 0u8..4)
            .prop_map(|(a, b)| IpAddr::from(std::net::Ipv4Addr::from([10, a, b, 1]).to_ipv6_mapped())),
        (0u16..4).prop_map(|a| IpAddr::from([0x2001, 0xdb8, a, 0, 0, 0, 0, 1])),
        any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
    ]
}

fn any_cidr() -> impl Strategy<Value = String> {
    (any_ip(), 0u8..=128).prop_map(|(ip, prefix)| {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        format!("{ip}/{}", prefix % (width + 1))
    })
}

fn any_scopes() -> impl Strategy<Value = Scopes> {
    let names = prop::sample::select(vec!["n1", "n*", "*", "n?", "[m-n]1"]).prop_map(str::to_owned);
    let parts =
        (prop::collection::vec(any_cidr(), 0..3), any_path(), any_path(), prop::collection::vec(names, 0..2));
    parts.prop_map(|(cidrs, idc, location, hostnames)| {
        Scopes::check(&RawScopes { cidrs, idc, location, hostnames }).unwrap()
    })
}

fn any_clusters() -> impl Strategy<Value = Vec<ClusterScopes>> {
    let scopes = |scopes: Vec<Scopes>| {
        let numbered = (1..).zip(scopes);
        numbered
            .map(|(cluster_id, scopes)| ClusterScopes { cluster_id, is_default: cluster_id == 1, scopes })
            .collect()
    };
    prop::collection::vec(any_scopes(), 1..6).prop_map(scopes)
}

fn any_node() -> impl Strategy<Value = Node> {
    let names = prop::sample::select(vec!["", "n1", "m1", "N2", "x"]).prop_map(str::to_owned);
    let parts = (prop::option::of(any_ip()), any_element(), any_path(), names);
    parts.prop_map(|(ip, idc, location, hostname)| Node { ip, idc, location, hostname })
}

proptest! {
    #[test]
    fn the_order_of_the_clusters_does_not_matter(
        (clusters, shuffled) in any_clusters().prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
        node in any_node(),
    ) {
        prop_assert_eq!(place(&clusters, &node), place(&shuffled, &node));
    }

    #[test]
    fn without_a_match_it_is_the_default(clusters in any_clusters(), node in any_node()) {
        let placed = place(&clusters, &node).unwrap();
        let alone: Vec<u64> = clusters
            .iter()
            // Asked one by one and without a default, only a cluster that matches answers.
            .filter(|c| place(&[ClusterScopes { is_default: false, ..(*c).clone() }], &node).is_some())
            .map(|c| c.cluster_id)
            .collect();
        if alone.is_empty() {
            prop_assert_eq!(placed.cluster_id, 1);
            prop_assert!(placed.reason.contains("default"));
        } else {
            prop_assert!(alone.contains(&placed.cluster_id));
        }
    }

    #[test]
    fn the_reason_names_a_scope_of_the_cluster(clusters in any_clusters(), node in any_node()) {
        let placed = place(&clusters, &node).unwrap();
        let raw = clusters.iter().find(|c| c.cluster_id == placed.cluster_id).unwrap().scopes.to_raw();
        let named = raw.cidrs.iter().any(|cidr| placed.reason.contains(&format!("cidr {cidr} ")))
            || raw.hostnames.iter().any(|name| placed.reason.contains(&format!("pattern {name} ")))
            || raw.idc.split('|').any(|idc| placed.reason.contains(&format!("idc {idc} ")))
            || placed.reason.contains(&format!("location {} ", raw.location))
            || placed.reason.contains("default cluster");
        prop_assert!(named, "{}", placed.reason);
    }

    #[test]
    fn a_matching_network_is_never_beaten_by_less(clusters in any_clusters(), node in any_node()) {
        let direct = clusters.iter().any(|c| {
            let addresses_only = Node { ip: node.ip, hostname: node.hostname.clone(), ..Node::default() };
            place(&[ClusterScopes { is_default: false, ..c.clone() }], &addresses_only).is_some()
        });
        let reason = place(&clusters, &node).unwrap().reason;
        prop_assert_eq!(direct, reason.starts_with("cidr") || reason.starts_with("hostname"));
    }

    #[test]
    fn no_text_panics(text in ".{0,40}") {
        let raw = RawScopes {
            cidrs: vec![text.clone()],
            idc: text.clone(),
            location: text.clone(),
            hostnames: vec![text.clone()],
        };
        let _ = Scopes::check(&raw);
        let node = Node { ip: None, idc: text.clone(), location: text.clone(), hostname: text };
        let _ = place(&clusters(), &node);
    }
}
