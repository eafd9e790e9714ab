//! Which program reads which records, as a ledger keeps it: what changes when a partition is begun, for every database.

use crate::ledger::HeldProgram;

/// What is to be written so that a partition is read by a program from an offset on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProgramChange<'a> {
    /// What is kept from there on is void: nothing was decided by it.
    pub(super) remove: bool,
    /// What is to be there, if it is not what is in force already.
    pub(super) insert: Option<&'a HeldProgram>,
}

/// Finds that; `None` where all is as it should be. `past` is all that is kept, sorted by partition and offset.
pub(super) fn program_change<'a>(past: &[HeldProgram], now: &'a HeldProgram) -> Option<ProgramChange<'a>> {
    let own = || past.iter().filter(|held| held.at == now.at);
    let before = own().rfind(|held| held.from < now.from).and_then(|held| held.program.as_ref());
    let is_new = before != now.program.as_ref();
    let after: Vec<&HeldProgram> = own().filter(|held| held.from >= now.from).collect();
    let is_there = match &after[..] {
        [] => !is_new,
        [only] => is_new && *only == now,
        _ => false,
    };
    (!is_there).then(|| ProgramChange { remove: !after.is_empty(), insert: is_new.then_some(now) })
}

/// The same list after it.
pub(super) fn with_change(mut past: Vec<HeldProgram>, now: &HeldProgram) -> Vec<HeldProgram> {
    if let Some(ProgramChange { insert, .. }) = program_change(&past, now) {
        past.retain(|held| held.at != now.at || held.from < now.from);
        past.extend(insert.cloned());
        past.sort_by(|one, other| {
            let key = |held: &HeldProgram| (held.at.topic.clone(), held.at.partition, held.from);
            key(one).cmp(&key(other))
        });
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{NextOffset, TopicPartition};

    fn held(partition: i32, from: i64, program: Option<&str>) -> HeldProgram {
        let at = TopicPartition::new("orders", partition);
        HeldProgram { at, from: NextOffset(from), program: program.map(str::to_owned) }
    }

    #[test]
    fn a_program_is_noted_where_it_is_another_than_before() {
        let past = vec![held(0, 10, Some("a")), held(1, 0, Some("z"))];
        for (now, then) in [
            (held(0, 20, Some("a")), past.clone()),
            (held(0, 10, Some("a")), past.clone()),
            (held(0, 20, Some("b")), vec![past[0].clone(), held(0, 20, Some("b")), past[1].clone()]),
            (held(0, 20, None), vec![past[0].clone(), held(0, 20, None), past[1].clone()]),
            (held(2, 5, None), past.clone()),
            (held(2, 5, Some("a")), vec![past[0].clone(), past[1].clone(), held(2, 5, Some("a"))]),
        ] {
            assert_eq!(with_change(past.clone(), &now), then, "{now:?}");
        }
    }

    #[test]
    fn what_decided_nothing_is_void() {
        let past = vec![held(0, 10, Some("a")), held(0, 20, Some("b"))];
        assert_eq!(
            with_change(past.clone(), &held(0, 20, Some("c"))),
            [past[0].clone(), held(0, 20, Some("c"))]
        );
        assert_eq!(with_change(past.clone(), &held(0, 15, Some("a"))), past[..1]);
        assert_eq!(with_change(past.clone(), &held(0, 10, None)), []);
        assert_eq!(with_change(past.clone(), &held(0, 0, None)), []);
        let change = program_change(&past, &past[1]);
        assert_eq!(change, None);
    }
}
