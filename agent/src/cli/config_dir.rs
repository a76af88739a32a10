//! Where a person's settings are: contexts, and the folders of the clusters that were made here.

use std::path::{Path, PathBuf};

use super::error::CliError;

/// The variable that names the folder.
pub(super) const VARIABLE: &str = "AGENTCTL_CONFIG_DIR";

/// The folder that is named, else the one of the environment, else the person's own.
pub(super) fn config_dir(named: Option<&Path>) -> Result<PathBuf, CliError> {
    let found = named.map(Path::to_owned).or_else(|| {
        // Names of folders need not be text.
        config_dir_of(&|name| std::env::var_os(name).map(PathBuf::from))
    });
    let found = found.ok_or_else(|| {
        CliError::failed("neither XDG_CONFIG_HOME nor HOME says where your settings are")
            .hint(format!("name a folder in {VARIABLE}"))
    })?;
    // What is written there names files by their whole path.
    std::path::absolute(&found).map_err(|error| CliError::io(found.display(), &error))
}

/// As the environment says; `None` where it says nothing of the kind.
pub(super) fn config_dir_of(environment: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let variable = |name| environment(name).filter(|value| !value.as_os_str().is_empty());
    variable(VARIABLE).or_else(|| {
        let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
        Some(config.join("agentctl"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_variable_counts() {
        let found = |variables: &[(&str, &str)]| {
            let folder = config_dir_of(&|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| PathBuf::from(value))
            });
            folder.map(|folder| folder.display().to_string())
        };
        let all = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/x"), (VARIABLE, "/a")];
        assert_eq!(found(&[]), None);
        assert_eq!(found(&all[..1]).as_deref(), Some("/h/.config/agentctl"));
        assert_eq!(found(&all[..2]).as_deref(), Some("/x/agentctl"));
        assert_eq!(found(&all).as_deref(), Some("/a"));
        assert_eq!(
            found(&[all[0], (VARIABLE, "")]).as_deref(),
            Some("/h/.config/agentctl")
        );
    }
}
