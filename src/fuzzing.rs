//! The fuzz targets by name: `fuzz/` runs them on inputs that libFuzzer makes up, and a test here
//! on their corpora, so that they keep up with the code.

use crate::{config, introduction, matrix, relay, store};

/// A function that takes any input and panics if the code under test does not keep its word.
pub(crate) struct Target {
    /// Its name, which is that of its folder in `fuzz/corpus`.
    pub(crate) name: &'static str,
    /// The function.
    pub(crate) run: fn(&[u8]),
    /// Maximum memory that it takes for each byte of its input, in bytes.
    #[cfg_attr(
        not(fuzzing),
        expect(dead_code, reason = "only the fuzzer measures it")
    )]
    pub(crate) memory: usize,
}

/// Every target.
pub(crate) const TARGETS: [Target; 8] = [
    Target {
        name: "transaction",
        run: matrix::fuzz::transaction,
        memory: 4,
    },
    Target {
        name: "sync",
        run: matrix::fuzz::sync,
        memory: 4,
    },
    Target {
        name: "html",
        run: relay::fuzz::html,
        memory: 2000,
    },
    Target {
        name: "event",
        run: relay::fuzz::event,
        memory: 2000,
    },
    Target {
        name: "quote",
        run: introduction::fuzz::message,
        memory: 200,
    },
    Target {
        name: "room_state",
        run: matrix::fuzz::room_state,
        memory: 200,
    },
    Target {
        name: "config",
        run: config::fuzz::config,
        memory: 2000,
    },
    Target {
        name: "backup",
        run: store::fuzz::backup,
        memory: 20,
    },
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// A corpus is read by people too, and lies in the repository.
    const FILES_AT_MOST: usize = 60;
    const BYTES_AT_MOST: usize = 16 * 1024;

    #[test]
    fn every_fuzz_target_holds_on_its_corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for target in &TARGETS {
            let binary = folder.join(format!("fuzz_targets/{}.rs", target.name));
            let binary = fs::read_to_string(binary).unwrap();
            assert!(binary.contains(&format!("run(\"{}\"", target.name)));
            let corpus = fs::read_dir(folder.join("corpus").join(target.name)).unwrap();
            let files: Vec<_> = corpus.map(|file| file.unwrap().path()).collect();
            assert!(
                (1..=FILES_AT_MOST).contains(&files.len()),
                "{}",
                target.name
            );
            for file in files {
                let input = fs::read(&file).unwrap();
                assert!(input.len() <= BYTES_AT_MOST, "{}", file.display());
                // Shown if the target fails.
                println!("{}", file.display());
                (target.run)(&input);
            }
        }
    }
}
