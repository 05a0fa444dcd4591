//! What becomes of odd events: each case in `tests/fixtures/events` takes the whole way, and a
//! snapshot per file shows what comes out.
//!
//! After an intended change, one command writes all snapshots again; read what it has changed:
//!
//! ```text
//! INSTA_UPDATE=always cargo test -p stonechat --lib corpus
//! ```

mod changes;
mod fixture;
mod introduced;
mod passage;

use std::{collections::BTreeSet, fs};

use self::{fixture::Case, passage::Passage};

/// Minimum number of cases in all.
const CASES_MIN: usize = 300;

/// Takes every case of a file the whole way, and compares what comes out with its snapshot.
async fn check(group: &str) {
    let mut passages = Vec::new();
    for case in fixture::cases(group) {
        passages.push(Passage::of(&case, group == "commands").await);
    }
    let mut faults = Vec::new();
    for passage in &passages {
        let found = passage.faults();
        faults.extend(found.map(|fault| format!("{}: {fault}", passage.case)));
    }
    insta::assert_json_snapshot!(group, passages);
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Makes a test of each file.
macro_rules! groups {
    ($($group:ident),* $(,)?) => {
        const GROUPS: &[&str] = &[$(stringify!($group)),*];
        $(
            #[tokio::test]
            async fn $group() {
                check(stringify!($group)).await;
            }
        )*
    };
}

groups!(
    bridges,
    calls,
    commands,
    content,
    envelope,
    galleries,
    html,
    kinds,
    media,
    mentions,
    polls,
    relations,
    replies,
    state,
    texts,
    verification,
);

#[test]
fn every_file_is_tested_and_every_case_says_where_it_comes_from() {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(fixture::folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "json") {
            files.insert(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    let tested: BTreeSet<String> = GROUPS.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(files, tested);
    let readme = fs::read_to_string(fixture::folder().join("README.md")).unwrap();
    let mut count = 0;
    for group in &tested {
        assert!(readme.contains(&format!("`{group}.json`")), "{group}");
        let cases = fixture::cases(group);
        count += cases.len();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len(), "{group} has a name twice");
        for Case { name, source, .. } in &cases {
            assert!(!name.is_empty() && !source.is_empty(), "{group}: {name}");
        }
    }
    assert!(count >= CASES_MIN, "{count} cases");
}
