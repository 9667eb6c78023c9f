//! The first moments of a container: from a fresh single-threaded process to its program.

use super::{
    capabilities,
    cgroup::Cgroup,
    image::ImageRoot,
    sys, terminal,
    user::{self, Identity},
    within,
};
use crate::runtime::{ContainerConfig, Mount};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::stat::Mode,
    unistd::{
        chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, pivot_root, setgid, setgroups, setsid,
        setuid,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::CString,
    fs,
    io::Write as _,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

/// What the container's init needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct InitConfig {
    pub(super) container: ContainerConfig,
    pub(super) root: ImageRoot,
    /// Upper, work and merged directories of the overlay.
    pub(super) dir: PathBuf,
    pub(super) cgroup: Cgroup,
    /// The first process of the container among whose processes it lives.
    #[serde(default)]
    pub(super) target_pid: Option<i32>,
}

/// In a container's directory: shown inside at the path of its termination message, so that it is found
/// wherever that is, and is a file whatever the container does.
pub(super) const MESSAGE: &str = "termination-log";

pub(super) type Fallible<T> = Result<T, String>;

pub(super) fn step<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Fallible<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// The program's ends of its standard streams; none where it gets a terminal.
pub(super) struct Pipes {
    /// `None` for an empty one.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// What goes out with a terminal, beside the terminal itself.
pub(super) const TERMINAL: &str = "terminal\n";

/// Goes on in a fresh copy of the shim. Over the socket the PID goes out, then the terminal if there is
/// to be one, and then nothing but its end when the program has been started, or an error.
pub(super) fn main(mut socket: UnixStream, pipes: Option<&Pipes>, config: &InitConfig) -> ! {
    let taken = pipes.map_or(Ok(()), |pipes| {
        dup2_stdout(&pipes.stdout).and_then(|()| dup2_stderr(&pipes.stderr))
    });
    let prepared = step("take the outputs", taken)
        .and_then(|()| prepare(&mut socket, pipes.and_then(|p| p.stdin.as_ref()), config));
    let code = match prepared {
        Ok(()) => 0,
        Err(error) => {
            let _ = socket.write_all(format!("error {error}").as_bytes());
            128
        }
    };
    std::process::exit(code)
}

fn prepare(socket: &mut UnixStream, stdin: Option<&OwnedFd>, config: &InitConfig) -> Fallible<()> {
    if let Err(error) = config.cgroup.enter() {
        tracing::debug!(%error, "cgroup not entered");
    }
    let before = own_mounts()?;
    match config.target_pid {
        None => step("unshare", unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID))?,
        Some(pid) => {
            let path = format!("/proc/{pid}/ns/pid");
            let namespace = step("open the target's PID namespace", fs::File::open(path))?;
            step("enter the target's PID namespace", setns(namespace, CloneFlags::CLONE_NEWPID))?;
            step("unshare", unshare(CloneFlags::CLONE_NEWNS))?;
        }
    }
    let pid = step("fork", sys::fork_single_threaded())?;
    if pid > 0 {
        // The child is the program; it is handed to the shim when this process ends.
        return step("tell the PID", socket.write_all(format!("pid {pid}\n").as_bytes()));
    }
    match enter(config, socket, stdin, &before) {
        Ok(never) => match never {},
        Err(error) => Err(error),
    }
}

fn own_mounts() -> Fallible<PathBuf> {
    step("read /proc/self/ns/mnt", fs::read_link("/proc/self/ns/mnt"))
}

/// Refuses to go on where a mount would reach the whole machine: in the namespace that this process
/// came from, or in that of the first process, where the host lets us see which it is.
fn assert_own_mounts(before: &Path) -> Fallible<()> {
    let own = own_mounts()?;
    let first = fs::read_link("/proc/1/ns/mnt").ok();
    if own == before || Some(own) == first {
        return Err("this is not a mount namespace of the container's own".to_owned());
    }
    Ok(())
}

