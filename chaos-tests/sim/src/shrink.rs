//! From a run that fails to a smaller one that fails in the same way.

use crate::{Failure, patience::TOOK_TOO_LONG};
use std::time::Duration;
use tokio::time::Instant;

/// The smallest run found in time that breaks the same property, and how it does.
///
/// Of what `candidates` makes of a run, the first that fails, too, is the next one. Each is run for so long at most as
/// there is time. A run that has taken too long is left as it is: that would take as long again and again.
pub(crate) fn shrink<T>(
    whole: T,
    failure: &Failure,
    time: Duration,
    candidates: impl Fn(&T) -> Vec<T>,
    run: impl Fn(&T, Duration) -> Option<Failure>,
) -> (T, Failure) {
    let begun = Instant::now();
    let (mut smallest, mut failure) = (whole, failure.clone());
    if failure.property == TOOK_TOO_LONG {
        return (smallest, failure);
    }
    'smaller: loop {
        for candidate in candidates(&smallest) {
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return (smallest, failure);
            }
            let found = run(&candidate, left);
            if let Some(found) = found.filter(|found| found.property == failure.property) {
                (smallest, failure) = (candidate, found);
                continue 'smaller;
            }
        }
        return (smallest, failure);
    }
}

/// A list with parts left out: first one half or the other, then each single thing.
pub(crate) fn parts<T: Clone>(list: &[T]) -> impl Iterator<Item = Vec<T>> + '_ {
    let (first, second) = list.split_at(list.len() / 2);
    let halves =
        [first, second].into_iter().filter(|half| half.len() > 1 && half.len() < list.len());
    let singles = (0..list.len()).map(|out| {
        let left = list.iter().enumerate().filter(move |(at, _)| *at != out);
        left.map(|(_, thing)| thing.clone()).collect()
    });
    halves.map(<[T]>::to_vec).chain(singles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const TIME: Duration = Duration::from_secs(600);

    fn failure(property: &'static str) -> Failure {
        Failure { property, detail: String::new(), at: 0 }
    }

    #[expect(clippy::ptr_arg, reason = "as what is shrunk: whole lists")]
    fn all_parts(list: &Vec<u32>) -> Vec<Vec<u32>> {
        parts(list).collect()
    }

    #[test]
    fn what_is_not_needed_is_left_out() {
        let fails = |list: &Vec<u32>, _| {
            (list.contains(&3) && list.contains(&17)).then(|| failure("it holds"))
        };
        let whole = (0..20).collect();
        let (small, _) = shrink(whole, &failure("it holds"), TIME, all_parts, fails);
        assert_eq!(small, [3, 17]);
    }

    #[test]
    fn another_failure_is_not_the_one_that_is_looked_for() {
        let fails = |list: &Vec<u32>, _| {
            Some(failure(if list.contains(&3) { "it holds" } else { "something else" }))
        };
        let (small, found) = shrink(vec![1, 2, 3], &failure("it holds"), TIME, all_parts, fails);
        assert_eq!((small, found.property), (vec![3], "it holds"));
    }

    #[test]
    fn it_ends_when_there_is_no_more_time() {
        let runs = Cell::new(0);
        let fails = |_: &Vec<u32>, _| {
            runs.set(runs.get() + 1);
            None
        };
        let (same, _) = shrink(vec![1, 2], &failure("it holds"), Duration::ZERO, all_parts, fails);
        assert_eq!((runs.get(), same), (0, vec![1, 2]));
    }

    #[test]
    fn what_takes_too_long_is_not_run_again() {
        let fails = |_: &Vec<u32>, _| unreachable!("it is run");
        let (same, _) = shrink(vec![1, 2], &failure(TOOK_TOO_LONG), TIME, all_parts, fails);
        assert_eq!(same, [1, 2]);
    }

    #[test]
    fn halves_come_before_single_things() {
        assert_eq!(all_parts(&vec![1, 2, 3, 4]).first(), Some(&vec![1, 2]));
        assert_eq!(all_parts(&vec![1, 2, 3, 4]).len(), 2 + 4);
        assert_eq!(all_parts(&vec![1, 2]), [[2], [1]]);
        assert_eq!(all_parts(&vec![1]), [Vec::<u32>::new()]);
        assert!(all_parts(&Vec::new()).is_empty());
    }
}
