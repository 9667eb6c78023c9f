//! A part of what a seed draws: what is left of a run that fails when everything that is not needed is taken away.

use crate::{
    Failure, Millis,
    layer::Layer,
    plan::Plan,
    plane,
    shrink::{parts, shrink},
    trace::Detail,
};
use std::{fmt, time::Duration};

/// Of each client, where a run is made smaller for the first time.
const REQUESTS_FIRST: usize = 256;
/// Milliseconds of things that go wrong.
const FIRE_LEAST: Millis = 100;
/// Of a plane, in which everything takes longer.
const FIRE_LEAST_PLANE: Millis = 1_000;

/// What of a seed's run is run; by default all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// The numbers of the faults.
    pub faults: Option<Vec<usize>>,
    /// Milliseconds after which everything is healed.
    pub fire: Option<Millis>,
    /// Of the store: requests of each client at most.
    pub requests: Option<usize>,
    /// Of a plane: clients.
    pub clients: Option<u64>,
    /// Of a plane: watchers.
    pub watchers: Option<u64>,
    /// Of a plane: names of what clients do.
    pub ops: Option<Vec<String>>,
}

impl Part {
    /// The plan of a seed, and of it this part.
    #[must_use]
    pub fn of(&self, seed: u64) -> Plan {
        let mut plan = Plan::of(seed);
        if let Some(kept) = &self.faults {
            plan.faults.retain(|fault| kept.contains(&fault.number));
        }
        plan.requests = self.requests.unwrap_or(plan.requests);
        plan.fire = self.fire.unwrap_or(plan.fire);
        plan
    }

    /// Why it is no part of that layer, if it is not.
    ///
    /// # Errors
    /// What of it belongs to the other layer, or is unknown.
    pub fn fits(&self, layer: Layer) -> Result<(), String> {
        match layer {
            Layer::Store if self.clients.or(self.watchers).is_some() || self.ops.is_some() => {
                Err("clients, watchers and ops are chosen of a plane".to_owned())
            }
            Layer::Plane if self.requests.is_some() => {
                Err("requests are chosen of the store".to_owned())
            }
            Layer::Store | Layer::Plane => {
                let mut names = self.ops.iter().flatten();
                let unknown = names.find(|name| !plane::ops().contains(name));
                unknown
                    .map_or(Ok(()), |name| Err(format!("{name:?} is none of {:?}", plane::ops())))
            }
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut part = self.clone();
        change(&mut part);
        part
    }

    /// Each is smaller in one respect; what makes the most of a difference comes first.
    fn candidates(&self, seed: u64, layer: Layer) -> Vec<Self> {
        match layer {
            Layer::Store => {
                let plan = self.of(seed);
                let faults: Vec<usize> = plan.faults.iter().map(|fault| fault.number).collect();
                let requests = self.requests.map_or(REQUESTS_FIRST, |requests| requests / 2);
                let requests = (requests > 0).then(|| self.with(|p| p.requests = Some(requests)));
                let fire = self.shorter(plan.fire, FIRE_LEAST);
                self.fewer_faults(&faults).chain(requests).chain(fire).collect()
            }
            Layer::Plane => {
                let plane::Size { faults, fire, clients, watchers, ops } = plane::size(seed, self);
                let fire = self.shorter(fire, FIRE_LEAST_PLANE);
                let watchers = watchers.checked_sub(1);
                let watchers = watchers.map(|fewer| self.with(|p| p.watchers = Some(fewer)));
                let clients = clients.checked_sub(1).filter(|fewer| *fewer > 0);
                let clients = clients.map(|fewer| self.with(|p| p.clients = Some(fewer)));
                // With nothing to ask, clients would stop.
                let ops = parts(&ops).filter(|fewer| !fewer.is_empty());
                let ops = ops.map(|fewer| self.with(|p| p.ops = Some(fewer)));
                let first = self.fewer_faults(&faults).chain(fire);
                first.chain(watchers).chain(clients).chain(ops).collect()
            }
        }
    }

    fn fewer_faults(&self, faults: &[usize]) -> impl Iterator<Item = Self> {
        parts(faults).map(|fewer| self.with(|part| part.faults = Some(fewer)))
    }

    fn shorter(&self, fire: Millis, least: Millis) -> Option<Self> {
        let half = fire / 2;
        (half > least).then(|| self.with(|part| part.fire = Some(half)))
    }
}

/// As the command line takes it.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, fire, requests, clients, watchers, ops } = self;
        if let Some(faults) = faults {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            write!(f, " --faults={}", faults.join(","))?;
        }
        if let Some(fire) = fire {
            write!(f, " --fire-ms {fire}")?;
        }
        if let Some(requests) = requests {
            write!(f, " --requests {requests}")?;
        }
        if let Some(clients) = clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(watchers) = watchers {
            write!(f, " --watchers {watchers}")?;
        }
        if let Some(ops) = ops {
            write!(f, " --ops {}", ops.join(","))?;
        }
        Ok(())
    }
}

