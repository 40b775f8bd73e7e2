use core::time::Duration;
use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Small numbers are narrow keys, even ones wide.
impl Key for u8 {
    fn pack(&self) -> Packed {
        if self.is_multiple_of(2) {
            Packed::Wide([0, 0, 0, 0, u64::from(*self)])
        } else {
            Packed::Narrow([u32::from(*self), 0, 0, 0])
        }
    }

    fn unpack(packed: &Packed) -> Self {
        match packed {
            Packed::Wide(words) => words[4] as u8,
            Packed::Narrow(words) => words[0] as u8,
        }
    }
}

impl Key for u32 {
    fn pack(&self) -> Packed {
        Packed::Narrow([*self, 0, 0, 0])
    }

    fn unpack(packed: &Packed) -> Self {
        match packed {
            Packed::Narrow(words) => words[0],
            Packed::Wide(_) => unreachable!("no such key was made"),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, u8),
    Find(u8),
    Remove(u8),
    Touch(u8),
    Wait(u8),
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u8..40, 0u8..40).prop_map(|(a, b)| Op::Insert(a, b)),
        6 => (0u8..40).prop_map(Op::Find),
        2 => (0u8..40).prop_map(Op::Remove),
        2 => (0u8..40).prop_map(Op::Touch),
        2 => (0u8..20).prop_map(Op::Wait),
        1 => Just(Op::Sweep),
    ]
}

const TIMEOUT: u32 = 10;

/// A naive model: live sessions by number, with their keys and when they were last seen.
#[derive(Default)]
struct Model {
    sessions: HashMap<u32, ([u8; 2], u64)>,
}

impl Model {
    fn expire(&mut self, now: Time) {
        self.sessions
            .retain(|_, (_, seen)| now.ticks() - *seen as u32 <= TIMEOUT);
    }

    fn of(&self, key: u8) -> Option<(u32, Way)> {
        let mut all = self.sessions.iter();
        let (serial, (keys, _)) = all.find(|(_, (keys, _))| keys.contains(&key))?;
        let way = if keys[0] == key {
            Way::Forward
        } else {
            Way::Return
        };
        Some((*serial, way))
    }
}

/// Runs a table of `KEYS` keys beside the model.
fn compare<const KEYS: usize>(capacity: usize, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut objects = Objects::default();
    let mut table = SessionTable::<u8, u32, KEYS>::new(capacity, 7, &mut objects);
    let mut model = Model::default();
    let (mut now, mut serial) = (Time(0), 0u32);
    for op in ops {
        model.expire(now);
        match *op {
            Op::Insert(a, b) => {
                let keys = if KEYS == 1 { [a, a] } else { [a, b] };
                let expected = if keys.iter().any(|key| model.of(*key).is_some()) {
                    Err(InsertError::Exists)
                } else if model.sessions.len() == capacity {
                    Err(InsertError::Full)
                } else {
                    Ok(())
                };
                serial += 1;
                let given: [u8; KEYS] = core::array::from_fn(|key| keys[key]);
                // Every other time the keys are looked for before.
                let made = if serial.is_multiple_of(2) {
                    let mut hashed = given.map(|key: u8| table.hashed(&key));
                    for key in &mut hashed {
                        let _ = table.find_hashed(key, &objects, now);
                    }
                    table.insert_hashed(hashed, serial, TIMEOUT, &mut objects, now)
                } else {
                    table.insert(given, serial, TIMEOUT, &mut objects, now)
                };
                prop_assert_eq!(made.map(drop), expected);
                if let Ok(id) = made {
                    model
                        .sessions
                        .insert(serial, (keys, u64::from(now.ticks())));
                    prop_assert_eq!(table.keys(id), Some(given));
                }
            }
            Op::Find(key) => {
                let found = table.find(&key, &objects, now);
                let found = found.map(|(id, way)| (*table.get(id).unwrap(), way));
                prop_assert_eq!(found, model.of(key));
            }
            Op::Remove(key) => {
                if let Some((id, _)) = table.find(&key, &objects, now) {
                    let (serial, _) = model.of(key).unwrap();
                    prop_assert_eq!(table.remove(id, &mut objects), Some(serial));
                    prop_assert_eq!(table.remove(id, &mut objects), None);
                    prop_assert_eq!(table.keys(id), None);
                    model.sessions.remove(&serial);
                }
            }
            Op::Touch(key) => {
                if let Some((id, _)) = table.find(&key, &objects, now) {
                    objects.touch(table.object(id), now, TIMEOUT);
                    let (serial, _) = model.of(key).unwrap();
                    model.sessions.get_mut(&serial).unwrap().1 = u64::from(now.ticks());
                }
            }
            Op::Wait(ticks) => now = now + Duration::from_nanos(u64::from(ticks) << 20),
            Op::Sweep => table.sweep(&mut objects, now, |_| {}),
        }
        model.expire(now);
        let mut listed: Vec<u32> = table
            .iter_from(0, &objects, now)
            .map(|(.., serial)| *serial)
            .collect();
        let mut live: Vec<u32> = model.sessions.keys().copied().collect();
        listed.sort_unstable();
        live.sort_unstable();
        prop_assert_eq!(listed, live);
        prop_assert!(table.len() >= model.sessions.len());
    }
    Ok(())
}

