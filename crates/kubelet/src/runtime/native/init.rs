//! The first moments of a container: from a fresh single-threaded process to its program.

use super::{cgroup::Cgroup, sys};
use crate::runtime::ContainerConfig;
use nix::{
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::stat::Mode,
    unistd::{chdir, dup2_stdin, execve, pivot_root, setgid, setgroups, setsid, setuid},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::CString,
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What the container's init needs; the shim sends it over standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct InitConfig {
    pub(super) container: ContainerConfig,
    pub(super) rootfs: PathBuf,
    /// Upper, work and merged directories of the overlay.
    pub(super) dir: PathBuf,
    pub(super) cgroup: Cgroup,
}

/// Capabilities that a container keeps: the set that container users are used to.
const KEEP: &[u64] = &[0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

type Fallible<T> = Result<T, String>;

fn step<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Fallible<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Runs as `container-init`. Standard input is a socket to the shim: the configuration comes in, the
/// PID goes out, and then nothing but its end when the program has been started, or an error.
pub(super) fn main() -> ExitCode {
    let fd = match step("take the socket", std::io::stdin().as_fd().try_clone_to_owned()) {
        Ok(fd) => fd,
        Err(_) => return ExitCode::FAILURE,
    };
    let mut socket = UnixStream::from(fd);
    match prepare(&mut socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = socket.write_all(format!("error {error}").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn prepare(socket: &mut UnixStream) -> Fallible<()> {
    let mut len = [0; 4];
    step("read", socket.read_exact(&mut len))?;
    let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
    step("read", socket.read_exact(&mut bytes))?;
    let config: InitConfig = step("read the configuration", serde_json::from_slice(&bytes))?;
    if let Err(error) = config.cgroup.enter() {
        tracing::debug!(%error, "cgroup not entered");
    }
    let before = own_mounts()?;
    step("unshare", unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID))?;
    let pid = step("fork", sys::fork_single_threaded())?;
    if pid > 0 {
        // The child is the program; it is handed to the shim when this process ends.
        return step("tell the PID", socket.write_all(format!("pid {pid}\n").as_bytes()));
    }
    let error = match enter(&config, &before) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let _ = socket.write_all(format!("error {error}").as_bytes());
    std::process::exit(128)
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

fn enter(config: &InitConfig, before: &Path) -> Fallible<std::convert::Infallible> {
    assert_own_mounts(before)?;
    step("setsid", setsid())?;
    let root = config.dir.join("root");
    mounts(config, &root)?;
    // The socket must not be the program's standard input.
    let null = step("open /dev/null", nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty()))?;
    step("replace standard input", dup2_stdin(null))?;
    step("enter the root", chdir(&root))?;
    step("pivot_root", pivot_root(".", "."))?;
    step("leave the old root", umount2(".", MntFlags::MNT_DETACH))?;
    let container = &config.container;
    let _ = fs::create_dir_all(&container.working_dir);
    step(&format!("enter {}", container.working_dir), chdir(Path::new(&container.working_dir)))?;
    restrict(config)?;
    let program = find_program(config)?;
    let text = |s: &str| step("an argument", CString::new(s));
    let argv: Vec<CString> = container.argv.iter().map(|a| text(a)).collect::<Result<_, _>>()?;
    let env: Vec<CString> =
        container.env.iter().map(|(k, v)| text(&format!("{k}={v}"))).collect::<Result<_, _>>()?;
    step(&format!("exec {program:?}"), execve(&text(&program)?, &argv, &env))
}

fn find_program(config: &InitConfig) -> Fallible<String> {
    let name = config.container.argv.first().map_or("", String::as_str);
    if name.contains('/') {
        return Ok(name.to_owned());
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
    let overlay = format!(
        "lowerdir={},upperdir={},workdir={}",
        config.rootfs.display(),
        config.dir.join("upper").display(),
        config.dir.join("work").display()
    );
    step(
        "mount the root",
        mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(overlay.as_str())),
    )?;
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    for dir in ["proc", "dev", "tmp", "sys", "etc"] {
        let _ = fs::create_dir_all(inside(dir));
    }
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    step("mount /proc", mount(Some("proc"), &inside("proc"), Some("proc"), safe, none))?;
    let dev = inside("dev");
    step(
        "mount /dev",
        mount(Some("tmpfs"), &dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755")),
    )?;
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        let target = dev.join(device);
        step("make a device", fs::write(&target, ""))?;
        let source = Path::new("/dev").join(device);
        step(
            &format!("bind /dev/{device}"),
            mount(Some(&source), &target, none, MsFlags::MS_BIND, none),
        )?;
    }
    for dir in ["shm", "pts"] {
        let _ = fs::create_dir_all(dev.join(dir));
    }
    let _ = mount(Some("tmpfs"), &dev.join("shm"), Some("tmpfs"), safe, Some("mode=1777"));
    for entry in &config.container.mounts {
        let target = inside(&entry.container_path.to_string_lossy());
        if entry.host_path.is_dir() {
            let _ = fs::create_dir_all(&target);
        } else {
            if let Some(parent) = target.parent() {
                let _ = fs::create_dir_all(parent);
            }
            if !target.exists() {
                let _ = fs::write(&target, "");
            }
        }
        let what = format!("mount {}", entry.container_path.display());
        step(
            &what,
            mount(Some(&entry.host_path), &target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none),
        )?;
        if entry.read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            step(&what, mount(none, &target, none, flags, none))?;
        }
    }
    if !config.container.security.privileged {
        for path in ["proc/kcore", "proc/keys", "proc/timer_list", "proc/sysrq-trigger"] {
            let target = inside(path);
            if target.exists() {
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

fn restrict(config: &InitConfig) -> Fallible<()> {
    let security = &config.container.security;
    let user = security.run_as_user.unwrap_or(0);
    let group = security.run_as_group.unwrap_or(0);
    if !security.privileged {
        let keep = KEEP.iter().map(|bit| 1u64 << bit).sum();
        step("drop capabilities", sys::limit_capabilities(keep))?;
    }
    let groups: Vec<nix::unistd::Gid> =
        security.supplemental_groups.iter().map(|g| nix::unistd::Gid::from_raw(*g)).collect();
    step("setgroups", setgroups(&groups))?;
    step("setgid", setgid(nix::unistd::Gid::from_raw(group)))?;
    step("setuid", setuid(nix::unistd::Uid::from_raw(user)))?;
    if !security.privileged {
        step("no_new_privs", nix::sys::prctl::set_no_new_privs())?;
        step("seccomp", deny_dangerous_calls())?;
    }
    Ok(())
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

/// Runs as `container-exec PID CGROUP-JSON -- PROGRAM ARGUMENTS…`: the same program surroundings as
/// the container whose first process is PID.
pub(super) fn exec_main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    match exec(&mut arguments) {
        Ok(code) => code,
        #[expect(clippy::print_stderr, reason = "the caller reads it as the program's own")]
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(126)
        }
    }
}

fn exec(arguments: &mut impl Iterator<Item = String>) -> Fallible<ExitCode> {
    use nix::sched::setns;
    let pid = arguments.next().ok_or("no PID")?;
    let config: InitConfig =
        step("read", serde_json::from_str(&arguments.next().ok_or("no configuration")?))?;
    let argv: Vec<String> = arguments.collect();
    let _ = config.cgroup.enter();
    let open = |name: &str| {
        step(name, fs::File::open(format!("/proc/{pid}/ns/{name}")).map(OwnedFd::from))
    };
    let namespaces = ["ipc", "uts", "net", "pid", "mnt"].map(open);
    for namespace in namespaces {
        step("setns", setns(namespace?, CloneFlags::empty()))?;
    }
    step("chdir", chdir(Path::new("/")))?;
    // Only a child is in the PID namespace.
    let child = step("fork", sys::fork_single_threaded())?;
    if child > 0 {
        use nix::sys::wait::{WaitStatus, waitpid};
        loop {
            match waitpid(nix::unistd::Pid::from_raw(child), None) {
                Ok(WaitStatus::Exited(_, code)) => {
                    return Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)));
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    return Ok(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(255)));
                }
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(format!("wait: {error}")),
            }
        }
    }
    let mut inner = config;
    inner.container.argv = argv;
    let _ = chdir(Path::new(&inner.container.working_dir));
    restrict(&inner)?;
    let program = find_program(&inner)?;
    let text = |s: &str| step("an argument", CString::new(s));
    let argv: Vec<CString> =
        inner.container.argv.iter().map(|a| text(a)).collect::<Result<_, _>>()?;
    let env: Vec<CString> = inner
        .container
        .env
        .iter()
        .map(|(k, v)| text(&format!("{k}={v}")))
        .collect::<Result<_, _>>()?;
    let Err(error) = execve(&text(&program)?, &argv, &env);
    #[expect(clippy::print_stderr, reason = "the caller reads it as the program's own")]
    {
        eprintln!("exec {program:?}: {error}");
    }
    std::process::exit(127)
}
