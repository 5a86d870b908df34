//! Hosts: each registers at the manager, beats, has a session at the scheduler, and reports every second.

use crate::control_report::HostsOutcome;
use crate::cpu;
use anyhow::{Context, Result, bail};
use hawker_api::protocol::Protocol;
use hawker_api::v1;
use hawker_api::v1::daemon_message::Kind as FromDaemon;
use hawker_api::v1::keep_alive_request::Kind;
use hawker_api::v1::manager_client::ManagerClient;
use hawker_api::v1::scheduler_client::SchedulerClient;
use parking_lot::Mutex;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A report that is given so much after it was due is late.
const LATE: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_secs(2);
/// As daemons do.
const BEAT_EVERY: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const QUEUE_MESSAGES: usize = 4;
/// Zones the hosts lie in.
const ZONES: u32 = 8;
/// What a host says it uploaded in a second, bytes: to two others.
const UPLOADED: u64 = 10_000_000;
const FIRST_ADDRESS: u32 = u32::from_be_bytes([10, 100, 0, 0]);

#[derive(Debug, Clone)]
pub struct HostsPlan {
    pub manager: String,
    pub scheduler: String,
    pub scheduler_cluster_id: u64,
    /// Number of the first host, and how many there are.
    pub first: u32,
    pub count: u32,
    /// New hosts in a second.
    pub ramp: u32,
}

/// Brings the hosts up one after the other, and lets them live until `stop` changes.
///
/// # Errors
/// Streams that end early are counted; nothing else can fail.
pub async fn run(plan: HostsPlan, stop: watch::Receiver<bool>) -> Result<HostsOutcome> {
    let (plan, tally) = (Arc::new(plan), Arc::new(Mutex::new(HostsOutcome::default())));
    let mut hosts = JoinSet::new();
    let pause = Duration::from_secs(1) / plan.ramp.max(1);
    let mut clock = tokio::time::interval(pause);
    let mut ended = stop.clone();
    for number in plan.first..plan.first + plan.count {
        tokio::select! {
            _ = clock.tick() => {}
            _ = ended.changed() => break,
        }
        let (plan, tally, stop) = (Arc::clone(&plan), Arc::clone(&tally), stop.clone());
        hosts.spawn(async move {
            if let Err(error) = live(&plan, number, &tally, stop).await {
                let mut tally = tally.lock();
                tally.lost_streams += 1;
                if tally.first_loss.is_empty() {
                    tally.first_loss = format!("host {number}: {error:#}");
                }
            }
        });
    }
    hosts.join_all().await;
    let cpu_seconds = cpu::own().as_secs_f64();
    let tally = std::mem::take(&mut *tally.lock());
    Ok(HostsOutcome { hosts: plan.count.into(), cpu_seconds, ..tally })
}

async fn live(
    plan: &HostsPlan,
    number: u32,
    tally: &Mutex<HostsOutcome>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let host = host(number);
    let registered = register(&plan.manager, host.clone());
    let (beats, mut placements) = registered.await.context("register at the manager")?;
    let opened = session(plan, host).await.context("open a session at the scheduler");
    let (reports, mut orders) = opened?;
    let mut reporting = tokio::time::interval(REPORT_EVERY);
    let mut beating = tokio::time::interval(BEAT_EVERY);
    loop {
        tokio::select! {
            _ = stop.changed() => {
                // What was reported last may still be on its way; ended streams would lose it.
                tokio::time::sleep(DRAIN).await;
                return Ok(());
            }
            due = reporting.tick() => {
                reports.send(report(number)).await.context("report")?;
                let mut tally = tally.lock();
                tally.reports += 1;
                tally.late_reports += u64::from(due.elapsed() > LATE);
                tally.bytes += UPLOADED;
            }
            _ = beating.tick() => beats.send(beat(Kind::Beat(v1::Beat {}))).await.context("beat")?,
            placement = placements.message() => if placement?.is_none() { bail!("the manager ended the stream") },
            order = orders.message() => if order?.is_none() { bail!("the scheduler ended the stream") },
        }
    }
}

