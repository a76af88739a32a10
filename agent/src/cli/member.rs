//! `agentctl member` and `agentctl move-leader`: who belongs to the cluster, and who leads it.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use prost::Message;
use proto::etcdserverpb as pb;

use super::Session;
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format, fields, json};

#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// All members
    #[command(after_help = "Examples:\n  agentctl member list\n  agentctl member list -w json")]
    List,
    /// Admit a host as a member; prints what to type there
    #[command(
        after_help = "It counts as a voter once it runs and has caught up: until then nothing depends on it.\n\n\
                      Examples:\n  agentctl member add ovh --peer-urls=http://10.0.0.1:2380\n  \
                      agentctl member add ovh --peer-urls=http://10.0.0.1:2380 --learner"
    )]
    Add(AddArgs),
    /// Make a learner that has caught up a voter
    #[command(after_help = "Example:\n  agentctl member promote ovh")]
    Promote(OneArgs),
    /// Remove a member for good: it stops by itself
    #[command(
        after_help = "Its data directory is of no use afterwards.\n\nExample:\n  agentctl member remove ovh"
    )]
    Remove(OneArgs),
    /// Tell where a member's peers reach it from now on
    #[command(after_help = "Example:\n  agentctl member update ovh --peer-urls=http://10.0.0.9:2380")]
    Update(UpdateArgs),
    /// Remove a member that lost its data and admit its host anew
    #[command(
        after_help = "Its host keeps name and URLs and gets a new member id: the old one may have votes that are \
                      forgotten.\nStart it there with an empty data directory.\n\nExample:\n  \
                      agentctl member replace ovh"
    )]
    Replace(OneArgs),
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// The new member's name, which is its host's
    #[arg(value_name = "NAME")]
    name: String,
    /// Where its peers will reach it
    #[arg(long, value_name = "URLS", value_delimiter = ',', required = true)]
    peer_urls: Vec<String>,
    /// It follows and does not vote, until it is promoted
    #[arg(long)]
    learner: bool,
}

#[derive(Args, Debug)]
pub(super) struct OneArgs {
    /// The member: its host, or its member id (hexadecimal)
    #[arg(value_name = "HOST|ID")]
    member: String,
}

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// The member: its host, or its member id (hexadecimal)
    #[arg(value_name = "HOST|ID")]
    member: String,
    /// Where its peers will reach it
    #[arg(long, value_name = "URLS", value_delimiter = ',', required = true)]
    peer_urls: Vec<String>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Nobody's writes are lost; they wait for about a round trip.\n\nExample:\n  agentctl move-leader ionos"
)]
pub(super) struct MoveLeaderArgs {
    /// The next leader: its host, or its member id (hexadecimal)
    #[arg(value_name = "HOST|ID")]
    target: String,
}

impl MemberCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::List => list(session).await,
            Self::Add(args) => args.run(session).await,
            Self::Promote(args) => args.promote(session).await,
            Self::Remove(args) => args.remove(session).await,
            Self::Update(args) => args.run(session).await,
            Self::Replace(args) => args.replace(session).await,
        }
    }
}

async fn list(session: &Session) -> Result<(), CliError> {
    let response = session.client.member_list().await?;
    match session.format {
        Some(Format::Table) | None => format::write(list_table(&response.members).as_bytes()),
        Some(_) => session.show(
            &response,
            |answer| json::members(answer.header.as_ref(), &answer.members),
            |out, answer| fields::members(out, answer.header.as_ref(), &answer.members),
            |out, answer, _| out.extend_from_slice(list_simple(&answer.members).as_bytes()),
        ),
    }
}

impl AddArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = pb::MemberAddRequest {
            peer_ur_ls: self.peer_urls,
            is_learner: self.learner,
        };
        let response = session.client.member_add(request).await?;
        let added = response.member.clone().unwrap_or_default();
        let text = format!(
            "{}\n\nnow start it on its host, with an empty data directory, and certificates and other flags as on the \
             others:\n  {}\nit {}; see: agentctl member list",
            changed(added.id, "added to", response.header.as_ref()),
            run_line(&self.name, &added, &response.members),
            if added.is_learner {
                "follows until `agentctl member promote` makes it a voter"
            } else {
                "votes once it has caught up"
            }
        );
        session.show_line(&response, json::member_add, added_fields, &text)
    }
}

