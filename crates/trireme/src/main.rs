//! `trireme`: every role is a subcommand.

use clap::Parser as _;
use mimalloc::MiMalloc;
use std::process::ExitCode;

mod bench;
mod drill;
mod etcd;
mod files;
mod roles;
mod sim;

/// A member allocates a few dozen times for each request, on several threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Before there is a second thread: this binary also plays shim, container and toolbox.
    if let Some(code) = kubelet::toolbox::run().or_else(kubelet::reexec) {
        return code;
    }
    // Before clap, which has another idea of what a flag looks like.
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    if std::path::Path::new(&program).file_name().is_some_and(|name| name == "etcd") {
        return etcd::run(arguments.collect());
    }
    roles::run(roles::Arguments::parse())
}