type Opened<Out, In> = Result<(mpsc::Sender<Out>, tonic::Streaming<In>)>;

async fn register(manager: &str, host: v1::Host) -> Opened<v1::KeepAliveRequest, v1::KeepAliveResponse> {
    let mut client = ManagerClient::new(connect(manager).await?);
    let protocol = Some(Protocol::spoken().into());
    let request = v1::PlaceRequest { host: Some(host), protocol, ..v1::PlaceRequest::default() };
    client.place(request.clone()).await?;
    let (sender, messages) = mpsc::channel(QUEUE_MESSAGES);
    sender.send(beat(Kind::Peer(request))).await?;
    let answers = client.keep_alive(ReceiverStream::new(messages)).await?.into_inner();
    Ok((sender, answers))
}

async fn session(plan: &HostsPlan, host: v1::Host) -> Opened<v1::DaemonMessage, v1::SchedulerMessage> {
    let mut client = SchedulerClient::new(connect(&plan.scheduler).await?);
    let hello = v1::Hello {
        host: Some(host),
        scheduler_cluster_id: plan.scheduler_cluster_id,
        protocol: Some(Protocol::spoken().into()),
    };
    let (sender, messages) = mpsc::channel(QUEUE_MESSAGES);
    sender.send(v1::DaemonMessage { kind: Some(FromDaemon::Hello(hello)) }).await?;
    let answers = client.session(ReceiverStream::new(messages)).await?.into_inner();
    Ok((sender, answers))
}

async fn connect(addr: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(addr.to_owned())?.connect_timeout(CONNECT_LIMIT).tcp_nodelay(true);
    endpoint.connect().await.with_context(|| format!("connect to {addr}"))
}

fn host(number: u32) -> v1::Host {
    v1::Host {
        id: format!("bench-{number:06}"),
        hostname: format!("node-{number:06}"),
        ip: address(number),
        piece_port: 4000,
        idc: format!("idc-{}", number % ZONES),
        location: "asia|cn|hangzhou".to_owned(),
        kind: v1::HostKind::Peer.into(),
        version: "0.1.0".to_owned(),
        engine: "io_uring".to_owned(),
        shaper: "edt".to_owned(),
        engine_reason: "the kernel has what it needs".to_owned(),
        shaper_reason: "eth0 paces with fq".to_owned(),
    }
}

fn address(number: u32) -> String {
    Ipv4Addr::from(FIRST_ADDRESS + number).to_string()
}

/// What a busy host tells: it serves two others, and pulls from one.
fn report(number: u32) -> v1::DaemonMessage {
    let traffic = |sent, received| Some(v1::Traffic { sent, received });
    let peer = |number, sent| v1::PeerTraffic { ip: address(number), sent };
    let report = v1::Report {
        interval_ms: 1000,
        kernel: true,
        usage: Some(v1::Usage {
            upload: traffic(UPLOADED, UPLOADED / 50),
            download: traffic(UPLOADED / 50, UPLOADED),
            origin: traffic(1000, 50_000),
            control: traffic(2000, 2000),
            others: traffic(3_000_000, 4_000_000),
            delivered: Some(v1::Delivered { peer_same_zone: UPLOADED, ..v1::Delivered::default() }),
        }),
        uplink_capacity: 1_250_000_000,
        capacity_source: v1::CapacitySource::Link.into(),
        upload_limit: 0,
        retransmits: 3,
        peers: vec![peer(number + 1, UPLOADED / 2), peer(number + ZONES, UPLOADED / 2)],
    };
    v1::DaemonMessage { kind: Some(FromDaemon::Report(report)) }
}

fn beat(kind: Kind) -> v1::KeepAliveRequest {
    v1::KeepAliveRequest { kind: Some(kind) }
}
