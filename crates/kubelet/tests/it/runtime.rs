//! The fake runtime is a runtime.

use async_trait::async_trait;
use kubelet::runtime::{
    Runtime,
    fake::FakeRuntime,
    suite::{self, Program, Subject},
};
use std::sync::Arc;

struct Fake(Arc<FakeRuntime>);

#[async_trait]
impl Subject for Fake {
    async fn open(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.0) as _
    }

    fn image(&self) -> String {
        "registry.example/suite:1".to_owned()
    }

    fn argv(&self, program: Program) -> Vec<String> {
        vec![if matches!(program, Program::Ends(_)) { "ends" } else { "runs" }.to_owned()]
    }

    fn processes(&self, _uid: &str) -> Option<usize> {
        None
    }

    fn leftovers(&self, _uid: &str) -> Vec<String> {
        Vec::new()
    }
}

#[tokio::test]
async fn the_fake_runtime_is_a_runtime() {
    suite::run(&Fake(FakeRuntime::new(Arc::new(|| 1)))).await;
}
