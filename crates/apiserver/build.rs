//! Generates the node and admin services' gRPC code; no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = [
        "../../proto/node/v1/node.proto",
        "../../proto/cluster/v1/admin.proto",
        "../../proto/cluster/v1/certificates.proto",
        "../../proto/cluster/v1/join.proto",
    ];
    for proto in protos {
        println!("cargo::rerun-if-changed={proto}");
    }
    let files = protox::compile(protos, ["../../proto"])?;
    tonic_prost_build::configure().build_client(false).compile_fds(files)?;
    Ok(())
}
