//! Namespaces, cgroups and one shim process a Pod.