impl UpdateArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let id = id_of(session, &self.member).await?;
        let request = pb::MemberUpdateRequest {
            id,
            peer_ur_ls: self.peer_urls,
        };
        let response = session.client.member_update(request).await?;
        let line = changed(id, "updated in", response.header.as_ref());
        show_members(
            session,
            &response,
            (response.header.as_ref(), &response.members),
            &line,
        )
    }
}

impl OneArgs {
    async fn promote(self, session: &Session) -> Result<(), CliError> {
        let id = id_of(session, &self.member).await?;
        let response = session.client.member_promote(id).await?;
        let line = changed(id, "promoted in", response.header.as_ref());
        show_members(
            session,
            &response,
            (response.header.as_ref(), &response.members),
            &line,
        )
    }

    async fn remove(self, session: &Session) -> Result<(), CliError> {
        let id = id_of(session, &self.member).await?;
        let response = session.client.member_remove(id).await?;
        let line = changed(id, "removed from", response.header.as_ref());
        show_members(
            session,
            &response,
            (response.header.as_ref(), &response.members),
            &line,
        )
    }

    /// The same URLs under a new id: the old one's votes may be forgotten, the new one has none.
    async fn replace(self, session: &Session) -> Result<(), CliError> {
        let members = session.client.member_list().await?.members;
        let old = find_or_say(&members, &self.member)?;
        let removed = session.client.member_remove(old.id).await?;
        let request = pb::MemberAddRequest {
            peer_ur_ls: old.peer_ur_ls.clone(),
            is_learner: old.is_learner,
        };
        let added = session.client.member_add(request).await.map_err(|error| {
            let urls = old.peer_ur_ls.join(",");
            error.hint(format!(
                "{} is removed; admit its host again when the others are well: agentctl member add {} --peer-urls={urls}",
                show(old),
                show(old)
            ))
        })?;
        let new = added.member.clone().unwrap_or_default();
        let text = format!(
            "{}\n{}\n{host} joins by itself as soon as it runs with an empty data directory, and votes once it has \
             caught up; see: agentctl member list",
            changed(old.id, "removed from", removed.header.as_ref()),
            changed(new.id, "added to", added.header.as_ref()),
            host = show(old)
        );
        session.show_line(&added, json::member_add, added_fields, &text)
    }
}

/// The answer to a change: a line, or all members as they are now.
fn show_members<M: Message>(
    session: &Session,
    answer: &M,
    (header, members): (Option<&pb::ResponseHeader>, &[pb::Member]),
    line: &str,
) -> Result<(), CliError> {
    session.show_line(
        answer,
        |_| json::members(header, members),
        |out, _| fields::members(out, header, members),
        line,
    )
}

/// etcdctl's line.
fn changed(id: u64, what: &str, header: Option<&pb::ResponseHeader>) -> String {
    let cluster = header.map_or(0, |header| header.cluster_id);
    format!("Member {id:16x} {what} cluster {cluster:16x}")
}

fn added_fields(out: &mut fields::Fields, answer: &pb::MemberAddResponse) {
    fields::members(out, answer.header.as_ref(), &answer.members);
}

/// What is typed on the new member's host. The members that have not said their names go by their ids.
fn run_line(name: &str, added: &pb::Member, members: &[pb::Member]) -> String {
    let named = |member: &pb::Member| {
        let name = if member.id == added.id {
            name.to_owned()
        } else {
            show(member)
        };
        let urls = member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"));
        urls.collect::<Vec<_>>()
    };
    let mut cluster: Vec<String> = members.iter().flat_map(named).collect();
    cluster.sort_unstable();
    let mut listen = format!("--listen-peer-urls {}", added.peer_ur_ls.join(","));
    let client_url = client_url(added, members);
    if let Some(url) = &client_url {
        listen.push_str(&format!(" --listen-client-urls {url}"));
    }
    let urls = added.peer_ur_ls.iter().chain(&client_url);
    if urls.into_iter().any(|url| is_plain_and_remote(url)) {
        listen.push_str(" --allow-plaintext");
    }
    format!(
        "agent run --name {name} --initial-cluster-state existing \\\n    --initial-cluster {} \\\n    {listen}",
        cluster.join(",")
    )
}

