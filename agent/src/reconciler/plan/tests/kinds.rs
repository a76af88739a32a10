//! Golden plans of the kinds that instances stand on: a new object, one that was edited, drift by hand, and deletion.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{Host, applied};
use crate::document::{Kind, key, parse};

/// The documents of a kind in force, and what became of its object.
struct Life<'a> {
    first: &'a str,
    edited: &'a str,
    kind: Kind,
    /// What Incus shows beside what was set.
    shown: Value,
    /// What somebody changed by hand.
    drift: Value,
}

impl Life<'_> {
    fn shown(&self) -> Value {
        applied(self.first, 14, self.shown.clone())
    }

    fn drifted(&self) -> Value {
        let mut object = self.shown();
        super::lay_over(&mut object, self.drift.clone());
        object
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value at each use")]
    fn check(self, expected: Expect) {
        let at = key(&parse(self.first).unwrap());
        let host = || Host::new().with_what_it_needs(self.kind);
        let stages = [
            ("new", host().put(14, self.first)),
            (
                "as it should be",
                host().put(14, self.first).with(self.kind, self.shown()),
            ),
            (
                "edited",
                host()
                    .put(14, self.first)
                    .put(20, self.edited)
                    .with(self.kind, self.shown()),
            ),
            (
                "changed by hand",
                host().put(14, self.first).with(self.kind, self.drifted()),
            ),
            (
                "its document deleted",
                host().put(14, self.first).gone(&at).with(self.kind, self.shown()),
            ),
        ];
        let mut text = String::new();
        for (stage, mut host) in stages {
            text += &format!("{stage}\n{}", host.plan());
        }
        expected.assert_eq(&text);
    }
}

impl Host {
    fn with_what_it_needs(self, kind: Kind) -> Host {
        match kind {
            Kind::NetworkForward => self.with(
                Kind::Network,
                json!({"name": "br0", "type": "bridge", "managed": true, "config": {}}),
            ),
            Kind::Volume => self.with(
                Kind::StoragePool,
                json!({"name": "fast", "driver": "dir", "config": {}}),
            ),
            _ => self,
        }
    }
}

