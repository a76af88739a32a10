//! What is chosen, as text; and what holds of every choice.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::reconciler::desired::{Parser, StoredText};

/// `name host`, or `name` for a host of no provider.
fn alive(hosts: &[(&str, &str)]) -> Hosts {
    let known = hosts.iter().map(|(host, provider)| {
        let provider = (*provider).to_owned();
        ((*host).to_owned(), State::Alive { provider })
    });
    Hosts {
        known: known.collect(),
        ..Hosts::default()
    }
}

/// The same hosts, of which these are in maintenance.
fn in_maintenance(mut hosts: Hosts, which: &[&str]) -> Hosts {
    for (host, state) in &mut hosts.known {
        if let State::Alive { provider } = state
            && which.contains(&host.as_str())
        {
            let provider = provider.clone();
            *state = State::InMaintenance { provider };
        }
    }
    hosts
}

#[test]
fn nothing_is_put_on_a_host_in_maintenance() {
    // Its instances still count for its provider.
    let pairs = [
        instance("web", SPREAD),
        instance("web-2", SPREAD),
        bound("web", "ovh"),
    ];
    let hosts = alive(&[("ovh", "OVH"), ("ovh-2", "OVH"), ("zurich", "IONOS")]);
    check(
        &pairs,
        &in_maintenance(hosts, &["ovh"]),
        &expect![[r#"
        instance web-2 -> zurich: provider IONOS had the fewest of its group
    "#]],
    );
    check(
        &[instance("web", "{}")],
        &in_maintenance(three(), &["ionos", "liquidweb", "ovh"]),
        &expect![[r#"
            instance web -> nowhere: no host fits: ionos is in maintenance; liquidweb is in maintenance; ovh is in maintenance
        "#]],
    );
}

fn three() -> Hosts {
    alive(&[("ionos", "IONOS"), ("liquidweb", "LiquidWeb"), ("ovh", "OVH")])
}

fn instance(name: &str, placement: &str) -> (String, String) {
    let text =
        format!("kind: instance\nname: {name}\nplacement: {placement}\nspec: {{source: {{type: none}}}}\n");
    (format!("/tenants/default/desired/instances/{name}"), text)
}

fn bound(name: &str, host: &str) -> (String, String) {
    let value = format!(r#"{{"host":"{host}","epoch":1,"since":"","reason":""}}"#);
    (format!("/tenants/default/bindings/instances/{name}"), value)
}

fn desired(pairs: &[(String, String)]) -> Desired {
    let texts = pairs.iter().map(|(key, value)| StoredText {
        key: key.as_bytes(),
        value: value.as_bytes(),
        created_revision: 2,
        revision: 2,
    });
    Parser::new("").read(9, texts)
}

fn check(pairs: &[(String, String)], hosts: &Hosts, expected: &Expect) {
    let lines: String = decide(&desired(pairs), hosts)
        .into_iter()
        .map(|(key, decision)| match decision {
            Decision::Host { host, reason } => format!("{key} -> {host}: {reason}\n"),
            Decision::Nowhere(reason) => format!("{key} -> nowhere: {reason}\n"),
            Decision::Later => format!("{key}: later\n"),
        })
        .collect();
    expected.assert_eq(&lines);
}

const SPREAD: &str = "{spread: provider}";

#[test]
fn instances_of_a_group_are_kept_apart() {
    let web = |name: &str| instance(name, SPREAD);
    check(
        &[web("a"), web("b"), web("c"), web("d")],
        &three(),
        &expect![[r#"
        instance a -> ionos: provider IONOS had the fewest of its group
        instance b -> liquidweb: provider LiquidWeb had the fewest of its group
        instance c -> ovh: provider OVH had the fewest of its group
        instance d -> ionos: provider IONOS had the fewest of its group
    "#]],
    );
    // What is bound stays, and counts.
    check(
        &[
            bound("a", "ovh"),
            web("a"),
            bound("b", "ionos"),
            web("b"),
            web("c"),
        ],
        &three(),
        &expect![[r#"
        instance c -> liquidweb: provider LiquidWeb had the fewest of its group
    "#]],
    );
    // Providers first, then their hosts.
    let hosts = alive(&[("a1", "A"), ("a2", "A"), ("b1", "B")]);
    check(
        &[web("a"), web("b"), web("c"), web("d")],
        &hosts,
        &expect![[r#"
        instance a -> a1: provider A had the fewest of its group
        instance b -> b1: provider B had the fewest of its group
        instance c -> a2: provider A had the fewest of its group
        instance d -> b1: provider B had the fewest of its group
    "#]],
    );
}

#[test]
fn groups_do_not_know_each_other() {
    let of = |name: &str, group: &str| instance(name, &format!("{{spread: provider, group: {group}}}"));
    check(
        &[of("a", "web"), of("b", "db"), of("c", "web"), instance("d", "{}")],
        &three(),
        &expect![[r#"
        instance a -> ionos: provider IONOS had the fewest of its group
        instance b -> liquidweb: provider LiquidWeb had the fewest of its group
        instance c -> ovh: provider OVH had the fewest of its group
        instance d -> ionos: it had the fewest instances
    "#]],
    );
}

#[test]
fn only_hosts_that_fit_are_chosen() {
    let mut hosts = three();
    hosts.known.insert("ionos".into(), State::Silent);
    hosts.known.insert("liquidweb".into(), State::WithoutIncus);
    check(
        &[
            instance("a", SPREAD),
            instance("b", "{hosts: [ionos, liquidweb, nosuch]}"),
        ],
        &hosts,
        &expect![[r#"
            instance a -> ovh: provider OVH had the fewest of its group
            instance b -> nowhere: no host fits: ionos is not alive; the Incus of liquidweb does not answer; there is no host nosuch
        "#]],
    );
    hosts.known.insert("ionos".into(), State::Awaited);
    check(
        &[instance("a", SPREAD)],
        &hosts,
        &expect![[r#"
        instance a: later
    "#]],
    );
}

#[test]
fn what_it_needs_must_be_there_too() {
    let profile = (
        "/tenants/default/desired/profiles/web".to_owned(),
        "kind: profile\nname: web\nhosts: [ovh, ionos]\nspec: {}\n".to_owned(),
    );
    let volume = (
        "/tenants/default/desired/volumes/data".to_owned(),
        "kind: volume\nname: data\nhost: ovh\nspec: {pool: default}\n".to_owned(),
    );
    let (key, text) = instance("a", SPREAD);
    let spec = "spec: {profiles: [web], devices: {d: {type: disk, pool: default, source: data, path: /d}}, source: {type: none}}";
    let text = text.replace("spec: {source: {type: none}}", spec);
    check(
        &[profile, volume, (key.clone(), text.clone())],
        &three(),
        &expect![[r#"
        instance a -> ovh: provider OVH had the fewest of its group
    "#]],
    );
    let nowhere = (
        "/tenants/default/desired/profiles/web".to_owned(),
        "kind: profile\nname: web\nhosts: [elsewhere]\nspec: {}\n".to_owned(),
    );
    check(
        &[nowhere, (key, text)],
        &three(),
        &expect![[r#"
        instance a -> nowhere: no host fits: profile web is not for ionos; profile web is not for liquidweb; profile web is not for ovh
    "#]],
    );
}

#[test]
fn data_are_not_left_behind() {
    let held = |name: &str, by: &[&str]| {
        let mut hosts = three();
        let key = desired(&[instance(name, "{}")])
            .documents
            .into_keys()
            .next()
            .unwrap();
        hosts
            .holders
            .insert(key, by.iter().map(|host| (*host).to_owned()).collect());
        hosts
    };
    check(
        &[instance("a", "{}")],
        &held("a", &["ovh"]),
        &expect![[r#"
        instance a -> ovh: it is there already
    "#]],
    );
    check(
        &[instance("a", "{hosts: [ionos]}")],
        &held("a", &["ovh"]),
        &expect![[r#"
        instance a -> nowhere: ovh has it already, and placement.hosts does not name ovh
    "#]],
    );
    check(
        &[instance("a", "{}")],
        &held("a", &["ionos", "ovh"]),
        &expect![[r#"
        instance a -> nowhere: ionos and ovh have one each: delete all but one
    "#]],
    );
}

proptest! {
    #[test]
    fn providers_differ_by_one_at_most(
        instances in 0_usize..40,
        already in 0_usize..10,
        providers in proptest::collection::vec(1_usize..4, 1..5),
    ) {
        let names: Vec<(String, String)> = providers
            .iter()
            .enumerate()
            .flat_map(|(p, hosts)| (0..*hosts).map(move |h| (format!("h{p}-{h}"), format!("P{p}"))))
            .collect();
        let hosts = alive(&names.iter().map(|(host, provider)| (host.as_str(), provider.as_str())).collect::<Vec<_>>());
        // Some are bound by an earlier decision, the others now: together they are spread as if all at once.
        let all: Vec<_> = (0..instances).map(|i| instance(&format!("i{i:03}"), SPREAD)).collect();
        let first = decide(&desired(all.get(..already.min(instances)).unwrap_or_default()), &hosts);
        let mut pairs = all;
        for (key, decision) in first {
            if let Decision::Host { host, .. } = decision {
                pairs.push(bound(&key.name, &host));
            }
        }
        let decided = decide(&desired(&pairs), &hosts);
        let mut wanted = desired(&pairs);
        for (key, decision) in decided {
            let Decision::Host { host, .. } = decision else {
                return Err(TestCaseError::fail("every host fits"));
            };
            wanted.suppose(&key, &host);
        }
        let mut count: BTreeMap<&str, usize> = names.iter().map(|(_, provider)| (provider.as_str(), 0)).collect();
        for seen in wanted.documents.values() {
            let Text::Good(document) = &seen.text else { continue };
            let at = names.iter().find(|(host, _)| document.hosts.contains(host)).expect("a host");
            *count.get_mut(at.1.as_str()).expect("a provider") += 1;
        }
        let (least, most) = (count.values().min().unwrap(), count.values().max().unwrap());
        prop_assert!(most - least <= 1, "{count:?}");
    }
}
