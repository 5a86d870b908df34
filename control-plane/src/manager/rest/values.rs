//! `GET /api/v1/clusters/{id}/values`: the Helm values that join a cluster, to be saved and given to `helm install -f`.
//!
//! Invariant: the keys are those of the chart; every text of a person is quoted by the YAML library, none stands in a comment.

use super::extract::Id;
use super::problem::Problem;
use crate::manager::cluster::Cluster;
use crate::manager::clusters::EditError;
use crate::manager::{Advertised, Parts};
use crate::placement::RawScopes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hawker_api::join::MANAGER_KEY;
use serde::Serialize;

/// What nodes pull from through Hawker; people add theirs.
const FIRST_REGISTRY: &str = "https://ghcr.io";
const REPLICAS: u32 = 1;
/// The Secret with the join token, as it is to be made beside the cluster's own; never what is in it.
const JOIN_SECRET: &str = "hawker-join-token";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Values<'a> {
    container_runtime: ContainerRuntime,
    scheduler: Component<SchedulerConfig<'a>>,
    seed_peer: Component<SeedPeerConfig<'a>>,
    dfdaemon: Daemon<'a>,
    manager: Enable,
    external_manager: ExternalManager<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_token: Option<JoinToken>,
}

#[derive(Debug, Serialize)]
struct ContainerRuntime {
    containerd: Containerd,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Containerd {
    enable: bool,
    inject_config_path: bool,
    registries: [&'static str; 1],
}

#[derive(Debug, Serialize)]
struct Component<C> {
    replicas: u32,
    config: C,
}

#[derive(Debug, Serialize)]
struct SchedulerConfig<'a> {
    manager: SchedulersManager<'a>,
}

#[derive(Debug, Serialize)]
struct SchedulersManager<'a> {
    addr: &'a str,
    #[serde(rename = "schedulerClusterID")]
    scheduler_cluster_id: u64,
}

#[derive(Debug, Serialize)]
struct SeedPeerConfig<'a> {
    scheduler: ByManager<'a>,
}

#[derive(Debug, Serialize)]
struct Daemon<'a> {
    config: DaemonConfig<'a>,
}

#[derive(Debug, Serialize)]
struct DaemonConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Host<'a>>,
    scheduler: ByManager<'a>,
}

/// What the cluster's scopes know its nodes by; CIDRs and host names need nothing from the node.
#[derive(Debug, Serialize)]
struct Host<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    idc: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    location: &'a str,
}

#[derive(Debug, Serialize)]
struct ByManager<'a> {
    manager: DaemonsManager<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DaemonsManager<'a> {
    net_addrs: [NetAddr<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed_peer: Option<SeedPeer>,
}

#[derive(Debug, Serialize)]
struct NetAddr<'a> {
    r#type: &'static str,
    addr: &'a str,
}

#[derive(Debug, Serialize)]
struct SeedPeer {
    enable: bool,
    #[serde(rename = "clusterID")]
    cluster_id: u64,
}

#[derive(Debug, Serialize)]
struct Enable {
    enable: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalManager<'a> {
    enable: bool,
    host: &'a str,
    rest_port: u16,
    grpc_port: u16,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JoinToken {
    existing_secret: &'static str,
}

/// The Helm values that join this cluster, to be given to `helm install -f`.
#[utoipa::path(get, path = "/api/v1/clusters/{id}/values", params(("id" = u64, Path)),
    responses((status = 200, body = String, content_type = "application/yaml")))]
pub(super) async fn show(State(parts): State<Parts>, Id(id): Id) -> Result<Response, Problem> {
    let cluster = parts.directory.cluster(id).ok_or(EditError::Unknown { id })?;
    let scopes = cluster.spec.scopes.to_raw();
    let mut values = Values::of(&cluster, &scopes, &parts.advertised);
    let mut bring = String::new();
    if parts.gate.asks() {
        values.join_token = Some(JoinToken { existing_secret: JOIN_SECRET });
        bring = format!(
            "# This manager asks for a join token: first bring it, from the file that its {MANAGER_KEY} names, to the namespace of the release:\n\
             #   kubectl --namespace NAMESPACE create secret generic {JOIN_SECRET} --from-file=token=FILE\n"
        );
    }
    let values = serde_yaml_ng::to_string(&values);
    let values = values.map_err(|error| Problem::internal(&error))?;
    let text = format!(
        "# Joins cluster {id}: helm install -f FILE. Add the registries your nodes pull from.\n{bring}{values}"
    );
    let headers = [
        (header::CONTENT_TYPE, "application/yaml".to_owned()),
        (header::CONTENT_DISPOSITION, format!("inline; filename=\"values-cluster-{id}.yaml\"")),
    ];
    Ok((headers, text).into_response())
}

impl<'a> Values<'a> {
    fn of(cluster: &Cluster, scopes: &'a RawScopes, manager: &'a Advertised) -> Self {
        let addr = manager.grpc.as_str();
        let (host, port) = addr.rsplit_once(':').unwrap_or((addr, ""));
        let by_manager = |seed_peer| ByManager {
            manager: DaemonsManager { net_addrs: [NetAddr { r#type: "tcp", addr }], seed_peer },
        };
        // A node is in one IDC, a cluster may serve several.
        let idc = scopes.idc.split('|').next().unwrap_or_default();
        let location = scopes.location.as_str();
        let seed_peer = SeedPeer { enable: true, cluster_id: cluster.seed_peer_cluster_id() };
        let of_scheduler = SchedulersManager { addr, scheduler_cluster_id: cluster.scheduler_cluster_id() };
        Self {
            container_runtime: ContainerRuntime {
                containerd: Containerd {
                    enable: true,
                    inject_config_path: true,
                    registries: [FIRST_REGISTRY],
                },
            },
            scheduler: Component { replicas: REPLICAS, config: SchedulerConfig { manager: of_scheduler } },
            seed_peer: Component {
                replicas: REPLICAS,
                config: SeedPeerConfig { scheduler: by_manager(Some(seed_peer)) },
            },
            dfdaemon: Daemon {
                config: DaemonConfig {
                    host: (!idc.is_empty() || !location.is_empty()).then_some(Host { idc, location }),
                    scheduler: by_manager(None),
                },
            },
            manager: Enable { enable: false },
            external_manager: ExternalManager {
                enable: true,
                // As a URL's host is written, brackets of an IPv6 address aside.
                host: host.trim_start_matches('[').trim_end_matches(']'),
                rest_port: manager.rest_port,
                grpc_port: port.parse().unwrap_or_default(),
            },
            join_token: None,
        }
    }
}
