//! Paths of Incus' REST API: every name that comes from a document or a caller passes here.

use super::{IncusError, Kind};

/// Longer than any name Incus takes.
const NAME_LIMIT_BYTES: usize = 255;

/// The path of all objects of a kind, or of new ones: `/1.0/instances?project=t1`. Of what lives in another object
/// `container` names that one.
pub(super) fn collection(kind: Kind, project: &str, container: &str) -> Result<String, IncusError> {
    Ok(format!("{}{}", folder(kind, container)?, query(kind, project)?))
}

/// The path of one object: `/1.0/instances/web?project=t1`.
pub(super) fn object(kind: Kind, project: &str, name: &str) -> Result<String, IncusError> {
    if kind == Kind::Server {
        return Ok("/1.0".to_owned());
    }
    let (container, own) = match kind.container_field() {
        Some(_) => name.split_once('/').unwrap_or(("", name)),
        None => ("", name),
    };
    Ok(format!(
        "{}/{}{}",
        folder(kind, container)?,
        segment(own)?,
        query(kind, project)?
    ))
}

/// Where all objects of a kind are, of all projects.
pub(super) fn folder(kind: Kind, container: &str) -> Result<String, IncusError> {
    Ok(match kind {
        Kind::Volume => format!("/1.0/storage-pools/{}/volumes/custom", segment(container)?),
        Kind::NetworkForward => format!("/1.0/networks/{}/forwards", segment(container)?),
        _ => format!("/1.0/{}", kind.plural()),
    })
}

/// The path of something below an instance: `state`, `exec`, `console`, `snapshots`.
pub(super) fn below_instance(project: &str, name: &str, what: &str) -> Result<String, IncusError> {
    let query = query(Kind::Instance, project)?;
    Ok(format!("/1.0/instances/{}/{what}{query}", segment(name)?))
}

/// The path of something below an object that holds data: `snapshots`, a snapshot, `backups`.
pub(super) fn below(kind: Kind, project: &str, name: &str, what: &[&str]) -> Result<String, IncusError> {
    let object = object(kind, project, name)?;
    let (mut path, query) = match object.split_once('?') {
        Some((path, query)) => (path.to_owned(), format!("?{query}")),
        None => (object, String::new()),
    };
    for name in what {
        path.push('/');
        path.push_str(&segment(name)?);
    }
    Ok(path + &query)
}

/// The path of one snapshot of an instance.
pub(super) fn snapshot(project: &str, name: &str, snapshot: &str) -> Result<String, IncusError> {
    below_instance(project, name, &format!("snapshots/{}", segment(snapshot)?))
}

/// The path of a new image alias.
pub(super) fn image_aliases(project: &str) -> Result<String, IncusError> {
    Ok(format!("/1.0/images/aliases?project={}", segment(project)?))
}

/// The path of all custom volumes of a storage pool, with what each of them is.
pub(super) fn custom_volumes(pool: &str) -> Result<String, IncusError> {
    Ok(format!(
        "{}?recursion=1&all-projects=true",
        folder(Kind::Volume, pool)?
    ))
}

/// The path of an image alias. Aliases hold slashes by custom (`debian/12`), which are encoded.
pub(super) fn image_alias(project: &str, alias: &str) -> Result<String, IncusError> {
    let parts_ok = alias.split('/').all(is_plain);
    if !parts_ok || alias.len() > NAME_LIMIT_BYTES {
        return Err(IncusError::BadName {
            name: alias.to_owned(),
        });
    }
    Ok(format!(
        "/1.0/images/aliases/{}?project={}",
        encode(alias),
        segment(project)?
    ))
}

/// The path of a file in a guest, which is the guest's own and only encoded.
pub(super) fn guest_file(project: &str, name: &str, file: &str) -> Result<String, IncusError> {
    let good = file.starts_with('/') && !file.chars().any(char::is_control);
    if !good {
        return Err(IncusError::BadName {
            name: file.to_owned(),
        });
    }
    Ok(format!(
        "/1.0/instances/{}/files?path={}&project={}",
        segment(name)?,
        encode(file),
        segment(project)?
    ))
}

/// The path of a program's recorded output, as Incus names it: below the instance, and nowhere else.
pub(super) fn guest_log(project: &str, name: &str, log: &str) -> Result<String, IncusError> {
    let below = format!("/1.0/instances/{}/logs/exec-output/", segment(name)?);
    match log.split('?').next().and_then(|log| log.strip_prefix(&below)) {
        Some(file) => Ok(format!("{below}{}?project={}", segment(file)?, segment(project)?)),
        None => Err(IncusError::bad_answer(
            "recorded output that is not the instance's",
        )),
    }
}

