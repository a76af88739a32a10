//! Changes of the membership: what is refused, in which words, and what is answered where it is not.
//!
//! Asked of a follower. Ids and ports differ from run to run: the transcript has names for them.

use std::collections::BTreeMap;

use proto::etcdserverpb::{
    Member, MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest, ResponseHeader,
};
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::transcript::Transcript;
use tests::{show, wait};

const NOWHERE: [&str; 4] = [
    "http://127.0.0.1:1",
    "http://127.0.0.1:2",
    "http://127.0.0.1:3",
    "http://127.0.0.1:4",
];
const UNKNOWN: u64 = 1;
const UNHEALTHY: &str = "etcdserver: unhealthy cluster";

tests::on_both!(check);

async fn check(subject: &Subject) {
    let mut transcript = Transcript::default();
    three(subject, &mut transcript).await;
    one(subject, &mut transcript).await;
    transcript.check(subject.name(), "semantics/cluster.txt", subject.is_etcd());
}

/// Asks one member, and writes down what it answers.
struct Asker<'a> {
    client: Client,
    transcript: &'a mut Transcript,
    /// Peer URLs, and what they are called.
    names: BTreeMap<String, String>,
}

impl Asker<'_> {
    fn show(&self, header: Option<&ResponseHeader>, members: &[Member]) -> String {
        let name = |url: &String| self.names.get(url).unwrap_or(url).clone();
        let mut lines: Vec<String> = members
            .iter()
            .map(|member| {
                let urls: Vec<String> = member.peer_ur_ls.iter().map(name).collect();
                format!(
                    "  {} named={} clients={} learner={}\n",
                    urls.join(","),
                    !member.name.is_empty(),
                    member.client_ur_ls.len(),
                    member.is_learner
                )
            })
            .collect();
        lines.sort();
        format!(
            "revision={}\n{}",
            header.map_or(-1, |header| header.revision),
            lines.concat()
        )
    }

    /// The id of what was added; 0 when it was refused.
    async fn add(&mut self, rule: &str, urls: &[&str], is_learner: bool) -> u64 {
        let request = MemberAddRequest {
            peer_ur_ls: urls.iter().map(|url| (*url).to_owned()).collect(),
            is_learner,
        };
        match self.client.cluster.member_add(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let all = self.show(answer.header.as_ref(), &answer.members);
                let added = self.show(None, answer.member.as_slice());
                self.transcript.push(rule, &format!("added {added}{all}"));
                answer.member.map_or(0, |member| member.id)
            }
            Err(refused) => {
                self.transcript.push(rule, &show::status(&refused));
                0
            }
        }
    }

    async fn remove(&mut self, rule: &str, id: u64) {
        let answer = self
            .client
            .cluster
            .member_remove(MemberRemoveRequest { id })
            .await;
        let text = match answer {
            Ok(answer) => self.show(answer.get_ref().header.as_ref(), &answer.get_ref().members),
            Err(refused) => show::status(&refused),
        };
        self.transcript.push(rule, &text);
    }

    async fn update(&mut self, rule: &str, id: u64, urls: &[&str]) {
        let peer_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
        let request = MemberUpdateRequest { id, peer_ur_ls };
        let text = match self.client.cluster.member_update(request).await {
            Ok(answer) => self.show(answer.get_ref().header.as_ref(), &answer.get_ref().members),
            Err(refused) => show::status(&refused),
        };
        self.transcript.push(rule, &text);
    }

    async fn promote(&mut self, rule: &str, id: u64) {
        let answer = self
            .client
            .cluster
            .member_promote(MemberPromoteRequest { id })
            .await;
        let text = match answer {
            Ok(answer) => self.show(answer.get_ref().header.as_ref(), &answer.get_ref().members),
            Err(refused) => show::status(&refused),
        };
        self.transcript.push(rule, &text);
    }

    /// An etcd 3.5 that is asked these takes them into its log, and its members stop over them for good.
    async fn refuses_bad_updates(&self, id: u64) {
        for urls in [vec!["foo".to_owned()], Vec::new()] {
            let request = MemberUpdateRequest { id, peer_ur_ls: urls };
            let refused = self.client.clone().cluster.member_update(request).await;
            let refused = refused.expect_err("no URL that a peer can have");
            assert_eq!(refused.message(), "etcdserver: given member URLs are invalid");
        }
    }

    /// An etcd 3.5 takes a learner whose URLs are updated for a voter from then on.
    async fn keeps_a_learner_one(&self, id: u64) {
        let request = MemberUpdateRequest {
            id,
            peer_ur_ls: vec![NOWHERE[0].to_owned()],
        };
        let answer = self.client.clone().cluster.member_update(request).await;
        let members = answer.expect("an update").into_inner().members;
        let updated = members.iter().find(|member| member.id == id);
        assert!(updated.expect("the learner").is_learner);
    }

    /// Waits until the members are found to be well, or not: a URL that is taken is refused in any case.
    async fn health(&mut self, taken: &str, well: bool) {
        wait::until("the health of the members", async || {
            let request = MemberAddRequest {
                peer_ur_ls: vec![taken.to_owned()],
                is_learner: false,
            };
            let refused = self.client.clone().cluster.member_add(request).await.err()?;
            ((refused.message() == UNHEALTHY) != well).then_some(())
        })
        .await;
    }
}