/// Where clients would reach the new member if they reach it as they reach the others: at the same port.
fn client_url(added: &pb::Member, members: &[pb::Member]) -> Option<String> {
    let theirs = members.iter().find_map(|member| member.client_ur_ls.first())?;
    let (scheme, theirs) = theirs.split_once("://")?;
    let (_, port) = theirs.rsplit_once(':')?;
    let (_, address) = added.peer_ur_ls.first()?.split_once("://")?;
    let (host, _) = address.rsplit_once(':')?;
    Some(format!("{scheme}://{host}:{port}"))
}

/// Would `agent run` want to be told that this network is private?
fn is_plain_and_remote(url: &str) -> bool {
    let Some(address) = url.strip_prefix("http://") else {
        return false;
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host != "localhost" && host.parse::<IpAddr>().map_or(true, |ip| !ip.is_loopback())
}

async fn id_of(session: &Session, member: &str) -> Result<u64, CliError> {
    let members = session.client.member_list().await?.members;
    find_or_say(&members, member).map(|member| member.id)
}

fn find_or_say<'a>(members: &'a [pb::Member], target: &str) -> Result<&'a pb::Member, CliError> {
    find(members, target).ok_or_else(|| {
        let mut names: Vec<String> = members.iter().map(show).collect();
        names.sort_unstable();
        CliError::failed(format!("no member `{target}`"))
            .hint(format!("the members are {}", names.join(", ")))
    })
}

impl MoveLeaderArgs {
    /// Only the leader can hand over, so it is asked, whichever endpoint was given.
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let members = session.client.member_list().await?.members;
        let target = find_or_say(&members, &self.target)?;
        let leader = session.client.status().await?.leader;
        if leader == target.id {
            return format::write(format!("{} leads already\n", show(target)).as_bytes());
        }
        let at = members.iter().find(|member| member.id == leader);
        let url = at.and_then(|member| member.client_ur_ls.first()).ok_or_else(|| {
            CliError::failed("the cluster has no leader now")
                .hint("an election takes a second or two; if it does not come, `agentctl endpoint status` shows who is up")
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
    fn what_to_type_on_the_new_host() {
        let members = members();
        expect![[r#"
            agent run --name liquidweb --initial-cluster-state existing \
                --initial-cluster ionos=http://127.0.0.1:12380,liquidweb=http://127.0.0.1:22380,ovh=http://127.0.0.1:2380 \
                --listen-peer-urls http://127.0.0.1:22380 --listen-client-urls http://127.0.0.1:2379"#]]
        .assert_eq(&run_line("liquidweb", &members[2], &members));
        let remote = pb::Member {
            peer_ur_ls: vec!["http://67.0.0.30:2380".into()],
            ..members[2].clone()
        };
        assert!(run_line("liquidweb", &remote, &members).ends_with(
            "--listen-peer-urls http://67.0.0.30:2380 --listen-client-urls http://67.0.0.30:2379 --allow-plaintext"
        ));
        expect!["Member               c3 added to cluster                1"].assert_eq(&changed(
            0xc3,
            "added to",
            Some(&pb::ResponseHeader {
                cluster_id: 1,
                ..pb::ResponseHeader::default()
            }),
        ));
    }

    #[test]
    fn a_member_is_found_by_host_or_id() {
        assert_eq!(find(&members(), "ionos").map(|member| member.id), Some(0xb2));
        assert_eq!(find(&members(), "a1").map(|member| member.id), Some(0xa1));
        assert_eq!(find(&members(), "liquidweb"), None);
    }
}
