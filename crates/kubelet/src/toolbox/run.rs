//! `run STEP…`: a program as a list of steps, for Pods that have to behave in a certain way.

use super::{answer, fetch, pause};
use nix::sys::signal::{SigSet, Signal};
use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    net::TcpListener,
    os::unix::{
        fs::FileExt as _,
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

const HELP: &str = "\
run STEP...   carries the steps out one after the other and ends with 0; TERM ends it with 0, too

Each STEP is one argument, words with blanks between them:
  print TEXT               a line on standard output
  write PATH TEXT          a file of one line
  append PATH TEXT         one more line
  read PATH                a file on standard output
  sleep SECONDS            or `inf`
  await PATH               until this file exists
  exit CODE                ends here
  on-term PATH             from now on TERM adds a line `TERM {time}` to PATH, and nothing else
  on-term PATH exit CODE [after SECONDS]
                           the same, and then ends, after a while if so asked
  beat PATH SECONDS        in the background: writes the time to PATH every so often
  start STEP; STEP; ...    another process that does these
  http ADDRESS:PORT DIR [PATH]
                           in the background: serves files by GET, a line a request to PATH
  get URL                  prints what is there; ends with 1 if there is nothing
  get-until URL            asks until there is something, and prints it
  socket PATH TEXT         in the background: answers everyone at a Unix socket with a line
  ask PATH                 what a Unix socket answers
  allocate BYTES           takes memory, touches it and keeps it
  burn SECONDS             of processor time on one core

In TEXT: {time} seconds since 1970, {pid}, {hostname}, {cwd}, {net} {mnt} {ipc} {uts} {pidns} the
process's namespaces, {env:NAME}, {file:PATH} the first line of a file.
";

#[derive(Debug)]
enum Flow {
    On,
    Exit(u8),
}

/// Carries the steps out.
pub(super) fn run(steps: &[String]) -> io::Result<ExitCode> {
    let mut out = io::stdout();
    if steps.iter().any(|step| step == "--help") || steps.is_empty() {
        out.write_all(HELP.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    // Blocked in every thread and taken by one of them: the first process of a PID namespace never
    // sees a signal that it neither handles nor blocks.
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block()?;
    let mut on_term = Some(term);
    let asks = |step: &String| step.split_whitespace().next() == Some("on-term");
    if !steps.iter().any(asks) {
        take_term(&mut on_term, None, Some((0, 0.0)));
    }
    let mut memory = Vec::new();
    for step in steps {
        let failed = |error: io::Error| io::Error::other(format!("{step:?}: {error}"));
        match carry_out(step, &mut on_term, &mut memory).map_err(failed)? {
            Flow::On => {}
            Flow::Exit(code) => return Ok(ExitCode::from(code)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn carry_out(
    step: &str,
    on_term: &mut Option<SigSet>,
    memory: &mut Vec<Vec<u8>>,
) -> io::Result<Flow> {
    let (verb, rest) = step.trim().split_once(' ').unwrap_or((step.trim(), ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
    match verb {
        "print" => writeln!(io::stdout(), "{}", fill(rest))?,
        "write" => fs::write(first, fill(text) + "\n")?,
        "append" => append(first, &fill(text))?,
        "read" => io::stdout().write_all(&fs::read(first)?)?,
        "sleep" => wait(word(0).parse().unwrap_or(f64::INFINITY)),
        "await" => {
            while !Path::new(first).exists() {
                wait(0.01);
            }
        }
        "exit" => return Ok(Flow::Exit(number(word(0))?)),
        "on-term" => {
            let exit = match words.get(1..) {
                Some(["exit", code]) => Some((number(code)?, 0.0)),
                Some(["exit", code, "after", seconds]) => Some((number(code)?, number(seconds)?)),
                _ => None,
            };
            take_term(on_term, Some(word(0).to_owned()), exit);
        }
        "beat" => beat(word(0), number(word(1))?)?,
        "start" => {
            let steps = rest.split(';').map(str::trim).filter(|step| !step.is_empty());
            // Not waited for: it is the container's, and ends with it.
            drop(Command::new("/proc/self/exe").arg0("run").args(steps).spawn()?);
        }
        "http" => http(word(0), word(1).to_owned(), words.get(2).map(|path| (*path).to_owned()))?,
        "get" => io::stdout().write_all(&fetch(first)?)?,
        "get-until" => loop {
            match fetch(first) {
                Ok(body) => {
                    io::stdout().write_all(&body)?;
                    break;
                }
                Err(_) => wait(0.05),
            }
        },
        "socket" => socket(first, fill(text) + "\n")?,
        "ask" => {
            let mut answer = String::new();
            UnixStream::connect(first)?.read_to_string(&mut answer)?;
            io::stdout().write_all(answer.as_bytes())?;
        }
        "allocate" => {
            let bytes: usize = number(word(0))?;
            for _ in 0..bytes.div_ceil(1 << 20) {
                memory.push(vec![1; 1 << 20]);
            }
        }
        "burn" => burn(number(word(0))?)?,
        _ => return Err(io::Error::other("there is no such step; see run --help")),
    }
    Ok(Flow::On)
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("{text:?} is not a number")))
}

fn wait(seconds: f64) {
    let most = Duration::from_secs(3600);
    let mut left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    while !left.is_zero() {
        pause(left.min(most));
        left = left.saturating_sub(most);
    }
}

/// Replaces what stands in braces.
fn fill(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once('{') {
        let Some((name, after)) = from.split_once('}') else { break };
        out.push_str(before);
        out.push_str(&value(name).unwrap_or_else(|| format!("{{{name}}}")));
        rest = after;
    }
    out + rest
}

fn value(name: &str) -> Option<String> {
    let namespace = |name: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    let first_line = |path: &str| Some(fs::read_to_string(path).ok()?.lines().next()?.to_owned());
    match name {
        "time" => Some(format!("{:.3}", now())),
        "pid" => Some(std::process::id().to_string()),
        "hostname" => first_line("/proc/sys/kernel/hostname"),
        "cwd" => Some(std::env::current_dir().ok()?.to_string_lossy().into_owned()),
        "net" | "mnt" | "ipc" | "uts" => namespace(name),
        "pidns" => namespace("pid"),
        _ => match name.split_once(':')? {
            ("env", name) => Some(environment(name)),
            ("file", path) => Some(first_line(path).unwrap_or_default()),
            _ => None,
        },
    }
}

#[expect(clippy::disallowed_methods, reason = "a program's own environment")]
fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "a program's own clock")]
fn now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

fn append(path: &str, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    // In one piece, so that lines of several processes stay whole.
    file.write_all(format!("{line}\n").as_bytes())
}

/// One thread for all TERMs; the first call decides what they do.
fn take_term(set: &mut Option<SigSet>, record: Option<String>, exit: Option<(u8, f64)>) {
    let Some(set) = set.take() else { return };
    thread::spawn(move || {
        while set.wait().is_ok() {
            if let Some(path) = &record {
                let _ = append(path, &format!("TERM {:.3}", now()));
            }
            if let Some((code, after)) = exit {
                wait(after);
                std::process::exit(code.into());
            }
        }
    });
}

/// Always of one length and in one piece: whoever ends this never leaves half a time behind.
fn beat(path: &str, seconds: f64) -> io::Result<()> {
    let file = fs::File::create(path)?;
    let write = move || file.write_all_at(format!("{:.3}\n", now()).as_bytes(), 0);
    write()?;
    thread::spawn(move || {
        while write().is_ok() {
            wait(seconds);
        }
    });
    Ok(())
}

fn http(address: &str, dir: String, record: Option<String>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some(path) = &record {
                let _ = append(path, &format!("REQUEST {:.3}", now()));
            }
            let _ = answer(stream, &dir);
        }
    });
    Ok(())
}

fn socket(path: &str, text: String) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(text.as_bytes());
        }
    });
    Ok(())
}