fn enter(
    config: &InitConfig,
    socket: &UnixStream,
    stdin: Option<&OwnedFd>,
    before: &Path,
) -> Fallible<std::convert::Infallible> {
    assert_own_mounts(before)?;
    step("setsid", setsid())?;
    let root = config.dir.join("root");
    mounts(config, &root)?;
    if config.container.tty {
        step("make a terminal", take_terminal(socket, &root))?;
    } else {
        // The socket must not be the program's standard input.
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let null = step("open /dev/null", nix::fcntl::open("/dev/null", flags, Mode::empty()))?;
        step("replace standard input", dup2_stdin(stdin.unwrap_or(&null)))?;
    }
    step("enter the root", chdir(&root))?;
    step("pivot_root", pivot_root(".", "."))?;
    step("leave the old root", umount2(".", MntFlags::MNT_DETACH))?;
    let container = &config.container;
    let working_dir = working_dir(config);
    let _ = fs::create_dir_all(working_dir);
    step(&format!("enter {}", working_dir.display()), chdir(working_dir))?;
    let identity = identity(config)?;
    restrict(config, &identity)?;
    step("reset signals", sys::default_signals())?;
    let program = find_program(config)?;
    let text = |s: &str| step("an argument", CString::new(s));
    let argv: Vec<CString> = container.argv.iter().map(|a| text(a)).collect::<Result<_, _>>()?;
    let env = environment(config, &identity)?;
    step(&format!("exec {program:?}"), execve(&text(&program)?, &argv, &env))
}

/// Hands a new terminal of the container to who holds the other end of the socket, and takes its own.
fn take_terminal(socket: &UnixStream, root: &Path) -> std::io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(root, flags, Mode::empty())?;
    let opened = terminal::open(&root)?;
    let number = sys::terminal_number(opened.master.as_fd())?;
    sys::send_files(socket, TERMINAL.as_bytes(), &[opened.master.as_fd()])?;
    take_as_standard(&opened.end)?;
    // As other runtimes do: programs look for it under this name.
    let dev_fd = within::directory(&root, Path::new("dev"))?;
    let dev = within::path_of(&dev_fd);
    let console = dev.join("console");
    fs::write(&console, "")?;
    let (source, none) = (dev.join("pts").join(number.to_string()), None::<&str>);
    mount(Some(&source), &console, none, MsFlags::MS_BIND, none)?;
    Ok(())
}

/// Makes a terminal the one of this session, which has none, and its standard streams.
pub(super) fn take_as_standard(end: &OwnedFd) -> std::io::Result<()> {
    sys::control_terminal(end.as_fd())?;
    dup2_stdin(end)?;
    dup2_stdout(end)?;
    dup2_stderr(end)?;
    Ok(())
}

/// `/` where neither Pod nor image says anything.
pub(super) fn working_dir(config: &InitConfig) -> &Path {
    let dir = config.container.working_dir.as_str();
    Path::new(if dir.is_empty() { "/" } else { dir })
}

