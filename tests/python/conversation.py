"""A program in Python that uses etcd: it prints what it was answered, without what differs from run to run.

Called with the host and port of a member and the part to play; whoever calls it compares what it prints.
"""

import io
import queue
import sys
import threading

import etcd3
import grpc
from etcd3 import etcdrpc

HOST, PORT, PART = sys.argv[1], int(sys.argv[2]), sys.argv[3]
# Seconds any answer may take.
TIMEOUT = 20


def say(what, *values):
    print(what, *values, flush=True)


def refused(what, call):
    """What a call is refused with: the client wraps some codes and lets others through."""
    try:
        say(what, "answered", call())
    except grpc.RpcError as error:
        say(what, "refused:", error.code().name, error.details())
    except etcd3.exceptions.Etcd3Exception as error:
        say(what, "refused:", type(error).__name__)


def keys(client):
    say("nothing", client.get("nothing"))
    client.put("key/a", "1")
    before = client.put("key/a", "2", prev_kv=True).prev_kv
    say("put again, before:", before.value, before.version)
    value, meta = client.get("key/a")
    say("get", value, meta.version, meta.create_revision, meta.mod_revision, meta.lease_id)
    say("created", client.put_if_not_exists("key/b", "3"), client.put_if_not_exists("key/b", "4"))
    say("replaced", client.replace("key/b", "3", "5"), client.replace("key/b", "3", "6"))
    client.put("key/c", b"\x00\xff")
    client.put("key", "")
    for value, meta in client.get_prefix("key/", sort_order="descend", sort_target="key"):
        say("prefix", meta.key, value)
    say("keys only", [(value, meta.key) for value, meta in client.get_prefix("key/", keys_only=True)])
    for value, meta in client.get_range("key/a", "key/c", sort_order="descend", sort_target="mod"):
        say("range", meta.key, value)
    say("all", sorted(meta.key for _, meta in client.get_all()))
    answer = client.get_response("key/a", serializable=True)
    say("serializable", answer.count, answer.more)
    say("delete", client.delete("key/a"), client.delete("key/a"))
    answer = client.delete("key/b", prev_kv=True, return_response=True)
    say("delete, before:", answer.deleted, [kv.value for kv in answer.prev_kvs])
    say("delete prefix", client.delete_prefix("key").deleted)
    say("left", [meta.key for _, meta in client.get_all()])
    refused("no key", lambda: client.put("", "1"))
    refused("a future revision", lambda: client.kvstub.Range(
        etcdrpc.RangeRequest(key=b"a", revision=10_000), TIMEOUT))


def transactions(client):
    t = client.transactions
    client.put("t/a", "1")
    answer = client.transaction(
        compare=[t.value("t/a") == "1", t.version("t/a") > 0, t.create("t/b") == 0, t.mod("t/a") != 1],
        success=[t.put("t/b", "2"), t.get("t/a"), t.delete("t/none")],
        failure=[t.get("t/b")],
    )
    say("succeeded", answer[0], [kind(part) for part in answer[1]])
    answer = client.transaction(
        compare=[t.value("t/a") == "other"],
        success=[t.put("t/a", "9")],
        failure=[t.get("t/b"), t.txn(compare=[], success=[t.put("t/c", "3")], failure=[])],
    )
    say("failed", answer[0], [kind(part) for part in answer[1]])
    say("then", [value for value, _ in client.get_prefix("t/")])
    refused("twice the same key", lambda: client.transaction(
        compare=[], success=[t.put("t/a", "1"), t.put("t/a", "2")], failure=[]))


def kind(part):
    """A part of a transaction's answer: what was read, or which message it is."""
    if isinstance(part, list):
        return [(value, meta.key) for value, meta in part]
    return part.WhichOneof("response") if hasattr(part, "WhichOneof") else type(part).__name__


def leases(client):
    lease = client.lease(600)
    chosen = client.lease(300, lease_id=4711)
    say("granted", lease.ttl, lease.granted_ttl, chosen.id, chosen.granted_ttl)
    client.put("leased/a", "1", lease=lease)
    client.put("leased/b", "2", lease=chosen)
    client.put("leased/c", "3", lease=chosen)
    say("keys", list(lease.keys), sorted(chosen.keys))
    say("remaining", 0 < chosen.remaining_ttl <= 300)
    say("refreshed", [answer.TTL for answer in chosen.refresh()])
    _, meta = client.get("leased/b")
    say("of a key", meta.lease_id)
    refused("taken", lambda: client.lease(300, lease_id=4711).id)
    chosen.revoke()
    say("after revoke", [meta.key for _, meta in client.get_prefix("leased/")])
    refused("revoked again", chosen.revoke)
    say("of a dead lease", client.get_lease_info(4711).TTL, [answer.TTL for answer in client.refresh_lease(4711)])
    refused("put with a dead lease", lambda: client.put("leased/b", "2", lease=4711))
    short = client.lease(1)
    client.put("leased/short", "1", lease=short)
    event = client.watch_once("leased/short", timeout=TIMEOUT)
    say("expired", type(event).__name__, event.key)
    lease.revoke()


def locks(client):
    other = etcd3.client(HOST, PORT, timeout=TIMEOUT)
    lock, rival = client.lock("shared", ttl=60), other.lock("shared", ttl=60)
    say("acquired", lock.acquire(timeout=TIMEOUT), lock.is_acquired())
    say("rival at once", rival.acquire(timeout=0), rival.is_acquired())
    say("refreshed", [answer.TTL for answer in lock.refresh()])
    got = queue.Queue()
    waiting = threading.Thread(target=lambda: got.put(rival.acquire(timeout=TIMEOUT)), daemon=True)
    waiting.start()
    say("released", lock.release(), lock.is_acquired())
    say("rival", got.get(timeout=2 * TIMEOUT), rival.is_acquired(), rival.release())
    with client.lock("block", ttl=60) as lock:
        say("in a block", lock.is_acquired())
    say("after it", [meta.key for _, meta in client.get_prefix("/locks/")])


