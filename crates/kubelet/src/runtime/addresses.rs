//! Addresses for Pods, out of the range that the control plane gave the node.

use super::RuntimeError;
use std::{collections::BTreeSet, net::Ipv4Addr};

/// The first three octets of a /24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range([u8; 3]);

impl Range {
    /// From `10.244.1.0/24`; `None` for what is no IPv4 range.
    pub(super) fn parse(cidr: &str) -> Option<Self> {
        let [a, b, c, _] = cidr.split('/').next()?.parse::<Ipv4Addr>().ok()?.octets();
        Some(Self([a, b, c]))
    }

    /// The lowest address that nobody has; the first of the range is the node's own.
    pub(super) fn free(self, taken: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, RuntimeError> {
        let Self([a, b, c]) = self;
        let mut all = (2..=254).map(|d| Ipv4Addr::new(a, b, c, d));
        all.find(|ip| !taken.contains(ip)).ok_or_else(|| RuntimeError::Unsupported {
            detail: format!("every address of {a}.{b}.{c}.0/24 is in use"),
        })
    }
}
