//! The choice: of the hosts that an instance may be on, the one with the fewest of those it is kept apart from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::document::{DesiredKey, Document, Kind, Placement, Spread};
use crate::reconciler::desired::{Desired, Text};
use crate::reconciler::observe::local_alias;

/// The hosts, as far as choosing needs to know them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    /// Every member of the cluster.
    pub(crate) known: BTreeMap<String, State>,
    /// The hosts that have an instance of that name which is ours, of those that are to be put somewhere.
    pub(crate) holders: BTreeMap<DesiredKey, Vec<String>>,
}

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is there, and its Incus answers.
    Alive {
        provider: String,
    },
    /// It is there, and nothing is to be put there.
    InMaintenance {
        provider: String,
    },
    /// It is there, its Incus does not answer.
    WithoutIncus,
    /// Nothing is heard of it, but it may be about to say so.
    Awaited,
    Silent,
}

/// Where an instance goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Host {
        host: String,
        reason: String,
    },
    /// To no host, for this reason.
    Nowhere(String),
    /// A host that may be the better one has yet to say that it is there.
    Later,
}

/// Decides for every instance that is to be put somewhere, in the order of names; each decision counts for the next.
pub(crate) fn decide(desired: &Desired, hosts: &Hosts) -> Vec<(DesiredKey, Decision)> {
    let mut load = Load::of(desired);
    let mut decisions = Vec::new();
    for (key, document, placement) in unbound(desired) {
        let fitness = fitness(desired, document, placement, hosts);
        let held = hosts.holders.get(key).map(Vec::as_slice).unwrap_or_default();
        let decision = match held {
            [] => choose(placement, &key.tenant, &fitness, &load, hosts),
            held => stay(held, &fitness),
        };
        if let Decision::Host { host, .. } = &decision {
            load.add(key, placement, host);
        }
        decisions.push((key.clone(), decision));
    }
    decisions
}

/// Decides for one instance whose host is gone.
pub(crate) fn decide_one(
    desired: &Desired,
    key: &DesiredKey,
    document: &Document,
    hosts: &Hosts,
) -> Decision {
    let placement = document.placement.clone().unwrap_or_default();
    let fitness = fitness(desired, document, &placement, hosts);
    choose(&placement, &key.tenant, &fitness, &Load::of(desired), hosts)
}

/// The instances that may be on several hosts and are on none.
pub(crate) fn unbound(desired: &Desired) -> impl Iterator<Item = (&DesiredKey, &Document, &Placement)> {
    desired.documents.iter().filter_map(|(key, wanted)| {
        let Text::Good(document) = &wanted.text else {
            return None;
        };
        let placement = document.placement.as_ref()?;
        document.hosts.is_empty().then_some((key, &**document, placement))
    })
}

/// How many instances hosts have.
#[derive(Debug, Default)]
struct Load {
    /// By tenant and group, and by host.
    groups: BTreeMap<(String, Option<String>), BTreeMap<String, usize>>,
    hosts: BTreeMap<String, usize>,
}

impl Load {
    fn of(desired: &Desired) -> Load {
        let mut load = Load::default();
        for (key, wanted) in &desired.documents {
            if let Text::Good(document) = &wanted.text
                && key.kind == Kind::Instance
                && let Some(host) = document.hosts.first()
            {
                load.add(
                    key,
                    document.placement.as_ref().unwrap_or(&Placement::default()),
                    host,
                );
            }
        }
        load
    }

    fn add(&mut self, key: &DesiredKey, placement: &Placement, host: &str) {
        *self.hosts.entry(host.to_owned()).or_default() += 1;
        if placement.spread.is_some() {
            let group = (key.tenant.clone(), placement.group.clone());
            *self
                .groups
                .entry(group)
                .or_default()
                .entry(host.to_owned())
                .or_default() += 1;
        }
    }
}

/// A host that fits, with its provider, or why it does not.
type Fitness<'a> = BTreeMap<&'a str, Result<&'a str, String>>;

fn fitness<'a>(
    desired: &Desired,
    document: &Document,
    placement: &'a Placement,
    hosts: &'a Hosts,
) -> Fitness<'a> {
    let needs = needs(desired, document);
    let named = placement.hosts.iter().map(String::as_str);
    let all = hosts
        .known
        .keys()
        .map(String::as_str)
        .filter(|_| placement.hosts.is_empty());
    let fit = |host: &'a str| match hosts.known.get(host) {
        None => Err(format!("there is no host {host}")),
        Some(State::Silent | State::Awaited) => Err(format!("{host} is not alive")),
        Some(State::WithoutIncus) => Err(format!("the Incus of {host} does not answer")),
        Some(State::InMaintenance { .. }) => Err(format!("{host} is in maintenance")),
        Some(State::Alive { provider }) => {
            let missing = needs.iter().find(|(_, needed)| !needed.names_host(host));
            match missing {
                Some((key, _)) => Err(format!("{key} is not for {host}")),
                None if provider.is_empty() => Ok(host),
                None => Ok(provider.as_str()),
            }
        }
    };
    named.chain(all).map(|host| (host, fit(host))).collect()
}

