//! Readable names for what differs from run to run: member ids, addresses, folders, lease ids, hashes.

use std::collections::BTreeMap;

use crate::cluster::Cluster;

/// Replaces a cluster's ids and addresses by names, the same thing always by the same name.
#[derive(Debug, Default)]
pub struct Names {
    replacements: Vec<(String, String)>,
    ids: BTreeMap<u64, String>,
    given: BTreeMap<(&'static str, String), String>,
}

impl Names {
    /// Members are numbered from `first` on, around: what the first says looks the same whichever it is.
    ///
    /// # Panics
    /// When the cluster does not tell its members.
    pub async fn of(cluster: &Cluster, first: usize) -> Names {
        let mut names = Names::default();
        let status = cluster.client(0).status().await.expect("status");
        let cluster_id = status.header.map_or(0, |header| header.cluster_id);
        names.id(cluster_id, "<cluster>");
        let members = cluster.client(0).member_list().await.expect("member list");
        for (at, member) in cluster.members().iter().enumerate() {
            let i = (at + cluster.len() - first) % cluster.len();
            names.replace(
                &format!("\"name\":\"{}\"", member.name),
                &format!("\"name\":\"<name{i}>\""),
            );
            names.replace(&format!(", {}, ", member.name), &format!(", <name{i}>, "));
            names.replace(&format!("| {} |", member.name), &format!("| <name{i}> |"));
            names.replace(&member.client_url, &format!("<client{i}>"));
            names.replace(
                member.client_url.trim_start_matches("http://"),
                &format!("<address{i}>"),
            );
            names.replace(&member.peer_url, &format!("<peer{i}>"));
            let listed = members
                .iter()
                .find(|listed| listed.name == member.name)
                .expect("a listed member");
            names.id(listed.id, &format!("<member{i}>"));
        }
        names.replace(&cluster.folder().to_string_lossy(), "<folder>");
        names
    }

    /// Names an id, in the hexadecimal and the decimal way of writing it.
    fn id(&mut self, id: u64, name: &str) {
        // A short number would be found within others.
        assert!(
            id > 1 << 32,
            "{name} has the id {id}, too small to tell it from other numbers"
        );
        self.replace(&format!("{id:x}"), name);
        self.replace(&format!("{id:016x}"), name);
        self.replace_padded(&format!("{id:x}"), name);
        self.replace(&id.to_string(), name);
        self.ids.insert(id, name.to_owned());
    }

    /// An id that begins with a zero is padded with a blank, where etcdctl and agentctl say what they did. Blanks
    /// between the columns of a table are not of the id.
    fn replace_padded(&mut self, hex: &str, name: &str) {
        for word in ["Member", "cluster"] {
            self.replace(&format!("{word} {hex:>16}"), &format!("{word} {name}"));
        }
    }

    fn replace(&mut self, what: &str, name: &str) {
        self.replacements.push((what.to_owned(), name.to_owned()));
        // The longest first, so that none is replaced within another.
        self.replacements
            .sort_by_key(|(what, _)| std::cmp::Reverse(what.len()));
    }

    /// A member's or the cluster's name.
    #[must_use]
    pub fn of_id(&self, id: u64) -> String {
        self.ids.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// The name of something of a kind, numbered as they come: `<hash1>`, `<hash2>`.
    pub fn given(&mut self, kind: &'static str, value: &str) -> String {
        let next = self.given.keys().filter(|(other, _)| *other == kind).count() + 1;
        let name = self.given.entry((kind, value.to_owned()));
        name.or_insert_with(|| format!("<{kind}{next}>")).clone()
    }

    /// As [`Names::given`], and from now on replaced wherever it stands in text.
    pub fn learn(&mut self, kind: &'static str, value: &str) {
        let name = self.given(kind, value);
        self.replace(value, &name);
    }

    /// As [`Names::learn`], of an id in hexadecimal, which stands in JSON in decimal.
    pub fn learn_id(&mut self, kind: &'static str, hex: &str) {
        self.learn(kind, hex);
        let name = self.given(kind, hex);
        self.replace_padded(hex, &name);
        if let Ok(id) = u64::from_str_radix(hex, 16) {
            self.replace(&id.to_string(), &name);
        }
    }

    /// A line of JSON with its members by name: their order is that of the ids, which no two runs share.
    #[must_use]
    pub fn members_by_name(&self, line: &str) -> String {
        let parsed = line
            .contains(r#""members":["#)
            .then(|| serde_json::from_str::<serde_json::Value>(line).ok());
        let Some(mut json) = parsed.flatten() else {
            return line.to_owned();
        };
        if let Some(members) = json.get_mut("members").and_then(|members| members.as_array_mut()) {
            members.sort_by_cached_key(|member| self.apply(&format!("\"name\":{}", member["name"])));
        }
        json.to_string()
    }

    /// Text with every known id and address named.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let mut named = text.to_owned();
        for (what, name) in &self.replacements {
            named = named.replace(what, name);
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_begins_with_a_zero_is_named_as_any_other() {
        for hex in ["e72f8dd13c89a501", "e72f8dd13c89a50"] {
            let mut names = Names::default();
            names.learn_id("added", hex);
            for (said, named) in [
                (
                    format!("Member {hex:>16} removed from"),
                    "Member <added1> removed from",
                ),
                (format!("{hex}  {hex}  learner"), "<added1>  <added1>  learner"),
            ] {
                assert_eq!(names.apply(&said), named);
            }
        }
    }
}
