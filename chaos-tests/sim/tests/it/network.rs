//! What TCP shows of a network on which things go wrong.

use sim::{
    Millis,
    machine::Machine,
    net::{Link, Network},
    trace::Trace,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use world::net::{TcpListener, TcpStream};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PORT: u16 = 7;

/// Two machines: one echoes what it is sent.
struct Two {
    network: Network,
    server: Machine,
    client: Machine,
    now: Millis,
    seen: Seen,
}

type Line = (Millis, Result<String, io::ErrorKind>);

/// When the client saw what.
#[derive(Clone, Default)]
struct Seen {
    now: Arc<AtomicU64>,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Seen {
    fn note(&self, what: io::Result<String>) {
        let now = self.now.load(Ordering::Relaxed);
        self.lines.lock().unwrap().push((now, what.map_err(|error| error.kind())));
    }
}

async fn echo() -> String {
    let listener = TcpListener::bind(SocketAddr::new(SERVER, PORT)).await.unwrap();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut bytes = [0; 1024];
            while let Ok(len @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..len]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Says a word as often, and hears each one again before the next.
async fn say(words: usize, seen: Seen) -> String {
    let mut stream = match TcpStream::connect(&SERVER.to_string(), PORT).await {
        Ok(stream) => stream,
        Err(error) => {
            seen.note(Err(error));
            return "not connected".to_owned();
        }
    };
    for _ in 0..words {
        let mut heard = [0; 5];
        let said = async {
            stream.write_all(b"hello").await?;
            stream.read_exact(&mut heard).await
        };
        let said = said.await.map(|_| String::from_utf8_lossy(&heard).into_owned());
        let failed = said.is_err();
        seen.note(said);
        if failed {
            break;
        }
    }
    "done".to_owned()
}

impl Two {
    fn with(link: Link) -> Self {
        let network = Network::new(1, link, Trace::default());
        let machine = |name: &str, ip| {
            Machine::new(name.to_owned(), ip, network.clone(), 1, Trace::default())
        };
        let (server, client) = (machine("server", SERVER), machine("client", CLIENT));
        Self { network, server, client, now: 0, seen: Seen::default() }
    }

    fn listening(link: Link) -> Self {
        let mut two = Self::with(link);
        two.server.start(0, 1, echo());
        two
    }

    fn say(&mut self, words: usize) {
        self.client.start(self.now, 1, say(words, self.seen.clone()));
    }

    fn until(&mut self, end: Millis) {
        while self.now < end {
            self.now += 1;
            self.seen.now.store(self.now, Ordering::Relaxed);
            self.network.advance(self.now);
            self.server.step(self.now);
            self.client.step(self.now);
        }
    }

    fn seen(&self) -> Vec<Line> {
        self.seen.lines.lock().unwrap().clone()
    }
}

fn link(latency: Millis) -> Link {
    Link { latency_min: latency, latency_max: latency, ..Link::default() }
}

#[test]
fn a_word_goes_there_and_back_in_twice_the_latency() {
    let mut two = Two::listening(link(10));
    two.until(5);
    two.say(3);
    two.until(1_000);
    let times: Vec<Millis> = two
        .seen()
        .into_iter()
        .map(|(at, heard)| {
            assert_eq!(heard.unwrap(), "hello");
            at
        })
        .collect();
    // A round trip to connect, and one for each word; a process sees a tick later what has come.
    assert_eq!(times.len(), 3);
    assert!((45..=50).contains(&times[0]), "{times:?}");
    for pair in times.windows(2) {
        assert!((20..=24).contains(&(pair[1] - pair[0])), "{times:?}");
    }
}

#[test]
fn a_port_without_a_listener_refuses_and_a_machine_without_power_says_nothing() {
    let mut two = Two::with(link(1));
    two.say(1);
    two.until(20);
    assert_eq!(two.seen().pop().unwrap().1, Err(io::ErrorKind::ConnectionRefused));
    let mut two = Two::listening(link(1));
    two.until(5);
    two.server.lose_power();
    two.say(1);
    two.until(10_000);
    assert_eq!(two.seen(), []);
}

#[test]
fn what_is_said_while_a_link_is_cut_is_heard_after_it_is_healed() {
    for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
        let mut two = Two::listening(link(1));
        two.until(5);
        two.say(1_000_000);
        two.until(100);
        two.network.change(from, to, |link| link.cut = true);
        two.until(110);
        let before = two.seen().len();
        two.until(3_000);
        assert_eq!(two.seen().len(), before, "nothing comes through");
        two.network.heal();
        two.until(12_000);
        assert!(two.seen().len() > before + 100, "it goes on");
        assert!(two.seen().iter().all(|(_, heard)| heard.is_ok()));
    }
}

#[test]
fn a_link_that_stays_cut_breaks_the_connection_in_the_end() {
    let mut two = Two::listening(link(1));
    two.until(5);
    two.say(1_000_000);
    two.until(100);
    two.network.change(CLIENT, SERVER, |link| link.cut = true);
    two.until(120_000);
    assert_eq!(two.seen().pop().unwrap().1, Err(io::ErrorKind::TimedOut));
}

#[test]
fn a_killed_process_ends_its_connections_and_a_machine_that_comes_back_resets_them() {
    let mut two = Two::listening(link(1));
    two.until(5);
    two.say(1_000_000);
    two.until(100);
    two.server.kill(100);
    two.until(110);
    let (at, heard) = two.seen().pop().unwrap();
    assert!(heard.is_err() && at <= 105, "at {at}: {heard:?}");

    let mut two = Two::listening(link(1));
    two.until(5);
    two.say(1_000_000);
    two.until(100);
    two.server.lose_power();
    two.until(1_000);
    assert!(two.seen().iter().all(|(_, heard)| heard.is_ok()), "silence");
    two.server.switch_on();
    two.server.start(two.now, 2, echo());
    two.until(60_000);
    let (_, heard) = two.seen().pop().unwrap();
    assert!(heard.is_err(), "{heard:?}");
}

#[test]
fn a_stopped_process_answers_when_it_is_continued() {
    let mut two = Two::listening(link(1));
    two.until(5);
    two.say(1_000_000);
    two.until(100);
    two.server.stopped = true;
    two.until(110);
    let before = two.seen().len();
    two.until(2_000);
    assert_eq!(two.seen().len(), before);
    two.server.stopped = false;
    two.until(2_100);
    assert!(two.seen().len() > before + 10);
    assert!(two.seen().iter().all(|(_, heard)| heard.is_ok()));
}

#[test]
fn losses_delay_and_a_slow_link_delays_by_what_is_sent() {
    let mut two = Two::listening(Link { loss: 0.2, ..link(1) });
    two.until(5);
    two.say(50);
    two.until(60_000);
    let times: Vec<Millis> = two
        .seen()
        .into_iter()
        .map(|(at, heard)| {
            heard.unwrap();
            at
        })
        .collect();
    assert_eq!(times.len(), 50, "nothing is lost for good");
    assert!(times.windows(2).any(|pair| pair[1] - pair[0] >= 200), "{times:?}");

    let mut two = Two::listening(Link { bandwidth: 1, ..link(1) });
    two.until(5);
    two.say(10);
    two.until(1_000);
    let times: Vec<Millis> = two.seen().into_iter().map(|(at, _)| at).collect();
    // Five bytes there, five back.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 10), "{times:?}");
}

#[test]
fn a_process_that_lets_no_time_pass_is_found() {
    let mut two = Two::with(link(1));
    two.client.start(0, 1, async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    two.until(1);
    assert!(two.client.stuck);
    assert!(!two.server.stuck);
}
