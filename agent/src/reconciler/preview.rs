//! Plans that nobody carries out, for people: what documents would change on this host, and whose an object becomes.
//!
//! A preview is the reconciler's own plan, made from the documents as they would be and from Incus as it is. It must
//! not touch either. Taking over an object ([`Preview::claim`]) is the one thing done here, and only where a document
//! names the object and nobody owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use proto::agent::v1::planned_object::Effect;
use proto::agent::v1::{PlanRequest, PlannedObject};
use serde_json::Value;

use super::ReconcilerOptions;
use super::desired::{Desired, Parser, StoredText, Text};
use super::execute::in_full;
use super::observe::{Object, Observed, config_field, in_incus, observe};
use super::ownership::{self, Owner};
use super::placement::{self, Decision};
use super::plan::{Context, NOTHING_DUE, ObjectPlan, Plan, maintenance, plan};
use super::services::{self, Hands, Seen, Services};
use super::step::{Change, Step, TunnelStep, body_after};
use super::stored;
use crate::document::{Binding, DesiredKey, Kind, OWNERSHIP_PREFIX, Phase, binding_key, hide_secrets};
use crate::incus::{self, IncusError};
use crate::node::Node;
use crate::operator::{Failure, OperatorError, Planner};
use crate::service::digest;
use crate::tunnel::Open;

/// The documents should be the cluster's newest; without a quorum, those that this member knows are better than none.
const READ_INDEX_LIMIT: Duration = Duration::from_secs(3);
/// Somebody else may change the object between our reading and our writing.
const ATTEMPTS: usize = 5;
/// Stands for the host of an instance that is on none.
const NO_HOST: &str = "-";
/// What is wished for is planned as if nothing were under way.
static IDLE: BTreeSet<DesiredKey> = BTreeSet::new();

/// Plans for people. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Preview {
    node: Node,
    hands: Hands,
    host: String,
    cluster: String,
}

impl Planner for Preview {
    fn plan<'a>(
        &'a self,
        request: &'a PlanRequest,
    ) -> BoxFuture<'a, Result<Vec<PlannedObject>, OperatorError>> {
        Box::pin(self.preview(request))
    }

    fn live<'a>(&'a self, key: &'a DesiredKey) -> BoxFuture<'a, Result<Option<Value>, OperatorError>> {
        Box::pin(self.read_live(key))
    }

    fn claim<'a>(&'a self, key: &'a DesiredKey) -> BoxFuture<'a, Result<bool, OperatorError>> {
        Box::pin(self.take_over(key))
    }

    fn may_leave(&self, key: &DesiredKey, to: &str) -> Result<(), OperatorError> {
        // What this member has applied is what its reconciler acts on: it does not start what is to leave.
        let read = stored::read_one(self.node.store(), binding_key(key).into());
        let binding = read
            .ok()
            .flatten()
            .and_then(|pair| serde_json::from_slice::<Binding>(&pair.value).ok());
        let leaves = binding
            .is_some_and(|binding| binding.host == self.host && binding.moving_to.as_deref() == Some(to));
        if leaves {
            return Ok(());
        }
        let message = format!("{} does not know yet that {key} moves to {to}", self.host);
        Err(OperatorError::new(Failure::Busy, message))
    }
}

impl Preview {
    #[must_use]
    pub fn new(node: Node, hands: Hands, options: &ReconcilerOptions) -> Preview {
        Preview {
            host: options.host.clone(),
            cluster: format!("{:x}", node.cluster_id()),
            node,
            hands,
        }
    }

