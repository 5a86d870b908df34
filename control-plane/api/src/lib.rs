//! What daemon and control plane agree on: the protobuf services, the address of a task, how a blob
//! is cut into pieces, and the rules of the configuration files. No I/O, no product logic.

pub mod config;
pub mod pieces;
pub mod task;
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
