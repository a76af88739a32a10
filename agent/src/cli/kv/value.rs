//! Where a value comes from: the command line, a file, standard input.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bytes::Bytes;

use crate::cli::error::CliError;

/// More than any cluster would take: the member says what its own limit is.
const LIMIT_BYTES: u64 = 16 << 20;

/// `-` or nothing is standard input, `@FILE` a file, anything else the value itself.
pub(in crate::cli) fn read(argument: Option<OsString>) -> Result<Bytes, CliError> {
    match argument {
        None => read_all(&mut io::stdin().lock(), "standard input"),
        Some(value) if value == "-" => read_all(&mut io::stdin().lock(), "standard input"),
        Some(value) => match value.as_bytes().strip_prefix(b"@") {
            Some(path) => {
                let path = OsStr::from_bytes(path);
                let name = path.to_string_lossy();
                let mut file = File::open(path).map_err(|error| CliError::io(&name, &error))?;
                read_all(&mut file, &name)
            }
            None => Ok(value.into_vec().into()),
        },
    }
}

fn read_all(source: &mut impl Read, name: &str) -> Result<Bytes, CliError> {
    let mut bytes = Vec::new();
    source
        .take(LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::io(name, &error))?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(CliError::failed(format!(
            "{name} holds more than {} MiB",
            LIMIT_BYTES >> 20
        )));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_itself_or_a_files_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        std::fs::write(&path, b"\xff\x00file\n").unwrap();
        assert_eq!(read(Some("plain".into())), Ok(Bytes::from_static(b"plain")));
        assert_eq!(
            read(Some(format!("@{}", path.display()).into())),
            Ok(Bytes::from_static(b"\xff\x00file\n"))
        );
        let error = read(Some("@/no/such/file".into())).unwrap_err();
        assert_eq!(error.to_string(), "/no/such/file: no such file or directory");
    }
}
