//! Where an instance is: on the host that its document names, that it is bound to or, without a document, the one that has it.
//!
//! Documents are read from this member's own state, so that an instance is found without a quorum, too.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use proto::agent::v1::{Instance, InstanceRef, ListInstancesRequest, ListInstancesResponse, SilentHost};
use proto::etcdserverpb::RangeRequest;
use proto::peer::host_outcome::Outcome;
use proto::peer::host_task::Task;
use raft_store::ReadError;

use super::Hosts;
use crate::document::{Binding, DesiredKey, Kind, binding_key, hosts_named, parse_at};
use crate::operator::{Failure, OperatorError, document_key};

/// How long one host may keep the others' answers waiting.
const ASK_LIMIT: Duration = Duration::from_secs(5);

impl Hosts {
    /// The host that has an instance: `host`, if that is said.
    ///
    /// # Errors
    /// When none has it, or more than one and no document says which; or nothing can be named so.
    pub(crate) async fn whereabouts(&self, instance: &InstanceRef) -> Result<String, OperatorError> {
        if !instance.host.is_empty() {
            return Ok(instance.host.clone());
        }
        let key = document_key(Kind::Instance.singular(), &instance.tenant, &instance.name)?;
        let host = self.documents_host(&key).map_err(|error| {
            OperatorError::new(Failure::Refused, format!("the documents cannot be read: {error}"))
        })?;
        if let Some(host) = host {
            return Ok(host);
        }
        let request = ListInstancesRequest {
            tenant: instance.tenant.clone(),
            host: String::new(),
        };
        the_one_host(&self.instances(&request).await, instance)
    }

