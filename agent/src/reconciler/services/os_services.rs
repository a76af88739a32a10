//! IncusOS' services on a host that is not IncusOS: what can be done safely is done with the distribution's own unit,
//! the rest is said to be unsupported, field by field.
//!
//! Done: a unit that the host has is enabled and started, or stopped and disabled, and one with a small configuration
//! file gets that. Not done: whatever needs a secret, a login, or commands whose effect cannot be read back.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::act::{Content, FileWanted};
use super::footprint::{Footprint, UnitWanted};
use crate::document::Phase;
use crate::reconciler::plan::Report;
use crate::service::{Manager, Restart};

/// One service of IncusOS here.
struct Native {
    name: &'static str,
    /// The distribution's unit; empty where there is nothing to enable.
    unit: &'static str,
    /// What brings the unit, for the one who misses it.
    package: &'static str,
    /// The fields, `enabled` aside, that are applied.
    fields: &'static [&'static str],
    /// Why it is not done here at all.
    refusal: &'static str,
}

const fn unit(name: &'static str, unit: &'static str, package: &'static str) -> Native {
    Native {
        name,
        unit,
        package,
        fields: &[],
        refusal: "",
    }
}

const fn refused(name: &'static str, refusal: &'static str) -> Native {
    Native {
        name,
        unit: "",
        package: "",
        fields: &[],
        refusal,
    }
}

const NATIVE: [Native; 10] = [
    refused(
        "ceph",
        "its keyrings are secrets, which documents do not hold; write /etc/ceph by hand",
    ),
    unit("iscsi", "iscsid", "open-iscsi"),
    unit("linstor", "linstor-satellite", "linstor-satellite"),
    unit("lvm", "lvm2-monitor", "lvm2"),
    unit("multipath", "multipathd", "multipath-tools"),
    refused("netbird", "it needs a login on the host; netbird up does it"),
    Native {
        fields: &["targets"],
        ..unit("nvme", "nvmf-autoconnect", "nvme-cli")
    },
    refused(
        "ovn",
        "its settings live in Open vSwitch's database; ovs-vsctl sets them",
    ),
    unit("tailscale", "tailscaled", "tailscale"),
    refused(
        "usbip",
        "attached devices cannot be told from those attached by hand; usbip attach does it",
    ),
];

/// Where nvme-cli reads what to connect to.
const NVME_TARGETS: &str = "/etc/nvme/discovery.conf";

pub(super) fn footprint(name: &str, spec: &Value, manager: Option<&Manager>) -> Result<Footprint, Report> {
    let unsupported = |message: String| Err(Report::new(Phase::Unsupported, message));
    let Some(native) = NATIVE.iter().find(|native| native.name == name) else {
        return unsupported(format!("no os-service {name} is known here"));
    };
    if !native.refusal.is_empty() {
        return unsupported(format!("not done here: {}", native.refusal));
    }
    if manager != Some(&Manager::Systemd) {
        return unsupported("needs systemd on the host".to_owned());
    }
    let config = spec
        .get("config")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let unknown = config
        .keys()
        .find(|field| *field != "enabled" && !native.fields.contains(&field.as_str()));
    if let Some(field) = unknown {
        return unsupported(format!(
            "spec.config.{field}: not done here; set it on the host, and leave it out"
        ));
    }
    let enabled = config.get("enabled").and_then(Value::as_bool).unwrap_or(false);
    let mut files = Vec::new();
    if let Some(targets) = config.get("targets").filter(|_| enabled) {
        files.push(Arc::new(FileWanted {
            path: NVME_TARGETS.to_owned(),
            content: Content::Plain(nvme_targets(targets)?.into_bytes()),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mark: None,
            at: "spec.config.targets".to_owned(),
        }));
    }
    Ok(Footprint {
        files,
        unit: Some(UnitWanted {
            name: native.unit.to_owned(),
            path: None,
            definition: None,
            is_made: false,
            enabled,
            // Some of them do one thing at boot, and end.
            restart: Restart::No,
        }),
    })
}

