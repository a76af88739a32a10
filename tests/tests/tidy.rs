//! The edges between folders, and what no file may hold.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests; past this, two things live in it.
const FILE_LINES: usize = 600;

/// A word that stays within some folders, or out of some.
struct Rule {
    why: &'static str,
    words: &'static [&'static str],
    /// Where the rule holds.
    within: &'static [&'static str],
    /// Where, within that, it does not.
    except: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        why: "the reconciler and the api know only the store between them",
        words: &["crate::api", "super::api"],
        within: &["agent/src/reconciler/"],
        except: &[],
    },
    Rule {
        why: "the reconciler and the api know only the store between them",
        words: &["crate::reconciler", "super::reconciler"],
        within: &["agent/src/api/"],
        except: &[],
    },
    Rule {
        why: "gRPC statuses are made at the edge only",
        words: &["tonic::Status", "Status::"],
        within: &[
            "agent/src/node/",
            "agent/src/reconciler/",
            "agent/src/incus/",
            "agent/src/document/",
        ],
        except: &[],
    },
    Rule {
        why: "gRPC stays out of the store",
        words: &["tonic::"],
        within: &["raft-store/src/"],
        except: &[],
    },
    Rule {
        why: "sled is named in one file, so that it can be replaced",
        words: &["sled::"],
        within: &["raft-store/src/", "agent/src/"],
        except: &["raft-store/src/backend.rs"],
    },
    Rule {
        why: "what is applied must be the same on every member: no clock, no chance",
        words: &[
            "Instant::now",
            "SystemTime",
            "std::time::Instant",
            "time::Instant",
            "rand::",
        ],
        within: &["raft-store/src/"],
        except: &[],
    },
    Rule {
        why: "nothing is left for later",
        words: &["todo!(", "unimplemented!(", "FIXME", "TODO"],
        within: &[""],
        except: &["tests/tests/tidy.rs"],
    },
    Rule {
        why: "no path of one machine",
        words: &["/home/", "/root/", "/work/", "/Users/"],
        within: &[""],
        except: &["tests/tests/tidy.rs", "cloud-init/"],
    },
    Rule {
        why: "unsafe code is forbidden, not allowed",
        words: &["allow(unsafe_code)"],
        within: &[""],
        except: &["tests/tests/tidy.rs"],
    },
];

#[test]
fn words_stay_where_they_belong() {
    let mut found = String::new();
    for file in sources() {
        let text = fs::read_to_string(root().join(&file)).expect("read a source file");
        for rule in RULES.iter().filter(|rule| rule.holds_in(&file)) {
            for (number, line) in without_tests(&text).lines().enumerate() {
                for word in rule.words.iter().filter(|word| code_of(line).contains(**word)) {
                    let _ = writeln!(found, "{file}:{}: `{word}`: {}", number + 1, rule.why);
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn files_hold_one_thing() {
    let mut found = String::new();
    let only_tests = |file: &String| {
        file.starts_with("tests/tests/") || file.ends_with("/tests.rs") || file.contains("/tests/")
    };
    for file in sources().into_iter().filter(|file| !only_tests(file)) {
        let text = fs::read_to_string(root().join(&file)).expect("read a source file");
        let lines = without_tests(&text).lines().count();
        if lines > FILE_LINES {
            let _ = writeln!(
                found,
                "{file}: {lines} lines without its tests, {FILE_LINES} at most"
            );
        }
    }
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|file| file.contains("/src/"))
        .filter(|file| {
            !fs::read_to_string(root().join(file))
                .expect("read")
                .starts_with("//!")
        })
        .collect();
    assert!(silent.is_empty(), "no module docs at the top: {silent:#?}");
}

/// Holes that others had: README's table and the tests that try them say the same.
#[test]
fn every_hole_of_the_table_is_tried() {
    let readme = fs::read_to_string(root().join("README.md")).expect("read README.md");
    let mut promised: Vec<(String, String)> = readme.lines().filter_map(hole_of_row).collect();
    promised.sort();
    let mut tried = Vec::new();
    for file in sources()
        .into_iter()
        .filter(|file| file.starts_with("tests/tests/"))
    {
        let text = fs::read_to_string(root().join(&file)).expect("read a source file");
        let holes = text.lines().flat_map(holes_of_test);
        tried.extend(holes.map(|hole| (hole, file.clone())));
    }
    tried.sort();
    tried.dedup();
    assert!(
        promised.len() > 10,
        "the table is not where this test looks for it"
    );
    assert_eq!(promised, tried, "README's table on the left, tests on the right");
}

/// The number and the file of a row like `| CVE-2020-15114 | ... | `FILE` |`.
fn hole_of_row(row: &str) -> Option<(String, String)> {
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let [_, hole, _, file, _] = cells.as_slice() else {
        return None;
    };
    let hole = hole.strip_prefix("CVE-")?;
    Some((hole.to_owned(), file.trim_matches('`').to_owned()))
}

/// The numbers in the name of a test: `cve_2020_15114_and_cve_2020_15136_words` has two.
fn holes_of_test(line: &str) -> Vec<String> {
    let line = line.trim_start();
    let line = line.strip_prefix("async ").unwrap_or(line);
    let Some(name) = line.strip_prefix("fn ") else {
        return Vec::new();
    };
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let holes = name.split("cve_").skip(1).filter_map(|rest| {
        let mut words = rest.split('_');
        let (year, number) = (words.next()?, words.next()?);
        (is_number(year) && is_number(number)).then(|| format!("{year}-{number}"))
    });
    holes.collect()
}

#[test]
fn a_rule_finds_what_it_forbids() {
    let sled = RULES
        .iter()
        .find(|rule| rule.words.contains(&"sled::"))
        .expect("the rule about sled");
    assert!(sled.holds_in("raft-store/src/mvcc/read.rs"));
    assert!(!sled.holds_in("raft-store/src/backend.rs"));
    assert_eq!(code_of("let a = 1; // like sled::Db"), "let a = 1; ");
    assert_eq!(
        holes_of_test("async fn cve_2020_1_and_cve_2021_2_words() {"),
        ["2020-1", "2021-2"]
    );
    assert!(holes_of_test("// cve_2020_1").is_empty() && holes_of_test("fn cve_of_row(").is_empty());
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\n"), "a\n");
}

impl Rule {
    fn holds_in(&self, file: &str) -> bool {
        self.within.iter().any(|folder| file.starts_with(folder))
            && !self.except.iter().any(|folder| file.starts_with(folder))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

/// Every Rust file of the workspace, relative to it.
fn sources() -> Vec<String> {
    let mut files = Vec::new();
    for package in ["proto", "raft-store", "cloud-init", "agent", "tests", "bench"] {
        collect(&root().join(package), &mut files);
    }
    assert!(
        files.len() > 20,
        "the sources are not where this test looks for them"
    );
    files.sort();
    files
}

fn collect(folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("read a folder") {
        let path = entry.expect("a folder's entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).expect("within the workspace");
            files.push(relative.to_string_lossy().into_owned());
        }
    }
}

/// The text up to the unit tests, which are at the end of a file.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ")
        .map_or(text, |at| text.get(..=at).unwrap_or(text))
}

/// The line up to its comment, if any: comments may name what code may not. A URL in a string is cut as well.
fn code_of(line: &str) -> &str {
    let is_marker = ["TODO", "FIXME"].iter().any(|marker| line.contains(marker));
    if is_marker {
        line
    } else {
        line.split("//").next().unwrap_or(line)
    }
}
