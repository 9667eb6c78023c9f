//! Generates the etcd v3 API's messages, servers and clients; no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["auth", "election", "kv", "lock", "raft_internal", "rpc"]
        .map(|name| format!("etcd/{name}.proto"));
    for proto in &protos {
        println!("cargo::rerun-if-changed=../../proto/{proto}");
    }
    let files = protox::compile(&protos, ["../../proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
