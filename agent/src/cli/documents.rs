//! Documents on their way in and out of the cluster: files read and checked, keys listed.
//!
//! What a document is, and what is wrong with one, only [`crate::document`] says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;

use super::client::Client;
use super::error::CliError;
use super::range::KeyRange;
use crate::document::{self, Binding, DesiredKey, Document, Kind};

/// A file of documents is text written by people.
const FILE_LIMIT_BYTES: u64 = 16 << 20;
/// One command, one transaction: a request of 1.5 MiB holds no more.
pub(super) const DOCUMENTS_LIMIT: usize = 5_000;
/// Keys read with one request.
const PAGE_KEYS: i64 = 500;
/// More documents than any three hosts carry: a key space larger than this under our prefixes is not ours.
const KEYS_LIMIT: usize = 200_000;

/// A document as written in a file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The file as given, and the line the document begins at.
    pub(super) place: String,
    pub(super) text: String,
    pub(super) document: Document,
}

impl Source {
    /// A line of the document, as a place in the file.
    pub(super) fn place_of_line(&self, line: u64) -> String {
        let (name, first) = self.place.rsplit_once(':').unwrap_or((&self.place, "1"));
        format!("{name}:{}", first.parse().unwrap_or(1) + line.max(1) - 1)
    }
}

/// A document as the cluster holds it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) key: DesiredKey,
    pub(super) revision: i64,
    pub(super) text: String,
    /// Nothing when the text is no document: it may have been put by any client.
    pub(super) document: Option<Document>,
    /// Where an instance with `placement` was put, where that is known.
    pub(super) binding: Option<Binding>,
}

impl Stored {
    /// Takes the document to be where its binding says.
    fn bind(&mut self, binding: Option<Binding>) {
        if let Some(document) = &mut self.document {
            document.bind(binding.as_ref().and_then(Binding::bound_host));
        }
        self.binding = binding;
    }
}

