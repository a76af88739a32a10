//! `instance list`: the instances of all hosts.

use clap::Args;
use proto::agent::v1::instance::Managed;
use proto::agent::v1::{Instance, ListInstancesRequest, ListInstancesResponse};
use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::format::columns::columns;
use crate::cli::format::{self, Format};
use crate::cli::get::tenant_cell;
use crate::cli::session::Session;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl instance list\n  agentctl instance list --tenant shop -w json\n\n\
                        MANAGED: yes, kept as its document says; existence, made by its document and then yours; \
                        no, made by hand."
)]
pub(in crate::cli) struct ListArgs {
    /// Only this tenant's [default: all]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only this host's [default: all]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

impl ListArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let is_one_host = self.host.is_some();
        let request = ListInstancesRequest {
            tenant: self.tenant.unwrap_or_default(),
            host: self.host.unwrap_or_default(),
        };
        // A host that is lost is waited for longer than a member.
        let client = session.client.patient(std::time::Duration::from_secs(15))?;
        let listed = client.list_instances(request).await?;
        match session.format {
            Some(Format::Json) => format::write_json(&as_json(&listed))?,
            Some(Format::Simple) => {
                let line = |instance: &Instance| format!("{} {}\n", instance.host, instance.name);
                format::write(listed.instances.iter().map(line).collect::<String>().as_bytes())?;
            }
            _ if listed.instances.is_empty() && listed.silent.is_empty() => eprintln!("no instances"),
            _ if listed.instances.is_empty() => {}
            _ => format::write(table(&listed.instances).as_bytes())?,
        }
        if listed.silent.is_empty() {
            return Ok(());
        }
        let reasons: Vec<&str> = listed
            .silent
            .iter()
            .map(|silent| silent.reason.as_str())
            .collect();
        let error = CliError::failed(reasons.join("\nerror: "));
        Err(if is_one_host {
            error
        } else {
            error.hint("what is there is missing above")
        })
    }
}

fn managed(instance: &Instance) -> &'static str {
    match instance.managed() {
        Managed::No => "no",
        Managed::Full => "yes",
        Managed::Existence => "existence",
        Managed::NotOurs => "another's",
    }
}

fn table(instances: &[Instance]) -> String {
    let cells = |instance: &Instance| {
        let snapshots = match instance.snapshots {
            0 => String::new(),
            count => count.to_string(),
        };
        [
            instance.name.clone(),
            tenant_cell(&instance.tenant),
            instance.host.clone(),
            instance.state.clone(),
            instance.ipv4.join(" "),
            instance.ipv6.join(" "),
            instance.r#type.clone(),
            snapshots,
            managed(instance).to_owned(),
        ]
    };
    let rows: Vec<_> = instances.iter().map(cells).collect();
    columns(
        [
            "NAME",
            "TENANT",
            "HOST",
            "STATE",
            "IPV4",
            "IPV6",
            "TYPE",
            "SNAPSHOTS",
            "MANAGED",
        ],
        &rows,
    )
}

fn as_json(listed: &ListInstancesResponse) -> Value {
    let instance = |instance: &Instance| {
        json!({
            "name": instance.name, "tenant": instance.tenant, "host": instance.host, "state": instance.state,
            "ipv4": instance.ipv4, "ipv6": instance.ipv6, "type": instance.r#type,
            "snapshots": instance.snapshots, "managed": managed(instance),
        })
    };
    let silent: Vec<Value> = listed
        .silent
        .iter()
        .map(|silent| json!({"host": silent.host, "reason": silent.reason}))
        .collect();
    json!({"instances": listed.instances.iter().map(instance).collect::<Vec<_>>(), "silent": silent})
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn instances_of_all_hosts_are_listed() {
        let instance = |host: &str, tenant: &str, name: &str, managed: Managed| Instance {
            host: host.into(),
            tenant: tenant.into(),
            name: name.into(),
            r#type: "container".into(),
            state: "Running".into(),
            managed: managed.into(),
            ..Instance::default()
        };
        let mut web = instance("ovh", "default", "web", Managed::Full);
        web.ipv4 = vec!["10.0.0.2".into(), "10.0.1.2".into()];
        web.snapshots = 2;
        let byhand = instance("ionos", "shop", "byhand", Managed::No);
        expect![[r#"
            NAME    TENANT  HOST   STATE    IPV4               TYPE       SNAPSHOTS  MANAGED
            web             ovh    Running  10.0.0.2 10.0.1.2  container  2          yes
            byhand  shop    ionos  Running                     container             no
        "#]]
        .assert_eq(&table(&[web, byhand]));
    }
}