/// The documents that must be on an instance's host, too. What has no document is there already, or is not: that is
/// seen on the host.
fn needs<'a>(desired: &'a Desired, document: &Document) -> Vec<(DesiredKey, &'a Document)> {
    let of = |kind: Kind, tenant: &str, name: &str| DesiredKey {
        kind,
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    };
    let tenant = document.tenant.as_str();
    let mut keys = vec![of(Kind::Tenant, "", tenant), of(Kind::Project, "", tenant)];
    let profiles = document.spec.get("profiles").and_then(Value::as_array);
    let profiles = profiles.into_iter().flatten().filter_map(Value::as_str);
    keys.extend(profiles.map(|name| of(Kind::Profile, tenant, name)));
    let devices = document.spec.get("devices").and_then(Value::as_object);
    for device in devices.into_iter().flat_map(serde_json::Map::values) {
        let field = |name: &str| device.get(name).and_then(Value::as_str);
        if let Some(pool) = field("pool") {
            keys.push(of(Kind::StoragePool, "", pool));
            keys.extend(field("source").map(|volume| of(Kind::Volume, tenant, volume)));
        }
        keys.extend(field("network").map(|network| of(Kind::Network, "", network)));
    }
    let good = |key: DesiredKey| match &desired.documents.get(&key)?.text {
        Text::Good(needed) => Some((key, &**needed)),
        Text::Invalid { .. } => None,
    };
    let mut needs: Vec<_> = keys.into_iter().filter_map(good).collect();
    needs.extend(image(desired, document));
    needs
}

/// The document of the image that an instance is made of, if one alone could be it.
fn image<'a>(desired: &'a Desired, document: &Document) -> Option<(DesiredKey, &'a Document)> {
    let alias = local_alias(&document.spec)?;
    let mut images = desired
        .documents
        .iter()
        .filter_map(|(key, wanted)| match &wanted.text {
            Text::Good(image) if key.kind == Kind::Image && key.tenant == document.tenant => {
                let named = image
                    .spec
                    .get("alias")
                    .and_then(Value::as_str)
                    .unwrap_or(&image.name);
                (named == alias).then_some((key.clone(), &**image))
            }
            _ => None,
        });
    images.next().filter(|_| images.next().is_none())
}

/// The instance is somewhere already: its data are there.
fn stay(held: &[String], fitness: &Fitness<'_>) -> Decision {
    let reason = |host: &String| match fitness.get(host.as_str()) {
        Some(Ok(_)) => None,
        Some(Err(reason)) => Some(reason.clone()),
        None => Some(format!("placement.hosts does not name {host}")),
    };
    match held {
        [host] => match reason(host) {
            None => Decision::Host {
                host: host.clone(),
                reason: "it is there already".to_owned(),
            },
            Some(reason) => Decision::Nowhere(format!("{host} has it already, and {reason}")),
        },
        held => Decision::Nowhere(format!(
            "{} have one each: delete all but one",
            held.join(" and ")
        )),
    }
}

fn choose(
    placement: &Placement,
    tenant: &str,
    fitness: &Fitness<'_>,
    load: &Load,
    hosts: &Hosts,
) -> Decision {
    let awaited = |host: &&str| hosts.known.get(*host) == Some(&State::Awaited);
    if fitness.keys().any(awaited) {
        return Decision::Later;
    }
    let fit: Vec<(&str, &str)> = fitness
        .iter()
        .filter_map(|(host, provider)| Some((*host, *provider.as_ref().ok()?)))
        .collect();
    let group = load.groups.get(&(tenant.to_owned(), placement.group.clone()));
    let in_group = |host: &str| group.and_then(|group| group.get(host)).copied().unwrap_or(0);
    let provider_of = |host: &str| match hosts.known.get(host) {
        Some(State::Alive { provider } | State::InMaintenance { provider }) if !provider.is_empty() => {
            provider.clone()
        }
        _ => host.to_owned(),
    };
    let at_provider = |provider: &str| -> usize {
        let of_it = group.into_iter().flatten();
        of_it
            .filter(|(host, _)| provider_of(host) == provider)
            .map(|(_, count)| count)
            .sum()
    };
    let rank = |(host, provider): &(&str, &str)| {
        let apart = match placement.spread {
            Some(Spread::Provider) => (at_provider(provider), in_group(host)),
            None => (0, 0),
        };
        (
            apart,
            load.hosts.get(*host).copied().unwrap_or(0),
            (*host).to_owned(),
        )
    };
    match fit.iter().min_by_key(|candidate| rank(candidate)) {
        Some((host, provider)) => Decision::Host {
            host: (*host).to_owned(),
            reason: match placement.spread {
                Some(Spread::Provider) => format!("provider {provider} had the fewest of its group"),
                None => "it had the fewest instances".to_owned(),
            },
        },
        None => Decision::Nowhere(nowhere(fitness)),
    }
}

fn nowhere(fitness: &Fitness<'_>) -> String {
    let reasons: BTreeSet<&str> = fitness
        .values()
        .filter_map(|fit| fit.as_ref().err().map(String::as_str))
        .collect();
    let reasons: Vec<&str> = reasons.into_iter().collect();
    format!("no host fits: {}", reasons.join("; "))
}

#[cfg(test)]
mod tests;
