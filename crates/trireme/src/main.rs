//! `trireme`: every role is a subcommand.

use clap::Parser as _;
use std::process::ExitCode;

mod bench;
mod roles;

fn main() -> ExitCode {
    // Before there is a second thread: this binary also plays shim, container and toolbox.
    if let Some(code) = kubelet::toolbox::run().or_else(kubelet::reexec) {
        return code;
    }
    roles::run(roles::Arguments::parse())
}
