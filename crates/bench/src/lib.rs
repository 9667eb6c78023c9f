//! Load for any server of the etcd v3 API, and what it measured.
