//! Which part of the control plane a seed is about.

use crate::{Report, part::Part, plan::derive, plane, trace::Detail};
use std::{fmt, str::FromStr, time::Duration};

/// How many seeds there are to one that runs the whole plane: it takes longer.
const SEEDS_PER_PLANE: u64 = 4;

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Replicas with the etcd API, and its clients.
    Store,
    /// All of it, down to the nodes' agents.
    Plane,
}

impl Layer {
    /// As the seed says.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        if derive(seed, "layer", 0).is_multiple_of(SEEDS_PER_PLANE) {
            Self::Plane
        } else {
            Self::Store
        }
    }

    /// Runs all that the seed draws.
    #[must_use]
    pub fn run(self, seed: u64, detail: Detail) -> Report {
        self.run_part(seed, &Part::default(), None, detail)
    }

    /// Runs a part of what the seed draws, for so long of real time at most.
    #[must_use]
    pub fn run_part(
        self,
        seed: u64,
        part: &Part,
        limit: Option<Duration>,
        detail: Detail,
    ) -> Report {
        match self {
            Self::Store => crate::run_within(&part.of(seed), limit, detail, false),
            Self::Plane => plane::run_part(seed, part, limit, detail, false),
        }
    }

    /// A part of what the seed draws, in words.
    #[must_use]
    pub fn describe(self, seed: u64, part: &Part) -> String {
        match self {
            Self::Store => part.of(seed).to_string(),
            Self::Plane => plane::describe(seed, part),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Plane => "plane",
        })
    }
}

impl FromStr for Layer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "store" => Ok(Self::Store),
            "plane" => Ok(Self::Plane),
            _ => Err(format!("{text:?} is neither store nor plane")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_draw_both() {
        let planes = (0..1000).filter(|seed| Layer::of(*seed) == Layer::Plane).count();
        assert!((150..350).contains(&planes), "{planes}");
        for layer in [Layer::Store, Layer::Plane] {
            assert_eq!(layer.to_string().parse(), Ok(layer));
        }
        assert!("cluster".parse::<Layer>().is_err());
    }
}
