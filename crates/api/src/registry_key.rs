//! Where objects are stored: `/registry/[group/]plural/[namespace/]name`.

use crate::{kinds::Kind, meta};
use serde_json::Value;

/// Of one object; `namespace` is ignored for kinds that have none.
#[must_use]
pub fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    format!("{}{name}", prefix(kind, namespace))
}

/// Of this object.
#[must_use]
pub fn key_of(kind: &Kind, object: &Value) -> String {
    key(kind, meta::namespace(object), meta::name(object))
}

/// Of all objects of a kind: in one namespace, or in all when it is empty.
#[must_use]
pub fn prefix(kind: &Kind, namespace: &str) -> String {
    let mut prefix = String::from("/registry/");
    for (part, used) in [
        (kind.group, !kind.group.is_empty()),
        (kind.plural, true),
        (namespace, kind.namespaced && !namespace.is_empty()),
    ] {
        if used {
            prefix.push_str(part);
            prefix.push('/');
        }
    }
    prefix
}

/// The namespace (empty without one) and name in a key of this kind.
#[must_use]
pub fn parse<'a>(kind: &Kind, key: &'a str) -> Option<(&'a str, &'a str)> {
    let rest = key.strip_prefix(&prefix(kind, ""))?;
    let (namespace, name) = if kind.namespaced { rest.split_once('/')? } else { ("", rest) };
    (!name.is_empty() && !name.contains('/')).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_alias;

    #[test]
    fn keys_tell_kind_namespace_and_name() {
        for (alias, namespace, name, want) in [
            ("pods", "default", "p", "/registry/pods/default/p"),
            ("nodes", "", "n", "/registry/nodes/n"),
            ("leases", "ns", "l", "/registry/coordination.k8s.io/leases/ns/l"),
        ] {
            let kind = by_alias(alias).unwrap();
            assert_eq!(key(kind, namespace, name), want);
            assert_eq!(parse(kind, want), Some((namespace, name)));
        }
        let pods = by_alias("pods").unwrap();
        assert_eq!(prefix(pods, ""), "/registry/pods/");
        assert_eq!(prefix(pods, "a"), "/registry/pods/a/");
        assert_eq!(parse(pods, "/registry/nodes/n"), None);
    }
}
