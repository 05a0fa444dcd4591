#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stonechat_fuzz::run("sync", input));
