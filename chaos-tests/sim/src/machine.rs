//! A machine with one process: a runtime of its own, whose paused clock is moved on with the others'.

use crate::{
    Millis,
    logs::step_of,
    net::{Network, Nic},
    trace::Trace,
};
use std::{
    fmt,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::{Builder, RngSeed, Runtime},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use world::host::{Clocks, enter, set_clocks};

/// When simulations take place, by their own clocks: seconds since the Unix epoch.
pub(crate) const BEGINNING: Duration = Duration::from_secs(1_900_000_000);
/// What monotonic clocks say at the beginning; not 0, since programs subtract from them.
pub(crate) const UPTIME: Duration = Duration::from_secs(1_000_000);

/// Of tasks, in one millisecond of a process: more, and it goes round in circles.
const POLLS_MAX: u64 = 1_000_000;

/// A process that runs on a machine.
struct Process {
    runtime: Runtime,
    /// When it began, by its own clock.
    begun: Instant,
    /// Milliseconds that it has run since.
    ran: Millis,
    main: JoinHandle<String>,
}

/// A process that has so much time to make up for was stopped: its clock has jumped.
const STOOD_STILL: Duration = Duration::from_millis(20);

/// A machine.
pub struct Machine {
    /// For people.
    pub name: Arc<str>,
    /// Its address.
    pub ip: IpAddr,
    /// Its process is stopped, as by `SIGSTOP`: the machine goes on.
    pub stopped: bool,
    /// Its process went round in circles instead of waiting for anything.
    pub stuck: bool,
    /// Its monotonic clock's milliseconds for each of the world's.
    pub rate: f64,
    /// By how much its wall clock is wrong, in microseconds.
    pub wall_offset_us: i64,
    nic: Arc<Nic>,
    network: Network,
    process: Option<Process>,
    /// Of tasks, in this step.
    polls: Arc<AtomicU64>,
    /// Of its monotonic clock since the beginning.
    uptime: Millis,
    /// Parts of a millisecond that its clock is behind.
    credit: f64,
    trace: Trace,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine that is switched on and runs nothing.
    #[must_use]
    pub fn new(name: String, ip: IpAddr, network: Network, seed: u64, trace: Trace) -> Self {
        network.switch_on(ip);
        let nic = Arc::new(Nic::new(network.clone(), ip, seed));
        Self {
            name: name.into(),
            ip,
            stopped: false,
            stuck: false,
            rate: 1.0,
            wall_offset_us: 0,
            nic,
            network,
            process: None,
            polls: Arc::default(),
            uptime: 0,
            credit: 0.0,
            trace,
        }
    }

    fn clocks(&self, now: Millis) -> Clocks {
        let wall = BEGINNING + Duration::from_millis(now);
        let offset = Duration::from_micros(self.wall_offset_us.unsigned_abs());
        let wall =
            if self.wall_offset_us < 0 { wall.saturating_sub(offset) } else { wall + offset };
        Clocks { monotonic: UPTIME + Duration::from_millis(self.uptime), wall }
    }

    /// What its wall clock says, in microseconds since the Unix epoch.
    #[must_use]
    pub fn wall_us(&self, now: Millis) -> u64 {
        u64::try_from(self.clocks(now).wall.as_micros()).unwrap_or(u64::MAX)
    }

    /// Starts a process; what `main` returns says why it has ended. Another one must not be running.
    ///
    /// # Panics
    /// The operating system has no room for a runtime.
    pub fn start(
        &mut self,
        now: Millis,
        seed: u64,
        main: impl Future<Output = String> + Send + 'static,
    ) {
        assert!(self.process.is_none(), "one process at a time");
        set_clocks(self.clocks(now));
        let _here = enter(Arc::clone(&self.nic) as Arc<dyn world::host::Host>);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .on_before_task_poll({
                let polls = Arc::clone(&self.polls);
                move |_| {
                    let polls = polls.fetch_add(1, Ordering::Relaxed);
                    assert!(polls < POLLS_MAX, "a process does not let time pass");
                }
            })
            .build()
            .expect("a runtime without I/O needs nothing of the system");
        let begun = runtime.block_on(async { Instant::now() });
        let main = runtime.spawn(main);
        self.process = Some(Process { runtime, begun, ran: 0, main });
        self.stopped = false;
    }

    /// Moves on by a millisecond of the world's. Says why, if its process has ended.
    pub fn step(&mut self, now: Millis) -> Option<String> {
        self.credit += self.rate;
        let mut passed = 0;
        while self.credit >= 1.0 {
            self.credit -= 1.0;
            passed += 1;
        }
        self.uptime += passed;
        set_clocks(self.clocks(now));
        if self.stopped {
            // Its clock goes on: what was due is late when it is continued.
            if let Some(process) = &mut self.process {
                process.ran += passed;
            }
            return None;
        }
        let process = self.process.as_mut()?;
        process.ran += passed;
        let until = process.begun + Duration::from_millis(process.ran);
        let _here = enter(Arc::clone(&self.nic) as Arc<dyn world::host::Host>);
        step_of(&self.name);
        self.polls.store(0, Ordering::Relaxed);
        let step = AssertUnwindSafe(|| {
            process.runtime.block_on(async {
                // Who stood still finds everything late at once, and not one thing after another in its time.
                let behind = until.saturating_duration_since(Instant::now());
                if behind > STOOD_STILL {
                    tokio::time::advance(behind).await;
                }
                sleep_until(until).await;
            });
        });
        if catch_unwind(step).is_err() {
            // It is noted where it happened, and is the end of the run.
            self.stuck = true;
            return None;
        }
        if !process.main.is_finished() {
            return None;
        }
        let ended = process.runtime.block_on(&mut process.main);
        let why = ended.unwrap_or_else(|error| format!("panicked: {error}"));
        self.trace.event(now, &self.name, format_args!("the process has ended: {why}"));
        self.end();
        Some(why)
    }

    /// Has its process do something more.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            drop(process.runtime.spawn(task));
        }
    }

    /// Whether it runs a process.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Ends the process as `SIGKILL` does.
    pub fn kill(&mut self, now: Millis) {
        if self.runs() {
            self.trace.event(now, &self.name, format_args!("the process is killed"));
            self.end();
        }
    }

    fn end(&mut self) {
        self.network.process_ended(self.ip);
        self.drop_process();
    }

    fn drop_process(&mut self) {
        let _here = enter(Arc::clone(&self.nic) as Arc<dyn world::host::Host>);
        self.process = None;
        self.stopped = false;
    }

    /// Its power has gone, and the process with it. Nobody is told.
    pub fn lose_power(&mut self) {
        self.network.switch_off(self.ip);
        self.drop_process();
    }

    /// It is switched on again.
    pub fn switch_on(&mut self) {
        self.network.switch_on(self.ip);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.runs() {
            // At once, like a process that is killed: tasks of a runtime are dropped in no order of ours.
            self.end();
        }
    }
}
