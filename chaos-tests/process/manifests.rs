//! Manifests as text, so that what is tested is what a user writes.

use std::{fmt::Write as _, path::Path};

/// A Pod in the making.
pub(crate) struct PodText {
    name: String,
    /// Lines below `metadata`, indented by two.
    metadata: String,
    /// Lines below `spec`, indented by two.
    spec: String,
    containers: String,
    volumes: String,
}

impl PodText {
    /// Without containers yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            metadata: String::new(),
            spec: String::new(),
            containers: String::new(),
            volumes: String::new(),
        }
    }

    /// A line of `metadata`.
    pub(crate) fn metadata(mut self, line: &str) -> Self {
        let _ = writeln!(self.metadata, "  {line}");
        self
    }

    /// A line of `spec`.
    pub(crate) fn spec(mut self, line: &str) -> Self {
        let _ = writeln!(self.spec, "  {line}");
        self
    }

    /// Runs on this node only.
    pub(crate) fn on(self, node: &str) -> Self {
        self.spec(&format!("nodeSelector: {{kubernetes.io/hostname: {node}}}"))
    }

    /// An emptyDir, `/shared` in every container made after it.
    pub(crate) fn shared(mut self) -> Self {
        self.volumes.push_str("  - {name: shared, emptyDir: {}}\n");
        self
    }

    /// A directory of the machine, `/record` in every container made after it.
    pub(crate) fn record(mut self, dir: &Path) -> Self {
        let _ =
            writeln!(self.volumes, "  - {{name: record, hostPath: {{path: {}}}}}", dir.display());
        self
    }

    /// A container that runs these steps.
    pub(crate) fn container(self, name: &str, steps: &[&str]) -> Self {
        self.container_with(name, steps, &[])
    }

    /// A container that runs these steps, with more lines of its spec.
    pub(crate) fn container_with(mut self, name: &str, steps: &[&str], more: &[&str]) -> Self {
        let out = &mut self.containers;
        let _ =
            writeln!(out, "  - name: {name}\n    image: toolbox\n    command: [run]\n    args:");
        for step in steps {
            let _ = writeln!(out, "    - {step:?}");
        }
        let mut mounts = Vec::new();
        if self.volumes.contains("name: shared") {
            mounts.push("{name: shared, mountPath: /shared}");
        }
        if self.volumes.contains("name: record") {
            mounts.push("{name: record, mountPath: /record}");
        }
        if !mounts.is_empty() {
            let _ = writeln!(out, "    volumeMounts: [{}]", mounts.join(", "));
        }
        for line in more {
            let _ = writeln!(out, "    {line}");
        }
        self
    }

    /// The manifest.
    pub(crate) fn yaml(&self) -> String {
        let Self { name, metadata, spec, containers, volumes } = self;
        let volumes =
            if volumes.is_empty() { String::new() } else { format!("  volumes:\n{volumes}") };
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n{metadata}spec:\n{spec}  \
             containers:\n{containers}{volumes}"
        )
    }
}
