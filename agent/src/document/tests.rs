//! Documents as people write them, right and wrong. Golden files are rewritten by `UPDATE_EXPECT=1`.

use std::fmt::Write as _;

use expect_test::{expect, expect_file};

use super::*;

/// An instance's document with one line replaced or added.
fn instance(lines: &str) -> String {
    format!(
        "kind: instance\nname: web\nhost: ovh\n{lines}\nspec:\n  source: {{type: image, alias: busybox}}\n"
    )
}

fn instance_spec(lines: &str) -> String {
    format!(
        "kind: instance\nname: web\nhost: ovh\nspec:\n  source: {{type: image, alias: busybox}}\n{lines}\n"
    )
}

#[test]
fn a_document_is_read_in_full() {
    let text = "\
kind: instance
name: web
tenant: t1
placement: {hosts: [ovh], spread: provider, failover: manual}
running: false
lifecycle: {protect: true, deletion: retain, update: restart, managed: existence}
spec:
  type: virtual-machine
  description: the web
  architecture: x86_64
  ephemeral: true
  profiles: [default, web]
  config: {limits.memory: 256MiB, limits.cpu: 2, user.version: 1.10, user.on: yes, security.secureboot: false}
  devices:
    root: {type: disk, path: /, pool: default, size: 010GiB}
  source: {type: image, alias: debian/12, properties: {os: debian}}
";
    let document = parse(text).unwrap();
    expect![[r#"{"kind":"instance","lifecycle":{"deletion":"retain","managed":"existence","protect":true,"update":"restart"},"name":"web","placement":{"failover":"manual","hosts":["ovh"],"spread":"provider"},"running":false,"spec":{"architecture":"x86_64","config":{"limits.cpu":"2","limits.memory":"256MiB","security.secureboot":"false","user.on":"yes","user.version":"1.10"},"description":"the web","devices":{"root":{"path":"/","pool":"default","size":"010GiB","type":"disk"}},"ephemeral":true,"profiles":["default","web"],"source":{"alias":"debian/12","properties":{"os":"debian"},"type":"image"},"type":"virtual-machine"},"tenant":"t1"}"#]]
    .assert_eq(&canonical_text(&document));
    assert_eq!(key(&document), "/tenants/t1/desired/instances/web");
    assert_eq!(document.line_of("spec.profiles[1]"), Some(12));
    assert_eq!(document.line_of("spec.config.no.such"), Some(13));
    assert_eq!(document.line_of("nowhere"), None);
}

#[test]
fn canonical_text_parses_back_to_itself() {
    for text in [
        instance("running: false"),
        "kind: profile\nname: web\nhosts: [ovh, ionos]\nspec: {}\n".to_owned(),
        "kind: instance\nname: web\nplacement: {hosts: [ovh, ionos], spread: provider, group: web, failover: manual}\nspec: {source: {type: none}}\n".to_owned(),
        "kind: instance\nname: web\nplacement: {}\nspec: {source: {type: none}}\n".to_owned(),
        "kind: project\nname: t1\nspec: {config: {limits.instances: 5}}\n".to_owned(),
    ] {
        let canonical = canonical_text(&parse(&text).unwrap());
        assert_eq!(canonical_text(&parse(&canonical).unwrap()), canonical);
    }
}

#[test]
fn anchors_are_filled_in() {
    let text = "\
kind: profile
name: web
spec:
  config: {user.a: &v '1', user.b: *v}
";
    let document = parse(text).unwrap();
    assert_eq!(
        canonical_spec(&document.spec),
        r#"{"config":{"user.a":"1","user.b":"1"}}"#
    );
}

#[test]
fn a_host_has_its_own_version_of_a_document() {
    let text = "\
kind: network
name: br0
spec:
  type: bridge
  config: {ipv4.address: 10.0.0.1/24, ipv4.nat: true}
perHost:
  ionos: {config: {ipv4.address: 10.1.0.1/24}}
";
    let document = parse(text).unwrap();
    let on = |host: &str| canonical_spec(&document.on_host(host).spec);
    assert_eq!(
        on("ovh"),
        r#"{"config":{"ipv4.address":"10.0.0.1/24","ipv4.nat":"true"},"type":"bridge"}"#
    );
    assert_eq!(
        on("ionos"),
        r#"{"config":{"ipv4.address":"10.1.0.1/24","ipv4.nat":"true"},"type":"bridge"}"#
    );
    assert_eq!(
        document.on_host("ionos").line_of("spec.config.ipv4.address"),
        Some(7)
    );
    let again = parse(&canonical_text(&document)).unwrap();
    assert_eq!(canonical_text(&again), canonical_text(&document));
    assert_eq!(canonical_spec(&again.on_host("ionos").spec), on("ionos"));
}

/// Every way to be wrong that a text alone can show, and the answer.
#[test]
fn a_mistake_is_answered_where_it_was_made() {
    let cases: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("only a comment", "# nothing\n".into()),
        ("bad yaml", "kind: instance\nname: [web\nhost: ovh\n".into()),
        ("bad indentation", "kind: instance\n  name: web\n".into()),
        ("tab", "kind: instance\n\tname: web\n".into()),
        ("bad json", "{\"kind\": \"instance\", \"name\": }".into()),
        ("a list", "- kind: instance\n".into()),
        ("a word", "instance\n".into()),
        (
            "two documents",
            "kind: profile\nname: a\nspec: {}\n---\nkind: profile\n".into(),
        ),
        (
            "a field twice",
            "kind: profile\nname: a\nname: b\nspec: {}\n".into(),
        ),
        ("a tag", "kind: profile\nname: !env NAME\nspec: {}\n".into()),
        ("a merge key", "kind: profile\nname: a\nspec:\n  <<: {}\n".into()),
        ("an unknown alias", "kind: profile\nname: *a\nspec: {}\n".into()),
        ("no kind", "name: web\n".into()),
        ("unknown kind", "kind: instanse\nname: web\n".into()),
        ("far kind", "kind: pod\nname: web\n".into()),
        ("plural kind", "kind: instances\nname: web\n".into()),
        ("no name", "kind: instance\nhost: ovh\n".into()),
        ("no host", "kind: instance\nname: web\nspec: {}\n".into()),
        ("no spec", "kind: profile\nname: web\n".into()),
        ("unknown field", instance("runing: true")),
        ("far field", instance("colour: red")),
        (
            "name with a dot",
            "kind: instance\nname: web.1\nhost: a\nspec: {}\n".into(),
        ),
        (
            "name a number",
            "kind: instance\nname: 1234\nhost: a\nspec: {}\n".into(),
        ),
        ("name with a slash", "kind: profile\nname: a/b\nspec: {}\n".into()),
        ("a second incus", "kind: incus\nname: other\nspec: {}\n".into()),
        ("a long network", "kind: network\nname: a-bridge-of-mine\nspec: {}\n".into()),
        (
            "a slip in a network",
            "kind: network\nname: br0\nspec:\n  config: {ipv4.adress: auto}\n".into(),
        ),
        ("a pool without a driver", "kind: storage-pool\nname: fast\nspec: {}\n".into()),
        (
            "a forward without an address",
            "kind: network-forward\nname: web\nspec: {network: br0}\n".into(),
        ),
        (
            "a rule without a state",
            "kind: network-acl\nname: web\nspec:\n  ingress:\n  - {action: allow}\n".into(),
        ),
        (
            "a rule of no field",
            "kind: network-acl\nname: web\nspec:\n  ingress:\n  - {action: allow, state: enabled, port: 80}\n".into(),
        ),
        ("an image from nowhere", "kind: image\nname: web\nspec:\n  source: {type: image, alias: a}\n".into()),
        (
            "an image of a path of nowhere",
            "kind: image\nname: web\nspec:\n  source: {type: file, path: web.tar}\n".into(),
        ),
        (
            "our words on an image",
            "kind: image\nname: web\nspec:\n  properties: {user.agent.uid: 1}\n  source: {type: url, url: u}\n".into(),
        ),
        (
            "a mistake in a preseed",
            "kind: incus\nname: default\nspec:\n  networks:\n  - name: br0\n    config:\n      ipv4.adress: auto\n".into(),
        ),
        (
            "a nameless part",
            "kind: incus\nname: default\nspec:\n  profiles:\n  - {config: {}}\n".into(),
        ),
        (
            "a part twice",
            "kind: incus\nname: default\nspec:\n  projects:\n  - {name: a}\n  - {name: a}\n".into(),
        ),
        (
            "a network of a project",
            "kind: incus\nname: default\nspec:\n  networks:\n  - {name: br0, project: t1}\n".into(),
        ),
        (
            "an overlay of another host",
            "kind: network\nname: br0\nhosts: [ovh]\nspec: {}\nperHost:\n  ionos: {}\n".into(),
        ),
        (
            "a mistake in an overlay",
            "kind: network\nname: br0\nspec: {}\nperHost:\n  ionos:\n    config: {ipv4.adress: auto}\n".into(),
        ),
        (
            "an instance differs nowhere",
            "kind: instance\nname: web\nhost: ovh\nspec: {source: {type: none}}\nperHost: {}\n".into(),
        ),
        (
            "project with an underscore",
            "kind: project\nname: a_b\nspec: {}\n".into(),
        ),
        (
            "project with a tenant",
            "kind: project\nname: a\ntenant: a\nspec: {}\n".into(),
        ),
        (
            "host a map",
            "kind: profile\nname: a\nhost: {a: b}\nspec: {}\n".into(),
        ),
        (
            "host and hosts",
            "kind: profile\nname: a\nhost: a\nhosts: [a]\nspec: {}\n".into(),
        ),
        ("no hosts", "kind: profile\nname: a\nhosts: []\nspec: {}\n".into()),
        (
            "a host twice",
            "kind: profile\nname: a\nhosts: [a, a]\nspec: {}\n".into(),
        ),
        (
            "two hosts",
            "kind: instance\nname: a\nhosts: [a, b]\nspec: {}\n".into(),
        ),
        (
            "placement",
            "kind: profile\nname: a\nplacement: {hosts: [a, b]}\nspec: {}\n".into(),
        ),
        (
            "a group of none",
            "kind: instance\nname: a\nplacement: {hosts: [a], group: web}\nspec: {}\n".into(),
        ),
        (
            "failover",
            "kind: instance\nname: a\nplacement: {hosts: [a], failover: always}\nspec: {}\n".into(),
        ),
        (
            "started by Incus, though fenced",
            "kind: instance\nname: a\nplacement: {failover: fenced}\nspec:\n  config: {boot.autostart: true}\n  source: {type: none}\n".into(),
        ),
        (
            "spread",
            "kind: instance\nname: a\nplacement: {hosts: [a], spread: rack}\nspec: {}\n".into(),
        ),
        ("running a word", instance("running: yes")),
        ("running quoted", instance("running: 'true'")),
        (
            "a profile runs",
            "kind: profile\nname: a\nrunning: true\nspec: {}\n".into(),
        ),
        ("lifecycle field", instance("lifecycle: {protected: true}")),
        ("lifecycle word", instance("lifecycle: {update: restarts}")),
        ("lifecycle type", instance("lifecycle: [protect]")),
        (
            "config key",
            instance_spec("  config:\n    limits.cpu: 2\n    limits.memroy: 256MiB"),
        ),
        (
            "config namespace",
            instance_spec("  config: {enviroment.PATH: /bin}"),
        ),
        ("config unknown", instance_spec("  config: {colour: red}")),
        ("config volatile", instance_spec("  config: {volatile.uuid: a}")),
        ("config ownership", instance_spec("  config: {user.agent.uid: a}")),
        (
            "config value a map",
            instance_spec("  config: {limits: {memory: 256MiB}}"),
        ),
        ("config value a list", instance_spec("  config: {user.a: [1]}")),
        (
            "config value missing",
            instance_spec("  config:\n    limits.memory:"),
        ),
        ("config a list", instance_spec("  config: [limits.memory]")),
        (
            "project key",
            "kind: project\nname: a\nspec: {config: {feature.images: true}}\n".into(),
        ),
        ("spec field", instance_spec("  device: {}")),
        (
            "profile field",
            "kind: profile\nname: a\nspec: {profiles: [b]}\n".into(),
        ),
        ("spec a list", "kind: profile\nname: a\nspec: []\n".into()),
        ("type", instance_spec("  type: virtual_machine")),
        (
            "no device type",
            instance_spec("  devices: {eth0: {network: br}}"),
        ),
        ("device type", instance_spec("  devices: {eth0: {type: nics}}")),
        ("device a word", instance_spec("  devices: {eth0: nic}")),
        ("profiles a word", instance_spec("  profiles: default")),
        ("a profile twice", instance_spec("  profiles: [a, a]")),
        ("no source", "kind: instance\nname: a\nhost: a\nspec: {}\n".into()),
        (
            "source type",
            "kind: instance\nname: a\nhost: a\nspec: {source: {type: images}}\n".into(),
        ),
        (
            "source field",
            "kind: instance\nname: a\nhost: a\nspec: {source: {type: image, allias: b}}\n".into(),
        ),
        (
            "no image",
            "kind: instance\nname: a\nhost: a\nspec: {source: {type: image}}\n".into(),
        ),
        (
            "too deep",
            format!(
                "kind: profile\nname: a\nspec: {}{}\n",
                "[".repeat(40),
                "]".repeat(40)
            ),
        ),
        (
            "too long",
            format!(
                "kind: profile\nname: a\nspec: {{description: '{}'}}\n",
                "x".repeat(1 << 20)
            ),
        ),
        ("growing", growing()),
    ];
    let mut answers = String::new();
    for (name, text) in cases {
        let error = parse(&text).expect_err(name);
        writeln!(
            answers,
            "{name}\n    web.yaml:{error}\n    line {} column {}",
            error.line, error.column
        )
        .unwrap();
    }
    expect_file!["testdata/errors.txt"].assert_eq(&answers);
}

/// A text whose aliases would grow into a billion values.
fn growing() -> String {
    let mut text = "kind: profile\nname: a\nspec:\n  a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        writeln!(text, "  a{level}: &a{level} [{below}]").unwrap();
    }
    text
}

