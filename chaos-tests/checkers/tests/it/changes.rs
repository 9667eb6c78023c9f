//! Changes of right histories that must be caught: what is done with any table of them.

use crate::model::Chance;
use checkers::{Verdict, check, history::History};
use proptest::{
    prelude::{TestCaseError, prop_assert},
    test_runner::TestCaseResult,
};

/// Name; what it does, false if the history has nothing that it could be done to; a property that must catch it.
pub(crate) type Row = (&'static str, fn(&mut History, &mut Chance) -> bool, &'static str);

fn violated(verdicts: &[Verdict]) -> Vec<&Verdict> {
    verdicts.iter().filter(|verdict| !verdict.held).collect()
}

/// That a history holds.
pub(crate) fn holds(history: &History) -> TestCaseResult {
    let verdicts = check(history);
    prop_assert!(violated(&verdicts).is_empty(), "{:#?}", violated(&verdicts));
    Ok::<(), TestCaseError>(())
}

/// That a history does not hold any more with one change, if that can be made.
pub(crate) fn is_caught(row: &Row, mut history: History, seed: u64) -> TestCaseResult {
    let (name, change, property) = row;
    if change(&mut history, &mut Chance::new(seed)) {
        let verdicts = check(&history);
        let caught = violated(&verdicts);
        prop_assert!(
            caught.iter().any(|verdict| verdict.property == *property),
            "{name}: caught by {:?} only",
            caught.iter().map(|verdict| verdict.property).collect::<Vec<_>>()
        );
    }
    Ok(())
}

/// That each change can be made to half of some histories, and names a property that there is.
pub(crate) fn can_be_made(rows: &[Row], history: impl Fn(u64) -> History) {
    for (name, change, property) in rows {
        let made = (0..20).filter(|seed| change(&mut history(*seed), &mut Chance::new(*seed)));
        assert!(made.count() >= 10, "{name} is hardly ever possible");
        assert!(
            checkers::properties::ALL.iter().any(|known| known.name == *property),
            "{property}"
        );
    }
}