    async fn preview(&self, request: &PlanRequest) -> Result<Vec<PlannedObject>, OperatorError> {
        let (parser, mut now) = self.documents().await?;
        let mut wanted = with_changes(&parser, &now, request);
        let nowhere = self.put_on_hosts(&mut wanted)?;
        let secrets = &self.hands.secrets;
        secrets.stand_in(&mut wanted, &self.host);
        secrets.stand_in(&mut now, &self.host);
        let mut observed = observe(&self.hands.incus, &wanted, &self.host).await?;
        secrets.hide(&mut observed, &[&wanted, &now]);
        // What a guest looks like now is asked once, though it is planned for twice.
        let mut services = Services::new(self.hands.clone());
        let seen = services.observe(&wanted, Some(&observed), self.context()).await;
        let after = plan(&wanted, &observed, &seen, self.context());
        let before = if request.documents.is_empty() && request.deleted_keys.is_empty() {
            // What is there otherwise than the documents say, without any change of those.
            BTreeMap::new()
        } else {
            let seen = services.observe(&now, Some(&observed), self.context()).await;
            self.all_shown(&plan(&now, &observed, &seen, self.context()), &observed, &seen)
        };
        let mut shown = self.all_shown(&after, &observed, &seen);
        // What happens anyway is nothing that these documents change.
        shown.retain(|key, shown| before.get(key) != Some(shown));
        if maintenance::host_spec(&wanted, &self.host).maintenance {
            for shown in shown.values_mut() {
                shown
                    .details
                    .push(format!("waits: host {} is in maintenance", self.host));
            }
        }
        Ok(shown.into_values().chain(nowhere).collect())
    }

    /// Takes every instance that is yet to be put on a host to be on the one that would be chosen now. Returns what is
    /// to be said of those that no host fits: every host says the same of them.
    fn put_on_hosts(&self, wanted: &mut Desired) -> Result<Vec<PlannedObject>, OperatorError> {
        let hosts = placement::read_hosts(&self.node, wanted, false).map_err(|error| {
            OperatorError::new(Failure::Refused, format!("the hosts cannot be read: {error}"))
        })?;
        let mut nowhere = Vec::new();
        for (key, decision) in placement::decide(wanted, &hosts) {
            match decision {
                Decision::Host { host, .. } => wanted.suppose(&key, &host),
                Decision::Nowhere(reason) => nowhere.push(PlannedObject {
                    host: NO_HOST.to_owned(),
                    kind: key.kind.singular().to_owned(),
                    tenant: key.tenant,
                    name: key.name,
                    effect: Effect::Refused.into(),
                    details: vec![reason],
                    cost: String::new(),
                    fingerprint: String::new(),
                }),
                Decision::Later => {}
            }
        }
        Ok(nowhere)
    }

    /// The documents of the applied state, confirmed where a quorum answers.
    async fn documents(&self) -> Result<(Parser, Desired), OperatorError> {
        // What is known here serves where nobody answers.
        let _ = tokio::time::timeout(READ_INDEX_LIMIT, self.node.read_index()).await;
        let mut parser = Parser::new(&self.host);
        let (desired, _) = stored::read(self.node.store(), &mut parser, &self.host).map_err(|error| {
            OperatorError::new(Failure::Refused, format!("the documents cannot be read: {error}"))
        })?;
        Ok((parser, desired))
    }

