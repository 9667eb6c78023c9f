//! Where the members themselves say that the time of puts went.

use crate::wire::{CallError, Connection};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use tokio::{task::LocalSet, time::timeout};

const PATIENCE: Duration = Duration::from_secs(1);
const STAGE: &str = "trireme_proposal_stage_seconds";
const CALL: &str = "trireme_grpc_handling_seconds";

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Its name; `call` is all of a put at the member that was asked.
    pub stage: String,
    /// Microseconds at the mean: of a log entry, which may hold many puts; of `call`, of a put.
    pub mean_us: f64,
}

/// Sums and counts so far, over all members that have any.
#[derive(Debug, Default)]
pub(crate) struct Marks(BTreeMap<String, (f64, f64)>, Vec<String>);

impl Marks {
    /// `None` if a member has no such page.
    pub(crate) async fn read(endpoints: &[String]) -> Option<Self> {
        let mut marks = Self::default();
        for endpoint in endpoints {
            let local = LocalSet::new();
            let page = timeout(PATIENCE, local.run_until(page(endpoint))).await;
            marks.add(&page.ok()?.ok()?);
        }
        Some(marks)
    }

    fn add(&mut self, page: &str) {
        for line in page.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let Some((metric, labels)) = name.split_once('{') else { continue };
            let stage = match metric.rsplit_once('_') {
                Some((STAGE, _)) => labels.split('"').nth(1).unwrap_or_default(),
                Some((CALL, _)) if labels.contains("\"Put\"") => "call",
                Some(_) | None => continue,
            };
            if !self.0.contains_key(stage) {
                self.1.push(stage.to_owned());
            }
            let (sum, count) = self.0.entry(stage.to_owned()).or_default();
            *if metric.ends_with("_sum") { sum } else { count } += value;
        }
    }

    /// What came since `before`, in the order in which a put passes it.
    pub(crate) fn since(&self, before: &Self) -> Vec<Stage> {
        let mean = |stage: &String| {
            let (sum, count) = self.0.get(stage)?;
            let (sum_before, count_before) = before.0.get(stage).copied().unwrap_or_default();
            let mean_us = (sum - sum_before) / (count - count_before) * 1e6;
            (count > &count_before).then(|| Stage { stage: stage.clone(), mean_us })
        };
        self.1.iter().filter_map(mean).collect()
    }
}

async fn page(endpoint: &str) -> Result<String, CallError> {
    Connection::open(endpoint).await?.get("/metrics").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_what_came_in_between() {
        let page = |call: (f64, u64), queue: (f64, u64)| {
            format!(
                "# TYPE {CALL} summary\n\
                 {CALL}_sum{{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"}} {}\n\
                 {CALL}_count{{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"}} {}\n\
                 {CALL}_sum{{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\"}} 7\n\
                 {STAGE}_sum{{stage=\"queue\"}} {}\n{STAGE}_count{{stage=\"queue\"}} {}\n",
                call.0, call.1, queue.0, queue.1
            )
        };
        let (mut before, mut after) = (Marks::default(), Marks::default());
        before.add(&page((1.0, 10), (0.5, 5)));
        after.add(&page((1.2, 110), (0.6, 25)));
        after.add(&page((0.0, 0), (0.1, 5)));
        let stage = |stage: &str, mean_us| Stage { stage: stage.to_owned(), mean_us };
        let rounded: Vec<Stage> = after
            .since(&before)
            .into_iter()
            .map(|s| Stage { mean_us: s.mean_us.round(), ..s })
            .collect();
        assert_eq!(rounded, [stage("call", 2000.0), stage("queue", 8000.0)]);
        assert_eq!(before.since(&before), []);
    }
}
