//! Tenants, and documents that keep to their project or do not.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::document::{canonical_spec, parse};

fn tenant(spec: &str) -> Permissions {
    Permissions::of(&parse(&format!("kind: tenant\nname: shop\nspec: {spec}\n")).unwrap())
}

/// Judges an instance with each of these lines in its spec.
fn judge(lines: &[&str], permissions: &Permissions, of: &str, expected: &Expect) {
    let mut answers = String::new();
    for line in lines {
        let text = format!(
            "kind: instance\nname: web\ntenant: {of}\nhost: ovh\nspec:\n  source: {{type: image, alias: a}}\n  {line}\n"
        );
        let document = parse(&text).unwrap_or_else(|error| panic!("{line}: {error}"));
        match check(&document, permissions) {
            Ok(()) => writeln!(answers, "{line}: fine").unwrap(),
            Err(Violation { path, message }) => {
                assert_eq!(document.line_of(&path), Some(7), "{path}");
                writeln!(answers, "{line}\n    {path}: {message}").unwrap();
            }
        }
    }
    expected.assert_eq(&answers);
}

const REACHING: [&str; 27] = [
    "config: {security.privileged: true}",
    "config: {security.privileged: On}",
    "config: {security.nesting: 1}",
    "config: {raw.lxc: lxc.mount.entry = / mnt none bind}",
    "config: {raw.qemu: -drive file=/dev/sda}",
    "config: {raw.idmap: both 0 0}",
    "config: {linux.kernel_modules: overlay}",
    "config: {linux.sysctl.net.ipv4.ip_forward: 1}",
    "config: {security.idmap.base: 0}",
    "config: {security.syscalls.intercept.mount: true}",
    "config: {security.syscalls.deny_default: false}",
    "config: {security.guestapi.images: true}",
    "config: {boot.host_shutdown_timeout: 9999}",
    "config: {nvidia.runtime: true}",
    "devices: {d: {type: disk, source: /, path: /host}}",
    "devices: {d: {type: disk, source: relative, path: /host}}",
    "devices: {d: {type: disk, source: /, pool: '', path: /host}}",
    "devices: {d: {type: disk, pool: default, source: v, path: /d, raw.mount.options: suid}}",
    "devices: {p: {type: proxy, listen: 'tcp:0.0.0.0:80', connect: 'tcp:127.0.0.1:80'}}",
    "devices: {p: {type: proxy, bind: instance, listen: 'tcp:127.0.0.1:1', connect: 'unix:/run/x'}}",
    "devices: {n: {type: nic, nictype: bridged, parent: br0}}",
    "devices: {n: {type: nic, nictype: macvlan, parent: eth0}}",
    "devices: {g: {type: gpu}}",
    "devices: {u: {type: usb, vendorid: 046d}}",
    "devices: {p: {type: pci, address: '0000:01:00.0'}}",
    "devices: {c: {type: unix-char, source: /dev/kvm}}",
    "devices: {b: {type: unix-block, source: /dev/sda}}",
];

