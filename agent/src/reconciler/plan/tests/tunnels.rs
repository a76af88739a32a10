//! Golden plans of tunnels.

use expect_test::expect;

use super::{Host, web};
use crate::document::{TunnelSpec, key, parse};
use crate::tunnel::Open;

const DB: &str = "kind: tunnel\nname: db\nhosts: [ovh, ionos]\nspec: {listen: '127.0.0.1:5432', instance: web, port: 5432}\n";
const AT: &str = "/tenants/default/desired/tunnels/db";

impl Host {
    /// A tunnel is open as a document said, at a port that it was given if any would do.
    fn with_open(mut self, text: &str) -> Host {
        let document = parse(text).unwrap();
        let spec = TunnelSpec::of(&document).unwrap();
        let mut address = spec.listen;
        if address.port() == 0 {
            address.set_port(40_001);
        }
        self.seen
            .tunnels
            .insert(document.desired_key(), Open { spec, address });
        self
    }
}

#[test]
fn the_life_of_a_tunnel() {
    let moved = DB.replace("5432', instance", "15432', instance");
    let stages = [
        ("new", Host::new().put(14, DB)),
        ("as it should be", Host::new().put(14, DB).with_open(DB)),
        ("edited", Host::new().put(14, DB).put(20, &moved).with_open(DB)),
        (
            "on another host now",
            Host::new()
                .put(14, DB)
                .put(20, &DB.replace("ovh", "liquidweb"))
                .with_open(DB),
        ),
        (
            "wrong",
            Host::new()
                .put(14, DB)
                .put_at(AT, 20, "kind: tunnel\nname: db\nspec: {}\n")
                .with_open(DB),
        ),
        (
            "wrong from the start",
            Host::new().put_at(AT, 20, "kind: tunnel\nname: db\nspec: {}\n"),
        ),
        (
            "its document deleted",
            Host::new().put(14, DB).gone(AT).with_open(DB),
        ),
    ];
    let mut text = String::new();
    for (stage, mut host) in stages {
        text += &format!("{stage}\n{}", host.plan());
    }
    expect![[r#"
        new
        tunnel db @14: Progressing: listen
            listen 127.0.0.1:5432 -> web:5432
        as it should be
        tunnel db @14: Ready: 127.0.0.1:5432 -> web:5432, which has no document: it is looked for on all hosts
        edited
        tunnel db @20: Progressing: listen
            listen 127.0.0.1:15432 -> web:5432
        on another host now
        tunnel db @20: Progressing: close
            close
        wrong
        tunnel db @20: Invalid (line 3): spec.listen: is missing: the address of the host, as 127.0.0.1:5432 (revision 14 stays in force)
        wrong from the start
        tunnel db @20: Invalid (line 3): spec.listen: is missing: the address of the host, as 127.0.0.1:5432
        its document deleted
        tunnel db @0: Progressing: close
            close
    "#]].assert_eq(&text);
}

#[test]
fn where_it_leads() {
    let any_port = DB.replace("5432', instance", "0', instance");
    let instance = web("");
    let placed = instance.replace("host: ovh", "placement: {}");
    let said = |instances: &[&str]| {
        let mut host = Host::new().put(14, &any_port).with_open(&any_port);
        for (at, text) in instances.iter().enumerate() {
            host = host.put(20 + i64::try_from(at).unwrap(), text);
        }
        let plan = host.plan();
        plan.objects[&parse(DB).unwrap().desired_key()]
            .report
            .message
            .clone()
    };
    let elsewhere = instance.replace("host: ovh", "host: ionos");
    let stopped = instance.replace("host: ovh", "host: ovh\nrunning: false");
    let all = [
        said(&[]),
        said(&[&instance]),
        said(&[&instance, &elsewhere]),
        said(&[&stopped]),
        said(&[&placed]),
    ];
    expect![[r#"
        127.0.0.1:40001 -> web:5432, which has no document: it is looked for on all hosts
        127.0.0.1:40001 -> web:5432 on ovh
        127.0.0.1:40001 -> web:5432 on ionos
        127.0.0.1:40001 -> web:5432, which is stopped by its document
        127.0.0.1:40001 -> web:5432, which is on no host yet"#]]
    .assert_eq(&all.join("\n"));
}

#[test]
fn a_tenants_tunnel_needs_a_word_of_its_tenant() {
    let db = DB.replace("name: db", "name: db\ntenant: shop");
    let at = key(&parse(&db).unwrap());
    let shop = |allow: &str| format!("kind: tenant\nname: shop\nspec: {{allow: [{allow}]}}\n");
    let stages = [
        ("nobody said anything", Host::new().put(14, &db)),
        ("not allowed", Host::new().put(13, &shop("backups")).put(14, &db)),
        (
            "allowed",
            Host::new().put(13, &shop("devices.proxy")).put(14, &db),
        ),
        (
            "not any more",
            Host::new()
                .put(13, &shop("devices.proxy"))
                .put(14, &db)
                .put(20, &shop("backups"))
                .with_open(&db),
        ),
    ];
    let mut text = String::new();
    for (stage, mut host) in stages {
        let plan = host.plan();
        let one = &plan.objects[&crate::document::parse_desired_key(&at).unwrap()];
        text += &format!("{stage}: {} {}\n", one.report.phase, one.report.message);
        for step in &one.steps {
            text += &format!("    {step}\n");
        }
    }
    expect![[r#"
        nobody said anything: Invalid spec.listen: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.proxy under spec.allow of tenant shop
        not allowed: Invalid spec.listen: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.proxy under spec.allow of tenant shop
        allowed: Progressing listen
            listen 127.0.0.1:5432 -> web:5432
        not any more: Invalid spec.listen: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.proxy under spec.allow of tenant shop
            close
    "#]].assert_eq(&text);
}
