use std::rc::Rc;

use super::*;

/// Pages of it that are there, by the kernel's page map: neighbouring mappings may be merged into one range.
fn resident(memory: &Mapping) -> usize {
    use std::os::unix::fs::FileExt;
    let mut entries = vec![0; memory.bytes / PAGE * 8];
    let map = std::fs::File::open("/proc/self/pagemap").unwrap();
    let at = memory.base.addr().get() / PAGE * 8;
    map.read_exact_at(&mut entries, at as u64).unwrap();
    // Bit 63: present.
    entries
        .chunks(8)
        .filter(|entry| entry[7] & 0x80 != 0)
        .count()
}

#[test]
fn arrays_are_zero_and_keep_what_is_written() {
    for len in [0, 1, 1000, 300_000, 600_000] {
        let mut array = HugeArray::<u64>::zeroed(len).unwrap();
        assert_eq!(array.len(), len);
        assert!(array.iter().all(|value| *value == 0));
        for (index, value) in array.iter_mut().enumerate() {
            *value = index as u64;
        }
        assert!(
            array
                .iter()
                .enumerate()
                .all(|(i, value)| *value == i as u64)
        );
    }
}

#[test]
fn whoever_asks_for_more_than_there_is_gets_an_error() {
    assert!(HugeArray::<u64>::zeroed(usize::MAX).is_err());
    assert!(HugeArray::<u64>::zeroed(usize::MAX / 8).is_err());
    assert!(HugeVec::<u64>::with_capacity(usize::MAX / 16).is_err());
}

#[test]
fn large_mappings_start_at_a_huge_page_whatever_they_are_made_of() {
    for bytes in [HUGE_PAGE, HUGE_PAGE + 1, 5 * HUGE_PAGE] {
        for memory in [
            Mapping::new(bytes, HugePages::Auto),
            Mapping::aligned(bytes.next_multiple_of(HUGE_PAGE)),
        ] {
            let memory = memory.unwrap();
            assert!(memory.base.addr().get().is_multiple_of(HUGE_PAGE));
            assert_eq!(memory.bytes, bytes.next_multiple_of(HUGE_PAGE));
        }
    }
}

#[test]
fn more_than_is_set_aside_falls_back_unless_it_is_required() {
    // More than any machine that runs this has set aside, and not touched.
    let bytes = 1 << 42;
    let memory = Mapping::new(bytes, HugePages::Require);
    assert!(memory.is_err());
    // Nor is it an ordinary mapping where the kernel weighs what it promises; either is an answer.
    if let Ok(memory) = Mapping::new(bytes, HugePages::Auto) {
        assert!(!memory.is_reserved());
    }
}

#[test]
fn memory_that_nobody_touched_takes_none() {
    let memory = Mapping::aligned(64 * HUGE_PAGE).unwrap();
    assert_eq!(resident(&memory), 0);
    let mut array = HugeArray::<u8>(HugeVec {
        memory,
        capacity: 64 * HUGE_PAGE,
        len: 64 * HUGE_PAGE,
        values: PhantomData,
    });
    array[HUGE_PAGE] = 1;
    assert!((1..=HUGE_PAGE / PAGE).contains(&resident(&array.0.memory)));
    let memory = Mapping::new(3 * PAGE, HugePages::Never).unwrap();
    assert_eq!(resident(&memory), 0);
    memory.populate();
    assert_eq!(resident(&memory), 3);
}

#[test]
fn lists_hold_what_they_were_made_for_and_drop_what_is_left() {
    let value = Rc::new(());
    let mut list = HugeVec::with_capacity(3).unwrap();
    for _ in 0..3 {
        assert!(list.push(Rc::clone(&value)).is_ok());
    }
    assert!(list.push(Rc::clone(&value)).is_err());
    assert_eq!((list.len(), list.capacity()), (3, 3));
    assert_eq!(Rc::strong_count(&value), 4);
    assert!(list.pop().is_some());
    assert_eq!(Rc::strong_count(&value), 3);
    drop(list);
    assert_eq!(Rc::strong_count(&value), 1);
    assert!(HugeVec::<u8>::with_capacity(0).unwrap().push(1).is_err());
}

#[test]
fn lists_of_values_of_no_size_are_lists() {
    let mut list = HugeVec::with_capacity(5).unwrap();
    for _ in 0..5 {
        assert!(list.push(()).is_ok());
    }
    assert_eq!(list.iter().count(), 5);
}

#[test]
fn a_list_that_grows_keeps_its_values_and_drops_each_of_them_once() {
    let value = Rc::new(());
    let mut list = HugeVec::with_capacity(0).unwrap();
    for more in [0, 1, 3, 100_000] {
        list.grow(more).unwrap();
        assert!(list.capacity() >= list.len() + more);
        (0..more).for_each(|_| list.push(Rc::clone(&value)).unwrap());
    }
    list.grow(0).unwrap();
    assert_eq!(list.len(), 100_004);
    assert_eq!(Rc::strong_count(&value), 100_005);
    assert!(list.grow(usize::MAX).is_err());
    assert!(list.grow(usize::MAX / 8).is_err());
    drop(list);
    assert_eq!(Rc::strong_count(&value), 1);
}
