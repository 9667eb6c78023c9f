//! Generates the peers' gRPC code; no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto/raft/v1/peer.proto";
    println!("cargo::rerun-if-changed={proto}");
    let files = protox::compile([proto], ["../../proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
