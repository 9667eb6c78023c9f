//! Threads for the log and its peers alone. What the API does for a crowd of clients is hundreds of tasks that are
//! ready at once, and each round among members would wait behind them several times: in all of them, for every
//! write. Threads are given their turn by the kernel, and to one that has slept it gives it soon.

use std::{io, net::SocketAddr};
use tokio::runtime::{Builder, Handle, Runtime};
use world::net::TcpListener;

/// One to hear and answer peers while the other applies what is committed.
const THREADS: usize = 2;

/// They end when this is dropped.
pub(crate) struct LogThreads(Option<Runtime>);

impl LogThreads {
    /// # Errors
    /// The kernel gives no threads.
    pub(crate) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("log").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// A listener of which these threads hear.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) async fn bind(&self, at: SocketAddr) -> io::Result<TcpListener> {
        self.handle().spawn(TcpListener::bind(at)).await?
    }

    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is taken when this is dropped").handle().clone()
    }
}

impl Drop for LogThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The lead has been handed over; a disk that hangs is not waited for.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        assembly::{Parts, Port, Ports, Replica},
        clock,
    };
    use futures::future::select_all;
    use raft::{DiskConfig, Member, RaftConfig, Timers};
    use std::{collections::BTreeMap, path::Path, time::Duration};
    use store::{Cluster as _, Leadership, Store as _};

    const TIMERS: Timers = Timers {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(600),
    };

    fn parts(id: u64, members: &BTreeMap<u64, Member>, dir: &Path) -> Parts {
        let raft = RaftConfig {
            id,
            join: false,
            token: "busy".to_owned(),
            data_dir: dir.join(id.to_string()),
            members: members.clone(),
            timers: TIMERS,
            snapshot_entries: 10_000,
            segment_bytes: 16 << 20,
            tls: None,
            disk: DiskConfig { reserve_bytes: Some(0), ..DiskConfig::default() },
        };
        let api = apiserver::Config {
            name: id.to_string(),
            endpoints: Vec::new(),
            service_prefix: [10, 96],
            pod_prefix: [10, 244],
            node_silence: Duration::from_secs(50),
            access: apiserver::AccessConfig::default(),
            pki: apiserver::Pki::default(),
            limits: apiserver::Limits::default(),
        };
        let retention = apiserver::Retention { age: Duration::from_secs(300), revisions: 100_000 };
        Parts { raft, api, retention, clock: clock::store_clock() }
    }

    #[tokio::test]
    async fn an_api_that_is_busy_costs_nobody_the_lead() {
        let dir = tempfile::tempdir().unwrap();
        let at = "127.0.0.1:0".parse().unwrap();
        let (mut listeners, mut members) = (Vec::new(), BTreeMap::new());
        for id in 1..=3_u64 {
            let log = LogThreads::start().unwrap();
            let listener = log.bind(at).await.unwrap();
            let peer_url = format!("http://{}", listener.local_addr().unwrap());
            let name = id.to_string();
            members.insert(id, Member { name, peer_urls: vec![peer_url], ..Member::default() });
            listeners.push((id, log, listener));
        }
        let mut replicas = Vec::new();
        for (id, log, raft) in listeners {
            let api = Port { listener: TcpListener::bind(at).await.unwrap(), tls: None };
            let ports = Ports { raft, api, etcd: None };
            let parts = parts(id, &members, dir.path());
            replicas.push((Replica::start_on(&log.handle(), parts, ports).await.unwrap(), log));
        }
        let mut told: Vec<_> =
            replicas.iter().map(|(replica, _)| replica.store().leadership()).collect();
        let leads = told.iter_mut().map(|told| {
            Box::pin(async {
                let leads = |now: &Leadership| matches!(now, Leadership::Leading { .. });
                *told.wait_for(leads).await.unwrap()
            })
        });
        let (led, at, _) = select_all(leads).await;
        let epochs = || replicas.iter().map(|(replica, _)| replica.store().view().epoch());
        let before = epochs().max();
        #[expect(clippy::disallowed_methods, reason = "nothing else is to get this thread")]
        std::thread::sleep(5 * TIMERS.election_max);
        assert_eq!(*told[at].borrow(), led);
        assert_eq!(epochs().max(), before, "nobody else has begun to lead");
    }
}
