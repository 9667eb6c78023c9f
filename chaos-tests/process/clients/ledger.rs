//! What a copy of the API's objects was told, held against what it may be told.
//!
//! Each object carries a number that only its writer knows and that grows by one with each of its writes, also over
//! a deletion. While a watch goes on, over as many streams and replicas as it takes, every number is seen, in
//! order, once. Only where a copy has to list again (the versions in between are no longer kept) may numbers be
//! passed over, and never backwards.

use std::collections::BTreeMap;

/// Who else writes the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Nobody: each event is a write of the writer's.
    None,
    /// The scheduler: an event may show the same number again, in a newer version.
    Write,
}

/// By name: number and version.
pub(super) type Objects = BTreeMap<String, (u64, u64)>;

/// What one copy was told.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) who: String,
    others: Others,
    pub(super) objects: Objects,
    /// The last that was seen of each name, that of what is gone, too.
    numbers: BTreeMap<String, u64>,
    /// The same of names that a later list did not show: more may have come since.
    passed: BTreeMap<String, u64>,
    /// What a list that is being told has shown so far.
    listed: Option<Objects>,
    /// Of the last event.
    revision: u64,
    pub(super) events: u64,
    /// How often it listed.
    pub(super) lists: u64,
}

impl Ledger {
    pub(super) fn new(who: &str, others: Others) -> Self {
        Self {
            who: who.to_owned(),
            others,
            objects: BTreeMap::new(),
            numbers: BTreeMap::new(),
            passed: BTreeMap::new(),
            listed: None,
            revision: 0,
            events: 0,
            lists: 0,
        }
    }

    /// A list begins: what it shows replaces everything.
    pub(super) fn list(&mut self) {
        self.listed = Some(BTreeMap::new());
    }

    /// An object of the list.
    pub(super) fn listed(&mut self, name: &str, number: u64, revision: u64) {
        let before = self.numbers.get(name).max(self.passed.get(name)).copied().unwrap_or_default();
        assert!(number >= before, "{}: the list shows {name} {number} after {before}", self.who);
        self.numbers.insert(name.to_owned(), number);
        let listed = self.listed.get_or_insert_default();
        let twice = listed.insert(name.to_owned(), (number, revision));
        assert_eq!(twice, None, "{}: the list shows {name} twice", self.who);
    }

    /// The list is complete, as of this version, if that is known.
    pub(super) fn end_of_list(&mut self, revision: u64) {
        self.objects = self.listed.take().unwrap_or_default();
        let objects = &self.objects;
        let unlisted = self.numbers.extract_if(.., |name, _| !objects.contains_key(name));
        self.passed.extend(unlisted);
        self.revision = self.revision.max(revision);
        self.lists += 1;
    }

    /// An object is there, or changed.
    pub(super) fn applied(&mut self, name: &str, number: u64, revision: u64) {
        self.event(name, number, revision);
        let before = self.numbers.insert(name.to_owned(), number);
        let was = self.objects.insert(name.to_owned(), (number, revision));
        let next = before.map_or(0, |before| before + 1);
        let again = self.others == Others::Write && was.is_some_and(|(was, _)| was == number);
        // Of what was made and deleted before a list nothing is known, but that it does not go back.
        let passed = self.passed.remove(name).unwrap_or_default();
        let first = before.is_none() && was.is_none() && number > passed;
        assert!(
            (before.is_some() && number == next) || again || first,
            "{}: {name} is {number} after {before:?} ({was:?})",
            self.who
        );
    }

    /// An object is gone.
    pub(super) fn deleted(&mut self, name: &str, number: u64, revision: u64) {
        self.event(name, number, revision);
        let was = self.objects.remove(name).map(|(was, _)| was);
        assert_eq!(was, Some(number), "{}: {name} {number} is deleted", self.who);
    }

    /// What a copy says of itself: what it had and has of a name, in any order of names. A copy that has `listed`
    /// more than once may have passed numbers over.
    pub(super) fn copied(
        &mut self,
        name: &str,
        old: Option<(u64, u64)>,
        new: Option<(u64, u64)>,
        listed: u64,
    ) {
        let had = self.objects.get(name).copied();
        assert_eq!(old, had, "{}: what it had of {name}", self.who);
        self.events += 1;
        self.lists = listed;
        let Some((number, revision)) = new else {
            self.objects.remove(name);
            return;
        };
        let newer = had.is_none_or(|(_, before)| before < revision);
        assert!(newer, "{}: {name} {number} at {revision} after {had:?}", self.who);
        let before = self.numbers.insert(name.to_owned(), number);
        let next = before.is_none_or(|before| before + 1 == number);
        let again = self.others == Others::Write && before == Some(number);
        let passed = listed > 1 && before.is_some_and(|before| before <= number);
        assert!(next || again || passed, "{}: {name} is {number} after {before:?}", self.who);
        self.objects.insert(name.to_owned(), (number, revision));
    }

    /// What happened, by the events' own names.
    pub(super) fn told(&mut self, kind: &str, name: &str, number: u64, revision: u64) {
        let is_there = self.objects.contains_key(name);
        match kind {
            "ADDED" => {
                assert!(!is_there, "{}: {name} {number} is added again", self.who);
                self.applied(name, number, revision);
            }
            "MODIFIED" => {
                assert!(is_there, "{}: {name} {number} is modified, not added", self.who);
                self.applied(name, number, revision);
            }
            "DELETED" => self.deleted(name, number, revision),
            other => panic!("{}: {other} of {name}", self.who),
        }
    }

    fn event(&mut self, name: &str, number: u64, revision: u64) {
        let last = std::mem::replace(&mut self.revision, revision);
        assert!(revision > last, "{}: {name} {number} at {revision} after {last}", self.who);
        self.events += 1;
    }
}

#[test]
fn a_ledger_finds_what_is_lost_twice_or_back() {
    // CTL-1, INV-6
    type Step = fn(&mut Ledger);
    let rows: [(&str, Others, &[Step], bool); 9] = [
        ("all of it", Others::None, &[|l| l.told("MODIFIED", "a", 2, 11)], true),
        ("lost", Others::None, &[|l| l.told("MODIFIED", "a", 3, 11)], false),
        (
            "twice",
            Others::None,
            &[|l| l.told("MODIFIED", "a", 2, 11), |l| l.told("MODIFIED", "a", 2, 11)],
            false,
        ),
        ("another's write", Others::Write, &[|l| l.told("MODIFIED", "a", 1, 11)], true),
        (
            "another's write where nobody writes",
            Others::None,
            &[|l| l.told("MODIFIED", "a", 1, 11)],
            false,
        ),
        ("an old version", Others::None, &[|l| l.told("MODIFIED", "a", 2, 9)], false),
        (
            "gone and there again",
            Others::None,
            &[|l| l.told("DELETED", "a", 1, 11), |l| l.told("ADDED", "a", 2, 12)],
            true,
        ),
        ("the end is lost", Others::None, &[|l| l.told("ADDED", "a", 2, 12)], false),
        (
            "passed over by a list, and back",
            Others::None,
            &[
                |l| {
                    l.list();
                    l.listed("a", 7, 20);
                    l.end_of_list(21);
                },
                |l| {
                    l.list();
                    l.listed("a", 6, 19);
                },
            ],
            false,
        ),
    ];
    for (name, others, steps, good) in rows {
        let mut ledger = Ledger::new(name, others);
        ledger.list();
        ledger.listed("a", 1, 5);
        ledger.end_of_list(10);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            steps.iter().for_each(|step| step(&mut ledger));
        }));
        assert_eq!(done.is_ok(), good, "{name}");
    }
}
