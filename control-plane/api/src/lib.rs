//! What daemon and control plane agree on: the protobuf services, the address of a task, what names an image, how a blob
//! is cut into pieces, the versions that work together, the token that lets a program join, the rules of the configuration files and of a cluster's policy, how traces leave a program and
//! what it says of itself. No product logic.

pub mod config;
pub mod image;
pub mod join;
pub mod name;
pub mod node_policy;
pub mod pieces;
pub mod policy;
pub mod prices;
pub mod process;
pub mod profile;
pub mod protocol;
pub mod task;
pub mod trace;
pub mod units;

/// Generated protobuf messages and gRPC services (`proto/hawker/v1`).
#[expect(
    clippy::all,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("hawker.v1");
}
