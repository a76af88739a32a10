//! The YAML file of `--config`: the flags' long names as keys. It becomes flags in front of those on the command
//! line, so that there is one place which knows names, types and defaults.

use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigFileError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path}: {reason}")]
    NotYaml { path: PathBuf, reason: String },
    #[error("{path}: must be a map of settings, like \"name: ovh\"")]
    NotAMap { path: PathBuf },
    #[error("{path}: {key}: must be a text, a number, true, false, or a list of those")]
    BadValue { path: PathBuf, key: String },
}

/// The file's settings as flags. One that `is_set_in_environment` is left out: the environment beats the file.
///
/// # Errors
/// [`ConfigFileError`] names the file and the key.
pub fn arguments_from_file(
    path: &Path,
    is_set_in_environment: impl Fn(&str) -> bool,
) -> Result<Vec<String>, ConfigFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigFileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|error| ConfigFileError::NotYaml {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let Value::Object(settings) = value else {
        return Err(ConfigFileError::NotAMap {
            path: path.to_owned(),
        });
    };
    let mut arguments = Vec::new();
    for (key, value) in settings {
        if is_set_in_environment(&format!("AGENT_{}", key.replace('-', "_").to_uppercase())) {
            continue;
        }
        let bad = || ConfigFileError::BadValue {
            path: path.to_owned(),
            key: key.clone(),
        };
        match &value {
            Value::Bool(true) => arguments.push(format!("--{key}")),
            Value::Bool(false) | Value::Null => {}
            Value::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                arguments.push(format!("--{key}={}", items.ok_or_else(bad)?.join(",")));
            }
            other => arguments.push(format!("--{key}={}", scalar(other).ok_or_else(bad)?)),
        }
    }
    Ok(arguments)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        arguments_from_file(&path, |name| name == "AGENT_NAME")
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn settings_become_flags_and_the_environment_wins() {
        let text = "name: ovh\nheartbeat-interval: 300\nallow-plaintext: true\nlisten-client-urls: [http://a:1, http://b:2]\n";
        assert_eq!(
            arguments(text).unwrap(),
            [
                "--heartbeat-interval=300",
                "--allow-plaintext",
                "--listen-client-urls=http://a:1,http://b:2"
            ]
        );
    }

    #[test]
    fn mistakes_name_the_key() {
        assert_eq!(
            arguments("provider: {a: b}").unwrap_err(),
            "FILE: provider: must be a text, a number, true, false, or a list of those"
        );
        assert!(arguments("- a").unwrap_err().starts_with("FILE: must be a map"));
        assert!(arguments("a: [").is_err());
    }
}
