//! What a test has to say beyond passing: that it was skipped, or what it measured. `tests/run` shows both.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Says that a test did not run, and why. The caller returns at once.
pub fn skipped(reason: &str) {
    println!("skipped: {reason}");
    keep("skipped", &format!("skipped: {}: {reason}", test_name()));
}

/// Says what a test measured: a number worth seeing that no assertion should depend on.
pub fn measured(what: &str) {
    println!("measured: {what}");
    keep("measured", &format!("measured: {}: {what}", test_name()));
}

fn test_name() -> String {
    std::thread::current().name().unwrap_or("?").to_owned()
}

fn keep(file: &str, line: &str) {
    let Some(dir) = std::env::var_os("TEST_NOTES_DIR") else {
        return;
    };
    let path = Path::new(&dir).join(file);
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{line}"));
    if let Err(error) = written {
        eprintln!("cannot keep a note in {}: {error}", path.display());
    }
}
