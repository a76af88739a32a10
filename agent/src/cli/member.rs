//! `agentctl member` and `agentctl move-leader`: who belongs to the cluster, and who leads it.

use clap::{Args, Subcommand};
use proto::etcdserverpb as pb;

use super::Session;
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format, fields, json};

#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// All members
    List,
}

#[derive(Args, Debug)]
pub(super) struct MoveLeaderArgs {
    /// The next leader: its host, or its member id (hexadecimal)
    #[arg(value_name = "HOST|ID")]
    target: String,
}

impl MemberCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let Self::List = self;
        let response = session.client.member_list().await?;
        match session.format {
            Some(Format::Table) | None => format::write(list_table(&response.members).as_bytes()),
            Some(_) => session.show(
                &response,
                json::member_list,
                fields::member_list,
                |out, answer, _| {
                    out.extend_from_slice(list_simple(&answer.members).as_bytes());
                },
            ),
        }
    }
}

impl MoveLeaderArgs {
    /// Only the leader can hand over, so it is asked, whichever endpoint was given.
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let members = session.client.member_list().await?.members;
        let target = find(&members, &self.target).ok_or_else(|| {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            CliError::failed(format!("no member `{}`", self.target))
                .hint(format!("the members are {}", names.join(", ")))
        })?;
        let leader = session.client.status().await?.leader;
        if leader == target.id {
            return format::write(format!("{} leads already\n", show(target)).as_bytes());
        }
        let at = members.iter().find(|member| member.id == leader);
        let url = at.and_then(|member| member.client_ur_ls.first()).ok_or_else(|| {
            CliError::failed("the cluster has no leader now")
                .hint("an election takes a second or two: try again")
        })?;
        let response = session.client.only(url)?.move_leader(target.id).await?;
        let line = format!("Leadership transferred from {leader:x} to {:x}", target.id);
        session.show_line(&response, json::move_leader, fields::move_leader, &line)
    }
}

fn find<'a>(members: &'a [pb::Member], target: &str) -> Option<&'a pb::Member> {
    let id = u64::from_str_radix(target, 16).ok();
    let by_name = members.iter().find(|member| member.name == target);
    by_name.or_else(|| members.iter().find(|member| Some(member.id) == id))
}

fn show(member: &pb::Member) -> String {
    if member.name.is_empty() {
        format!("{:x}", member.id)
    } else {
        member.name.clone()
    }
}

/// A member that has not yet said its name has not started.
fn state(member: &pb::Member) -> &'static str {
    if member.name.is_empty() {
        "unstarted"
    } else {
        "started"
    }
}

fn list_simple(members: &[pb::Member]) -> String {
    let line = |member: &pb::Member| {
        format!(
            "{:x}, {}, {}, {}, {}, {}\n",
            member.id,
            state(member),
            member.name,
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner
        )
    };
    members.iter().map(line).collect()
}

fn list_table(members: &[pb::Member]) -> String {
    let row = |member: &pb::Member| {
        let role = if member.is_learner { "learner" } else { "voter" };
        let clients = member.client_ur_ls.join(",");
        [
            show(member),
            format!("{:x}", member.id),
            role.into(),
            state(member).into(),
            clients,
            member.peer_ur_ls.join(","),
        ]
    };
    let rows: Vec<_> = members.iter().map(row).collect();
    columns(["HOST", "ID", "ROLE", "STATE", "CLIENTS AT", "PEERS AT"], &rows)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn members() -> Vec<pb::Member> {
        let member = |id, name: &str, port: u16, is_learner| pb::Member {
            id,
            name: name.into(),
            peer_ur_ls: vec![format!("http://127.0.0.1:{}", port + 1)],
            client_ur_ls: if name.is_empty() {
                vec![]
            } else {
                vec![format!("http://127.0.0.1:{port}")]
            },
            is_learner,
        };
        vec![
            member(0xa1, "ovh", 2379, false),
            member(0xb2, "ionos", 12379, true),
            member(0xc3, "", 22379, false),
        ]
    }

    #[test]
    fn members_are_listed() {
        expect![[r#"
            a1, started, ovh, http://127.0.0.1:2380, http://127.0.0.1:2379, false
            b2, started, ionos, http://127.0.0.1:12380, http://127.0.0.1:12379, true
            c3, unstarted, , http://127.0.0.1:22380, , false
        "#]]
        .assert_eq(&list_simple(&members()));
        expect![[r#"
            HOST   ID  ROLE     STATE      CLIENTS AT              PEERS AT
            ovh    a1  voter    started    http://127.0.0.1:2379   http://127.0.0.1:2380
            ionos  b2  learner  started    http://127.0.0.1:12379  http://127.0.0.1:12380
            c3     c3  voter    unstarted                          http://127.0.0.1:22380
        "#]]
        .assert_eq(&list_table(&members()));
    }

    #[test]
    fn a_member_is_found_by_host_or_id() {
        assert_eq!(find(&members(), "ionos").map(|member| member.id), Some(0xb2));
        assert_eq!(find(&members(), "a1").map(|member| member.id), Some(0xa1));
        assert_eq!(find(&members(), "liquidweb"), None);
    }
}
