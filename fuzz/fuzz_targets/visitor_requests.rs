#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_fuzz::visitor_requests(bytes));
