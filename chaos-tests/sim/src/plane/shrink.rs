//! From a run that fails to a smaller one that fails, too.

use super::scenario::Scenario;

/// Leaves out what can be left out, as long as what is left still `fails`; at most so many tries.
pub(crate) fn shrink(
    scenario: Scenario,
    tries: u32,
    mut fails: impl FnMut(&Scenario) -> bool,
) -> Scenario {
    let (mut smallest, mut tries) = (scenario, tries);
    loop {
        let mut smaller = None;
        for candidate in candidates(&smallest) {
            if tries == 0 {
                return smallest;
            }
            tries -= 1;
            if fails(&candidate) {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(candidate) => smallest = candidate,
            None => return smallest,
        }
    }
}

/// Each is smaller in one respect; what makes the most of a difference comes first.
fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let with = |change: &dyn Fn(&mut Scenario)| {
        let mut smaller = scenario.clone();
        change(&mut smaller);
        smaller
    };
    let mut all = Vec::new();
    let count = scenario.faults.len();
    if count > 1 {
        all.push(with(&|smaller| smaller.faults.truncate(count / 2)));
        all.push(with(&|smaller| drop(smaller.faults.drain(..count / 2))));
    }
    all.extend((0..count).map(|at| with(&|smaller| drop(smaller.faults.remove(at)))));
    if scenario.busy.as_secs() > 2 {
        all.push(with(&|smaller| {
            smaller.busy /= 2;
            let busy = smaller.busy;
            smaller.faults.retain(|fault| fault.at < busy);
        }));
    }
    if scenario.watchers > 0 {
        all.push(with(&|smaller| smaller.watchers -= 1));
    }
    if scenario.clients > 1 {
        all.push(with(&|smaller| smaller.clients -= 1));
    }
    let weights = scenario.load.weights.len();
    if weights > 1 {
        all.extend((0..weights).map(|at| with(&|smaller| drop(smaller.load.weights.remove(at)))));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let seed = (0..).find(|seed| Scenario::draw(*seed).faults.len() > 5).unwrap();
        let scenario = Scenario::draw(seed);
        let matters = scenario.faults[3].clone();
        let small = shrink(scenario, 10_000, |scenario| scenario.faults.contains(&matters));
        assert_eq!(small.faults, [matters]);
        assert_eq!((small.watchers, small.clients, small.load.weights.len()), (0, 1, 1));
    }

    #[test]
    fn no_more_runs_are_made_than_allowed() {
        let mut runs = 0;
        let scenario = Scenario::draw(1);
        let same = shrink(scenario.clone(), 7, |_| {
            runs += 1;
            false
        });
        assert_eq!((runs, same), (7, scenario));
    }
}