#[test]
fn what_reaches_out_is_refused_with_the_way_out() {
    judge(
        &REACHING,
        &Permissions::default(),
        "shop",
        &expect![[r#"
        config: {security.privileged: true}
            spec.config.security.privileged: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.privilege under spec.allow of tenant shop
        config: {security.privileged: On}
            spec.config.security.privileged: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.privilege under spec.allow of tenant shop
        config: {security.nesting: 1}
            spec.config.security.nesting: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.nesting under spec.allow of tenant shop
        config: {raw.lxc: lxc.mount.entry = / mnt none bind}
            spec.config.raw.lxc: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.lowlevel under spec.allow of tenant shop
        config: {raw.qemu: -drive file=/dev/sda}
            spec.config.raw.qemu: reaches out of the project of tenant shop; who runs the cluster can allow it, with virtual-machines.lowlevel under spec.allow of tenant shop
        config: {raw.idmap: both 0 0}
            spec.config.raw.idmap: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.lowlevel under spec.allow of tenant shop
        config: {linux.kernel_modules: overlay}
            spec.config.linux.kernel_modules: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.lowlevel under spec.allow of tenant shop
        config: {linux.sysctl.net.ipv4.ip_forward: 1}
            spec.config.linux.sysctl.net.ipv4.ip_forward: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.lowlevel under spec.allow of tenant shop
        config: {security.idmap.base: 0}
            spec.config.security.idmap.base: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.lowlevel under spec.allow of tenant shop
        config: {security.syscalls.intercept.mount: true}
            spec.config.security.syscalls.intercept.mount: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.interception under spec.allow of tenant shop
        config: {security.syscalls.deny_default: false}
            spec.config.security.syscalls.deny_default: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.lowlevel under spec.allow of tenant shop
        config: {security.guestapi.images: true}
            spec.config.security.guestapi.images: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.lowlevel under spec.allow of tenant shop
        config: {boot.host_shutdown_timeout: 9999}
            spec.config.boot.host_shutdown_timeout: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.lowlevel under spec.allow of tenant shop
        config: {nvidia.runtime: true}
            spec.config.nvidia.runtime: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.gpu under spec.allow of tenant shop
        devices: {d: {type: disk, source: /, path: /host}}
            spec.devices.d.source: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.disk under spec.allow of tenant shop
        devices: {d: {type: disk, source: relative, path: /host}}
            spec.devices.d.source: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.disk under spec.allow of tenant shop
        devices: {d: {type: disk, source: /, pool: '', path: /host}}
            spec.devices.d.source: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.disk under spec.allow of tenant shop
        devices: {d: {type: disk, pool: default, source: v, path: /d, raw.mount.options: suid}}
            spec.devices.d.raw.mount.options: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.disk under spec.allow of tenant shop
        devices: {p: {type: proxy, listen: 'tcp:0.0.0.0:80', connect: 'tcp:127.0.0.1:80'}}
            spec.devices.p: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.proxy under spec.allow of tenant shop
        devices: {p: {type: proxy, bind: instance, listen: 'tcp:127.0.0.1:1', connect: 'unix:/run/x'}}
            spec.devices.p: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.proxy under spec.allow of tenant shop
        devices: {n: {type: nic, nictype: bridged, parent: br0}}
            spec.devices.n.parent: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.nic under spec.allow of tenant shop
        devices: {n: {type: nic, nictype: macvlan, parent: eth0}}
            spec.devices.n.parent: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.nic under spec.allow of tenant shop
        devices: {g: {type: gpu}}
            spec.devices.g: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.gpu under spec.allow of tenant shop
        devices: {u: {type: usb, vendorid: 046d}}
            spec.devices.u: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.usb under spec.allow of tenant shop
        devices: {p: {type: pci, address: '0000:01:00.0'}}
            spec.devices.p: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.pci under spec.allow of tenant shop
        devices: {c: {type: unix-char, source: /dev/kvm}}
            spec.devices.c: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.unix-char under spec.allow of tenant shop
        devices: {b: {type: unix-block, source: /dev/sda}}
            spec.devices.b: reaches out of the project of tenant shop; who runs the cluster can allow it, with devices.unix-block under spec.allow of tenant shop
    "#]],
    );
}

#[test]
fn what_stays_within_is_not() {
    judge(
        &[
            "config: {limits.memory: 1GiB, user.a: b, environment.A: b, boot.autostart: true}",
            "config: {security.privileged: false, security.nesting: 'no'}",
            "config: {security.syscalls.intercept.mount: false}",
            "config: {cloud-init.user-data: '#cloud-config'}",
            "devices: {root: {type: disk, path: /, pool: default, size: 1GiB}}",
            "devices: {d: {type: disk, pool: default, source: data, path: /data}}",
            "devices: {c: {type: disk, source: 'cloud-init:config'}}",
            "devices: {n: {type: nic, network: incusbr0}}",
            "devices: {n: {type: none}}",
            "devices: {t: {type: tpm, path: /dev/tpm0}}",
        ],
        &Permissions::default(),
        "shop",
        &expect![[r#"
            config: {limits.memory: 1GiB, user.a: b, environment.A: b, boot.autostart: true}: fine
            config: {security.privileged: false, security.nesting: 'no'}: fine
            config: {security.syscalls.intercept.mount: false}: fine
            config: {cloud-init.user-data: '#cloud-config'}: fine
            devices: {root: {type: disk, path: /, pool: default, size: 1GiB}}: fine
            devices: {d: {type: disk, pool: default, source: data, path: /data}}: fine
            devices: {c: {type: disk, source: 'cloud-init:config'}}: fine
            devices: {n: {type: nic, network: incusbr0}}: fine
            devices: {n: {type: none}}: fine
            devices: {t: {type: tpm, path: /dev/tpm0}}: fine
        "#]],
    );
}

#[test]
fn what_is_allowed_is_allowed_and_no_more() {
    judge(
        &[
            "config: {security.nesting: true}",
            "config: {security.privileged: true}",
            "devices: {g: {type: gpu}}",
        ],
        &tenant("{allow: [containers.nesting, devices.gpu]}"),
        "shop",
        &expect![[r#"
            config: {security.nesting: true}: fine
            config: {security.privileged: true}
                spec.config.security.privileged: reaches out of the project of tenant shop; who runs the cluster can allow it, with containers.privilege under spec.allow of tenant shop
            devices: {g: {type: gpu}}: fine
        "#]],
    );
    judge(
        &[
            "devices: {n: {type: nic, network: shopnet}}",
            "devices: {n: {type: nic, network: incusbr0}}",
        ],
        &tenant("{networks: [shopnet]}"),
        "shop",
        &expect![[r#"
            devices: {n: {type: nic, network: shopnet}}: fine
            devices: {n: {type: nic, network: incusbr0}}
                spec.devices.n.network: is no network of tenant shop; who runs the cluster can add it under spec.networks of tenant shop
        "#]],
    );
    let all = tenant(&format!("{{allow: [{}]}}", ALLOWABLE.join(", ")));
    for line in REACHING {
        let text = format!(
            "kind: instance\nname: web\ntenant: shop\nhost: ovh\nspec:\n  source: {{type: image, alias: a}}\n  {line}\n"
        );
        assert_eq!(check(&parse(&text).unwrap(), &all), Ok(()), "{line}");
    }
}

#[test]
fn the_operators_own_documents_are_not_judged() {
    let lines = ["config: {security.privileged: true}", "devices: {g: {type: gpu}}"];
    judge(
        &lines,
        &Permissions::default(),
        "default",
        &expect![[r#"
        config: {security.privileged: true}: fine
        devices: {g: {type: gpu}}: fine
    "#]],
    );
}

#[test]
fn another_tenants_instance_is_no_source() {
    let text = |project: &str| {
        format!(
            "kind: instance\nname: web\ntenant: shop\nhost: ovh\nspec:\n  source: {{type: copy, source: db{project}}}\n"
        )
    };
    let judge = |project: &str| check(&parse(&text(project)).unwrap(), &Permissions::default());
    assert_eq!(judge(""), Ok(()));
    assert_eq!(judge(", project: shop"), Ok(()));
    assert_eq!(
        judge(", project: default").unwrap_err().path,
        "spec.source.project"
    );
}

#[test]
fn an_image_comes_from_no_file_of_the_host() {
    let text = "kind: image\nname: i\ntenant: shop\nspec: {source: {type: file, path: /etc/shadow}}\n";
    let image = parse(text).unwrap();
    assert_eq!(
        check(&image, &Permissions::default()).unwrap_err().path,
        "spec.source.path"
    );
    assert_eq!(check(&image, &tenant("{allow: [devices.disk]}")), Ok(()));
    let text = text.replace(
        "type: file, path: /etc/shadow",
        "type: url, url: 'https://images.example/i'",
    );
    assert_eq!(check(&parse(&text).unwrap(), &Permissions::default()), Ok(()));
}

#[test]
fn a_profile_is_judged_as_an_instance_is() {
    let text = "kind: profile\nname: p\ntenant: shop\nspec: {config: {security.privileged: true}}\n";
    let violation = check(&parse(text).unwrap(), &Permissions::default()).unwrap_err();
    assert_eq!(violation.path, "spec.config.security.privileged");
}

/// Its address is the host's, and what listens there is the agent.
#[test]
fn a_tunnel_is_judged_as_a_proxy_is() {
    let text =
        "kind: tunnel\nname: db\ntenant: shop\nspec: {listen: '127.0.0.1:5432', instance: db, port: 5432}\n";
    let document = parse(text).unwrap();
    let violation = check(&document, &Permissions::default()).unwrap_err();
    assert_eq!(violation.path, "spec.listen");
    assert!(
        violation
            .message
            .contains("with devices.proxy under spec.allow of tenant shop"),
        "{violation:?}"
    );
    assert_eq!(check(&document, &tenant("{allow: [devices.proxy]}")), Ok(()));
    let own = parse(&text.replace("tenant: shop", "tenant: default")).unwrap();
    assert_eq!(check(&own, &Permissions::default()), Ok(()));
}

#[test]
fn a_tenant_makes_a_restricted_project() {
    let text = "kind: tenant\nname: shop\nhosts: [ovh]\nspec:\n  description: The shop\n  limits: {instances: 5, memory: 4GiB}\n  \
                allow: [containers.nesting]\n  networks: [shopnet, incusbr0]\n";
    let document = parse(text).unwrap();
    let part = &document.parts[0];
    assert_eq!(
        (part.kind.singular(), part.name.as_str(), &part.hosts),
        ("project", "shop", &document.hosts)
    );
    expect![[r#"{"config":{"features.images":"true","features.networks":"false","features.profiles":"true","features.storage.buckets":"true","features.storage.volumes":"true","limits.instances":"5","limits.memory":"4GiB","restricted":"true","restricted.containers.nesting":"allow","restricted.networks.access":"incusbr0,shopnet","restricted.snapshots":"allow"},"description":"The shop"}"#]].assert_eq(&canonical_spec(&part.spec));
}

#[test]
fn a_tenant_that_is_wrong_is_told_so() {
    let answers: Vec<String> = [
        "name: shop\nspec: {limit: {}}",
        "name: shop\nspec: {limits: {memroy: 1GiB}}",
        "name: shop\nspec: {limits: {colour: 1GiB}}",
        "name: shop\nspec: {limits: {memory: [1]}}",
        "name: shop\nspec: {allow: containers.nesting}",
        "name: shop\nspec: {allow: [containers.nest]}",
        "name: shop\nspec: {allow: [devices.gpu, devices.gpu]}",
        "name: shop\nspec: {networks: ['a,b']}",
        "name: default\nspec: {}",
        "name: a_b\nspec: {}",
        "name: shop\ntenant: shop\nspec: {}",
    ]
    .map(|text| parse(&format!("kind: tenant\n{text}\n")).unwrap_err().to_string())
    .into();
    expect![[r#"
        3: spec.limit: no such field for kind tenant; did you mean limits?
        3: spec.limits.memroy: no such limit; did you mean memory?
        3: spec.limits.colour: no such limit; there are containers, cpu, disk, instances, memory, networks, processes, virtual-machines
        3: spec.limits.memory: expected a word, found a list
        3: spec.allow: expected a list, found "containers.nesting"
        3: spec.allow[0]: is one of backups, containers.interception, containers.lowlevel, containers.nesting, containers.privilege, devices.disk, devices.gpu, devices.infiniband, devices.nic, devices.pci, devices.proxy, devices.unix-block, devices.unix-char, devices.unix-hotplug, devices.usb, virtual-machines.lowlevel, found "containers.nest"; did you mean containers.nesting?
        3: spec.allow[1]: devices.gpu stands here twice
        3: spec.networks[0]: expected a name, found "a,b"
        2: name: is not default: that tenant is who runs the cluster
        2: name: a project's name has no underscore
        3: tenant: a tenant belongs to the cluster, not to a tenant"#]].assert_eq(&answers.join("\n"));
}