/// The Pod's user, else the image's; the image's files name them. To be asked inside.
pub(super) fn identity(config: &InitConfig) -> Fallible<Identity> {
    let security = &config.container.security;
    let asked = security.run_as_user.map_or_else(|| config.root.user.clone(), |u| u.to_string());
    let root = step("open /", nix::fcntl::open("/", OFlag::O_PATH, Mode::empty()))?;
    let read = |path: &str| {
        let bytes = within::read(&root, Path::new(path), 1 << 20).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut identity = user::resolve(&asked, &read("etc/passwd"), &read("etc/group"))?;
    if let Some(group) = security.run_as_group {
        identity.gid = group;
    }
    identity.groups.extend(&security.supplemental_groups);
    Ok(identity)
}

/// With the user's own directory, unless somebody chose another.
pub(super) fn environment(config: &InitConfig, identity: &Identity) -> Fallible<Vec<CString>> {
    let env = &config.container.env;
    let home = ("HOME".to_owned(), identity.home.clone());
    let missing = Some(&home).filter(|_| env.iter().all(|(key, _)| key != "HOME"));
    env.iter()
        .chain(missing)
        .map(|(k, v)| step("an argument", CString::new(format!("{k}={v}"))))
        .collect()
}

pub(super) fn find_program(config: &InitConfig) -> Fallible<String> {
    let name = config.container.argv.first().map_or("", String::as_str);
    if name.contains('/') {
        let found = fs::metadata(name);
        let failed = |why: &str| format!("exec: {name:?}: stat {name}: {why}");
        return match found {
            Ok(found) if found.is_dir() => Err(format!("exec: {name:?}: is a directory")),
            Ok(_) => Ok(name.to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(failed("no such file or directory"))
            }
            Err(error) => Err(failed(&error.to_string())),
        };
    }
    let path = config
        .container
        .env
        .iter()
        .rev()
        .find(|(key, _)| key == "PATH")
        .map_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", |(_, v)| v);
    path.split(':')
        .map(|dir| format!("{dir}/{name}"))
        .find(|candidate| Path::new(candidate).exists())
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

fn mounts(config: &InitConfig, root: &Path) -> Fallible<()> {
    let none: Option<&str> = None;
    step(
        "make mounts private",
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none),
    )?;
    overlay(config, root)?;
    // From here on nothing of the image's is followed out of it: its links are not ours.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root_fd = step("open the root", nix::fcntl::open(root, flags, Mode::empty()))?;
    let directory =
        |path: &str| step(&format!("make /{path}"), within::directory(&root_fd, Path::new(path)));
    for dir in ["tmp", "sys", "etc"] {
        let _ = directory(dir);
    }
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let below_proc = directory("proc")?;
    step(
        "mount /proc",
        mount(Some("proc"), &within::path_of(&below_proc), Some("proc"), safe, none),
    )?;
    let below_dev = directory("dev")?;
    step(
        "mount /dev",
        mount(
            Some("tmpfs"),
            &within::path_of(&below_dev),
            Some("tmpfs"),
            MsFlags::MS_NOSUID,
            Some("mode=755"),
        ),
    )?;
    // The file system that has just been mounted, not the directory below it.
    let dev_fd = directory("dev")?;
    let dev = within::path_of(&dev_fd);
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        let target = dev.join(device);
        step("make a device", fs::write(&target, ""))?;
        let source = Path::new("/dev").join(device);
        step(
            &format!("bind /dev/{device}"),
            mount(Some(&source), &target, none, MsFlags::MS_BIND, none),
        )?;
    }
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        let link = std::os::unix::fs::symlink(format!("/proc/self/fd{target}"), dev.join(name));
        step("make a link in /dev", link)?;
    }
    for dir in ["shm", "pts"] {
        let _ = fs::create_dir_all(dev.join(dir));
    }
    let terminals = terminal::mount_below(&dev);
    // A host that does not allow it can run everything else.
    if config.container.tty {
        step("mount /dev/pts", terminals)?;
    }
    let _ = mount(Some("tmpfs"), &dev.join("shm"), Some("tmpfs"), safe, Some("mode=1777"));
    let path = relative(Path::new(&config.container.termination_message_path));
    if !path.as_os_str().is_empty() {
        let what = "mount the termination message";
        let target = step(what, within::file(&root_fd, &path))?;
        let (source, bind) = (config.dir.join(MESSAGE), MsFlags::MS_BIND);
        step(what, mount(Some(&source), &within::path_of(&target), none, bind, none))?;
    }
    for entry in &config.container.mounts {
        let what = format!("mount {}", entry.container_path.display());
        let source = step(&what, source(entry))?;
        let is_directory = step(&what, within::is_directory(&source))?;
        let target = || {
            let made = if is_directory {
                within::directory(&root_fd, &relative(&entry.container_path))
            } else {
                within::file(&root_fd, &relative(&entry.container_path))
            };
            step(&what, made)
        };
        let below = target()?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        let from = within::path_of(&source);
        step(&what, mount(Some(&from), &within::path_of(&below), none, flags, none))?;
        if entry.read_only {
            let mounted = target()?;
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            step(&what, mount(none, &within::path_of(&mounted), none, flags, none))?;
        }
    }
    if !config.container.security.privileged {
        for path in ["proc/kcore", "proc/keys", "proc/timer_list", "proc/sysrq-trigger"] {
            if let Ok(target) = within::open(&root_fd, Path::new(path), OFlag::O_PATH) {
                let target = within::path_of(&target);
                let _ = mount(Some("/dev/null"), &target, none, MsFlags::MS_BIND, none);
            }
        }
    }
    if config.container.security.read_only_root {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_BIND;
        step("make the root read-only", mount(none, root, none, flags, none))?;
    }
    Ok(())
}

