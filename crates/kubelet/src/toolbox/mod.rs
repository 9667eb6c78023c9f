//! Small programs for the built-in image, where the host has no busybox: this binary under other names.

mod run;
mod tar;

use std::{
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Their names.
pub const APPLETS: &[&str] = &[
    "cat", "echo", "env", "false", "hog", "hostname", "httpd", "ls", "put", "run", "sleep", "stty",
    "tar", "test", "true", "tty", "wget",
];

static TERMINATED: AtomicBool = AtomicBool::new(false);

/// The applet that this process was started as; `None` for none.
#[must_use]
pub fn run() -> Option<ExitCode> {
    let mut arguments = std::env::args();
    let program = arguments.next()?;
    let name = Path::new(&program).file_name()?.to_str()?.to_owned();
    let mut rest: Vec<String> = arguments.collect();
    let name = if name == "toolbox" && !rest.is_empty() { rest.remove(0) } else { name };
    if !APPLETS.contains(&name.as_str()) {
        return None;
    }
    Some(match applet(&name, &rest) {
        Ok(code) => code,
        #[expect(clippy::print_stderr, reason = "a program's own output")]
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    })
}

fn applet(name: &str, arguments: &[String]) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    match name {
        "true" => {}
        "false" => return Ok(ExitCode::FAILURE),
        "echo" => writeln!(out, "{}", arguments.join(" "))?,
        "env" => {
            for (key, value) in std::env::vars() {
                writeln!(out, "{key}={value}")?;
            }
        }
        "cat" if arguments.is_empty() => repeat(&mut io::stdin().lock(), &mut out)?,
        "cat" => {
            for path in arguments {
                match path.as_str() {
                    "-" => repeat(&mut io::stdin().lock(), &mut out)?,
                    path => repeat(&mut std::fs::File::open(path)?, &mut out)?,
                }
            }
        }
        "test" => return Ok(test(arguments)),
        "tar" => tar::run(arguments, &mut out)?,
        "tty" => match std::fs::read_link("/proc/self/fd/0") {
            Ok(path) if io::stdin().is_terminal() => writeln!(out, "{}", path.display())?,
            Ok(_) | Err(_) => {
                writeln!(out, "not a tty")?;
                return Ok(ExitCode::FAILURE);
            }
        },
        "stty" if argument(0) == "size" => {
            let (columns, rows) = crate::runtime::native::terminal_size(io::stdin())?;
            writeln!(out, "{rows} {columns}")?;
        }
        "stty" => return Err(io::Error::other("only: stty size")),
        "ls" => {
            let mut names: Vec<String> =
                std::fs::read_dir(if arguments.is_empty() { "." } else { argument(0) })?
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect();
            names.sort();
            for name in names {
                writeln!(out, "{name}")?;
            }
        }
        "put" => {
            std::fs::write(argument(0), arguments.get(1..).unwrap_or_default().join(" ") + "\n")?
        }
        "hostname" => {
            write!(out, "{}", std::fs::read_to_string("/proc/sys/kernel/hostname")?)?;
        }
        "hog" => hog(argument(0).parse().map_err(io::Error::other)?),
        "sleep" => return Ok(sleep(argument(0))),
        "httpd" => return httpd(argument(0), argument(1)),
        "run" => {
            // Held, it would keep the program's other threads from writing.
            drop(out);
            return run::run(arguments);
        }
        _ => return wget(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

/// Each piece as soon as it is there.
fn repeat(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut piece = [0; 16 << 10];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                to.write_all(piece.get(..read).unwrap_or_default())?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `test -d|-e|-f|-s PATH`, `test -n|-z TEXT`; `!` before it for the opposite. 2 for anything else.
fn test(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (negated, words) = match words.as_slice() {
        ["!", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let holds = match *words {
        ["-d", path] => Path::new(path).is_dir(),
        ["-e", path] => Path::new(path).exists(),
        ["-f", path] => Path::new(path).is_file(),
        ["-s", path] => std::fs::metadata(path).is_ok_and(|found| found.len() > 0),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        _ => return ExitCode::from(2),
    };
    if holds == negated { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

extern "C" fn terminated(_: i32) {
    TERMINATED.store(true, Ordering::SeqCst);
}

/// The first process of a PID namespace ignores a signal that it has no handler for.
fn end_on_term() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
    let action = SigAction::new(SigHandler::Handler(terminated), SaFlags::empty(), SigSet::empty());
    crate::runtime::native::handle(Signal::SIGTERM, &action);
}

#[expect(clippy::disallowed_methods, reason = "sleeping is what it is for")]
fn pause(step: Duration) {
    thread::sleep(step);
}

/// `sleep SECONDS`, or `inf`; ends with 0 on TERM. `sleep SECONDS ignore` goes on.
fn sleep(text: &str) -> ExitCode {
    end_on_term();
    let mut left: f64 = text.parse().unwrap_or(f64::INFINITY);
    let step: f64 = 0.02;
    while left > 0.0 && !(TERMINATED.load(Ordering::SeqCst) && std::env::args().nth(2).is_none()) {
        pause(Duration::from_secs_f64(step.min(left)));
        left -= step;
    }
    ExitCode::SUCCESS
}

fn hog(bytes: usize) {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut taken = 0;
    while taken < bytes {
        all.push(vec![1; 1 << 20]);
        taken += 1 << 20;
    }
    drop(all);
}

/// `httpd ADDRESS:PORT DIRECTORY`: files by GET.
fn httpd(address: &str, dir: &str) -> io::Result<ExitCode> {
    end_on_term();
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    while !TERMINATED.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = answer(stream, dir) {
                    tracing::debug!(%error, "httpd");
                }
            }
            Err(_) => pause(Duration::from_millis(5)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(mut stream: TcpStream, dir: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut line)?;
    let mut header = String::from("x");
    while header.trim() != "" {
        header.clear();
        if reader.read_line(&mut header)? == 0 {
            break;
        }
    }
    let path = line.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    let safe = !path.split('/').any(|part| part == "..");
    match std::fs::read(Path::new(dir).join(path)) {
        Ok(body) if safe => {
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(&body)
        }
        Ok(_) | Err(_) => write!(stream, "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }
}

/// `wget URL [--every SECONDS]`: prints what is there, once or again and again; ends with 0 on TERM.
fn wget(arguments: &[String]) -> io::Result<ExitCode> {
    end_on_term();
    let url = arguments.first().map_or("", String::as_str);
    let every: Option<f64> = arguments
        .get(1)
        .filter(|a| *a == "--every")
        .and(arguments.get(2))
        .and_then(|s| s.parse().ok());
    loop {
        let got = fetch(url);
        match (&got, every) {
            (Ok(body), _) => {
                let mut out = io::stdout().lock();
                out.write_all(body)?;
                out.flush()?;
            }
            (Err(error), None) => return Err(io::Error::other(error.to_string())),
            (Err(_), Some(_)) => {}
        }
        let Some(every) = every else { return Ok(ExitCode::SUCCESS) };
        let mut left = every;
        while left > 0.0 {
            if TERMINATED.load(Ordering::SeqCst) {
                return Ok(ExitCode::SUCCESS);
            }
            pause(Duration::from_millis(10));
            left -= 0.01;
        }
    }
}

fn fetch(url: &str) -> io::Result<Vec<u8>> {
    let rest = url.strip_prefix("http://").ok_or_else(|| io::Error::other("only http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).into_owned();
    if !head.contains(" 200 ") {
        return Err(io::Error::other(head.lines().next().unwrap_or("no answer").to_owned()));
    }
    Ok(answer.split_off(end))
}
