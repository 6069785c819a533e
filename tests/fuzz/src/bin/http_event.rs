//! The event that API Gateway hands over: any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::read_event(bytes));
