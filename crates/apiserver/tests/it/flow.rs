//! What happens over a socket when too much is asked for, or too slowly.

use super::*;
use apiserver::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    address: std::net::SocketAddr,
    tasks: JoinSet<()>,
}

async fn served(limits: Limits) -> Served {
    served_with(apiserver::AccessConfig::default(), limits).await
}

async fn served_with(access: apiserver::AccessConfig, limits: Limits) -> Served {
    let api = Api::made(access, apiserver::Pki::default(), limits).await;
    for n in 0..600 {
        let map = json!({"metadata": {"name": format!("c-{n}")}, "data": {"k": "v".repeat(3000)}});
        let path = "/api/v1/namespaces/default/configmaps";
        assert_eq!(api.json(Method::POST, path, map).await.0, 201);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(api.server.clone().serve(listener, None, CancellationToken::new()));
    Served { address, tasks }
}

impl Served {
    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn get(&self, path: &str) -> TcpStream {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    async fn whole(&self, path: &str) -> String {
        rest(self.get(path).await).await
    }
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.unwrap().unwrap();
    String::from_utf8(text).unwrap()
}

async fn until(stream: &mut TcpStream, want: &str) {
    let mut text = String::new();
    while !text.contains(want) {
        let mut part = [0; 4096];
        let bytes = timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
        assert!(bytes > 0, "{text}");
        text += &String::from_utf8_lossy(&part[..bytes]);
    }
}

#[tokio::test]
async fn one_watch_too_many_is_told_when_to_come_back_and_has_its_place_later() {
    let limits = Limits { long_running: 1, ..Limits::default() };
    let server = served(limits).await;
    let watch = "/api/v1/namespaces?watch=1";
    let mut first = server.get(watch).await;
    until(&mut first, "kube-system").await;
    let refused = server.whole(watch).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    for part in [
        r#""reason":"TooManyRequests""#,
        r#""code":429"#,
        r#""message":"Too many requests, please try again later.""#,
        r#""retryAfterSeconds":1"#,
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    let page = server.whole("/metrics").await;
    for line in [
        "apiserver_flowcontrol_current_executing_seats{priority_level=\"long-running\"} 1",
        "apiserver_flowcontrol_rejected_requests_total{priority_level=\"long-running\"} 1",
        "apiserver_request_total{verb=\"WATCH\",code=\"429\"} 1",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    // Others are served.
    assert!(server.whole("/api/v1/namespaces").await.starts_with("HTTP/1.1 200"));
    drop(first);
    let again = async {
        loop {
            let mut next = server.get(watch).await;
            let mut code = [0; 12];
            next.read_exact(&mut code).await.unwrap();
            if &code == b"HTTP/1.1 200" {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn a_list_that_nobody_reads_keeps_others_waiting_for_a_moment_only() {
    let limits = Limits { lists: 1, answer_timeout: Duration::from_secs(1), ..Limits::default() };
    let mut server = served(limits).await;
    let list = "/api/v1/configmaps";
    // More than the buffers of the connection take.
    let mut unread = Vec::new();
    for _ in 0..3 {
        let mut stream = server.get(list).await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        unread.push(stream);
    }
    let answer = server.whole(list).await;
    assert!(answer.trim_end().ends_with("0") && answer.contains("c-599"), "a whole list");
    drop(unread);
    server.tasks.shutdown().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_takes_no_seat_and_is_given_up() {
    let limits = Limits {
        people: 1,
        queue: 0,
        body_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = served(limits).await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                content-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    let slow = server.send(head).await;
    assert!(server.whole("/api/v1/namespaces").await.starts_with("HTTP/1.1 200"), "a seat is free");
    let answer = rest(slow).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let long = head.replace("1000", "4000000");
    let answer = rest(server.send(&long).await).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_written_down_is_bounded_as_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let audit = apiserver::AuditConfig {
        path: dir.path().join("audit.log"),
        level: apiserver::AuditLevel::Request,
        file_bytes_max: 1 << 30,
        files_max: 1,
    };
    let access =
        apiserver::AccessConfig { audit: Some(audit), ..apiserver::AccessConfig::default() };
    let body = json!({"metadata": {"name": "one"}, "data": {"k": "v".repeat(2000)}}).to_string();
    let limits = Limits {
        // Of one body that is counted once.
        body_bytes: 3000,
        body_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = served_with(access, limits).await;
    let head = |bytes: usize| {
        format!(
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {bytes}\r\n\r\n"
        )
    };
    let whole = server.send(&(head(body.len()) + &body)).await;
    let answer = rest(whole).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let answer = rest(server.send(&(head(1000) + "{")).await).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let review = head(1000).replace(
        "/api/v1/namespaces/default/configmaps",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    );
    let answer = rest(server.send(&(review + "{")).await).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// The value of a metric.
async fn metric(server: &Served, name: &str) -> u64 {
    let page = server.whole("/metrics").await;
    let found = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{name} in {page}"))
}

#[tokio::test]
async fn lists_that_are_waited_for_together_are_read_once_and_show_what_was_there_when_asked() {
    // LST-1
    const WAITING: &str =
        "apiserver_flowcontrol_current_inqueue_requests{priority_level=\"lists\"}";
    let server = served(Limits { lists: 1, ..Limits::default() }).await;
    let list = "/api/v1/configmaps";
    // It has the seat, and more to say than the connection takes.
    let first = server.get(list).await;
    let mut waiting = Vec::new();
    for n in 0..10 {
        let body = json!({"metadata": {"name": format!("late-{n}")}}).to_string();
        let post = format!(
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let made = rest(server.send(&post).await).await;
        assert!(made.starts_with("HTTP/1.1 201"), "{made}");
        waiting.push((n, server.get(list).await));
    }
    let all_wait = async { while metric(&server, WAITING).await == 0 {} };
    timeout(PATIENCE, all_wait).await.unwrap();
    let (first, answers) = tokio::join!(
        rest(first),
        futures::future::join_all(waiting.into_iter().map(async |(n, list)| (n, rest(list).await))),
    );
    assert!(first.contains("c-599"), "a whole list");
    for (n, answer) in answers {
        assert!(answer.contains("c-599"), "a whole list");
        for before in 0..=n {
            let name = format!("\"late-{before}\"");
            assert!(answer.contains(&name), "list {n} does not know {name}, which was there");
        }
    }
    let sent = metric(&server, "trireme_list_texts_sent_total").await;
    let made = metric(&server, "trireme_list_texts_made_total").await;
    assert_eq!(sent, 11);
    assert!(made <= 5, "{made} texts for {sent} lists");
}

#[tokio::test]
async fn many_watches_that_write_less_often_miss_nothing() {
    // WCH-1
    const WATCHES: usize = 100;
    const CHANGES: usize = 30;
    let server = served(Limits::default()).await;
    let watch = "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Dc-0";
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let mut stream = server.get(watch).await;
        until(&mut stream, "\"name\":\"c-0\"").await;
        watches.push(stream);
    }
    for n in 0..CHANGES {
        let body = json!({"data": {"k": format!("change-{n}.")}}).to_string();
        let patch = format!(
            "PATCH /api/v1/namespaces/default/configmaps/c-0 HTTP/1.1\r\nhost: x\r\nconnection: \
             close\r\ncontent-type: application/merge-patch+json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let changed = rest(server.send(&patch).await).await;
        assert!(changed.starts_with("HTTP/1.1 200"), "{changed}");
    }
    for mut stream in watches {
        let mut text = String::new();
        while !text.contains(&format!("change-{}.", CHANGES - 1)) {
            let mut part = [0; 4096];
            let bytes = timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
            assert!(bytes > 0, "{text}");
            text += &String::from_utf8_lossy(&part[..bytes]);
        }
        let places: Vec<Option<usize>> =
            (0..CHANGES).map(|n| text.find(&format!("change-{n}."))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    }
}
