//! Frames with a virtio-net header in front, as a guest gives them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chainplane_tests::fuzz::offload(bytes));
