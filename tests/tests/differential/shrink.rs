//! Makes a sequence that shows a difference short: first fewer steps, then simpler ones.

use std::time::Instant;

use serde_json::Value;

use crate::op::Op;

/// Leaves out what the difference does not need, until nothing more can go or the time is over. `differs` runs a
/// sequence; it must be true of `ops`.
pub(crate) async fn shrink(
    ops: Vec<Op>,
    until: Instant,
    mut differs: impl AsyncFnMut(&[Op]) -> bool,
) -> Vec<Op> {
    let mut ops = ops;
    let mut piece = ops.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < ops.len() {
            if Instant::now() > until {
                return ops;
            }
            let mut fewer = ops.clone();
            fewer.drain(at..(at + piece).min(ops.len()));
            if differs(&fewer).await {
                ops = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    simplify(ops, until, differs).await
}

/// Puts the fields of each step back to their defaults, and takes elements out of its lists.
async fn simplify(mut ops: Vec<Op>, until: Instant, mut differs: impl AsyncFnMut(&[Op]) -> bool) -> Vec<Op> {
    for at in 0..ops.len() {
        let mut nth = 0;
        while Instant::now() < until {
            let Some(simpler) = ops.get(at).and_then(|op| without(op, nth)) else {
                break;
            };
            let mut changed = ops.clone();
            changed[at] = simpler;
            if changed != ops && differs(&changed).await {
                ops = changed;
            } else {
                nth += 1;
            }
        }
    }
    ops
}

/// The step without its nth part, in the order of its text; `None` past the last.
fn without(op: &Op, nth: usize) -> Option<Op> {
    for nth in nth.. {
        let mut value = op.value();
        let mut left = nth;
        if !remove(&mut value, &mut left) {
            return None;
        }
        // Without its kind it is no step any more: the next part, then.
        if let Ok(simpler) = serde_json::from_value(value) {
            return Some(simpler);
        }
        if nth == usize::MAX {
            break;
        }
    }
    None
}

/// Removes the part at which `left` has come to zero; counts it down otherwise.
fn remove(value: &mut Value, left: &mut usize) -> bool {
    match value {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                if *left == 0 {
                    return fields.remove(&name).is_some();
                }
                *left -= 1;
                if fields.get_mut(&name).is_some_and(|field| remove(field, left)) {
                    return true;
                }
            }
            false
        }
        Value::Array(elements) => {
            for at in 0..elements.len() {
                if *left == 0 {
                    elements.remove(at);
                    return true;
                }
                *left -= 1;
                if elements.get_mut(at).is_some_and(|element| remove(element, left)) {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::generate::{Profile, sequence};

    /// Whatever is not needed goes: of many steps one is left, and of that one field.
    #[tokio::test]
    async fn a_sequence_shrinks_to_the_one_field_that_matters() {
        let needle =
            Op::parse(r#"{"txn":{"success":[{"put":{"key":"a","value":"1","prev_kv":true}},"nothing"]}}"#);
        let mut ops = sequence(Profile::Kv, 7, 50);
        ops.insert(20, needle);
        let prev_kv_in_txn = async |ops: &[Op]| {
            ops.iter()
                .any(|op| matches!(op, Op::Txn(_)) && op.line().contains("prev_kv"))
        };
        assert!(prev_kv_in_txn(&ops).await);
        let until = Instant::now() + Duration::from_secs(60);
        let left = shrink(ops, until, prev_kv_in_txn).await;
        let lines: Vec<String> = left.iter().map(Op::line).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].len() < 60, "{lines:?}");
    }
}
