//! Messages of a front end.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chainplane_tests::fuzz::control(bytes));