/// What is missing where the host does not have the unit.
pub(super) fn missing(name: &str, host: &str) -> String {
    let native = NATIVE.iter().find(|native| native.name == name);
    let (unit, package) = native.map_or(("", ""), |native| (native.unit, native.package));
    format!("no {unit}.service on {host}; the package {package} has it")
}

/// nvme-cli's own format: one target to ask for more on each line.
fn nvme_targets(targets: &Value) -> Result<String, Report> {
    let wrong = || {
        let message = "spec.config.targets: is a list of {transport, address, port}";
        Report::new(Phase::Invalid, message)
    };
    let mut lines = String::new();
    for target in targets.as_array().ok_or_else(wrong)? {
        let target: &Map<String, Value> = target.as_object().ok_or_else(wrong)?;
        let word = |name: &str| match target.get(name) {
            Some(Value::String(text)) if is_word(text) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let (Some(transport), Some(address), Some(port)) = (word("transport"), word("address"), word("port"))
        else {
            return Err(wrong());
        };
        lines.push_str(&format!(
            "--transport={transport} --traddr={address} --trsvcid={port}\n"
        ));
    }
    Ok(lines)
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".:-%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! makes a value at each use")]
    fn check(name: &str, config: Value) -> Result<String, String> {
        let made = footprint(name, &json!({ "config": config }), Some(&Manager::Systemd));
        let made = made.map_err(|report| format!("{}: {}", report.phase, report.message))?;
        let files: Vec<String> = made
            .files
            .iter()
            .map(|file| format!("{}: {}", file.path, String::from_utf8_lossy(file.content.bytes())))
            .collect();
        let unit = made.unit.unwrap();
        Ok(format!("{} {} {}", unit.name, unit.enabled, files.concat()))
    }

    #[test]
    fn what_is_safe_is_done_and_the_rest_is_named() {
        assert_eq!(
            check("multipath", json!({"enabled": true})).unwrap(),
            "multipathd true "
        );
        assert_eq!(
            check("lvm", json!({"enabled": false})).unwrap(),
            "lvm2-monitor false "
        );
        let targets = json!([{"transport": "tcp", "address": "10.0.0.1", "port": 8009}]);
        assert_eq!(
            check("nvme", json!({"enabled": true, "targets": targets})).unwrap(),
            "nvmf-autoconnect true /etc/nvme/discovery.conf: --transport=tcp --traddr=10.0.0.1 --trsvcid=8009\n"
        );
        let injected = json!([{"transport": "tcp", "address": "10.0.0.1 --hostnqn=x", "port": 1}]);
        assert!(
            check("nvme", json!({"enabled": true, "targets": injected}))
                .unwrap_err()
                .starts_with("Invalid")
        );
        assert_eq!(
            check("tailscale", json!({"enabled": true, "authKey": "k"})).unwrap_err(),
            "Unsupported: spec.config.authKey: not done here; set it on the host, and leave it out"
        );
        assert!(
            check("ovn", json!({"enabled": true}))
                .unwrap_err()
                .starts_with("Unsupported: not done here: ")
        );
    }

    /// The rules for names and this table speak of the same services.
    #[test]
    fn every_name_that_a_document_may_have_is_answered() {
        for Native { name, .. } in NATIVE {
            let text = format!("kind: os-service\nname: {name}\nspec: {{config: {{enabled: true}}}}\n");
            assert!(crate::document::parse(&text).is_ok(), "{name}");
        }
        let other = "kind: os-service\nname: sshd\nspec: {config: {enabled: true}}\n";
        let refused = crate::document::parse(other).unwrap_err().to_string();
        for name in refused.rsplit("one of ").next().unwrap().split(", ") {
            assert!(NATIVE.iter().any(|native| native.name == name), "{name}");
        }
    }
}
