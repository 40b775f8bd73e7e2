//! Moves of a guest and of its front end, beside another guest.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chainplane_tests::fuzz::guests(bytes));