#[test]
fn the_server() {
    Life {
        kind: Kind::Incus,
        first: "kind: incus\nname: default\nspec: {config: {core.https_address: '[::]:8443'}}\n",
        edited: "kind: incus\nname: default\nspec: {config: {images.auto_update_interval: 0}}\n",
        shown: json!({"name": null, "config": {"user.theirs": "1"}}),
        drift: json!({"config": {"core.https_address": ":1"}}),
    }
    .check(expect![[r#"
        new
        incus default @14: Progressing: change
            config.core.https_address: (unset) -> [::]:8443
            mark revision 14
        as it should be
        incus default @14: Ready
        edited
        incus default @20: Progressing: change
            config.core.https_address: [::]:8443 -> (unset)
            config.images.auto_update_interval: (unset) -> 0
            mark revision 20
        changed by hand
        incus default @14: Progressing: change
            config.core.https_address: :1 -> [::]:8443
        its document deleted
        incus default @0: Progressing: change
            config.core.https_address: [::]:8443 -> (unset)
            release
    "#]]);
}

#[test]
fn a_storage_pool_is_kept_when_its_document_goes() {
    Life {
        kind: Kind::StoragePool,
        first: "kind: storage-pool\nname: fast\nspec: {driver: zfs, config: {source: /dev/sdb, rsync.bwlimit: 10MB}}\n",
        edited: "kind: storage-pool\nname: fast\nspec: {driver: btrfs, config: {source: /dev/sdb}}\n",
        // The driver says its own name for what it was given.
        shown: json!({"config": {"source": "fast", "zfs.pool_name": "fast", "volatile.initial_source": "/dev/sdb"}}),
        drift: json!({"config": {"rsync.bwlimit": "1MB"}}),
    }
    .check(expect![[r#"
        new
        storage-pool fast @14: Progressing: create
            create {"driver":"zfs","config":{"source":"/dev/sdb","rsync.bwlimit":"10MB"},"name":"fast"}
        as it should be
        storage-pool fast @14: Ready
        edited
        storage-pool fast @20: Failed (line 3): spec.driver changes: needs rebuild, and lifecycle.update is live: not applied
        changed by hand
        storage-pool fast @14: Progressing: change
            config.rsync.bwlimit: 1MB -> 10MB
        its document deleted
        storage-pool fast @0: Progressing: change
            release
    "#]]);
}

#[test]
fn a_network_acl() {
    Life {
        kind: Kind::NetworkAcl,
        first: "kind: network-acl\nname: web\nspec:\n  ingress:\n  - {action: allow, state: enabled, protocol: tcp, destination_port: 80}\n",
        edited: "kind: network-acl\nname: web\nspec:\n  ingress:\n  - {action: allow, state: enabled, protocol: tcp, destination_port: 443}\n",
        shown: json!({"egress": [], "used_by": ["/1.0/networks/br0"]}),
        drift: json!({"ingress": []}),
    }
    .check(expect![[r#"
        new
        network-acl web @14: Progressing: create
            create {"ingress":[{"action":"allow","state":"enabled","protocol":"tcp","destination_port":"80"}],"name":"web","config":{}}
        as it should be
        network-acl web @14: Ready
        edited
        network-acl web @20: Progressing: change
            ingress: [{"action":"allow","state":"enabled","protocol":"tcp","destination_port":"80"}] -> [{"action":"allow","state":"enabled","protocol":"tcp","destination_port":"443"}]
            mark revision 20
        changed by hand
        network-acl web @14: Progressing: change
            ingress: [] -> [{"action":"allow","state":"enabled","protocol":"tcp","destination_port":"80"}]
        its document deleted
        network-acl web @0: Pending: deleted once networks/br0 is gone from it
    "#]]);
}

#[test]
fn a_network() {
    Life {
        kind: Kind::Network,
        first: "kind: network\nname: br0\nspec: {config: {ipv4.address: auto, ipv4.nat: true, ipv6.address: none}}\n",
        edited: "kind: network\nname: br0\nspec: {config: {ipv4.address: 10.1.0.1/24, ipv6.address: none}}\n",
        shown: json!({"type": "bridge", "managed": true, "config": {"ipv4.address": "10.99.3.1/24", "volatile.bridge.hwaddr": "x"}}),
        drift: json!({"config": {"ipv4.nat": "false", "ipv6.address": "auto"}}),
    }
    .check(expect![[r#"
        new
        network br0 @14: Progressing: create
            create {"config":{"ipv4.address":"auto","ipv4.nat":"true","ipv6.address":"none"},"name":"br0"}
        as it should be
        network br0 @14: Ready
        edited
        network br0 @20: Progressing: change
            config.ipv4.address: 10.99.3.1/24 -> 10.1.0.1/24
            config.ipv4.nat: true -> (unset)
            mark revision 20
        changed by hand
        network br0 @14: Progressing: change
            config.ipv4.nat: false -> true
            config.ipv6.address: auto -> none
        its document deleted
        network br0 @0: Progressing: delete
            delete network/br0@14
    "#]]);
}

#[test]
fn a_network_forward() {
    Life {
        kind: Kind::NetworkForward,
        first: "kind: network-forward\nname: web\nspec:\n  network: br0\n  listen_address: 192.0.2.1\n  ports:\n  - {protocol: tcp, listen_port: 80, target_address: 10.1.0.2}\n",
        edited: "kind: network-forward\nname: web\nspec:\n  network: br0\n  listen_address: 192.0.2.9\n",
        shown: json!({"name": null, "ports": [{"protocol": "tcp", "listen_port": "80", "target_address": "10.1.0.2", "target_port": "", "description": ""}]}),
        drift: json!({"ports": []}),
    }
    .check(expect![[r#"
        new
        network-forward web @14: Progressing: create
            create {"network":"br0","listen_address":"192.0.2.1","ports":[{"protocol":"tcp","listen_port":"80","target_address":"10.1.0.2"}],"config":{}}
        as it should be
        network-forward web @14: Ready
        edited
        network-forward web @20: Failed (line 5): spec.listen_address changes: needs rebuild, and lifecycle.update is live: not applied
        changed by hand
        network-forward web @14: Progressing: change
            ports: [] -> [{"protocol":"tcp","listen_port":"80","target_address":"10.1.0.2"}]
        its document deleted
        network-forward web @0: Progressing: delete
            delete network-forward/web@14
    "#]]);
}

#[test]
fn a_volume_is_kept_when_its_document_goes() {
    Life {
        kind: Kind::Volume,
        first: "kind: volume\nname: data\nspec: {pool: fast, config: {size: 10GiB}}\n",
        edited: "kind: volume\nname: data\nspec: {pool: default, config: {size: 20GiB}}\n",
        shown: json!({"content_type": "filesystem", "config": {"size": "10240MiB"}}),
        drift: json!({"config": {"size": "1GiB"}}),
    }
    .check(expect![[r#"
        new
        volume data @14: Progressing: create
            create {"pool":"fast","config":{"size":"10GiB"},"name":"data"}
        as it should be
        volume data @14: Ready
        edited
        volume data @20: Failed (line 3): spec.pool changes: needs rebuild, and lifecycle.update is live: not applied
        changed by hand
        volume data @14: Progressing: change
            config.size: 1GiB -> 10GiB
        its document deleted
        volume data @0: Progressing: change
            release
    "#]]);
}

#[test]
fn an_image() {
    Life {
        kind: Kind::Image,
        first: "kind: image\nname: web\nspec:\n  alias: web/1\n  source: {type: image, server: https://images.example, alias: debian/12}\n",
        edited: "kind: image\nname: web\nspec:\n  alias: web/2\n  auto_update: true\n  source: {type: image, server: https://images.example, alias: debian/12}\n",
        shown: json!({"properties": {"os": "Debian"}, "auto_update": false, "public": false}),
        drift: json!({"aliases": []}),
    }
    .check(expect![[r#"
        new
        image web @14: Progressing: create
            create {"source":{"type":"image","server":"https://images.example","alias":"debian/12","mode":"pull","protocol":"simplestreams"},"aliases":[{"name":"web/1"}],"properties":{}}
        as it should be
        image web @14: Ready
        edited
        image web @20: Progressing: change
            auto_update: false -> true
            alias web/1: remove
            alias web/2: add
            mark revision 20
        changed by hand
        image web @14: Progressing: change
            alias web/1: add
        its document deleted
        image web @0: Progressing: delete
            delete image/default/web@14
    "#]]);
}

#[test]
fn an_image_from_elsewhere_replaces_the_one_before() {
    let text = |alias: &str| {
        format!(
            "kind: image\nname: web\nspec:\n  source: {{type: image, server: https://images.example, alias: {alias}}}\n"
        )
    };
    let before = applied(&text("debian/12"), 14, json!({}));
    Host::new()
        .put(14, &text("debian/12"))
        .put(20, &text("debian/13"))
        .with(Kind::Image, before)
        .check(expect![[r#"
            image web @20: Progressing: delete, create
                delete image/default/web@14
                create {"source":{"type":"image","server":"https://images.example","alias":"debian/13","mode":"pull","protocol":"simplestreams"},"aliases":[{"name":"web"}],"properties":{}}
        "#]]);
}

/// One document of everything: each part is an object of its own, and what comes later waits.
#[test]
fn a_preseed_is_many_documents() {
    let preseed = "\
kind: incus
name: default
spec:
  config: {core.https_address: ':8443'}
  storage_pools:
  - {name: fast, driver: dir}
  networks:
  - {name: br0, type: bridge, config: {ipv4.address: 10.1.0.1/24}}
  projects:
  - {name: t1, config: {features.profiles: true}}
  profiles:
  - name: web
    project: t1
    devices:
      root: {type: disk, path: /, pool: fast}
      eth0: {type: nic, network: br0}
  storage_volumes:
  - {name: data, pool: fast, type: custom}
perHost:
  ovh: {config: {core.https_address: ':9443'}}
  ionos: {config: {core.https_address: ':7443'}}
";
    Host::new().put(14, preseed).check(expect![[r#"
        incus default @14: Progressing: change
            config.core.https_address: (unset) -> :9443
            mark revision 14
        storage-pool fast @14: Progressing: create
            create {"driver":"dir","name":"fast","config":{}}
        network br0 @14: Progressing: create
            create {"type":"bridge","config":{"ipv4.address":"10.1.0.1/24"},"name":"br0"}
        project t1 @14: Progressing: create
            create {"config":{"features.profiles":"true"},"name":"t1"}
        profile t1/web @14: Pending: waits for storage-pool fast
        volume data @14: Pending: waits for storage-pool fast
    "#]]);
}

#[test]
fn a_document_of_its_own_stands_before_a_part() {
    let preseed = "kind: incus\nname: default\nspec: {networks: [{name: br0, config: {ipv4.nat: true}}]}\n";
    let own = "kind: network\nname: br0\nspec: {config: {ipv4.nat: false}}\n";
    Host::new().put(14, preseed).put(15, own).check(expect![[r#"
        incus default @14: Progressing: change
            mark revision 14
        network br0 @15: Progressing: create
            create {"config":{"ipv4.nat":"false"},"name":"br0"}
    "#]]);
}

#[test]
fn what_a_document_names_must_be_there_or_promised() {
    let volume = "kind: volume\nname: data\nspec: {pool: fast}\n";
    let profile = "kind: profile\nname: web\nspec:\n  devices:\n    eth0: {type: nic, network: br0}\n    data: {type: disk, pool: fast, source: data, path: /srv}\n";
    Host::new().put(14, volume).put(15, profile).check(expect![[r#"
        profile web @15: Invalid (line 5): spec.devices.eth0.network: no network br0 on ovh
        volume data @14: Invalid (line 3): spec.pool: no storage-pool fast on ovh; put a document that makes it, or name another
    "#]]);
    let pool = "kind: storage-pool\nname: fast\nspec: {driver: dir}\n";
    let network = "kind: network\nname: br0\nspec: {config: {security.acls: 'web,db'}}\n";
    Host::new().put(17, network).check(expect![[r#"
        network br0 @17: Invalid (line 3): spec.config.security.acls: no network-acl web on ovh
    "#]]);
    let network = "kind: network\nname: br0\nspec: {}\n";
    Host::new()
        .put(14, volume)
        .put(15, profile)
        .put(16, pool)
        .put(17, network)
        .check(expect![[r#"
            storage-pool fast @16: Progressing: create
                create {"driver":"dir","name":"fast","config":{}}
            network br0 @17: Progressing: create
                create {"name":"br0","config":{}}
            profile web @15: Pending: waits for network br0
            volume data @14: Pending: waits for storage-pool fast
        "#]]);
}

#[test]
fn an_instance_waits_for_the_image_that_a_document_brings() {
    let image = "kind: image\nname: web\nspec: {source: {type: url, url: https://images.example/web.tar}}\n";
    let instance = "kind: instance\nname: web\nhost: ovh\nspec: {source: {type: image, alias: web}}\n";
    Host::new().put(14, image).put(15, instance).check(expect![[r#"
        image web @14: Progressing: create
            create {"source":{"type":"url","url":"https://images.example/web.tar"},"aliases":[{"name":"web"}],"properties":{}}
        instance web @15: Pending: waits for image web
    "#]]);
}

#[test]
fn an_interface_of_the_host_is_no_network_of_ours() {
    let network = "kind: network\nname: eth0\nspec: {}\n";
    Host::new()
        .put(14, network)
        .with(
            Kind::Network,
            json!({"name": "eth0", "type": "physical", "managed": false, "config": {}}),
        )
        .check(expect![[r#"
            network eth0 @14: Conflict: one of this name is here already and is not ours; it is not touched
        "#]]);
}

/// Incus shows a network as soon as it begins to make it.
#[test]
fn what_is_being_made_is_waited_for() {
    let network = "kind: network\nname: br0\nspec: {}\n";
    let profile = "kind: profile\nname: web\nspec: {devices: {eth0: {type: nic, network: br0}}}\n";
    Host::new()
        .put(14, network)
        .put(15, profile)
        .with(
            Kind::Network,
            applied(network, 14, json!({"type": "bridge", "managed": true})),
        )
        .busy_with("/cluster/desired/networks/br0")
        .check(expect![[r#"
            network br0 @14: Ready
            profile web @15: Pending: waits for network br0
        "#]]);
}
