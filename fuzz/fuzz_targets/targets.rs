//! All fuzz targets in one binary: `RECOUP_FUZZ` names one of `recoup::fuzzed::TARGETS`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<recoup::fuzzed::Target> = LazyLock::new(|| {
    let name = std::env::var("RECOUP_FUZZ").expect("RECOUP_FUZZ names a target");
    recoup::fuzzed::target(&name).expect("RECOUP_FUZZ: there is no such target")
});

fuzz_target!(|bytes: &[u8]| (TARGET.check)(bytes));
