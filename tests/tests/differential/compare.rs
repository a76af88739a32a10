//! Compares what two subjects said to one sequence. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::allowed::{self, Uses};
use crate::op::Op;
use crate::run::{Answer, Run};

/// How much of what came before a difference is shown.
const LINES_BEFORE: usize = 3;
/// How many differences are shown: the first is the cause, most often.
const SHOWN: usize = 5;

/// Something that the two said differently.
pub(crate) enum Difference<'a> {
    /// The answers to one step.
    Answer {
        op: &'a Op,
        agent: &'a Answer,
        etcd: &'a Answer,
    },
    /// What one watch of a stream was told.
    Watch { agent: &'a [String], etcd: &'a [String] },
}

/// The differences that nothing explains, as text; empty when the two agree.
pub(crate) fn unexplained(ops: &[Op], agent: &Run, etcd: &Run, uses: &mut Uses) -> String {
    let mut found = Vec::new();
    for (nth, ((op, ours), theirs)) in ops.iter().zip(&agent.answers).zip(&etcd.answers).enumerate() {
        let difference = Difference::Answer {
            op,
            agent: ours,
            etcd: theirs,
        };
        if ours != theirs && !allowed::explains(&difference, uses) {
            found.push(format!(
                "step {nth}: {}\n  agent: {}\n  etcd:  {}\n",
                op.line(),
                shown(ours),
                shown(theirs)
            ));
        }
    }
    let streams: BTreeSet<_> = agent.streams.keys().chain(etcd.streams.keys()).collect();
    for stream in streams {
        let none = std::collections::BTreeMap::new();
        let ours = agent.streams.get(stream).unwrap_or(&none);
        let theirs = etcd.streams.get(stream).unwrap_or(&none);
        let ids: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        for id in ids {
            let (ours, theirs) = (
                ours.get(id).map_or(&[][..], Vec::as_slice),
                theirs.get(id).map_or(&[][..], Vec::as_slice),
            );
            let difference = Difference::Watch {
                agent: ours,
                etcd: theirs,
            };
            if ours != theirs && !allowed::explains(&difference, uses) {
                let lines = first_difference(ours, theirs);
                found.push(format!("watch {id} of stream {} {}:{lines}", stream.0, stream.1));
            }
        }
    }
    if agent.place != etcd.place {
        found.push(format!(
            "at the end:\n  agent: {:?}\n  etcd:  {:?}\n",
            agent.place, etcd.place
        ));
    }
    found.truncate(SHOWN);
    found.concat()
}

fn shown(answer: &Answer) -> String {
    let text = answer.text.replace('\n', "\n         ");
    match answer.seconds {
        Some(seconds) => format!("{text} seconds={seconds}"),
        None => text,
    }
}

/// The first line that differs, after a few of those that do not.
fn first_difference(agent: &[String], etcd: &[String]) -> String {
    let same = agent.iter().zip(etcd).take_while(|(a, b)| a == b).count();
    let mut text = "\n".to_owned();
    for line in agent.iter().take(same).skip(same.saturating_sub(LINES_BEFORE)) {
        let _ = writeln!(text, "  both:  {line}");
    }
    let at = |lines: &[String]| {
        lines
            .get(same)
            .cloned()
            .unwrap_or_else(|| "nothing more".to_owned())
    };
    let _ = writeln!(text, "  agent: {}\n  etcd:  {}", at(agent), at(etcd));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Place;

    fn run(answers: &[&str], watched: &[&str]) -> Run {
        let answer = |text: &&str| Answer {
            text: (*text).to_owned(),
            seconds: None,
        };
        let told = watched.iter().map(|line| (*line).to_owned()).collect();
        Run {
            answers: answers.iter().map(answer).collect(),
            streams: [((0, String::new()), [(5, told)].into())].into(),
            place: Place::default(),
        }
    }

    #[test]
    fn a_difference_is_found_and_shown_with_its_step() {
        let ops = [Op::Leases, Op::Leases];
        let etcd = run(&["x", "y"], &["created", "PUT a", "PUT b"]);
        let mut uses = Uses::default();
        assert_eq!(unexplained(&ops, &etcd, &etcd, &mut uses), "");
        let answered = run(&["x", "z"], &["created", "PUT a", "PUT b"]);
        let text = unexplained(&ops, &answered, &etcd, &mut uses);
        assert_eq!(text, "step 1: \"leases\"\n  agent: z\n  etcd:  y\n");
        let watched = run(&["x", "y"], &["created", "PUT a"]);
        let text = unexplained(&ops, &watched, &etcd, &mut uses);
        assert_eq!(
            text,
            "watch 5 of stream 0 :\n  both:  created\n  both:  PUT a\n  agent: nothing more\n  etcd:  PUT b\n"
        );
    }
}