    /// The host that a document names, or that its instance is bound to; `None`: it is not said.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn documents_host(&self, instance: &DesiredKey) -> Result<Option<String>, ReadError> {
        let Some(text) = self.value(&instance.key())? else {
            return Ok(None);
        };
        let hosts = hosts_named(&String::from_utf8_lossy(&text)).unwrap_or_default();
        if let Some(host) = hosts.into_iter().next() {
            return Ok(Some(host));
        }
        let binding = self.value(&binding_key(instance))?;
        let binding = binding.and_then(|value| serde_json::from_slice::<Binding>(&value).ok());
        Ok(binding.and_then(|binding| binding.bound_host().map(str::to_owned)))
    }

    /// Whether a document is for this host, among others or alone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn is_documented(&self, key: &DesiredKey, host: &str) -> Result<bool, ReadError> {
        let key = key.key();
        let Some(text) = self.value(&key)? else {
            return Ok(false);
        };
        let document = parse_at(&key, &String::from_utf8_lossy(&text));
        Ok(document.is_ok_and(|document| document.names_host(host)))
    }

    fn value(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        let request = RangeRequest {
            key: key.to_owned().into(),
            serializable: true,
            ..RangeRequest::default()
        };
        let found = self.node.store().range(&request)?;
        Ok(found.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// What the hosts have, asked side by side.
    pub(crate) async fn instances(&self, request: &ListInstancesRequest) -> ListInstancesResponse {
        let task = Task::ListInstances(request.clone());
        let (answers, silent) = self.ask_all(&request.host, &task).await;
        let instances = answers.into_iter().flat_map(|answer| match answer {
            Outcome::Instances(listed) => listed.instances,
            _ => Vec::new(),
        });
        ListInstancesResponse {
            instances: once_each(instances.collect()),
            silent,
        }
    }

    /// What all hosts answer, or the one that is named, side by side; and who was asked in vain.
    pub(crate) async fn ask_all(&self, host: &str, task: &Task) -> (Vec<Outcome>, Vec<SilentHost>) {
        let hosts = if host.is_empty() {
            self.names()
        } else {
            vec![host.to_owned()]
        };
        let ask =
            async |host: &String| match tokio::time::timeout(ASK_LIMIT, self.perform(host, task.clone()))
                .await
            {
                Ok(answered) => answered.map_err(|error| error.message),
                Err(_) => Err(format!(
                    "host {host} does not answer within {} s",
                    ASK_LIMIT.as_secs()
                )),
            };
        let answers = join_all(hosts.iter().map(ask)).await;
        let (mut outcomes, mut silent) = (Vec::new(), Vec::new());
        for (host, answer) in hosts.into_iter().zip(answers) {
            match answer {
                Ok(outcome) => outcomes.push(outcome),
                Err(reason) => silent.push(SilentHost { host, reason }),
            }
        }
        (outcomes, silent)
    }
}

/// Hosts that share one Incus show the same instances: each is listed once, at the host that made it or, made by
/// hand, at the first.
fn once_each(instances: Vec<Instance>) -> Vec<Instance> {
    let mut kept: BTreeMap<(String, String, String), Instance> = BTreeMap::new();
    for instance in instances {
        let daemon = if instance.daemon.is_empty() {
            format!("host {}", instance.host)
        } else {
            instance.daemon.clone()
        };
        let id = (instance.tenant.clone(), instance.name.clone(), daemon);
        let is_better = |other: &Instance| {
            let rank = |instance: &Instance| (instance.maker != instance.host, instance.host.clone());
            rank(&instance) < rank(other)
        };
        if kept.get(&id).is_none_or(is_better) {
            kept.insert(id, instance);
        }
    }
    let mut kept: Vec<Instance> = kept.into_values().collect();
    kept.sort_by_cached_key(|instance| {
        (
            instance.tenant.clone(),
            instance.name.clone(),
            instance.host.clone(),
        )
    });
    kept
}

/// The host of an instance that no document speaks of.
fn the_one_host(listed: &ListInstancesResponse, wanted: &InstanceRef) -> Result<String, OperatorError> {
    let mut hosts = listed
        .instances
        .iter()
        .filter(|found| found.tenant == wanted.tenant && found.name == wanted.name)
        .map(|found| found.host.clone())
        .collect::<Vec<_>>()
        .into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host),
        (Some(one), Some(other)) => Err(OperatorError::new(
            Failure::Invalid,
            format!(
                "{one} and {other} have an instance {}: say which with --host",
                wanted.name
            ),
        )),
        (None, _) => {
            let what = format!("an instance {}", wanted.name);
            Err(OperatorError::on_no_host(&what, &listed.silent))
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::agent::v1::SilentHost;

    use super::*;

    fn instance(host: &str, name: &str, maker: &str, daemon: &str) -> Instance {
        Instance {
            host: host.to_owned(),
            tenant: "default".to_owned(),
            name: name.to_owned(),
            maker: maker.to_owned(),
            daemon: daemon.to_owned(),
            ..Instance::default()
        }
    }

    #[test]
    fn an_incus_that_hosts_share_is_listed_once() {
        let shared = vec![
            instance("ovh", "byhand", "", "d"),
            instance("ionos", "byhand", "", "d"),
            instance("ionos", "web", "ovh", "d"),
            instance("ovh", "web", "ovh", "d"),
        ];
        let hosts: Vec<String> = once_each(shared)
            .into_iter()
            .map(|found| format!("{} {}", found.name, found.host))
            .collect();
        assert_eq!(hosts, ["byhand ionos", "web ovh"]);
        let apart = vec![
            instance("ovh", "byhand", "", "d"),
            instance("ionos", "byhand", "", "e"),
        ];
        assert_eq!(once_each(apart).len(), 2);
        let unknown = vec![
            instance("ovh", "byhand", "", ""),
            instance("ionos", "byhand", "", ""),
        ];
        assert_eq!(once_each(unknown).len(), 2);
    }

    #[test]
    fn an_instance_without_document_must_be_on_one_host() {
        let wanted = InstanceRef {
            tenant: "default".to_owned(),
            name: "web".to_owned(),
            host: String::new(),
        };
        let check = |instances: Vec<Instance>, expected: Result<&str, &str>| {
            let listed = ListInstancesResponse {
                instances,
                silent: vec![SilentHost {
                    host: "liquidweb".to_owned(),
                    reason: "host liquidweb does not answer".to_owned(),
                }],
            };
            let found = the_one_host(&listed, &wanted).map_err(|error| error.message);
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(vec![instance("ovh", "web", "", "")], Ok("ovh"));
        check(
            vec![instance("ovh", "web", "", ""), instance("ionos", "web", "", "")],
            Err("ovh and ionos have an instance web: say which with --host"),
        );
        check(
            vec![instance("ovh", "api", "", "")],
            Err("no host has an instance web (host liquidweb does not answer)"),
        );
    }
}