/// The least part of what a seed draws that was found in time and breaks the same property, and how.
#[must_use]
pub fn shrink_seed(layer: Layer, seed: u64, failure: &Failure, time: Duration) -> (Part, Failure) {
    let candidates = |part: &Part| part.candidates(seed, layer);
    let run = |part: &Part, time| layer.run_part(seed, part, Some(time), Detail::Nothing).failure;
    shrink(Part::default(), failure, time, candidates, run)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(600);

    fn failure() -> Failure {
        Failure { property: "it holds", detail: String::new(), at: 7 }
    }

    fn smallest(seed: u64, layer: Layer, fails: impl Fn(&Part) -> bool) -> Part {
        let candidates = |part: &Part| part.candidates(seed, layer);
        let run = |part: &Part, _| fails(part).then(failure);
        shrink(Part::default(), &failure(), TIME, candidates, run).0
    }

    #[test]
    fn of_a_plan_what_matters_is_left() {
        let seed = (0..).find(|seed| Plan::of(*seed).faults.len() > 5).unwrap();
        let matters = Plan::of(seed).faults[3].number;
        let part = smallest(seed, Layer::Store, |part| {
            part.of(seed).faults.iter().any(|fault| fault.number == matters)
        });
        assert_eq!((part.faults.as_deref(), part.requests), (Some(&[matters][..]), Some(1)));
        assert!(part.fire.is_some_and(|fire| fire <= 2 * FIRE_LEAST), "{part}");
        assert_eq!(part.fits(Layer::Store), Ok(()));
    }

    #[test]
    fn of_a_plane_what_matters_is_left() {
        let all = Part::default();
        let seed = (0..).find(|seed| plane::size(*seed, &all).faults.len() > 5).unwrap();
        let part = smallest(seed, Layer::Plane, |part| {
            let size = plane::size(seed, part);
            size.faults.contains(&3) && size.ops.iter().any(|op| op == "Delete")
        });
        assert_eq!(part.faults.as_deref(), Some(&[3][..]));
        assert_eq!((part.watchers, part.clients), (Some(0), Some(1)));
        assert_eq!(part.ops, Some(vec!["Delete".to_owned()]));
        // No shorter than it takes for the fault to begin.
        let shorter = part.shorter(plane::size(seed, &part).fire, FIRE_LEAST_PLANE);
        let faults = shorter.map(|shorter| plane::size(seed, &shorter).faults);
        assert!(faults.is_none_or(|faults| faults.is_empty()), "{part}");
        assert_eq!(part.fits(Layer::Plane), Ok(()));
    }

    #[test]
    fn a_part_belongs_to_its_layer() {
        let clients = Part { clients: Some(1), ..Part::default() };
        let requests = Part { requests: Some(1), ..Part::default() };
        let unknown = Part { ops: Some(vec!["Dance".to_owned()]), ..Part::default() };
        for (part, store, plane) in [
            (Part::default(), true, true),
            (clients, false, true),
            (requests, true, false),
            (unknown, false, false),
        ] {
            let fits = [Layer::Store, Layer::Plane].map(|layer| part.fits(layer).is_ok());
            assert_eq!(fits, [store, plane], "{part}");
        }
    }
}
