//! `kv edit`: a value in an editor, checked before it is stored, and stored only over what was read.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use clap::Args;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use crate::cli::Session;
use crate::cli::documents;
use crate::cli::error::CliError;
use crate::cli::format;
use crate::cli::range::KeyRange;

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  agentctl kv edit /tenants/default/desired/instances/web\n\n\
                        When somebody else changes the key meanwhile, nothing is stored and your text is kept."
)]
pub(in crate::cli) struct EditArgs {
    /// The key; one that does not exist yet begins empty
    #[arg(value_name = "KEY")]
    key: OsString,
}

impl EditArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let key: Bytes = self.key.into_vec().into();
        if key.is_empty() {
            return Err(CliError::usage("the key is empty"));
        }
        let request = pb::RangeRequest {
            key: key.clone(),
            ..Default::default()
        };
        let before = session.client.range(request).await?.kvs.into_iter().next();
        let old = before.as_ref().map(|kv| kv.value.clone()).unwrap_or_default();
        let draft = Draft::new(&key, &old)?;
        let text = draft.edit(&key, &old)?;
        if text == old && before.is_some() {
            draft.discard();
            return format::write(b"not changed\n");
        }
        let response = session
            .client
            .txn(replace(key, text, before.as_ref()))
            .await
            .map_err(|e| draft.keep(e))?;
        if !response.succeeded {
            let conflict = CliError::failed("somebody else changed the key meanwhile; nothing was stored");
            return Err(draft.keep(conflict));
        }
        let revision = response.header.map_or(0, |header| header.revision);
        draft.discard();
        format::write(format!("stored at revision {revision}\n").as_bytes())
    }
}

/// Puts `text` if the key still is what was read, or still is not there; a lease stays.
fn replace(key: Bytes, text: Bytes, before: Option<&proto::mvccpb::KeyValue>) -> pb::TxnRequest {
    let unchanged = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        target_union: Some(TargetUnion::ModRevision(before.map_or(0, |kv| kv.mod_revision))),
        key: key.clone(),
        range_end: KeyRange::one(key.clone()).range_end,
    };
    let put = pb::PutRequest {
        key,
        value: text,
        ignore_lease: before.is_some(),
        ..Default::default()
    };
    let put = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put)),
    };
    pb::TxnRequest {
        compare: vec![unchanged],
        success: vec![put],
        failure: vec![],
    }
}

/// The file in the editor. Only its owner may read it; it outlives a failure, so that no work is lost.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn new(key: &[u8], text: &[u8]) -> Result<Self, CliError> {
        let suffix = if documents::is_desired_key(key) {
            ".yaml"
        } else {
            ""
        };
        let name = format!("agentctl-edit-{:016x}{suffix}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        let failed = |error: io::Error| CliError::io(path.display(), &error);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(text).map_err(failed)?;
        Ok(Self { path })
    }

    /// Runs the editor, and again while the text is a wrong document and a person wants to mend it.
    fn edit(&self, key: &[u8], old: &[u8]) -> Result<Bytes, CliError> {
        loop {
            let edited = run_editor(&self.path);
            let text = fs::read(&self.path).map_err(|error| CliError::io(self.path.display(), &error))?;
            if let Err(error) = edited {
                if text == old {
                    self.discard();
                    return Err(error);
                }
                return Err(self.keep(error));
            }
            if text == old {
                return Ok(text.into());
            }
            match documents::check_for_key(key, &text) {
                Ok(()) => return Ok(text.into()),
                Err(why) if wants_another_try(&why) => {}
                Err(why) => return Err(self.keep(CliError::failed(why))),
            }
        }
    }

    fn keep(&self, error: CliError) -> CliError {
        error.hint(format!("your text is kept in {}", self.path.display()))
    }

    fn discard(&self) {
        // It is only a leftover in the temporary directory if this fails.
        let _ = fs::remove_file(&self.path);
    }
}

fn wants_another_try(why: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    eprint!("{why}\nedit again? [Y/n] ");
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(0) | Err(_) => false,
        Ok(_) => !answer.trim().to_lowercase().starts_with('n'),
    }
}

/// `$VISUAL`, else `$EDITOR`, else vi. Either may carry options, so a shell takes them apart.
fn run_editor(path: &Path) -> Result<(), CliError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let editor = set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".into());
    let mut script = editor.as_bytes().to_vec();
    script.extend_from_slice(b" \"$1\"");
    let status = Command::new("sh")
        .arg("-c")
        .arg(OsString::from_vec(script))
        .arg("edit")
        .arg(path)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::failed(format!(
            "{} ended with {status}",
            editor.display()
        ))),
        Err(error) => Err(CliError::io("sh", &error)),
    }
}
