//! Arbitrary requests: those that were kept, and as many new ones as there is time for.
//!
//! `FUZZ_ROUNDS=100000 cargo test -p apiserver --test it fuzz` takes long. `FUZZ_SEED` begins elsewhere, and
//! `FUZZ_KEEP=DIR` writes an input for each outcome that was seen.

#[path = "../../fuzz/harness.rs"]
mod harness;
#[path = "../../../../chaos-tests/fuzz/mutated.rs"]
mod mutated;

use harness::{ACCEPTS, METHODS, Outcome, TYPES};
use http::Method;
use mutated::Mutations;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{collections::BTreeMap, fs, path::Path};

const ROUNDS: usize = 200;

#[allow(clippy::disallowed_methods, reason = "how long to look is no configuration of ours")]
fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn input(method: &Method, kind: &str, accept: usize, target: &str, body: &str) -> Vec<u8> {
    let method = METHODS.iter().position(|known| known == method).unwrap();
    let kind = TYPES.iter().position(|known| known.contains(kind)).unwrap();
    let first = u8::try_from(kind * METHODS.len() + method).unwrap();
    let head = [first, u8::try_from(accept % ACCEPTS.len()).unwrap()];
    [&head[..], target.as_bytes(), b"\n", body.as_bytes()].concat()
}