/// Some kinds are in no project. Networks are in the default one, unless another is named.
fn query(kind: Kind, project: &str) -> Result<String, IncusError> {
    match kind {
        Kind::Server | Kind::StoragePool | Kind::Project => Ok(String::new()),
        Kind::NetworkAcl | Kind::Network | Kind::NetworkForward if project.is_empty() => Ok(String::new()),
        _ => Ok(format!("?project={}", segment(project)?)),
    }
}

/// One name, encoded for a path or a query.
fn segment(name: &str) -> Result<String, IncusError> {
    if name.len() <= NAME_LIMIT_BYTES && is_plain(name) {
        Ok(encode(name))
    } else {
        Err(IncusError::BadName {
            name: name.to_owned(),
        })
    }
}

/// Encoding would carry any of these safely over the wire, but no Incus name has them, and a daemon (or a proxy
/// before it) that decodes too early would end up at another object.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && !name.contains("..")
        && !name
            .chars()
            .any(|c| matches!(c, '/' | '\\' | '?' | '#' | '%' | '&') || c.is_control())
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The other way round, for the paths in events. `None` where it is no valid encoding.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: Result<String, IncusError>, expected: &str| assert_eq!(path.unwrap(), expected);
        check(collection(Kind::Project, "", ""), "/1.0/projects");
        check(collection(Kind::Instance, "t1", ""), "/1.0/instances?project=t1");
        check(
            collection(Kind::Volume, "t1", "fast"),
            "/1.0/storage-pools/fast/volumes/custom?project=t1",
        );
        check(
            object(Kind::Volume, "t1", "fast/data"),
            "/1.0/storage-pools/fast/volumes/custom/data?project=t1",
        );
        check(
            object(Kind::NetworkForward, "", "br0/fd00::1"),
            "/1.0/networks/br0/forwards/fd00%3A%3A1",
        );
        check(object(Kind::Server, "", ""), "/1.0");
        check(object(Kind::Project, "ignored", "t1"), "/1.0/projects/t1");
        check(
            object(Kind::Profile, "t1", "a b"),
            "/1.0/profiles/a%20b?project=t1",
        );
        check(
            below_instance("default", "web", "state"),
            "/1.0/instances/web/state?project=default",
        );
        check(
            snapshot("t1", "web", "before upgrade"),
            "/1.0/instances/web/snapshots/before%20upgrade?project=t1",
        );
        check(
            below_instance("t1", "web", "exec"),
            "/1.0/instances/web/exec?project=t1",
        );
        check(
            custom_volumes("fast"),
            "/1.0/storage-pools/fast/volumes/custom?recursion=1&all-projects=true",
        );
        check(
            image_alias("default", "debian/12"),
            "/1.0/images/aliases/debian%2F12?project=default",
        );
    }

    #[test]
    fn names_that_could_reach_another_object_are_refused() {
        let long = "a".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a?b",
            "a#b",
            "../x",
            "a..b",
            "a%2fb",
            "a\nb",
            "a&project=x",
            &long,
        ] {
            for path in [
                object(Kind::Instance, "p", name),
                object(Kind::Instance, name, "n"),
                object(Kind::Volume, "p", &format!("pool/{name}")),
                object(Kind::Volume, "p", &format!("{name}/n")),
                below_instance("p", name, "exec"),
                snapshot("p", name, "s0"),
                snapshot("p", "n", name),
            ] {
                assert!(
                    matches!(path, Err(IncusError::BadName { .. })),
                    "{name:?}: {path:?}"
                );
            }
        }
        for alias in ["", "/", "a//b", "a/../b", "a?b"] {
            assert!(image_alias("p", alias).is_err(), "{alias:?}");
        }
    }

    #[test]
    fn paths_into_a_guest() {
        assert_eq!(
            guest_file("t1", "web", "/etc/a b?").unwrap(),
            "/1.0/instances/web/files?path=%2Fetc%2Fa%20b%3F&project=t1"
        );
        assert!(guest_file("t1", "web", "etc").is_err());
        assert!(guest_file("t1", "a/b", "/etc").is_err());
        let log = "/1.0/instances/web/logs/exec-output/exec_1.stdout";
        assert_eq!(guest_log("t1", "web", log).unwrap(), format!("{log}?project=t1"));
        for log in [
            "",
            "/1.0/instances/db/logs/exec-output/x",
            "/1.0/instances/web/logs/exec-output/../x",
        ] {
            assert!(guest_log("t1", "web", log).is_err(), "{log}");
        }
    }

    #[test]
    fn decoding_undoes_encoding() {
        for text in ["web", "a b", "ü", "a%b"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
        for text in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decode(text), None);
        }
    }
}