fn burn(seconds: f64) -> io::Result<()> {
    let used = || -> io::Result<f64> {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
        let time = usage.user_time();
        let micros = i32::try_from(time.tv_usec()).unwrap_or_default();
        Ok(f64::from(i32::try_from(time.tv_sec()).unwrap_or_default()) + f64::from(micros) / 1e6)
    };
    let start = used()?;
    while used()? - start < seconds {
        for i in 0..100_000u64 {
            std::hint::black_box(i.wrapping_mul(i));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_filled_and_unknown_ones_stay() {
        let pid = std::process::id();
        for (text, want) in [
            ("a {pid} b", format!("a {pid} b")),
            ("{nothing} {pid", "{nothing} {pid".to_owned()),
            ("{file:/does/not/exist}.", ".".to_owned()),
            ("plain", "plain".to_owned()),
        ] {
            assert_eq!(fill(text), want, "{text}");
        }
        assert!(fill("{net}").starts_with("net:["), "{}", fill("{net}"));
    }

    #[test]
    fn a_step_that_is_not_there_or_has_no_number_is_an_error() {
        let mut set = None;
        for step in ["dance", "allocate much", "exit 300"] {
            assert!(carry_out(step, &mut set, &mut Vec::new()).is_err(), "{step}");
        }
        let exit = carry_out("exit 3", &mut set, &mut Vec::new()).unwrap();
        assert!(matches!(exit, Flow::Exit(3)));
    }

    #[test]
    fn files_are_written_and_lines_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f").to_string_lossy().into_owned();
        let mut set = None;
        for step in [format!("write {path} a b"), format!("append {path} {{pid}}")] {
            carry_out(&step, &mut set, &mut Vec::new()).unwrap();
        }
        let want = format!("a b\n{}\n", std::process::id());
        assert_eq!(fs::read_to_string(&path).unwrap(), want);
    }
}