/// Reads and checks every document of the files, all of them, so that every mistake is told at once.
pub(super) fn load(files: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut sources: Vec<Source> = Vec::new();
    let mut mistakes = Vec::new();
    for file in expand(files)? {
        let (name, text) = read_file(&file)?;
        for source in check_text(&name, &text) {
            match source {
                Err(mistake) => mistakes.push(mistake),
                Ok(source) => match sources
                    .iter()
                    .find(|other| same(&other.document, &source.document))
                {
                    Some(first) => mistakes.push(format!(
                        "{}: {} {} is in {} already",
                        source.place, source.document.kind, source.document.name, first.place
                    )),
                    None => sources.push(source),
                },
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(CliError::failed(mistakes.join("\nerror: ")).hint("nothing was changed"));
    }
    if sources.is_empty() {
        return Err(CliError::failed("there is no document in what was given").hint("nothing was changed"));
    }
    if sources.len() > DOCUMENTS_LIMIT {
        let text = format!(
            "{} documents are too many: {DOCUMENTS_LIMIT} go in at once, all or none",
            sources.len()
        );
        return Err(CliError::failed(text).hint("apply them in several steps; nothing was changed"));
    }
    Ok(sources)
}

fn same(left: &Document, right: &Document) -> bool {
    left.desired_key() == right.desired_key()
}

/// A document that a command makes out of its options, which are what `place` speaks of.
pub(super) fn source(place: &str, text: String) -> Result<Source, CliError> {
    let document =
        document::parse(&text).map_err(|error| CliError::usage(format!("{place}: {}", error.text())))?;
    Ok(Source {
        place: place.to_owned(),
        text,
        document,
    })
}

/// Every document of a text, or what is wrong with it, `FILE:LINE: ` first.
fn check_text(name: &str, text: &str) -> Vec<Result<Source, String>> {
    let parts = document::split(text).into_iter();
    parts
        .map(|(first_line, part)| match document::parse(part) {
            Ok(document) => Ok(Source {
                place: format!("{name}:{first_line}"),
                text: part.to_owned(),
                document,
            }),
            Err(error) => Err(format!("{name}:{}", error.in_file(first_line))),
        })
        .collect()
}

/// Directories become the documents in them, by name.
fn expand(files: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut expanded = Vec::new();
    for file in files {
        if !file.is_dir() {
            expanded.push(file.clone());
            continue;
        }
        let failed = |error: io::Error| CliError::io(file.display(), &error);
        let mut entries = Vec::new();
        for entry in fs::read_dir(file).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file() {
                entries.push(path);
            }
        }
        if entries.is_empty() {
            return Err(CliError::failed(format!(
                "{}: no .yaml, .yml or .json file in it",
                file.display()
            )));
        }
        entries.sort();
        expanded.extend(entries);
    }
    Ok(expanded)
}

/// Files and directories as texts, each with the name it goes by.
pub(super) fn read_files(files: &[PathBuf]) -> Result<Vec<(String, String)>, CliError> {
    expand(files)?.iter().map(|file| read_file(file)).collect()
}

/// A file, or standard input, as text, with the name it goes by.
pub(super) fn read_file(file: &Path) -> Result<(String, String), CliError> {
    let name = display_name(file);
    let text = read_text(file, &name)?;
    Ok((name, text))
}

fn display_name(file: &Path) -> String {
    if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

fn read_text(file: &Path, name: &str) -> Result<String, CliError> {
    let failed = |error: io::Error| CliError::io(name, &error);
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).map_err(failed)?)
    };
    let mut bytes = Vec::new();
    source
        .take(FILE_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT_BYTES {
        return Err(CliError::failed(format!(
            "{name}: more than {} MiB",
            FILE_LIMIT_BYTES >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|_| CliError::failed(format!("{name}: is not text")))
}

/// Does a document live at this key?
pub(super) fn is_desired_key(key: &[u8]) -> bool {
    desired_key(key).is_some()
}

fn desired_key(key: &[u8]) -> Option<DesiredKey> {
    document::parse_desired_key(std::str::from_utf8(key).ok()?)
}

/// Checks a text that is to be stored at a key; where no document lives anything may be.
pub(super) fn check_for_key(key: &[u8], text: &[u8]) -> Result<(), String> {
    let Some(key) = desired_key(key) else {
        return Ok(());
    };
    let text = std::str::from_utf8(text).map_err(|_| "a document is text".to_owned())?;
    match document::parse_at(&key.key(), text) {
        Ok(_) => Ok(()),
        Err(error) if error.line > 0 => Err(format!("line {error}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Which documents a command means.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) kind: Option<Kind>,
    pub(super) name: Option<String>,
    pub(super) tenant: Option<String>,
}

impl Selection {
    /// The prefixes that what is meant lives under. Who may read only one tenant's keys is not refused for the rest.
    pub(super) fn prefixes(&self) -> Vec<String> {
        match (self.kind, &self.tenant) {
            (Some(kind), _) if !kind.has_tenant() => vec!["/cluster/".to_owned()],
            (_, Some(tenant)) => vec![format!("/tenants/{tenant}/")],
            _ => vec!["/cluster/".to_owned(), "/tenants/".to_owned()],
        }
    }

    pub(super) fn matches(&self, key: &DesiredKey) -> bool {
        let tenant_matches = match &self.tenant {
            Some(tenant) => !key.kind.has_tenant() || *tenant == key.tenant,
            // A name alone means the tenant that a document without one belongs to.
            None => self.name.is_none() || !key.kind.has_tenant() || key.tenant == document::DEFAULT_TENANT,
        };
        tenant_matches
            && self.kind.is_none_or(|kind| kind == key.kind)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }

    /// "instance web", "instances", "documents".
    pub(super) fn words(&self) -> String {
        let what = match (self.kind, &self.name) {
            (Some(kind), Some(name)) => format!("{kind} {name}"),
            (Some(kind), None) => kind.plural().to_owned(),
            (None, _) => "documents".to_owned(),
        };
        match &self.tenant {
            Some(tenant) => format!("{what} of tenant {tenant}"),
            None => what,
        }
    }
}

/// Reads a word as a kind, for the command line.
pub(super) fn parse_kind(word: &str) -> Result<Kind, String> {
    Kind::from_word(word).ok_or_else(|| {
        let known: Vec<&str> = document::kinds().iter().map(|kind| kind.singular()).collect();
        format!(
            "no such kind; there are {}; a key is shown by `agentctl kv get`",
            known.join(", ")
        )
    })
}

/// What was read under the prefixes of documents and their status, all at one revision.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) revision: i64,
    pub(super) kvs: Vec<KeyValue>,
}

/// Reads all keys under `prefixes`, page by page, as of one revision.
pub(super) async fn list(client: &Client, prefixes: &[&str]) -> Result<Listing, CliError> {
    pages(client, prefixes, false).await
}

/// The same for people who look, and change nothing of what they see: where no quorum answers they get what one member
/// knows, and are told that it is no more than that.
pub(super) async fn look(client: &Client, prefixes: &[&str]) -> Result<Listing, CliError> {
    let unanswered = match pages(client, prefixes, false).await {
        Err(error) if error.is_no_answer() => error,
        answer => return answer,
    };
    let Ok(listing) = pages(client, prefixes, true).await else {
        return Err(unanswered);
    };
    eprintln!(
        "no quorum: this is what the member at {} knows, up to revision {}. Hosts keep what they know of, and delete \
         nothing;\nchanges wait until most members are back: `agentctl endpoint status` shows who is",
        client.answering(),
        listing.revision
    );
    Ok(listing)
}

async fn pages(client: &Client, prefixes: &[&str], serializable: bool) -> Result<Listing, CliError> {
    let mut listing = Listing::default();
    for prefix in prefixes {
        let mut range = KeyRange::prefix(prefix.as_bytes());
        loop {
            let request = pb::RangeRequest {
                key: range.key.clone(),
                range_end: range.range_end.clone(),
                limit: PAGE_KEYS,
                revision: listing.revision,
                serializable,
                ..Default::default()
            };
            let page = client.range(request).await?;
            if listing.revision == 0 {
                listing.revision = page.header.map_or(0, |header| header.revision);
            }
            let next = page.kvs.last().map(|kv| [kv.key.as_ref(), b"\0"].concat());
            listing.kvs.extend(page.kvs);
            if listing.kvs.len() > KEYS_LIMIT {
                return Err(
                    CliError::failed(format!("more than {KEYS_LIMIT} keys under {prefix}"))
                        .hint("name one document, or read them with `agentctl kv get --prefix --limit`"),
                );
            }
            match next {
                Some(next) if page.more => range.key = next.into(),
                _ => break,
            }
        }
    }
    Ok(listing)
}

/// The documents among the keys, in the order of their keys, each where its binding among the keys says.
pub(super) fn stored(kvs: &[KeyValue], selection: &Selection) -> Vec<Stored> {
    let bindings: BTreeMap<DesiredKey, Binding> = kvs.iter().filter_map(binding).collect();
    let wanted = |kv: &KeyValue| {
        let key = desired_key(&kv.key).filter(|key| selection.matches(key))?;
        let text = String::from_utf8_lossy(&kv.value).into_owned();
        let document = document::parse_at(&key.key(), &text).ok();
        let mut stored = Stored {
            revision: kv.mod_revision,
            text,
            document,
            binding: None,
            key,
        };
        stored.bind(bindings.get(&stored.key).cloned());
        Some(stored)
    };
    kvs.iter().filter_map(wanted).collect()
}

fn binding(kv: &KeyValue) -> Option<(DesiredKey, Binding)> {
    let key = document::parse_binding_key(std::str::from_utf8(&kv.key).ok()?)?;
    Some((key, serde_json::from_slice(&kv.value).ok()?))
}

/// Reads where the documents' instances were put that may be on several hosts. A reader who may not see that goes
/// without.
pub(super) async fn read_bindings(client: &Client, all: &mut [Option<Stored>]) {
    let is_placed = |stored: &&mut Stored| {
        let document = stored.document.as_ref();
        document.is_some_and(|document| document.placement.is_some())
    };
    for stored in all.iter_mut().flatten().filter(is_placed) {
        let request = pb::RangeRequest {
            key: document::binding_key(&stored.key).into(),
            ..Default::default()
        };
        if let Ok(found) = client.range(request).await {
            stored.bind(found.kvs.first().and_then(binding).map(|(_, binding)| binding));
        }
    }
}

/// `-f`, as often as wanted.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct FilesArg {
    /// A file of documents, a directory of such files, or - for standard input; may be given several times
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    files: Vec<OsString>,
}

impl FilesArg {
    pub(super) fn is_given(&self) -> bool {
        !self.files.is_empty()
    }

    pub(super) fn load(&self) -> Result<Vec<Source>, CliError> {
        if self.files.is_empty() {
            return Err(CliError::usage("say which documents: -f FILE, -f DIR or -f -"));
        }
        load(&self.files.iter().map(PathBuf::from).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const WEB: &str = "kind: instance\nname: web\nhost: ovh\nspec:\n  type: container\n  source: {type: image, alias: busybox}\n";

    #[test]
    fn every_mistake_is_told_with_its_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("a.yaml", &format!("{WEB}---\nkind: instanze\nname: x\n"));
        write("b.yml", WEB);
        write("c.json", "{");
        write("ignored.txt", "not a document");
        let error = load(&[dir.path().to_owned()]).unwrap_err();
        let text = error.text().replace(&format!("{}/", dir.path().display()), "");
        expect![[r#"
            error: a.yaml:8: kind: no such kind: instanze; did you mean instance?
            error: b.yml:1: instance web is in a.yaml:1 already
            error: c.json:1: not YAML: unclosed bracket '{'
            nothing was changed
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_text_is_checked_where_a_document_lives() {
        let key = b"/tenants/default/desired/instances/web";
        assert_eq!(check_for_key(key, WEB.as_bytes()), Ok(()));
        assert_eq!(check_for_key(b"greeting", b"anything \xff"), Ok(()));
        let other = b"/tenants/default/desired/instances/db";
        assert_eq!(
            check_for_key(other, WEB.as_bytes()),
            Err("line 2: name: is web, but the key says db".into())
        );
    }

    #[test]
    fn a_name_alone_is_the_default_tenants() {
        let key = |tenant: &str| DesiredKey {
            kind: Kind::Instance,
            tenant: tenant.into(),
            name: "web".into(),
        };
        let named = Selection {
            kind: Some(Kind::Instance),
            name: Some("web".into()),
            tenant: None,
        };
        assert!(named.matches(&key("default")) && !named.matches(&key("shop")));
        assert!(Selection::default().matches(&key("shop")));
        let shop = Selection {
            tenant: Some("shop".into()),
            ..named
        };
        assert!(shop.matches(&key("shop")) && !shop.matches(&key("default")));
    }
}
