//! Kinds with a template, through the door.

use super::Api;
use http::Method;
use serde_json::{Value, json};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "toolbox"}]},
            },
        },
    })
}

#[tokio::test]
async fn what_is_made_of_a_name_follows_a_generated_one() {
    // JOB-1, MET-2
    let api = Api::new().await;
    let job = json!({
        "metadata": {"generateName": "once-"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "a", "image": "toolbox"}],
        }}},
    });
    let (code, created) = api.json(Method::POST, JOBS, job).await;
    assert_eq!(code, 201, "{created}");
    let metadata = &created["metadata"];
    assert!(metadata["name"].as_str().unwrap().starts_with("once-"));
    assert_eq!(metadata["labels"]["batch.kubernetes.io/job-name"], metadata["name"]);
    let selector = json!({"batch.kubernetes.io/controller-uid": metadata["uid"]});
    assert_eq!(created["spec"]["selector"]["matchLabels"], selector);
}

#[tokio::test]
async fn a_generation_counts_what_its_kind_says() {
    // UPD-6
    let api = Api::new().await;
    let (code, created) = api.json(Method::POST, DEPLOYMENTS, deployment()).await;
    assert_eq!((code, &created["metadata"]["generation"]), (201, &json!(1)));
    let path = format!("{DEPLOYMENTS}/web");
    for (patch, want) in [
        (r#"{"metadata":{"labels":{"a":"b"}}}"#, 1),
        (r#"{"metadata":{"annotations":{"a":"b"}}}"#, 2),
        (r#"{"spec":{"replicas":3}}"#, 3),
    ] {
        let merge = "application/merge-patch+json";
        let (code, patched) = api.send(Method::PATCH, &path, merge, patch).await;
        assert_eq!((code, &patched["metadata"]["generation"]), (200, &json!(want)), "{patch}");
    }
}

#[tokio::test]
async fn a_wrong_template_is_refused_where_it_is_wrong() {
    // VAL-1, RS-6
    let api = Api::new().await;
    let mut wrong = deployment();
    wrong["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    let (code, status) = api.json(Method::POST, DEPLOYMENTS, wrong).await;
    assert_eq!(code, 422);
    assert_eq!(
        status["message"],
        "Deployment.apps \"web\" is invalid: spec.template.spec.restartPolicy: Unsupported value: \
         \"Never\": supported values: \"Always\""
    );
    assert_eq!(status["details"]["group"], "apps");
}
