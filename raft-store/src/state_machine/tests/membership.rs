//! Who was a member once is remembered: in the store, after a restart, and in snapshots.

use proto::replicated::{PublishMember, request::Op};

use super::fixture::Fixture;

fn publish(id: u64) -> Op {
    Op::PublishMember(PublishMember {
        id,
        name: format!("host-{id}"),
        client_urls: vec![],
    })
}

#[test]
fn a_removed_member_is_remembered_and_forgotten_by_name() {
    let mut fixture = Fixture::new();
    fixture.apply_membership(&[1, 2, 3]);
    fixture.done(publish(3));
    assert_eq!(fixture.store.removed_members(), Vec::<u64>::new());
    fixture.apply_membership(&[1, 2]);
    fixture.apply_membership(&[1, 2, 4]);
    fixture.apply_membership(&[2, 4]);

    // A last word that was proposed before it was removed.
    fixture.done(publish(3));

    let check = |fixture: &Fixture| {
        assert_eq!(fixture.store.removed_members(), [1, 3]);
        assert!(fixture.store.is_removed(3) && !fixture.store.is_removed(4));
        assert_eq!(fixture.store.member_attributes(3), None);
    };
    check(&fixture);
    check(&fixture.reopen());
}

#[tokio::test]
async fn removed_members_travel_in_snapshots() {
    let mut fixture = Fixture::new();
    fixture.apply_membership(&[1, 2, 3]);
    fixture.apply_membership(&[1, 2]);
    let snapshot = fixture.snapshot().await;

    let mut other = Fixture::new();
    other.apply_membership(&[1, 2, 3]);
    other.install(&snapshot.meta, snapshot.snapshot).await;
    assert_eq!(other.store.removed_members(), [3]);
    assert_eq!(other.reopen().store.removed_members(), [3]);
}