/// What a mount shows, held open: containers that run may change what is in a volume at any time.
fn source(mount: &Mount) -> Fallible<OwnedFd> {
    let volume =
        nix::fcntl::open(&mount.host_path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let volume = volume.map_err(|error| error.to_string())?;
    if mount.sub_path.as_os_str().is_empty() {
        return Ok(volume);
    }
    within::sub_path(&volume, &mount.sub_path).map_err(|error| {
        let path = &mount.sub_path;
        if error == Errno::EXDEV {
            format!("subPath {path:?} leads out of its volume")
        } else {
            format!("subPath {path:?}: {error}")
        }
    })
}

/// Layers by their open directories: a mount's options are one page, and names with commas or colons
/// would mean something in them.
fn overlay(config: &InitConfig, root: &Path) -> Fallible<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = |path: &Path| {
        let opened = nix::fcntl::open(path, flags, Mode::empty());
        step(&format!("open {}", path.display()), opened)
    };
    let lower: Vec<OwnedFd> =
        config.root.lower.iter().map(|dir| open(dir)).collect::<Result<_, _>>()?;
    // Open until it is mounted.
    let (upper, work) = (open(&config.dir.join("upper"))?, open(&config.dir.join("work"))?);
    let shown = |fd: &OwnedFd| within::path_of(fd).display().to_string();
    let lower: Vec<String> = lower.iter().map(shown).collect();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), shown(&upper), shown(&work));
    let options = Some(options.as_str());
    step("mount the root", mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), options))
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

pub(super) fn restrict(config: &InitConfig, identity: &Identity) -> Fallible<()> {
    let security = &config.container.security;
    own_pipes(identity);
    let keep = match security.privileged {
        true => None,
        false => Some(capabilities::kept(&security.add_capabilities, &security.drop_capabilities)?),
    };
    // First what programs can ever have, then whom they are, which may need what is given up last.
    if let Some(keep) = keep {
        step("bound capabilities", sys::bound_capabilities(keep))?;
    }
    let groups: Vec<nix::unistd::Gid> =
        identity.groups.iter().map(|g| nix::unistd::Gid::from_raw(*g)).collect();
    step("setgroups", setgroups(&groups))?;
    step("setgid", setgid(nix::unistd::Gid::from_raw(identity.gid)))?;
    step("setuid", setuid(nix::unistd::Uid::from_raw(identity.uid)))?;
    if let Some(keep) = keep {
        // Who is not root any more has lost all of them with that, and a host may hold some back.
        let status = step("read /proc/self/status", fs::read_to_string("/proc/self/status"))?;
        let keep = keep & capabilities::permitted(&status);
        step("drop capabilities", sys::set_capabilities(keep))?;
    }
    if !security.privileged {
        step("no_new_privs", nix::sys::prctl::set_no_new_privs())?;
        step("seccomp", deny_dangerous_calls())?;
    }
    Ok(())
}

/// A program that opens `/dev/stdout`, or its terminal, anew must be allowed to.
fn own_pipes(identity: &Identity) {
    use nix::sys::stat::{SFlag, fstat};
    let (out, err) = (std::io::stdout(), std::io::stderr());
    for stream in [out.as_fd(), err.as_fd()] {
        let kind = fstat(stream).map(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT);
        let is_terminal = nix::unistd::isatty(stream).unwrap_or(false);
        if kind == Ok(SFlag::S_IFIFO) || is_terminal {
            let owner = nix::unistd::Uid::from_raw(identity.uid);
            let _ = nix::unistd::fchown(stream, Some(owner), None);
        }
    }
}

/// EPERM for what reaches out of a container; everything else is allowed.
fn deny_dangerous_calls() -> Result<(), String> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    let denied = [
        libc::SYS_kexec_load,
        libc::SYS_open_by_handle_at,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_bpf,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_reboot,
        libc::SYS_setns,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
    ];
    let rules = denied.into_iter().map(|call| (call, Vec::new())).collect();
    let errno = u32::try_from(libc::EPERM).unwrap_or(1);
    let arch = std::env::consts::ARCH.try_into().map_err(|e| format!("{e:?}"))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch)
        .map_err(|e| e.to_string())?;
    let program: BpfProgram =
        filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())?;
    apply_filter(&program).map_err(|e| e.to_string())
}
