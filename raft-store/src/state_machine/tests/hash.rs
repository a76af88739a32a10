//! Hash checks: what members compare.

use proto::replicated::{Empty, request::Op};

use super::fixture::{Fixture, compact, delete, put};
use crate::backend::Batch;
use crate::mvcc::{Revision, record};

fn check() -> Op {
    Op::HashCheck(Empty {})
}

#[test]
fn a_check_hashes_the_store_as_it_was_at_its_entry() {
    let mut fixture = Fixture::new();
    let mut points = fixture.store.hash_points();
    fixture.apply_all([
        put("a", "1"),
        put("a", "2"),
        put("b", "1"),
        delete("b", ""),
        compact(2),
    ]);
    fixture.done(check());
    let alone = points.try_recv().unwrap();
    assert_eq!(alone.log_index(), 6);
    let expected = fixture.store.hash_kv(0).unwrap();
    assert_eq!(alone.hash().unwrap(), expected.hash);

    // The same position amid a chunk that goes on, compacts, and is swept.
    let mut other = Fixture::new();
    let mut points = other.store.hash_points();
    other.apply_all([
        put("a", "1"),
        put("a", "2"),
        put("b", "1"),
        delete("b", ""),
        compact(2),
        check(),
        put("a", "3"),
        delete("a", ""),
        compact(6),
    ]);
    let point = points.try_recv().unwrap();
    other.store.shared.state().sweeper.finish();
    assert_eq!(point.hash().unwrap(), expected.hash);
    assert_eq!(other.store.revision(), 7, "a check takes no revision");
}

#[test]
fn one_changed_value_changes_the_hash_and_nothing_else() {
    let mut fixture = Fixture::new();
    let mut points = fixture.store.hash_points();
    fixture.apply_all([put("a", "1"), check()]);
    let before = points.try_recv().unwrap().hash().unwrap();

    let state = fixture.store.shared.state();
    let at = Revision { main: 2, sub: 0 };
    let mut record = record::read(&state.backend, at).unwrap().unwrap();
    record.kv.value = "2".into();
    let mut batch = Batch::default();
    record::write_put(&mut batch, at, &record.kv);
    state.backend.write(batch).unwrap();

    let reply = fixture.apply(check());
    assert_eq!(reply.revision, 2, "what is found changes no answer");
    assert_ne!(points.try_recv().unwrap().hash().unwrap(), before);
}

#[test]
fn a_check_that_nobody_takes_holds_nothing_back() {
    let mut fixture = Fixture::new();
    fixture.apply_all([
        put("a", "1"),
        check(),
        check(),
        check(),
        put("a", "2"),
        compact(3),
    ]);
    let state = fixture.store.shared.state();
    state.sweeper.finish();
    assert!(!state.index.has_compacted());
}

#[tokio::test]
async fn a_sweep_can_be_waited_for() {
    let mut fixture = Fixture::new();
    fixture.store.wait_swept().await;
    let many = (0..5_000).map(|n| put("a", &n.to_string()));
    fixture.apply_all(many);
    fixture.done(compact(5_001));
    fixture.store.wait_swept().await;
    let state = fixture.store.shared.state();
    assert_eq!(record::scan(&state.backend, 0, i64::MAX).count(), 1);
}