proptest! {
    #[test]
    fn two_keys_behave_like_a_map_of_live_sessions(
        capacity in 1usize..24,
        ops in proptest::collection::vec(op(), 1..200),
    ) {
        compare::<2>(capacity, &ops)?;
    }

    #[test]
    fn one_key_behaves_like_a_map_of_live_sessions(
        capacity in 1usize..24,
        ops in proptest::collection::vec(op(), 1..200),
    ) {
        compare::<1>(capacity, &ops)?;
    }
}

fn after(ticks: u64) -> Time {
    Time(ticks << 20)
}

fn open(table: &mut SessionTable<u32, (), 1>, key: u32, objects: &mut Objects, now: Time) -> bool {
    table.insert([key], (), 1000, objects, now).is_ok()
}

#[test]
fn a_full_table_refuses_until_sessions_die() {
    let mut objects = Objects::default();
    let mut table = SessionTable::new(2, 1, &mut objects);
    assert!(open(&mut table, 0, &mut objects, Time(0)));
    assert!(open(&mut table, 1, &mut objects, Time(0)));
    let full = table.insert([5], (), 5, &mut objects, Time(0));
    assert_eq!(full, Err(InsertError::Full));
    assert!(open(&mut table, 5, &mut objects, after(1001)));
}

/// A table that filled once and whose sessions die in the order of the hand or against it: none is refused while others
/// are dead, whatever the hand has to pass.
#[test]
fn sessions_that_end_as_fast_as_they_come_make_room_in_time() {
    const LIVE: u64 = 100_000;
    let mut objects = Objects::default();
    let mut table = SessionTable::new(LIVE as usize * 5 / 4, 1, &mut objects);
    let mut refused = 0;
    // A hundred a tick of the clock, each for a thousand, in polls of twenty.
    for number in 0..LIVE * 8 {
        let now = after(number / 100);
        if number % 20 == 0 {
            table.sweep(&mut objects, now, |()| {});
        }
        let key = (number % (LIVE * 2)) as u32;
        refused += u32::from(!open(&mut table, key, &mut objects, now));
    }
    assert_eq!(refused, 0);
}

/// One dead session among many live ones, anywhere, is found within a bounded number of ticks.
#[test]
fn the_last_dead_slot_is_found() {
    const SLOTS: u32 = 20_000;
    let mut objects = Objects::default();
    let mut table = SessionTable::new(SLOTS as usize, 1, &mut objects);
    for key in 0..SLOTS {
        assert!(open(&mut table, key, &mut objects, after(0)));
    }
    for dead in [0, 7777, SLOTS - 1] {
        let (id, _) = table.find(&dead, &objects, after(0)).unwrap();
        objects.touch(table.object(id), after(0), 1);
        let mut ticks = 0;
        while !open(&mut table, dead + SLOTS, &mut objects, after(5)) {
            table.sweep(&mut objects, after(5), |()| {});
            ticks += 1;
            assert!(ticks <= 10, "{ticks} ticks");
        }
    }
}

/// However many sessions die at once, no tick and no insertion ends more than a few, and none looks at more than a part
/// of the table to list what is there.
#[test]
fn a_million_dead_sessions_are_nobodys_burden() {
    const SLOTS: u32 = 1 << 20;
    let mut objects = Objects::default();
    let mut table = SessionTable::new(SLOTS as usize, 1, &mut objects);
    for key in 0..SLOTS {
        assert!(open(&mut table, key, &mut objects, after(0)));
    }
    let later = after(5000);
    let mut ticks = 0;
    while table.len() > SLOTS as usize / 2 {
        let (before, mut ended) = (table.len(), 0);
        table.sweep(&mut objects, later, |()| ended += 1);
        assert_eq!(before - table.len(), ended);
        assert!(ended <= sweep::ENDED);
        ticks += 1;
    }
    assert_eq!(ticks, SLOTS as usize / 2 / sweep::ENDED);
    for key in 0..1000 {
        let before = table.len() + 1;
        assert!(open(&mut table, SLOTS + key, &mut objects, later));
        assert!(before - table.len() <= 2 * sweep::MADE + sweep::TOGETHER);
    }
    let (mut cursor, mut listed, mut pieces) = (Some(0), 0, 0);
    while let Some(at) = cursor {
        listed += table.iter_from(at, &objects, later).count();
        cursor = table.after(at);
        assert!(cursor.is_none_or(|next| next - at == LISTED));
        pieces += 1;
    }
    assert_eq!((listed, pieces), (1000, SLOTS as usize / LISTED));
}

/// What a session takes, beside its object: growth should be noticed.
#[test]
fn size_is_watched() {
    assert_eq!(size_of::<Entry<u8, 1>>(), 20);
    assert_eq!(size_of::<Entry<[u32; 6], 2>>(), 56);
    assert_eq!(size_of::<Option<SessionId>>(), 4);
}