#[test]
fn key_and_text_must_agree() {
    let text = "kind: instance\nname: web\ntenant: t1\nhost: ovh\nspec: {source: {type: none}}\n";
    let mut answers = String::new();
    for key in [
        "/tenants/t1/desired/instances/web",
        "/tenants/t1/desired/instances/api",
        "/tenants/t2/desired/instances/web",
        "/tenants/t1/desired/profiles/web",
        "/cluster/desired/projects/web",
        "/tenants/t1/desired/instances/web/more",
        "/elsewhere",
    ] {
        let answer = parse_at(key, text).map_or_else(|error| error.to_string(), |_| "agrees".to_owned());
        writeln!(answers, "{key}: {answer}").unwrap();
    }
    expect![[r"
        /tenants/t1/desired/instances/web: agrees
        /tenants/t1/desired/instances/api: 2: name: is web, but the key says api
        /tenants/t2/desired/instances/web: 3: tenant: is t1, but the key says t2
        /tenants/t1/desired/profiles/web: 1: kind: is instance, but the key is for profiles
        /cluster/desired/projects/web: 1: kind: is instance, but the key is for projects
        /tenants/t1/desired/instances/web/more: /tenants/t1/desired/instances/web/more is no key for a document
        /elsewhere: /elsewhere is no key for a document
    "]]
    .assert_eq(&answers);
}

#[test]
fn hosts_are_read_from_a_wrong_document() {
    assert_eq!(
        hosts_named(&instance("runing: true")),
        Some(vec!["ovh".to_owned()])
    );
    assert_eq!(
        hosts_named("kind: profile\nhosts: [a, b]"),
        Some(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(hosts_named("kind: instance\nplacement: {hosts: [a]}"), None);
    assert_eq!(hosts_named("kind: profile"), None);
    assert_eq!(hosts_named("host: [ovh"), None);
}

#[test]
fn keys_are_taken_apart() {
    let web = DesiredKey {
        kind: Kind::Instance,
        tenant: "t1".into(),
        name: "web".into(),
    };
    assert_eq!(parse_desired_key(&web.key()), Some(web.clone()));
    assert_eq!(
        parse_status_key(&status_key(&web, "ovh")),
        Some((web.clone(), "ovh".to_owned()))
    );
    assert_eq!(parse_status_key(&web.key()), None);
    let project = DesiredKey {
        kind: Kind::Project,
        tenant: String::new(),
        name: "t1".into(),
    };
    assert_eq!(project.key(), "/cluster/desired/projects/t1");
    assert_eq!(status_key(&project, "ovh"), "/cluster/status/projects/t1/ovh");
    assert_eq!(parse_desired_key(&project.key()), Some(project.clone()));
    assert_eq!(
        parse_status_key(&status_key(&project, "ovh")),
        Some((project, "ovh".to_owned()))
    );
    for other in [
        "",
        "/",
        "/tenants//desired/instances/a",
        "/tenants/t/desired/projects/a",
        "/tenants/t/desired/networks/a",
    ] {
        assert_eq!(parse_desired_key(other), None, "{other}");
    }
}

#[test]
fn a_file_is_split_into_documents() {
    let text =
        "# head\n---\nkind: a\n--- # more\n\n# no content\n---\nkind: b\nspec: |\n  text\n  ---\n...\n";
    let parts: Vec<_> = split(text)
        .into_iter()
        .map(|(line, text)| (line, text.lines().next().unwrap()))
        .collect();
    assert_eq!(parts, [(3, "kind: a"), (8, "kind: b")]);
    assert_eq!(split("kind: a"), [(1, "kind: a")]);
    assert!(split("").is_empty());
}

#[test]
fn a_fault_in_a_file_has_the_files_line() {
    let text = "kind: profile\nname: a\nspec: {}\n---\nkind: profile\nnam: b\n";
    let (first_line, part) = split(text)[1];
    assert_eq!(
        parse(part).unwrap_err().in_file(first_line).to_string(),
        "6: nam: no such field; did you mean name?"
    );
}

#[test]
fn the_example_parses() {
    let text = include_str!("../../../examples/web.yaml");
    let keys: Vec<_> = split(text)
        .into_iter()
        .map(|(_, text)| key(&parse(text).unwrap()))
        .collect();
    assert_eq!(
        keys,
        [
            "/tenants/default/desired/profiles/web",
            "/tenants/default/desired/instances/web",
            "/tenants/default/desired/instances/web-2"
        ]
    );
}

#[test]
fn the_example_of_a_template_comes_out() {
    let document = parse(include_str!("../../../examples/template.yaml")).unwrap();
    let values = [("APP".to_owned(), "shop".to_owned())].into();
    let rendered = Template::of(&document)
        .render(&values, &["ovh".to_owned()])
        .unwrap();
    assert_eq!(rendered.len(), 2);
}

#[test]
fn a_status_is_json_without_empty_fields() {
    let mut status = Status {
        phase: Phase::Ready,
        revision: 14,
        since: "2025-01-01T00:00:00Z".into(),
        message: String::new(),
        host: "ovh".into(),
        line: None,
    };
    expect![[r#"{"phase":"Ready","revision":14,"since":"2025-01-01T00:00:00Z","host":"ovh"}"#]]
        .assert_eq(&serde_json::to_string(&status).unwrap());
    status.line = Some(7);
    status.message = "no".into();
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
}

#[test]
fn the_example_of_services_parses() {
    let text = include_str!("../../../examples/service.yaml");
    let keys: Vec<_> = split(text)
        .into_iter()
        .map(|(_, text)| key(&parse(text).unwrap()))
        .collect();
    assert_eq!(
        keys,
        [
            "/tenants/default/desired/services/node-exporter",
            "/tenants/default/desired/services/pages",
            "/tenants/default/desired/files/motd"
        ]
    );
}

#[test]
fn services_and_files_are_read_as_they_are_written() {
    let text = "\
kind: service
name: web
tenant: t1
instance: db
spec:
  exec: /usr/bin/web
  args: ['--port', 0080, \"$HOME\"]
  environment: {RATE: 1.10, ON: yes}
  user: www-data
  workingDirectory: /
  restart: on-failure
  after: [network-online.target]
  enabled: false
  files:
    - {path: /etc/web.conf, mode: 0640, owner: 33:33, content: ''}
";
    let document = parse(text).unwrap();
    expect![[r#"{"instance":"db","kind":"service","lifecycle":{"deletion":"delete","managed":"full","protect":false,"update":"live"},"name":"web","spec":{"after":["network-online.target"],"args":["--port","0080","$HOME"],"enabled":false,"environment":{"ON":"yes","RATE":"1.10"},"exec":"/usr/bin/web","files":[{"content":"","mode":"0640","owner":"33:33","path":"/etc/web.conf"}],"restart":"on-failure","user":"www-data","workingDirectory":"/"},"tenant":"t1"}"#]]
    .assert_eq(&canonical_text(&document));
    for text in [
        text,
        "kind: file\nname: a\nspec: {path: /etc/a, mode: 644, uid: 5, content: \"a\\tb\\n\"}\n",
        "kind: os-service\nname: nvme\nspec: {config: {enabled: true, targets: [{port: 8009, address: a}]}}\n",
    ] {
        let canonical = canonical_text(&parse(text).unwrap());
        assert_eq!(canonical_text(&parse(&canonical).unwrap()), canonical);
    }
}

/// What reaches root is checked to the letter.
#[test]
fn a_mistake_in_a_service_is_answered_where_it_was_made() {
    let service = |spec: &str| format!("kind: service\nname: web\nspec:\n{spec}\n");
    let file = |fields: &str| format!("kind: file\nname: web\nspec: {{{fields}}}\n");
    let os = |name: &str, config: &str| format!("kind: os-service\nname: {name}\nspec: {config}\n");
    let cases = [
        service("  args: []"),
        service("  exec: bin/web"),
        service("  exec: /usr/bin/../web"),
        service("  exec: /usr/bin/web\n  args: web"),
        service("  exec: /usr/bin/web\n  args: [\"a\\nb\"]"),
        service("  exec: /usr/bin/web\n  environment: {1A: b}"),
        service("  exec: /usr/bin/web\n  environment: {A: \"b\\0c\"}"),
        service("  exec: /usr/bin/web\n  user: 'a b'"),
        service("  exec: /usr/bin/web\n  restart: sometimes"),
        service("  exec: /usr/bin/web\n  after: [network]"),
        service("  exec: /usr/bin/web\n  unit: '[Service]'"),
        service("  unit: ExecStart=/bin/true"),
        service("  exec: /usr/bin/web\n  enabled: 1"),
        service("  exec: /usr/bin/web\n  file: []"),
        service("  exec: /usr/bin/web\n  files: [{path: /a}]"),
        service("  exec: /usr/bin/web\n  files:\n  - {path: /a, content: b}\n  - {path: /a, content: c}"),
        service("  exec: /usr/bin/web\n  files: [{path: /a, content: b, owner: www-data}]"),
        service("  exec: /usr/bin/web").replace("spec:", "tenant: t1\nspec:"),
        service("  exec: /usr/bin/web").replace("spec:", "instance: a.b\nspec:"),
        service("  exec: /usr/bin/web").replace("spec:", "running: true\nspec:"),
        file("path: /etc/a"),
        file("path: /etc/a/, content: b"),
        file("path: /proc/sys/a, content: b"),
        file("path: /etc/a, content: [b]"),
        file("path: /etc/a, content: b, mode: 4755"),
        file("path: /etc/a, content: b, mode: rw"),
        file("path: /etc/a, content: b, uid: root"),
        file("path: /etc/a, source: /etc/b"),
        os("sshd", "{config: {enabled: true}}"),
        os("lvm", "{}"),
        os("lvm", "{config: {}}"),
        os("lvm", "{config: {enabled: yes}}"),
        os("lvm", "{config: {enabled: true}}").replace("spec:", "instance: web\nspec:"),
        os("lvm", "{config: {enabled: true}}").replace("spec:", "tenant: t1\nspec:"),
    ];
    let mut answers = String::new();
    for text in cases {
        let answer = parse(&text).expect_err(&text);
        writeln!(answers, "{answer}").unwrap();
    }
    expect_file!["testdata/services.txt"].assert_eq(&answers);
}
