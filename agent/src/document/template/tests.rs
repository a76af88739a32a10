//! Templates as people write them, right and wrong.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::document::parse;

const WEB: &str = "\
kind: template
name: web
spec:
  description: A web server on each host
  variables:
    APP: {description: its name}
    MEMORY: {description: what each may use, default: 256MiB}
  documents: |
    # For all of them.
    kind: profile
    name: @APP@
    hosts: [@HOSTS@]
    spec:
      config: {limits.memory: @MEMORY@}
    ---
    kind: instance
    name: @APP@-@HOST@
    host: @HOST@
    spec:
      profiles: [default, @APP@]
      source: {type: image, alias: busybox}
";

fn template(text: &str) -> Template {
    Template::of(&parse(text).unwrap())
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn render_text(text: &str, given: &[(&str, &str)], on: &[&str]) -> Result<Vec<Rendered>, DocumentError> {
    render(&Text::of_file(text.to_owned()), &values(given), &hosts(on))
}

#[test]
fn a_template_comes_out_once_for_each_host() {
    let rendered = template(WEB)
        .render(&values(&[("APP", "shop")]), &hosts(&["ovh", "ionos"]))
        .unwrap();
    let shown: String = rendered
        .iter()
        .map(|rendered| format!("line {}:\n{}", rendered.line, rendered.text))
        .collect();
    expect![[r#"
        line 9:
        # For all of them.
        kind: profile
        name: shop
        hosts: [ovh, ionos]
        spec:
          config: {limits.memory: 256MiB}
        line 16:
        kind: instance
        name: shop-ovh
        host: ovh
        spec:
          profiles: [default, shop]
          source: {type: image, alias: busybox}
        line 16:
        kind: instance
        name: shop-ionos
        host: ionos
        spec:
          profiles: [default, shop]
          source: {type: image, alias: busybox}
    "#]]
    .assert_eq(&shown);
    let keys: Vec<String> = rendered
        .iter()
        .map(|rendered| rendered.document.desired_key().key())
        .collect();
    assert_eq!(
        keys,
        [
            "/tenants/default/desired/profiles/shop",
            "/tenants/default/desired/instances/shop-ovh",
            "/tenants/default/desired/instances/shop-ionos"
        ]
    );
}

/// Every way in which a template is refused before it is used; the line is that of its own text.
#[test]
fn a_template_is_refused_when_it_is_stored() {
    let with = |from: &str, to: &str| {
        assert!(WEB.contains(from), "{from}");
        WEB.replace(from, to)
    };
    let cases = [
        ("undefined", with("@MEMORY@", "@MEMROY@")),
        ("undefined in a remark", with("# For all", "# @FOR@ all")),
        ("unused", with("@MEMORY@", "256MiB")),
        ("lower case", with("APP: {", "app: {")),
        ("HOST declared", with("APP: {", "HOST: {")),
        ("default a list", with("256MiB}", "[1]}")),
        ("default of two lines", with("256MiB}", "\"a\\nb\"}")),
        ("unknown field of a variable", with("default:", "defualt:")),
        ("unknown field", with("description: A", "descripton: A")),
        ("folded", with("documents: |", "documents: >")),
        ("no documents", with("documents: |", "docs: |")),
        (
            "a list of documents",
            "kind: template\nname: a\nspec:\n  documents: []\n".to_owned(),
        ),
        (
            "only a remark",
            "kind: template\nname: a\nspec:\n  documents: |\n    # nothing\n".to_owned(),
        ),
        ("unknown kind", with("kind: instance", "kind: instanse")),
        ("a template in it", with("kind: instance", "kind: template")),
        ("no kind", with("    kind: instance\n", "")),
        ("no YAML", with("hosts: [@HOSTS@]", "hosts: [@HOSTS@")),
        ("wrong with its defaults", with("@APP@\n    hosts", "a\n    hots")),
        (
            "another wrong with its defaults",
            with("    name: @APP@\n    hosts", "    name: a\n    hosts")
                .replace("limits.memory", "limits.memroy"),
        ),
        (
            "default does not fit",
            with("256MiB}", "\"1GiB, user.a: b\"}")
                .replace("    name: @APP@\n    hosts", "    name: a\n    hosts"),
        ),
        (
            "on a host",
            with("spec:\n  description", "running: true\nspec:\n  description"),
        ),
    ];
    let mut answers = String::new();
    for (name, text) in cases {
        let error = parse(&text).expect_err(name);
        let line = text
            .lines()
            .nth(error.line.saturating_sub(1) as usize)
            .unwrap_or_default();
        writeln!(answers, "{name}\n    web.yaml:{error}\n    > {}", line.trim()).unwrap();
    }
    expect![[r#"
        undefined
            web.yaml:14: spec.documents: @MEMROY@ is no variable of this template: declare it under spec.variables; did you mean MEMORY?
            > config: {limits.memory: @MEMROY@}
        undefined in a remark
            web.yaml:9: spec.documents: @FOR@ is no variable of this template: declare it under spec.variables
            > # @FOR@ all of them.
        unused
            web.yaml:7: spec.variables.MEMORY: is not used: there is no @MEMORY@ in the documents
            > MEMORY: {description: what each may use, default: 256MiB}
        lower case
            web.yaml:6: spec.variables.app: a variable's name is of capital letters, digits and underscores, and begins with a letter
            > app: {description: its name}
        HOST declared
            web.yaml:6: spec.variables.HOST: @HOST@ is what --hosts says: it is no variable
            > HOST: {description: its name}
        default a list
            web.yaml:7: spec.variables.MEMORY.default: expected a word, a number, true or false, found a list
            > MEMORY: {description: what each may use, default: [1]}
        default of two lines
            web.yaml:7: spec.variables.MEMORY.default: a value is one line; longer text belongs into the template
            > MEMORY: {description: what each may use, default: "a\nb"}
        unknown field of a variable
            web.yaml:7: spec.variables.MEMORY.defualt: no such field for a variable; did you mean default?
            > MEMORY: {description: what each may use, defualt: 256MiB}
        unknown field
            web.yaml:4: spec.descripton: no such field for kind template; did you mean description?
            > descripton: A web server on each host
        folded
            web.yaml:8: spec.documents: a second document begins here: one key holds one
            > documents: >
        no documents
            web.yaml:8: spec.docs: no such field for kind template
            > docs: |
        a list of documents
            web.yaml:4: spec.documents: expected documents as a text (documents: |, and each line indented under it), found a list
            > documents: []
        only a remark
            web.yaml:4: spec.documents: there is no document in it
            > documents: |
        unknown kind
            web.yaml:16: spec.documents: kind: no such kind: instanse; did you mean instance?
            > kind: instanse
        a template in it
            web.yaml:16: spec.documents: kind: a template holds no templates
            > kind: template
        no kind
            web.yaml:16: spec.documents: kind: is missing: what the document is about
            > name: @APP@-@HOST@
        no YAML
            web.yaml:13: spec.documents: not YAML: illegal placement of ':' indicator
            > spec:
        wrong with its defaults
            web.yaml:12: spec.documents: hots: no such field; did you mean host?
            > hots: [@HOSTS@]
        another wrong with its defaults
            web.yaml:14: spec.documents: spec.config.limits.memroy: no such key in Incus 6.0; did you mean limits.memory?
            > config: {limits.memroy: @MEMORY@}
        default does not fit
            web.yaml:14: spec.documents: `1GiB, user.a: b` for @MEMORY@ does not stay one value here; write '@MEMORY@' or "@MEMORY@" in the template
            > config: {limits.memory: @MEMORY@}
        on a host
            web.yaml:3: running: a template does not run
            > running: true
    "#]].assert_eq(&answers);
}

fn check(cases: &[(&str, Result<Vec<Rendered>, DocumentError>)], expected: &Expect) {
    let mut answers = String::new();
    for (name, result) in cases {
        match result {
            Ok(rendered) => {
                let texts: Vec<&str> = rendered.iter().map(|rendered| rendered.text.as_str()).collect();
                writeln!(answers, "{name}:\n{}", texts.join("---\n")).unwrap();
            }
            Err(error) => writeln!(answers, "{name}: {error}").unwrap(),
        }
    }
    expected.assert_eq(&answers);
}

#[test]
fn what_is_not_covered_is_told() {
    let web = template(WEB);
    check(
        &[
            ("nothing", web.render(&values(&[]), &hosts(&["ovh"]))),
            (
                "too much",
                web.render(&values(&[("APP", "a"), ("MEMROY", "1GiB")]), &hosts(&["ovh"])),
            ),
            ("no hosts", web.render(&values(&[("APP", "a")]), &[])),
            (
                "a wrong value",
                web.render(&values(&[("APP", "a b")]), &hosts(&["ovh"])),
            ),
            (
                "no value in a file",
                render_text("kind: profile\nname: @APP@\nspec: {}\n", &[("AP", "x")], &[]),
            ),
        ],
        &expect![[r#"
            nothing: no value for APP (its name)
            too much: MEMROY is no variable of the template; did you mean MEMORY?
            no hosts: 12: @HOSTS@ needs hosts: name them with --hosts
            a wrong value: 11: name: a name has letters, digits, hyphens, dots and underscores only
            no value in a file: 2: no value for @APP@; did you mean AP?
        "#]],
    );
}

/// A value is one value, whatever stands in it.
#[test]
fn a_value_stays_in_its_place() {
    let at = |line: &str, value: &str| {
        let text = format!("kind: profile\nname: a\nspec:\n  config:\n    {line}\n");
        render_text(&text, &[("V", value), ("W", " b")], &[])
    };
    check(
        &[
            (
                "another setting",
                at("{user.a: @V@}", "x, security.privileged: true").map(|_| vec![]),
            ),
            ("another line", at("user.a: @V@", "x: y")),
            ("a remark", at("user.a: @V@", "x # y")),
            ("a quote", at("user.a: \"@V@\"", "x\" # y")),
            ("a quote alone", at("user.a: '@V@'", "it's")),
            ("an anchor", at("user.a: @V@", "*x")),
            ("side by side", at("user.a: @V@@W@", "a:")),
            ("a name", at("user.@V@: x", "a: b")),
            ("in quotes", at("user.a: \"@V@\"", "x: y # z")),
            ("words", at("user.a: @V@", "a b-c/d_e.f@g")),
            ("a placeholder", at("user.a: '@V@'", "@W@")),
            ("nothing", at("user.a: '@V@'", "")),
            ("a number", at("user.a: @V@", "010")),
        ],
        &expect![[r#"
            another setting: 5: `x, security.privileged: true` for @V@ does not stay one value here; write '@V@' or "@V@" in the template
            another line: 5: `x: y` for @V@ does not stay one value here; write '@V@' or "@V@" in the template
            a remark: 5: `x # y` for @V@ does not stay one value here; write '@V@' or "@V@" in the template
            a quote: 5: `x" # y` for @V@ does not stay one value here; write '@V@' or "@V@" in the template
            a quote alone: 5: `it's` for @V@ does not stay one value here; write '@V@' or "@V@" in the template
            an anchor: 5: `*x` for @V@ does not stay one value here; write '@V@' or "@V@" in the template
            side by side: 5: `a:` for @V@ does not stay one value here; write '@V@' or "@V@" in the template
            a name: 5: `a: b` for @V@ does not stay one value here; write '@V@' or "@V@" in the template
            in quotes:
            kind: profile
            name: a
            spec:
              config:
                user.a: "x: y # z"

            words:
            kind: profile
            name: a
            spec:
              config:
                user.a: a b-c/d_e.f@g

            a placeholder:
            kind: profile
            name: a
            spec:
              config:
                user.a: '@W@'

            nothing:
            kind: profile
            name: a
            spec:
              config:
                user.a: ''

            a number:
            kind: profile
            name: a
            spec:
              config:
                user.a: 010

        "#]],
    );
}

#[test]
fn documents_without_a_host_are_on_those_given() {
    let instance = "kind: instance\nname: a\nspec: {source: {type: none}}\n";
    let profile = "kind: profile\nname: a\nspec: {}";
    check(
        &[
            ("one host", render_text(instance, &[], &["ovh"])),
            ("several", render_text(profile, &[], &["ovh", "ionos"])),
            (
                "named",
                render_text(&format!("{profile}\nhost: ovh\n"), &[], &["ionos"]),
            ),
            ("none given", render_text(profile, &[], &[])),
            (
                "an instance on several",
                render_text(instance, &[], &["ovh", "ionos"]),
            ),
            (
                "a name twice",
                render_text(&format!("{instance}host: @HOST@\n"), &[], &["ovh", "ionos"]),
            ),
            (
                "in braces",
                render_text("{kind: profile, name: a, spec: {}}", &[], &["ovh"]),
            ),
            ("a wrong host", render_text(profile, &[], &["o/v"])),
        ],
        &expect![[r#"
            one host:
            kind: instance
            name: a
            spec: {source: {type: none}}
            host: ovh

            several:
            kind: profile
            name: a
            spec: {}
            hosts: [ovh, ionos]

            named:
            kind: profile
            name: a
            spec: {}
            host: ovh

            none given:
            kind: profile
            name: a
            spec: {}
            an instance on several: 1: names no host: write host: @HOST@, and @HOST@ into its name, for one on each host
            a name twice: 1: instance a comes out twice: put @HOST@ into its name
            in braces: 1: cannot add `host: ovh` to a document in braces: write it, or one field a line
            a wrong host: 4: host: a name has letters, digits, hyphens, dots and underscores only
        "#]],
    );
}

#[test]
fn an_application_is_the_origin_of_its_documents() {
    let one = |text: &str| render_text(text, &[], &[]).map(|mut rendered| rendered.remove(0));
    let profile = one("kind: profile\nname: a\nspec: {}")
        .unwrap()
        .of_origin("shop")
        .unwrap();
    assert_eq!(profile.document.origin.as_deref(), Some("shop"));
    assert_eq!(parse(&profile.text).unwrap().origin.as_deref(), Some("shop"));
    let other = one("kind: profile\nname: a\norigin: x\nspec: {}\n")
        .unwrap()
        .of_origin("shop");
    expect!["1: origin: says that it is of x: leave it out, it is what the documents are applied as"]
        .assert_eq(&other.unwrap_err().to_string());
    let text = "kind: profile\nname: a\norigin: x/y\nspec: {}\n";
    expect!["3: origin: a name has letters, digits, hyphens, dots and underscores only"]
        .assert_eq(&parse(text).unwrap_err().to_string());
}

#[test]
fn values_are_read_from_a_file() {
    let text = "APP: shop\nMEMORY: 010\nON: yes\nEMPTY: ''\n# a remark\n";
    let expected = values(&[("APP", "shop"), ("EMPTY", ""), ("MEMORY", "010"), ("ON", "yes")]);
    assert_eq!(parse_values(text).unwrap(), expected);
    let answers: Vec<String> = [
        "- a\n",
        "app: x\n",
        "APP:\n",
        "APP: [1]\n",
        "APP: |\n  a\n  b\n",
        "HOST: ovh\n",
        "APP: a\nAPP: b\n",
        "",
    ]
    .map(|text| parse_values(text).unwrap_err().to_string())
    .into();
    expect![[r#"
        1: expected variables, as NAME: value, found a list
        1: app: a variable's name is of capital letters, digits and underscores, and begins with a letter
        1: APP: has no value; write "" for an empty one
        1: APP: expected a word, a number, true or false, found a list
        2: APP: a value is one line; longer text belongs into the template
        1: HOST: @HOST@ is what --hosts says: it is no variable
        2: APP stands here twice, first on line 1
        1: the document is empty"#]]
    .assert_eq(&answers.join("\n"));
    assert_eq!(parse_setting("APP=a=b"), Ok(("APP".to_owned(), "a=b".to_owned())));
    assert!(parse_setting("APP").is_err() && parse_setting("app=x").is_err());
}

#[test]
fn a_templates_canonical_text_parses_back() {
    let document = parse(WEB).unwrap();
    let canonical = crate::document::canonical_text(&document);
    let again = parse(&canonical).unwrap();
    assert_eq!(crate::document::canonical_text(&again), canonical);
    let on = hosts(&["ovh"]);
    let render = |document| {
        Template::of(document)
            .render(&values(&[("APP", "shop")]), &on)
            .unwrap()
    };
    let texts = |rendered: Vec<Rendered>| {
        rendered
            .into_iter()
            .map(|rendered| rendered.text)
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(render(&again)), texts(render(&document)));
    // All of it stands on one line there, and so do its faults.
    let wrong = canonical.replace("@MEMORY@", "@MEMROY@");
    assert_eq!(parse(&wrong).unwrap_err().line, 1);
}
