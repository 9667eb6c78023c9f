//! From a run that fails to a smaller one that fails, too.

use super::scenario::Scenario;

/// Leaves out what can be left out, as long as what is left still fails; until `fails` does not say any more.
pub(crate) fn shrink(
    scenario: Scenario,
    mut fails: impl FnMut(&Scenario) -> Option<bool>,
) -> Scenario {
    let mut smallest = scenario;
    'smaller: loop {
        for candidate in candidates(&smallest) {
            match fails(&candidate) {
                None => return smallest,
                Some(false) => {}
                Some(true) => {
                    smallest = candidate;
                    continue 'smaller;
                }
            }
        }
        return smallest;
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
    all.extend((0..count).map(|at| {
        with(&|smaller| {
            smaller.faults.remove(at);
        })
    }));
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
        all.extend((0..weights).map(|at| {
            with(&|smaller| {
                smaller.load.weights.remove(at);
            })
        }));
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
        let small = shrink(scenario, |scenario| Some(scenario.faults.contains(&matters)));
        assert_eq!(small.faults, [matters]);
        assert_eq!((small.watchers, small.clients, small.load.weights.len()), (0, 1, 1));
    }

    #[test]
    fn it_ends_when_there_is_no_more_time() {
        let mut runs = 0;
        let scenario = Scenario::draw(1);
        let same = shrink(scenario.clone(), |_| {
            runs += 1;
            (runs < 7).then_some(false)
        });
        assert_eq!((runs, same), (7, scenario));
    }
}
