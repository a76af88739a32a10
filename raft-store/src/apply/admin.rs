//! Alarms, hash checks, who the members are, and what they publish of themselves.

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType};
use proto::replicated::{Empty, PublishMember};

use super::Applier;
use crate::hash_check::HashPoint;
use crate::raft_types::StoredMembership;
use crate::schema;
use crate::state::{self, RaisedBy};
use crate::store::MemberAttributes;

impl Applier {
    /// Answers with the alarms asked for, or with the one that this raised or cleared, as etcd does. What a client
    /// raised stays a client's, though a member would raise it as well.
    pub(super) fn alarm(&mut self, request: &AlarmRequest, asked_by: RaisedBy) -> AlarmResponse {
        let named = (request.member_id, request.alarm);
        let none = request.alarm == i32::from(AlarmType::None);
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self
                .alarms
                .keys()
                .filter(|(_, alarm)| none || *alarm == request.alarm)
                .copied()
                .collect(),
            Ok(AlarmAction::Activate) if !none => {
                if asked_by == RaisedBy::Client || !self.alarms.contains_key(&named) {
                    self.alarms.insert(named, asked_by);
                    self.batch.put(schema::alarm(named.0, named.1), asked_by.encode());
                }
                vec![named]
            }
            Ok(AlarmAction::Deactivate) if self.alarms.remove(&named).is_some() => {
                self.batch.delete(schema::alarm(named.0, named.1));
                vec![named]
            }
            _ => Vec::new(),
        };
        let alarms = alarms
            .into_iter()
            .map(|(member_id, alarm)| AlarmMember { member_id, alarm })
            .collect();
        AlarmResponse { header: None, alarms }
    }

    /// Takes up a membership. Who was a member and is none any more is remembered: its id never comes back. Its alarms,
    /// which speak of its own store, go with it.
    pub(super) fn set_membership(&mut self, membership: StoredMembership) {
        let former = std::mem::replace(&mut self.membership, membership);
        let gone = former
            .membership()
            .nodes()
            .map(|(id, _)| *id)
            .filter(|id| self.membership.membership().get_node(id).is_none());
        for id in gone {
            self.removed.insert(id);
            self.batch.put(schema::removed(id), []);
            if self.members.remove(&id).is_some() {
                self.batch.delete(schema::member(id));
            }
            let alarms: Vec<(u64, i32)> = self
                .alarms
                .keys()
                .filter(|alarm| alarm.0 == id)
                .copied()
                .collect();
            for alarm in alarms {
                self.alarms.remove(&alarm);
                self.batch.delete(schema::alarm(alarm.0, alarm.1));
            }
        }
        self.batch.put(
            schema::META_MEMBERSHIP,
            state::encode_membership(&self.membership),
        );
    }

    /// Notes where the store is to be hashed. It changes nothing: members may find different hashes, and what follows
    /// from that comes back as an alarm.
    pub(super) fn hash_check(&mut self) {
        let index = self.applied.map_or(0, |id| id.index());
        let point = HashPoint::new(
            self.state.clone(),
            index,
            self.writer.compacted(),
            self.writer.revision(),
        );
        self.hash_points.push(point);
    }

    pub(super) fn publish_member(&mut self, request: PublishMember) -> Empty {
        if self.removed.contains(&request.id) {
            // Proposed before it was removed, applied after.
            return Empty {};
        }
        let attributes = MemberAttributes {
            name: request.name,
            client_urls: request.client_urls,
        };
        self.batch.put(
            schema::member(request.id),
            state::encode_member(request.id, &attributes),
        );
        self.members.insert(request.id, attributes);
        Empty {}
    }
}
