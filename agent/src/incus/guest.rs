//! The inside of an instance: its files, and programs that are run in it without a terminal.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::path;
use super::transport::{Answer, Raw, RawAnswer};
use super::{Incus, IncusError};

/// A guest's file system may be a slow disk, and its agent slow to answer.
const FILE_LIMIT: Duration = Duration::from_secs(30);
/// A program that runs longer is given up: Incus is told to end it.
const RUN_LIMIT: Duration = Duration::from_secs(100);
const WAIT_MARGIN: Duration = Duration::from_secs(10);
/// Of a file, and of a program's output, as much is read.
const READ_BYTES_MAX: usize = (2 << 20) + 1;
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// What stands at a path in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEntry {
    Nothing,
    File {
        content: Bytes,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Directory,
    Symlink,
}

/// A file for a guest.
#[derive(Clone, Copy, Debug)]
pub struct GuestFile<'a> {
    pub path: &'a str,
    pub content: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// How a program in a guest ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestRan {
    pub code: i64,
    pub stdout: Bytes,
    pub stderr: Bytes,
}

/// One instance, seen from inside.
#[derive(Clone, Debug)]
pub struct Guest {
    incus: Incus,
    project: String,
    name: String,
}

impl Incus {
    /// The inside of an instance. Nothing is sent yet.
    #[must_use]
    pub fn guest(&self, project: &str, name: &str) -> Guest {
        Guest {
            incus: self.clone(),
            project: project.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl Guest {
    /// # Errors
    /// When the instance is not there, or Incus cannot look into it.
    pub async fn look(&self, file: &str) -> Result<GuestEntry, IncusError> {
        let path = path::guest_file(&self.project, &self.name, file)?;
        let answer = self.raw(Method::GET, &path, &[], Bytes::new()).await;
        let answer = match answer {
            // The instance itself, or the file: Incus' messages aside, reading the instance tells.
            Err(IncusError::NotFound { message }) => {
                let live = self
                    .incus
                    .get(super::Kind::Instance, &self.project, &self.name)
                    .await?;
                return live
                    .map(|_| GuestEntry::Nothing)
                    .ok_or(IncusError::NotFound { message });
            }
            answer => answer?,
        };
        let number = |header: &str, radix: u32| {
            let text = answer.header(header);
            u32::from_str_radix(text, radix)
                .map_err(|_| IncusError::bad_answer(format!("{header} of a file is {text:?}")))
        };
        match answer.header("X-Incus-type") {
            "directory" => Ok(GuestEntry::Directory),
            "symlink" => Ok(GuestEntry::Symlink),
            _ => Ok(GuestEntry::File {
                mode: number("X-Incus-mode", 8)?,
                uid: number("X-Incus-uid", 10)?,
                gid: number("X-Incus-gid", 10)?,
                content: answer.body,
            }),
        }
    }

    /// Writes a file, whose folder is there. One that is there keeps its permissions.
    ///
    /// # Errors
    /// Incus' own.
    pub async fn write(&self, file: &GuestFile<'_>) -> Result<(), IncusError> {
        let path = path::guest_file(&self.project, &self.name, file.path)?;
        let headers = [
            ("X-Incus-type", "file".to_owned()),
            ("X-Incus-write", "overwrite".to_owned()),
            ("X-Incus-mode", format!("{:04o}", file.mode)),
            ("X-Incus-uid", file.uid.to_string()),
            ("X-Incus-gid", file.gid.to_string()),
        ];
        let content = Bytes::copy_from_slice(file.content);
        self.raw(Method::POST, &path, &headers, content).await.map(drop)
    }

    /// Makes a folder, mode 0755, root's.
    ///
    /// # Errors
    /// Incus' own; one that is there may be an error.
    pub async fn make_folder(&self, folder: &str) -> Result<(), IncusError> {
        let path = path::guest_file(&self.project, &self.name, folder)?;
        let headers = [
            ("X-Incus-type", "directory".to_owned()),
            ("X-Incus-mode", "0755".to_owned()),
            ("X-Incus-uid", "0".to_owned()),
            ("X-Incus-gid", "0".to_owned()),
        ];
        self.raw(Method::POST, &path, &headers, Bytes::new())
            .await
            .map(drop)
    }

    /// Removes a file, or a folder with nothing in it.
    ///
    /// # Errors
    /// Incus' own; [`IncusError::NotFound`] where there is none.
    pub async fn remove(&self, file: &str) -> Result<(), IncusError> {
        let path = path::guest_file(&self.project, &self.name, file)?;
        self.raw(Method::DELETE, &path, &[], Bytes::new()).await.map(drop)
    }

    /// Runs a program to its end, as root, without a terminal and without a shell, and reads what it said.
    ///
    /// # Errors
    /// When it cannot be run, or does not end in time.
    pub async fn run(&self, words: &[&str]) -> Result<GuestRan, IncusError> {
        let body = json!({
            "command": words,
            "environment": {
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/",
                "LC_ALL": "C",
            },
            "wait-for-websocket": false,
            "record-output": true,
            "interactive": false,
            "user": 0,
            "group": 0,
            "cwd": "/",
        });
        let path = path::below_instance(&self.project, &self.name, "exec")?;
        let transport = &self.incus.transport;
        let operation = match transport
            .send(Method::POST, &path, Some(&body), None, FILE_LIMIT)
            .await?
        {
            Answer::Async { operation, .. } => super::operation::operation_path(&operation)?.to_owned(),
            Answer::Sync { .. } => return Err(IncusError::bad_answer("a program without an operation")),
        };
        let metadata = self.wait(&operation).await?;
        let result = metadata.get("metadata").unwrap_or(&Value::Null);
        let code = result.get("return").and_then(Value::as_i64);
        let mut ran = GuestRan {
            code: code.ok_or_else(|| IncusError::bad_answer("a program that ended without a code"))?,
            ..GuestRan::default()
        };
        for (stream, into) in [("1", &mut ran.stdout), ("2", &mut ran.stderr)] {
            let log = result
                .get("output")
                .and_then(|output| output.get(stream))
                .and_then(Value::as_str);
            if let Some(log) = log {
                *into = self.take_log(log).await?;
            }
        }
        Ok(ran)
    }

    /// The program's operation, once it has ended.
    async fn wait(&self, operation: &str) -> Result<Value, IncusError> {
        let transport = &self.incus.transport;
        let wait = format!("{operation}/wait?timeout={}", RUN_LIMIT.as_secs());
        let waited = match transport.get(&wait, RUN_LIMIT + WAIT_MARGIN).await {
            // It failed, or the wait was over before it: the operation itself tells which.
            Err(IncusError::OperationFailed { message }) => {
                let operation = transport.get(operation, FILE_LIMIT).await?;
                match status_code(&operation) {
                    Some(100..=199) => operation,
                    _ => return Err(IncusError::OperationFailed { message }),
                }
            }
            waited => waited?,
        };
        match (status_code(&waited), waited) {
            (Some(200), Answer::Sync { metadata, .. }) => Ok(metadata),
            (Some(100..=199), _) => {
                // What it has done by now is looked at, like everything.
                let _ = transport
                    .send(Method::DELETE, operation, None, None, FILE_LIMIT)
                    .await;
                Err(IncusError::Timeout {
                    limit_seconds: RUN_LIMIT.as_secs(),
                })
            }
            _ => Err(IncusError::bad_answer("a program that neither runs nor ended")),
        }
    }

    /// Reads what Incus recorded, and removes it: nobody else would.
    async fn take_log(&self, log: &str) -> Result<Bytes, IncusError> {
        let path = path::guest_log(&self.project, &self.name, log)?;
        let read = self.raw(Method::GET, &path, &[], Bytes::new()).await;
        let _ = self.raw(Method::DELETE, &path, &[], Bytes::new()).await;
        let mut output = read?.body;
        output.truncate(OUTPUT_BYTES_MAX);
        Ok(output)
    }

    async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<RawAnswer, IncusError> {
        let request = Raw {
            method,
            path,
            headers,
            body,
            read_max: READ_BYTES_MAX,
        };
        self.incus.transport.raw(request, FILE_LIMIT).await
    }
}

fn status_code(operation: &Answer) -> Option<u64> {
    match operation {
        Answer::Sync { metadata, .. } => metadata.get("status_code")?.as_u64(),
        Answer::Async { .. } => None,
    }
}