    fn context(&self) -> Context<'_> {
        Context {
            host: &self.host,
            cluster: &self.cluster,
            may_delete: true,
            busy: &IDLE,
            held: None,
            due: &NOTHING_DUE,
        }
    }

    fn all_shown(
        &self,
        plan: &Plan,
        observed: &Observed,
        seen: &Seen,
    ) -> BTreeMap<DesiredKey, PlannedObject> {
        let shown = plan.objects.iter().filter_map(|(key, planned)| {
            let shown = self.shown(key, planned, (observed, seen))?;
            Some((key.clone(), shown))
        });
        shown.collect()
    }

    /// What a plan for one object means to a person; `None`: nothing.
    fn shown(
        &self,
        key: &DesiredKey,
        planned: &ObjectPlan,
        (observed, seen): (&Observed, &Seen),
    ) -> Option<PlannedObject> {
        let mut live = None;
        let (effect, details, cost) = match seen.of.get(key) {
            Some(seen) => {
                live = services::fingerprint(seen);
                services::meaning(planned, seen)?
            }
            None if key.kind == Kind::Tunnel => tunnel_meaning(planned, seen.tunnels.get(key))?,
            None => {
                // Records of the cluster are nothing on a host.
                in_incus(key.kind)?;
                let object = observed.objects.get(key);
                live = object.map(|object| fingerprint(key.kind, object));
                meaning(planned, object.is_some())?
            }
        };
        Some(PlannedObject {
            host: self.host.clone(),
            kind: key.kind.singular().to_owned(),
            tenant: key.tenant.clone(),
            name: key.name.clone(),
            effect: effect.into(),
            details,
            cost: cost.to_owned(),
            fingerprint: live.unwrap_or_default(),
        })
    }

    /// The object of Incus that a document of this key speaks of. A document may be of no kind that Incus has.
    async fn object(&self, key: &DesiredKey) -> Result<Option<(incus::Kind, Object)>, IncusError> {
        let Some(kind) = in_incus(key.kind) else {
            return Ok(None);
        };
        let mut observed = Observed::from_lists([(key.kind, self.hands.incus.list_all(kind).await?)]);
        Ok(observed.objects.remove(key).map(|object| (kind, object)))
    }

    async fn read_live(&self, key: &DesiredKey) -> Result<Option<Value>, OperatorError> {
        let found = self.object(key).await?;
        Ok(found.map(|(_, object)| {
            let mut whole = object.whole().clone();
            hide_secrets(&mut whole);
            whole
        }))
    }

    /// Whether anything was written: not where the object is ours already.
    async fn take_over(&self, key: &DesiredKey) -> Result<bool, OperatorError> {
        let refused = |message: String| OperatorError::new(Failure::Refused, message);
        let (_, desired) = self.documents().await?;
        let wanted = desired.documents.get(key);
        let named = wanted.filter(|wanted| wanted.names_host(&self.host) == Some(true));
        let Some((wanted, Text::Good(document))) = named.map(|wanted| (wanted, &wanted.text)) else {
            return Err(refused(format!("no good document names {key} on {}", self.host)));
        };
        for _ in 0..ATTEMPTS {
            let missing =
                || OperatorError::new(Failure::NotFound, format!("there is no {key} on {}", self.host));
            let (kind, object) = self.object(key).await?.ok_or_else(missing)?;
            let target = object.incus_name;
            let live = self
                .hands
                .incus
                .get(kind, &key.tenant, &target)
                .await?
                .ok_or_else(missing)?;
            let config = Object::new(key.kind, live.object.clone()).config;
            match ownership::owner(&config, &self.cluster, key) {
                Owner::Ours(_) => return Ok(false),
                Owner::Another { cluster } => {
                    return Err(refused(format!("{key} on {} is cluster {cluster}'s", self.host)));
                }
                Owner::Nobody | Owner::CopyOf { .. } => {}
            }
            // The claim alone: what else is to be written on it, the next pass writes.
            let keys = ownership::keys(document, &self.cluster, wanted.created_revision, wanted.revision);
            let claim = keys
                .into_iter()
                .filter(|(key, _)| [ownership::CLUSTER, ownership::UID].contains(key))
                .chain([(ownership::HOST, self.host.clone())]);
            let changes: Vec<Change> = claim
                .map(|(key, after)| Change::Config {
                    key: key.to_owned(),
                    before: config.get(key).cloned(),
                    after: Some(after),
                })
                .collect();
            let body = body_after(key.kind, &live.object, &changes);
            let replaced = self
                .hands
                .incus
                .replace(kind, &key.tenant, &target, &body, &live.etag)
                .await;
            match replaced {
                Err(IncusError::PreconditionFailed) => {}
                Err(error) => return Err(refused(in_full(&error))),
                Ok(()) => return Ok(true),
            }
        }
        Err(refused(format!("somebody keeps changing {key} on {}", self.host)))
    }
}