const DEFAULT: &str = "/api/v1/namespaces/default";
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"q-","labels":{"a":"b"},"annotations":{"c":"d"}},"spec":{"containers":[{"name":"a","image":"i","env":[{"name":"E","value":"x"}],"ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1","memory":"1Gi"}}}],"volumes":[{"name":"v","projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}}]}}"#;
const DEPLOYMENT: &str = r#"{"metadata":{"name":"d"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"a","image":"i"}]}}}}"#;
const DEFINITION: &str = r#"{"metadata":{"name":"widgets.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"widgets","singular":"widget","kind":"Widget"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"n":{"type":"integer","minimum":1}},"x-kubernetes-validations":[{"rule":"self.n > 0"}]}}}},"subresources":{"status":{}}}]}}"#;

/// Good requests, to begin with.
fn seeds() -> Vec<Vec<u8>> {
    let get = |accept, target: &str| input(&Method::GET, "application/json", accept, target, "");
    let post = |target: &str, body: &str| input(&Method::POST, "application/json", 0, target, body);
    let patch = |kind: &str, target: &str, body: &str| input(&Method::PATCH, kind, 0, target, body);
    let of = |rest: &str| format!("{DEFAULT}/{rest}");
    vec![
        get(0, "/api"),
        get(0, "/apis"),
        get(0, "/apis/apps/v1"),
        get(0, "/openapi/v3"),
        get(0, "/version"),
        get(0, &of("pods/p")),
        get(1, &of("pods/p")),
        get(2, "/api/v1/pods?includeObject=Object&labelSelector=a%20in%20(b%2Cc)%2C%21d"),
        get(3, "/api/v1/configmaps?limit=1&fieldSelector=metadata.name%21%3Dx"),
        get(0, "/api/v1/configmaps?limit=1&continue=eyJ2IjoxfQ"),
        get(0, "/api/v1/pods?resourceVersion=5&resourceVersionMatch=Exact"),
        get(0, "/api/v1/pods?watch=1&allowWatchBookmarks=true&timeoutSeconds=1"),
        get(
            2,
            "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=2",
        ),
        get(0, &of("pods/p?at=3")),
        get(0, &of("configmaps/m?history=true")),
        get(0, &of("pods/p/log?container=a&tailLines=5")),
        post(&of("pods"), POD),
        post(&of("pods?dryRun=All&fieldValidation=Strict&fieldManager=me"), POD),
        post("/apis/apps/v1/namespaces/default/deployments", DEPLOYMENT),
        post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION),
        post("/api/v1/namespaces", r#"{"metadata":{"name":"n"}}"#),
        post(
            &of("events"),
            r#"{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"},"reason":"R","message":"m"}"#,
        ),
        post(&of("pods/p/binding"), r#"{"target":{"kind":"Node","name":"n"}}"#),
        post(&of("pods/p/eviction"), r#"{"metadata":{"name":"p"}}"#),
        post(&of("serviceaccounts/default/token"), r#"{"spec":{"expirationSeconds":600}}"#),
        post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            r#"{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}"#,
        ),
        input(
            &Method::POST,
            "yaml",
            1,
            &of("configmaps"),
            "metadata: {name: y}\ndata: &d\n  k: |\n    text\nbinaryData: {b: aGk=}\n",
        ),
        input(
            &Method::POST,
            "protobuf",
            0,
            &of("configmaps"),
            "k8s\0\n\x0f\n\x02v1\x12\tConfigMap",
        ),
        input(
            &Method::PUT,
            "application/json",
            0,
            &of("configmaps/m"),
            r#"{"metadata":{"name":"m"},"data":{"k":"w"}}"#,
        ),
        input(
            &Method::PUT,
            "application/json",
            0,
            &of("pods/p/status"),
            r#"{"metadata":{"name":"p"},"status":{"phase":"Running"}}"#,
        ),
        patch("merge-patch", &of("configmaps/m"), r#"{"data":{"k":null,"l":"x"}}"#),
        patch(
            "json-patch",
            &of("configmaps/m"),
            r#"[{"op":"test","path":"/data/k","value":"v"},{"op":"add","path":"/data/l~1m","value":"x"},{"op":"move","from":"/data/k","path":"/data/n"}]"#,
        ),
        patch(
            "strategic",
            &of("pods/p"),
            r#"{"metadata":{"labels":{"x":"y"}},"spec":{"containers":[{"name":"a","image":"j"}],"$setElementOrder/containers":[{"name":"a"}]}}"#,
        ),
        patch(
            "apply-patch",
            &of("configmaps/m?fieldManager=me&force=true"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {k: applied}\n",
        ),
        input(
            &Method::DELETE,
            "application/json",
            0,
            &of("pods/p?gracePeriodSeconds=0&propagationPolicy=Foreground"),
            r#"{"preconditions":{"uid":"x"},"gracePeriodSeconds":3}"#,
        ),
        input(&Method::DELETE, "application/json", 0, &of("secrets?labelSelector=a%3Db"), ""),
    ]
}

/// What parsers and routes trip over.
const WORDS: [&str; 20] = [
    "null",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "18446744073709551616",
    "1e400",
    "\\ud800",
    "$patch",
    "~1",
    "%00",
    "%2F",
    "..",
    "//",
    "=",
    "&",
    "?",
    "*",
    "managedFields",
    "resourceVersion",
];

#[test]
fn fuzz_requests_never_panic_and_refusals_change_nothing() {
    let (seeds, mut seen) = (seeds(), BTreeMap::<Outcome, Vec<u8>>::new());
    let mut random = StdRng::seed_from_u64(variable("FUZZ_SEED").unwrap_or(1));
    let rounds = variable("FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let words = WORDS.map(str::as_bytes);
    // Texts; the first two bytes are no part of the request.
    let mutations = Mutations { words: &words, bytes: 0x20..0x7f, head: 2, length_max: 20_000 };
    let fresh = (0..rounds).map(|_| mutations.of(&seeds, &mut random));
    for input in seeds.iter().cloned().chain(fresh) {
        if let Some(outcome) = harness::request(&input) {
            let kept = seen.entry(outcome).or_insert_with(|| input.clone());
            if input.len() < kept.len() {
                *kept = input;
            }
        }
    }
    // That most is refused at the door would be no test.
    assert!(seen.len() > seeds.len(), "{:?}", seen.keys().collect::<Vec<_>>());
    if let Some(directory) = variable::<String>("FUZZ_KEEP") {
        fs::create_dir_all(&directory).unwrap();
        for ((method, outcome), input) in seen {
            let name: String = format!("{method}-{outcome}")
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
                .collect();
            fs::write(Path::new(&directory).join(name), input).unwrap();
        }
    }
}

#[test]
fn fuzz_corpus_of_requests_does_no_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/request");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        harness::request(&fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 20, "the corpus is not there");
}
