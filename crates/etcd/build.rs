//! Generates the etcd v3 API's messages, servers and clients, and their description; no protoc.

use prost::Message as _;

#[allow(clippy::disallowed_methods, reason = "Cargo says it in no other way")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = [
        "etcd/auth",
        "etcd/election",
        "etcd/kv",
        "etcd/lock",
        "etcd/raft_internal",
        "etcd/rpc",
        "grpc/health",
    ]
    .map(|name| format!("{name}.proto"));
    for proto in &protos {
        println!("cargo::rerun-if-changed=../../proto/{proto}");
    }
    let files = protox::compile(&protos, ["../../proto"])?;
    // For the JSON gateway, which translates by description.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("services.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