/// The documents as they would be. What is put now has the next revision.
fn with_changes(parser: &Parser, now: &Desired, request: &PlanRequest) -> Desired {
    let mut wanted = now.clone();
    let next = now.revision + 1;
    for document in &request.documents {
        let created =
            |before: Option<&super::desired::Wanted>| before.map_or(next, |before| before.created_revision);
        let before =
            crate::document::parse_desired_key(&document.key).and_then(|key| now.documents.get(&key));
        let stored = StoredText {
            key: document.key.as_bytes(),
            value: &document.text,
            created_revision: created(before),
            revision: next,
        };
        if let Some((key, put)) = parser.hypothetical(stored) {
            wanted.documents.insert(key, put);
        }
    }
    for key in &request.deleted_keys {
        if let Some(key) = crate::document::parse_desired_key(key) {
            wanted.documents.remove(&key);
        }
    }
    wanted
}

/// A digest of what can be changed of an object. What moves by itself, and what we note on it, is left out.
fn fingerprint(kind: Kind, object: &Object) -> String {
    let mut body = body_after(kind, object.whole(), &[]);
    if let Some(config) = body.get_mut(config_field(kind)).and_then(Value::as_object_mut) {
        config.retain(|key, _| !key.starts_with("volatile.") && !key.starts_with(OWNERSHIP_PREFIX));
    }
    digest(body.to_string().as_bytes())
}

/// What a plan does, in words: the effect, each change, and what it costs.
fn meaning(planned: &ObjectPlan, is_there: bool) -> Option<(Effect, Vec<String>, &'static str)> {
    let steps = &planned.steps;
    let has = |wanted: fn(&Step) -> bool| steps.iter().any(wanted);
    let creates = has(|step| matches!(step, Step::Create { .. }));
    let deletes = has(|step| matches!(step, Step::Delete { .. }));
    let starts = has(|step| matches!(step, Step::Start));
    let stops = has(|step| matches!(step, Step::Stop { .. }));
    let changes: Vec<&Change> = steps
        .iter()
        .flat_map(|step| match step {
            Step::Change { changes } => changes.as_slice(),
            _ => &[],
        })
        .collect();
    let mut details: Vec<String> = changes
        .iter()
        .filter(|change| !change.is_ownership())
        .map(ToString::to_string)
        .collect();
    let is_released = changes
        .iter()
        .any(|change| matches!(change, Change::Config { key, after: None, .. } if key == ownership::CLUSTER));
    if deletes && creates {
        return Some((
            Effect::Change,
            vec!["is deleted and made anew".to_owned()],
            "rebuild",
        ));
    }
    if creates {
        let words = if starts { "create, start" } else { "create" };
        return Some((Effect::Create, vec![words.to_owned()], ""));
    }
    if deletes {
        return Some((Effect::Delete, vec!["delete".to_owned()], ""));
    }
    if is_released {
        let words = "is nobody's any more, and stays".to_owned();
        return Some((Effect::Delete, vec![words], ""));
    }
    let message = planned.report.message.clone();
    if steps.is_empty() {
        return match planned.report.phase {
            Phase::Failed | Phase::Invalid | Phase::Conflict => Some((Effect::Refused, vec![message], "")),
            Phase::Pending if is_there => Some((Effect::Refused, vec![message], "")),
            Phase::Pending => Some((Effect::Create, vec![format!("create; {message}")], "")),
            _ => None,
        };
    }
    if matches!(planned.report.phase, Phase::Failed | Phase::Invalid) {
        return Some((Effect::Refused, vec![message], ""));
    }
    let cost = match (details.is_empty(), starts && stops) {
        (true, _) => "",
        (false, true) => "restart",
        (false, false) => "live",
    };
    match (starts, stops) {
        (true, false) => details.push("start".to_owned()),
        (false, true) => details.push("stop".to_owned()),
        _ => {}
    }
    (!details.is_empty()).then_some((Effect::Change, details, cost))
}

