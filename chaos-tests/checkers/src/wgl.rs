//! A search for an order that explains what was answered: Wing and Gong's, with Lowe's memory of states
//! that were tried, and Horn and Kroening's idea of taking each key for itself.
//!
//! Answers of known order are tried in that order first, so that a right history is found right without a
//! step back; requests of unknown outcome may be left out, or take effect at any time after they were sent.

use std::{collections::HashSet, hash::Hash};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Entry<O> {
    /// When it was sent.
    pub(crate) invoked: u64,
    /// When it was answered; none if it may take effect at any time, or never.
    pub(crate) returned: Option<u64>,
    /// Lower ones are tried first.
    pub(crate) hint: u64,
    /// What was asked and answered.
    pub(crate) operation: O,
}

/// What a request may do to a state.
pub(crate) trait Model {
    /// Small: it is kept for every dead end.
    type State: Clone + Eq + Hash;
    /// A request with its answer.
    type Operation;

    /// The state after it; none if it cannot have been answered so.
    fn step(state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;

    /// Whether it leaves every state as it is.
    fn reads_only(operation: &Self::Operation) -> bool;
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Search {
    /// There is such an order.
    Explained,
    /// There is none. The longest beginning of one, and the earliest answer that it leaves unexplained.
    Unexplained { longest: Vec<usize>, stuck: usize },
    /// It was given up.
    GivenUp,
}

/// A set of places, to be hashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Places(Vec<u64>);

impl Places {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn flip(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word ^= 1 << (place % 64);
        }
    }
}

/// Requests that are not placed yet, in the order in which they were sent.
struct Left {
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Left {
    /// One place more than there are requests: the last one begins and ends the ring.
    fn all(count: usize) -> Self {
        let next = (1..=count).chain([0]).collect();
        let previous = std::iter::once(count).chain(0..count).collect();
        Self { next, previous }
    }

    fn after(&self, place: usize) -> usize {
        self.next.get(place).copied().unwrap_or_default()
    }

    fn link(&mut self, before: usize, after: usize) {
        if let Some(next) = self.next.get_mut(before) {
            *next = after;
        }
        if let Some(previous) = self.previous.get_mut(after) {
            *previous = before;
        }
    }

    fn take(&mut self, place: usize) {
        let before = self.previous.get(place).copied().unwrap_or_default();
        self.link(before, self.after(place));
    }

    /// Undoes the last take that was not undone.
    fn give_back(&mut self, place: usize) {
        let before = self.previous.get(place).copied().unwrap_or_default();
        let after = self.after(place);
        self.link(before, place);
        self.link(place, after);
    }
}

/// A choice: what could come next, worst first, and what was chosen.
struct Choice<S> {
    state: S,
    /// The highest hint of an answered request before it.
    passed: u64,
    candidates: Vec<usize>,
    chosen: Option<usize>,
}

/// Looks for an order of `entries`, which are sorted by when they were sent, from a first state; gives up
/// after so many steps back.
pub(crate) fn search<M: Model>(
    entries: &[Entry<M::Operation>],
    first: M::State,
    steps_back_max: usize,
) -> Search {
    let end = entries.len();
    let mut left = Left::all(end);
    let mut placed = Places::none(end);
    let mut answers_left = entries.iter().filter(|entry| entry.returned.is_some()).count();
    let mut dead_ends: HashSet<(Places, M::State)> = HashSet::new();
    // Answers that it leaves, and the order.
    let mut longest: (usize, Vec<usize>) = (answers_left + 1, Vec::new());
    let candidates = next_ones(entries, &left, 0);
    let mut choices = vec![Choice { state: first, passed: 0, candidates, chosen: None }];
    while answers_left > 0 {
        let Some(choice) = choices.last_mut() else {
            let placed: HashSet<usize> = longest.1.iter().copied().collect();
            let unplaced = (0..end).filter(|place| !placed.contains(place));
            let by_answer = |place: &usize| entries.get(*place).and_then(|entry| entry.returned);
            let stuck = unplaced.filter(|place| by_answer(place).is_some()).min_by_key(by_answer);
            return Search::Unexplained { longest: longest.1, stuck: stuck.unwrap_or_default() };
        };
        if let Some(place) = choice.chosen.take() {
            left.give_back(place);
            placed.flip(place);
            answers_left += usize::from(entries.get(place).is_some_and(|e| e.returned.is_some()));
        }
        let Some(place) = choice.candidates.pop() else {
            dead_ends.insert((placed.clone(), choice.state.clone()));
            if answers_left < longest.0 {
                longest.0 = answers_left;
                longest.1 = choices.iter().filter_map(|choice| choice.chosen).collect();
            }
            if dead_ends.len() > steps_back_max {
                return Search::GivenUp;
            }
            choices.pop();
            continue;
        };
        let Some(entry) = entries.get(place) else { continue };
        let Some(state) = M::step(&choice.state, &entry.operation) else { continue };
        if state == choice.state && entry.returned.is_none() {
            // Later it might do something.
            continue;
        }
        if M::reads_only(&entry.operation) {
            // Were it to come later, it could as well come now. Of a write that would not be true: this one
            // may be without effect now, and needed behind another.
            choice.candidates.clear();
        }
        placed.flip(place);
        if !dead_ends.is_empty() && dead_ends.contains(&(placed.clone(), state.clone())) {
            placed.flip(place);
            continue;
        }
        left.take(place);
        choice.chosen = Some(place);
        let passed = match entry.returned {
            Some(_) => choice.passed.max(entry.hint),
            None => choice.passed,
        };
        answers_left -= usize::from(entry.returned.is_some());
        let candidates = next_ones(entries, &left, passed);
        choices.push(Choice { state, passed, candidates, chosen: None });
    }
    Search::Explained
}

/// Who can come next: sent before the first answer among those that are left. Best last.
fn next_ones<O>(entries: &[Entry<O>], left: &Left, passed: u64) -> Vec<usize> {
    let mut first_answer = u64::MAX;
    let mut found: Vec<(u64, bool, usize)> = Vec::new();
    let mut place = left.after(entries.len());
    while let Some(entry) = entries.get(place) {
        if entry.invoked > first_answer {
            break;
        }
        first_answer = first_answer.min(entry.returned.unwrap_or(u64::MAX));
        let is_open = entry.returned.is_none();
        // What may be left out, and was where it should have come, is tried last.
        let hint = if is_open && entry.hint < passed { u64::MAX } else { entry.hint };
        found.push((hint, is_open, place));
        place = left.after(place);
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, _, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stateright::semantics::{
        ConsistencyTester as _, LinearizabilityTester,
        register::{Register, RegisterOp, RegisterRet},
    };

    /// A register of small numbers: what it was read as, or what was written.
    #[derive(Debug, Clone, Copy)]
    enum Access {
        Read(u8),
        Write(u8),
    }

    struct Number;

    impl Model for Number {
        type State = u8;
        type Operation = Access;

        fn step(state: &u8, access: &Access) -> Option<u8> {
            match access {
                Access::Read(value) => (value == state).then_some(*state),
                Access::Write(value) => Some(*value),
            }
        }

        fn reads_only(access: &Access) -> bool {
            matches!(access, Access::Read(_))
        }
    }

    /// Steps of threads: each begins a request, or ends the one under way, or leaves it open for ever.
    fn requests() -> impl Strategy<Value = Vec<(usize, bool, u8)>> {
        prop::collection::vec((0..4_usize, any::<bool>(), 0..3_u8), 0..16)
    }

    /// The same history for both searches.
    fn both(steps: &[(usize, bool, u8)]) -> (Vec<Entry<Access>>, bool) {
        let mut entries: Vec<Entry<Access>> = Vec::new();
        let mut open: [Option<usize>; 4] = [None; 4];
        let mut tester = LinearizabilityTester::new(Register(0_u8));
        for ((thread, is_write, value), at) in steps.iter().zip(1_u64..) {
            if let Some(place) = open[*thread].take() {
                let entry = &mut entries[place];
                entry.returned = Some(at);
                let returned = match &mut entry.operation {
                    Access::Write(_) => RegisterRet::WriteOk,
                    Access::Read(read) => {
                        *read = *value;
                        RegisterRet::ReadOk(*value)
                    }
                };
                tester.on_return(*thread, returned).unwrap();
            } else {
                open[*thread] = Some(entries.len());
                let operation = if *is_write { Access::Write(*value) } else { Access::Read(0) };
                entries.push(Entry { invoked: at, returned: None, hint: 0, operation });
                let asked = if *is_write { RegisterOp::Write(*value) } else { RegisterOp::Read };
                tester.on_invoke(*thread, asked).unwrap();
            }
        }
        // A read without an answer says nothing, and may be left out.
        (entries, tester.is_consistent())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn the_search_agrees_with_another_one(steps in requests()) {
            let (entries, consistent) = both(&steps);
            match search::<Number>(&entries, 0, usize::MAX) {
                Search::Explained => prop_assert!(consistent),
                Search::Unexplained { .. } => prop_assert!(!consistent),
                Search::GivenUp => prop_assert!(false, "it must not give up"),
            }
        }
    }

    #[test]
    fn a_search_says_how_far_it_came_or_that_it_gave_up() {
        let entry = |invoked, returned, operation| Entry { invoked, returned, hint: 0, operation };
        let entries = [
            entry(1, Some(2), Access::Write(1)),
            entry(3, Some(4), Access::Write(2)),
            entry(5, Some(6), Access::Read(1)),
        ];
        let found = search::<Number>(&entries, 0, 100);
        assert_eq!(found, Search::Unexplained { longest: vec![0, 1], stuck: 2 });
        assert_eq!(search::<Number>(&entries, 0, 0), Search::GivenUp);
    }
}
