//! Processes as the kernel shows them: who is who, over restarts of the agent and of the host.

use std::fs;

use serde::{Deserialize, Serialize};

/// One process, told from every other that had or will have its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// In the kernel's ticks since the boot.
    pub(super) born: u64,
    pub(super) boot: String,
}

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    is_dead: bool,
    group: i32,
    born: u64,
}

impl Identity {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Option<Identity> {
        let stat = stat(pid)?;
        Some(Identity {
            pid,
            born: stat.born,
            boot: boot()?,
        })
    }

    /// Whether it still runs. One that ended and was not waited for does not.
    pub(crate) fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| !stat.is_dead && stat.born == self.born)
            && boot().as_deref() == Some(self.boot.as_str())
    }

    /// Whether others of the group that it led are still there, though it is not: while there are any, the kernel
    /// gives the group's number to nobody else.
    pub(super) fn left_others(&self) -> bool {
        if boot().as_deref() != Some(self.boot.as_str()) || stat(self.pid).is_some_and(|stat| !stat.is_dead) {
            return false;
        }
        members(self.pid).any(|stat| stat.born >= self.born)
    }
}

/// Whether anybody of a group still runs.
#[cfg(test)]
pub(super) fn group_runs(group: i32) -> bool {
    members(group).next().is_some()
}

/// The living processes of a group.
fn members(group: i32) -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .filter(move |stat| stat.group == group && !stat.is_dead)
}

/// The oldest process that leads a group, has this variable in its environment, and was begun with this command line.
pub(super) fn find(variable: &str, words: &[&str]) -> Option<Identity> {
    let has = |pid: i32, file: &str, check: &dyn Fn(&[u8]) -> bool| {
        fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|bytes| check(&bytes))
    };
    let is_marked = |bytes: &[u8]| {
        bytes
            .split(|byte| *byte == 0)
            .any(|entry| entry == variable.as_bytes())
    };
    let line: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
    // The kernel puts an interpreter before a script.
    let is_begun_so = |bytes: &[u8]| bytes.ends_with(&line);
    let entries = fs::read_dir("/proc").ok()?;
    let (pid, stat) = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| has(*pid, "environ", &is_marked) && has(*pid, "cmdline", &is_begun_so))
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .filter(|(pid, stat)| stat.group == *pid && !stat.is_dead)
        .min_by_key(|(_, stat)| stat.born)?;
    Some(Identity {
        pid,
        born: stat.born,
        boot: boot()?,
    })
}

pub(crate) fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name, in parentheses, may hold anything, parentheses included.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        is_dead: matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        born: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let line = "42 (a) Z 1 (b) S 7 40 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 10 20";
        let expected = Stat {
            is_dead: false,
            group: 40,
            born: 98765,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("42 (a"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_number_is_not_an_identity() {
        let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive());
        assert!(
            !Identity {
                born: own.born + 1,
                ..own.clone()
            }
            .is_alive()
        );
        assert!(
            !Identity {
                boot: "another".into(),
                ..own
            }
            .is_alive()
        );
    }
}
