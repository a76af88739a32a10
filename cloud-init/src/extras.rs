//! What a machine may have beside its member: settings for its Incus, and keys of those who may log in. Checked.

use crate::host::HostError;
use crate::script;

const PRESEED_BYTES: usize = 64 << 10;
const KEYS: usize = 32;
const KEY_BYTES: usize = 8 << 10;
const KEY_KINDS: [&str; 4] = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];

#[derive(Clone, Debug, Default)]
pub struct Extras {
    pub(crate) incus_preseed: Option<String>,
    pub(crate) ssh_keys: Vec<String>,
}

impl Extras {
    /// A preseed as `incus admin init --preseed` reads it, and public keys as `authorized_keys` has them: several to a text,
    /// with comments.
    ///
    /// # Errors
    /// [`HostError`]: the first thing that is wrong.
    pub fn new(incus_preseed: Option<&str>, ssh_keys: &[String]) -> Result<Extras, HostError> {
        let incus_preseed = incus_preseed.map(preseed).transpose()?;
        let lines = ssh_keys.iter().flat_map(|text| text.lines()).map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let ssh_keys: Vec<String> = keys.map(key).collect::<Result<_, _>>()?;
        if ssh_keys.len() > KEYS {
            return Err(HostError::TooManyKeys(ssh_keys.len()));
        }
        Ok(Extras {
            incus_preseed,
            ssh_keys,
        })
    }
}

fn preseed(text: &str) -> Result<String, HostError> {
    let plain = |c: char| c == '\n' || c == '\t' || !c.is_control();
    let wrong = |reason: &str| HostError::Preseed(reason.to_owned());
    if text.trim().is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.len() > PRESEED_BYTES {
        return Err(wrong("it has more than 64 KiB"));
    }
    if !text.chars().all(plain) || text.lines().any(|line| line == script::END) {
        return Err(wrong("it is no plain text"));
    }
    let parsed: Result<std::collections::BTreeMap<String, serde::de::IgnoredAny>, _> =
        serde_saphyr::from_str(text);
    parsed.map_err(|error| wrong(error.to_string().lines().next().unwrap_or_default()))?;
    Ok(format!("{}\n", text.trim_end()))
}

fn key(line: &str) -> Result<String, HostError> {
    let is_kind = KEY_KINDS.iter().any(|kind| line.starts_with(kind));
    let plain = line
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'\'');
    let words = line.split_whitespace().count();
    match is_kind && plain && words >= 2 && line.len() <= KEY_BYTES {
        true => Ok(line.to_owned()),
        false => Err(HostError::SshKey(line.chars().take(40).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extras_cannot_break_out() {
        let keys = |text: &str| Extras::new(None, &[text.to_owned()]).map(|extras| extras.ssh_keys.len());
        assert_eq!(
            keys("# mine\nssh-ed25519 AAAA me@home\n\necdsa-sha2-nistp256 AAAA\n"),
            Ok(2)
        );
        for wrong in [
            "ssh-ed25519",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-ed25519 AAAA 'x'",
            "ssh-rsa A\tB",
        ] {
            assert!(matches!(keys(wrong), Err(HostError::SshKey(_))), "{wrong}");
        }
        let preseed = |text: &str| Extras::new(Some(text), &[]).map(drop);
        assert_eq!(preseed("config: {core.https_address: ':8443'}"), Ok(()));
        for wrong in [
            "",
            "- a",
            "a: [",
            "a: b\u{7}",
            &format!("a: |\n  b\n{}\n", script::END),
        ] {
            assert!(matches!(preseed(wrong), Err(HostError::Preseed(_))), "{wrong}");
        }
    }
}