def watches(client):
    events, cancel = client.watch_prefix("w/", prev_kv=True)
    client.put("w/a", "1")
    client.put("w/a", "2")
    client.delete("w/a")
    for _ in range(3):
        tell(next(events))
    cancel()
    say("after cancel", list(events))

    revision = client.get_response("w/a").header.revision
    events, cancel = client.watch_prefix("w/", start_revision=revision - 2)
    tell(next(events))
    tell(next(events))
    cancel()

    responses = queue.Queue()
    watch_id = client.add_watch_prefix_callback("c/", responses.put)
    t = client.transactions
    client.transaction(compare=[], success=[t.put("c/a", "1"), t.put("c/b", "2")], failure=[])
    response = responses.get(timeout=TIMEOUT)
    say("callback", [(type(event).__name__, event.key, event.value) for event in response.events])
    client.cancel_watch(watch_id)

    answered, cancel = client.watch_response("r", start_revision=1)
    client.put("r", "1")
    response = next(answered)
    say("response", len(response.events), response.header.revision == response.events[0].mod_revision)
    cancel()
    try:
        client.watch_once("never", timeout=1)
    except etcd3.exceptions.WatchTimedOut:
        say("nothing came")


def tell(event):
    say("event", type(event).__name__, event.key, event.value, event.prev_value, event.version)


def maintenance(client):
    members = sorted(client.members, key=lambda member: member.name)
    say("members", [(member.name, len(member.peer_urls), len(member.client_urls)) for member in members])
    status = client.status()
    version = [int(part) for part in status.version.split(".")]
    say("status", version >= [3, 5, 13], status.db_size > 0, status.leader.name in [m.name for m in members],
        status.raft_index > 0, status.raft_term > 0)
    say("alarms", list(client.list_alarms()))
    raised = client.create_alarm(members[0].id)
    say("raised", [(alarm.alarm_type, alarm.member_id == members[0].id) for alarm in raised])
    say("listed", len(list(client.list_alarms())), [len(list(member.active_alarms)) for member in members])
    refused("put", lambda: client.put("full", "1"))
    say("delete", client.delete("full"))
    say("disarmed", len(client.disarm_alarm(members[0].id)), list(client.list_alarms()))
    client.put("full", "no more")
    refused("too large", lambda: client.put("large", "x" * 1_600_000))

    client.put("old", "1")
    client.put("old", "2")
    revision = client.get("old")[1].mod_revision
    client.compact(revision, physical=True)
    refused("compacted", lambda: client.kvstub.Range(
        etcdrpc.RangeRequest(key=b"old", revision=revision - 1), TIMEOUT).count)
    refused("compact again", lambda: client.compact(revision))
    events, _ = client.watch("old", start_revision=revision - 1)
    try:
        next(events)
    except etcd3.exceptions.RevisionCompactedError as error:
        say("watch of what is compacted", error.compacted_revision == revision)
    client.defragment()
    say("hash", client.hash() == client.hash())
    snapshot = io.BytesIO()
    client.snapshot(snapshot)
    say("snapshot", len(snapshot.getvalue()) > 0)
    refused("remove nobody", lambda: client.remove_member(123))
    refused("update nobody", lambda: client.update_member(123, ["http://127.0.0.1:1"]))


def auth(client):
    stub = etcdrpc.AuthStub(client.channel)
    for user, password in [("root", "secret"), ("alice", "one")]:
        stub.UserAdd(etcdrpc.AuthUserAddRequest(name=user, password=password), TIMEOUT)
    for role in ["root", "reader"]:
        stub.RoleAdd(etcdrpc.AuthRoleAddRequest(name=role), TIMEOUT)
    may = {"permType": "READ", "key": b"open/", "range_end": b"open0"}
    stub.RoleGrantPermission(etcdrpc.AuthRoleGrantPermissionRequest(name="reader", perm=may), TIMEOUT)
    for user, role in [("root", "root"), ("alice", "reader")]:
        stub.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user=user, role=role), TIMEOUT)
    say("users", list(stub.UserList(etcdrpc.AuthUserListRequest(), TIMEOUT).users))
    stub.AuthEnable(etcdrpc.AuthEnableRequest(), TIMEOUT)

    refused("nobody", lambda: client.get("open/a"))
    refused("wrong password", lambda: sign_in("alice", "two"))
    root, alice = sign_in("root", "secret"), sign_in("alice", "one")
    root.put("open/a", "1")
    root.put("closed/a", "2")
    say("alice reads", alice.get("open/a")[0])
    refused("alice reads elsewhere", lambda: alice.get("closed/a"))
    refused("alice writes", lambda: alice.put("open/a", "2"))
    say("root reads", [root.get(key)[0] for key in ("open/a", "closed/a")])
    etcdrpc.AuthStub(root.channel).AuthDisable(
        etcdrpc.AuthDisableRequest(), TIMEOUT, metadata=root.metadata)
    say("nobody again", client.get("open/a")[0])


def sign_in(user, password):
    client = etcd3.client(HOST, PORT, user=user, password=password, timeout=TIMEOUT)
    # The token is in the metadata as well; gRPC refuses credentials on a channel without TLS.
    client.call_credentials = None
    return client


PARTS = {part.__name__: part for part in (keys, transactions, leases, locks, watches, maintenance, auth)}

if __name__ == "__main__":
    PARTS[PART](etcd3.client(HOST, PORT, timeout=TIMEOUT))