async fn three(subject: &Subject, transcript: &mut Transcript) {
    let mut cluster = Cluster::builder(subject, 3).start().await;
    let leader = cluster.leader().await;
    let asked = cluster.follower().await;
    let third = (0..3).find(|i| *i != leader && *i != asked).expect("a third");
    let names = [(leader, "leader"), (asked, "asked"), (third, "third")]
        .map(|(i, name)| (cluster.member(i).peer_url.clone(), name.to_owned()));
    let (leader_id, third_id) = (cluster.id(leader).await, cluster.id(third).await);
    let (third_url, leader_url) = (
        cluster.member(third).peer_url.clone(),
        cluster.member(leader).peer_url.clone(),
    );
    let mut ask = Asker {
        client: cluster.client(asked),
        transcript,
        names: BTreeMap::from(names),
    };
    ask.health(&third_url, true).await;

    ask.add("a URL that is taken", &[&third_url], false).await;
    ask.add("one of two is taken", &[NOWHERE[0], &third_url], true)
        .await;
    for url in [
        "",
        "foo",
        "127.0.0.1:1",
        "http://127.0.0.1",
        "http://127.0.0.1:1/",
        "ftp://127.0.0.1:1",
    ] {
        ask.add(&format!("the URL {url:?}"), &[url], false).await;
    }
    ask.add("no URL", &[], false).await;
    ask.remove("unknown", UNKNOWN).await;
    ask.update("unknown", UNKNOWN, &[NOWHERE[0]]).await;
    ask.update("unknown, with a bad URL", UNKNOWN, &["foo"]).await;
    ask.promote("unknown", UNKNOWN).await;
    ask.promote("a voter cannot be promoted", leader_id).await;
    ask.update("to another's URL", third_id, &[&leader_url]).await;
    ask.update("to its own URL", third_id, &[&third_url]).await;
    if !subject.is_etcd() {
        ask.refuses_bad_updates(third_id).await;
    }

    let learner = ask.add("a learner", &[NOWHERE[0]], true).await;
    ask.add("a second learner", &[NOWHERE[1]], true).await;
    ask.promote("a learner that does not run", learner).await;
    if !subject.is_etcd() {
        ask.keeps_a_learner_one(learner).await;
    }
    let voter = ask.add("a voter", &[NOWHERE[1]], false).await;
    ask.promote("a voter that does not run", voter).await;
    ask.add("a voter while another one has not started", &[NOWHERE[0]], false)
        .await;
    ask.add("a learner while a voter has not started", &[NOWHERE[0]], true)
        .await;
    ask.remove("a voter that has not started", voter).await;
    ask.remove("again", voter).await;
    ask.update("what is gone", voter, &[NOWHERE[0]]).await;
    ask.promote("what is gone", voter).await;
    ask.remove("a learner", learner).await;

    cluster.kill(third);
    ask.health(&third_url, false).await;
    ask.remove("a running member while another one is down", leader_id)
        .await;
    ask.remove("a member that is down", third_id).await;
}

async fn one(subject: &Subject, transcript: &mut Transcript) {
    let cluster = Cluster::builder(subject, 1).start().await;
    let id = cluster.id(0).await;
    let mut ask = Asker {
        client: cluster.client(0),
        transcript,
        names: BTreeMap::from([(cluster.member(0).peer_url.clone(), "only".to_owned())]),
    };
    ask.remove("the only member", id).await;
    ask.add("a second voter", &[NOWHERE[0]], false).await;
    ask.add("a third before the second has started", &[NOWHERE[1]], false)
        .await;
    ask.remove("the only member that has started", id).await;
}
