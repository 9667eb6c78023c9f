//! What the suite's containers run: this very test, which is also their image.

use super::*;
use nix::sys::signal::{SigSet, Signal};
use std::{net::TcpListener, process::Stdio, time::Duration};

const MARK: &str = "suite-program";

/// How this program is told to be one.
pub(super) fn argv(program: Program) -> Vec<String> {
    let words = match program {
        Program::Listens => "listens".to_owned(),
        Program::Deaf => "deaf".to_owned(),
        Program::Tree => "tree".to_owned(),
        Program::Ends(code) => format!("ends {code}"),
        Program::Repeats => "repeats".to_owned(),
        Program::Sizes => "sizes".to_owned(),
        Program::Serves => "serves".to_owned(),
        Program::Missing => return vec!["/bin/no-such-program".to_owned()],
    };
    ["/bin/true", MARK].into_iter().chain(words.split(' ')).map(str::to_owned).collect()
}

/// Ends with the number of processes that it sees, itself one of them.
pub(super) fn counts_processes() -> Vec<String> {
    ["/bin/true", MARK, "counts"].map(str::to_owned).to_vec()
}

/// Plays it, if that is what it was started for.
pub(super) fn run() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != MARK {
        return None;
    }
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block().expect("TERM is blocked");
    Some(match arguments.next()?.as_str() {
        "ends" => ExitCode::from(arguments.next()?.parse::<u8>().expect("a code")),
        "counts" => {
            let all = fs::read_dir("/proc").expect("processes").flatten();
            let processes =
                all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
            ExitCode::from(u8::try_from(processes.count()).expect("a few"))
        }
        "listens" => {
            term.wait().expect("TERM");
            ExitCode::from(7)
        }
        "repeats" => {
            let mut out = io::stdout();
            io::copy(&mut io::stdin(), &mut out).and_then(|_| out.flush()).expect("it is repeated");
            ExitCode::SUCCESS
        }
        "sizes" => {
            let (ended, end) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let _ = io::copy(&mut io::stdin(), &mut io::sink());
                let _ = ended.send(());
            });
            let mut last = String::new();
            while end.recv_timeout(Duration::from_millis(20)).is_err() {
                // As a user would look, with the toolbox's applet.
                let stty = Command::new("/bin/stty").arg("size").stdin(Stdio::inherit()).output();
                let text = String::from_utf8(stty.expect("stty runs").stdout).expect("text");
                let (rows, columns) = text.trim().split_once(' ').expect("a terminal");
                if last != text {
                    println!("{columns}x{rows}");
                    last = text.clone();
                }
            }
            ExitCode::SUCCESS
        }
        "serves" => {
            let listener = TcpListener::bind(("127.0.0.1", suite::PORT)).expect("a port");
            for mut stream in listener.incoming().flatten() {
                let mut from = stream.try_clone().expect("a socket");
                let _ = io::copy(&mut from, &mut stream);
            }
            ExitCode::SUCCESS
        }
        what => {
            if what == "tree" {
                for _ in 0..2 {
                    let mut child = Command::new("/proc/self/exe");
                    drop(child.args([MARK, "deaf"]).spawn().expect("a child"));
                }
            }
            loop {
                term.wait().expect("TERM");
            }
        }
    })
}
