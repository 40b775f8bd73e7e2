//! Moves of a guest, and of the device, on a pair of rings.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chainplane_tests::fuzz::virtqueue(bytes));
