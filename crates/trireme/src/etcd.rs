//! `trireme etcd`, and this program under the name `etcd`: etcd's command line.

use crate::roles::{prepare_replica, to_its_end, until_asked};
use server::{
    etcd_role::{self, ETCD_VERSION, FlagError, Values},
    telemetry,
};
use std::{ffi::OsString, process::ExitCode};

/// Go's, for a command line that is not understood.
const MISUSED: u8 = 2;

/// The arguments after `etcd`.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line's words")]
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    prepare_replica();
    let values = match read(arguments) {
        Ok(values) => values,
        Err(error) => {
            eprintln!("{error}");
            eprintln!("Run `trireme etcd --help` for every flag.");
            return ExitCode::from(MISUSED);
        }
    };
    if values.is_set("help") {
        print!("{}", etcd_role::help());
        return ExitCode::SUCCESS;
    }
    if values.is_set("version") {
        println!("etcd Version: {ETCD_VERSION}");
        println!("Trireme {} in its place", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match start(&values) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(values: &Values) -> anyhow::Result<()> {
    let config = etcd_role::settings(values)?;
    telemetry::init(&config.log)?;
    to_its_end(until_asked(false, |stop| etcd_role::run(config, stop)))
}

fn read(arguments: Vec<OsString>) -> Result<Values, FlagError> {
    let text = |word: OsString| {
        word.into_string().map_err(|word| FlagError::NotAFlag(word.to_string_lossy().into_owned()))
    };
    let arguments: Vec<String> = arguments.into_iter().map(text).collect::<Result<_, _>>()?;
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    etcd_role::parse(&arguments, environment)
}