/// The same of a tunnel.
fn tunnel_meaning(planned: &ObjectPlan, open: Option<&Open>) -> Option<(Effect, Vec<String>, &'static str)> {
    let message = planned.report.message.clone();
    match (planned.steps.first(), open) {
        _ if planned.report.phase == Phase::Invalid => Some((Effect::Refused, vec![message], "")),
        (Some(Step::Tunnel(TunnelStep::Listen(spec))), None) => {
            Some((Effect::Create, vec![format!("listen {spec}")], ""))
        }
        (Some(Step::Tunnel(TunnelStep::Listen(spec))), Some(open)) => {
            let words = format!("{} becomes {spec}", open.spec);
            Some((Effect::Change, vec![words], "live"))
        }
        (Some(_), _) => Some((Effect::Delete, vec!["close".to_owned()], "")),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconciler::plan::Report;

    fn change(key: &str, before: &str, after: Option<&str>) -> Change {
        Change::Config {
            key: key.into(),
            before: Some(before.into()),
            after: after.map(str::to_owned),
        }
    }

    fn check(steps: Vec<Step>, phase: Phase, message: &str, is_there: bool, expected: &str) {
        let planned = ObjectPlan {
            revision: 3,
            target: String::new(),
            steps,
            report: Report::new(phase, message),
        };
        let shown = meaning(&planned, is_there).map_or_else(String::new, |(effect, details, cost)| {
            format!("{effect:?} [{}] {cost}", details.join("; "))
        });
        assert_eq!(shown.trim_end(), expected);
    }

    #[test]
    fn plans_are_told_to_people() {
        let memory = || change("limits.memory", "256MiB", Some("512MiB"));
        let mark = || change("user.agent.revision", "3", Some("4"));
        let changes = |changes| Step::Change { changes };
        let stop = || Step::Stop { timeout_seconds: 30 };
        let create = || Step::Create {
            body: json!({"name": "web"}),
        };
        let progressing = Phase::Progressing;
        check(vec![changes(vec![mark()])], progressing, "", true, "");
        check(
            vec![changes(vec![memory(), mark()])],
            progressing,
            "",
            true,
            "Change [config.limits.memory: 256MiB -> 512MiB] live",
        );
        check(
            vec![stop(), changes(vec![memory()]), Step::Start],
            progressing,
            "",
            true,
            "Change [config.limits.memory: 256MiB -> 512MiB] restart",
        );
        check(vec![stop()], progressing, "", true, "Change [stop]");
        check(
            vec![create(), Step::Start],
            progressing,
            "",
            false,
            "Create [create, start]",
        );
        check(
            vec![Step::Delete { uid: "u".into() }, create()],
            progressing,
            "",
            true,
            "Change [is deleted and made anew] rebuild",
        );
        check(
            vec![changes(vec![change(ownership::CLUSTER, "c", None)])],
            progressing,
            "",
            true,
            "Delete [is nobody's any more, and stays]",
        );
        check(
            vec![],
            Phase::Failed,
            "needs rebuild",
            true,
            "Refused [needs rebuild]",
        );
        check(
            vec![],
            Phase::Pending,
            "waits for profile web",
            false,
            "Create [create; waits for profile web]",
        );
        check(vec![], Phase::Ready, "", true, "");
    }

    #[test]
    fn documents_as_they_would_be() {
        let key = "/tenants/default/desired/profiles/web";
        let text = |memory: &str| {
            format!("kind: profile\nname: web\nspec: {{config: {{limits.memory: {memory}}}}}\n")
        };
        let mut parser = Parser::new("ovh");
        let old = text("1GiB");
        let now = parser.read(
            9,
            [StoredText {
                key: key.as_bytes(),
                value: old.as_bytes(),
                created_revision: 2,
                revision: 5,
            }]
            .into_iter(),
        );
        let put = PlanRequest {
            documents: vec![proto::agent::v1::DocumentText {
                key: key.to_owned(),
                text: text("2GiB").into(),
            }],
            ..PlanRequest::default()
        };
        let wanted = with_changes(&parser, &now, &put);
        let changed = wanted.documents.values().next().unwrap();
        assert_eq!((changed.created_revision, changed.revision), (2, 10));
        assert!(matches!(&changed.text, Text::Good(document)
            if document.spec["config"] == json!({"limits.memory": "2GiB"})));
        let deleted = PlanRequest {
            deleted_keys: vec![key.to_owned()],
            ..PlanRequest::default()
        };
        assert!(with_changes(&parser, &now, &deleted).documents.is_empty());
    }
}
