//! The text of a transaction, line by line: etcdctl's conditions, and words with quotes. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proto::etcdserverpb::Compare;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

/// Reads `mod("KEY") > "3"`.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn compare(line: &str) -> Result<Compare, String> {
    let wrong = || format!("`{line}` is not a condition; write mod(\"KEY\") > \"0\"");
    let (target, rest) = line.split_once('(').ok_or_else(wrong)?;
    let (key, rest) = quoted_or_bare(rest.trim_start(), ')').ok_or_else(wrong)?;
    let rest = rest
        .trim_start()
        .strip_prefix(')')
        .ok_or_else(wrong)?
        .trim_start();
    let (result, rest) = operator(rest).ok_or_else(wrong)?;
    let (value, rest) = quoted_or_bare(rest.trim_start(), ' ').ok_or_else(wrong)?;
    if key.is_empty() || !rest.trim().is_empty() {
        return Err(wrong());
    }
    let (target, union) = target_union(target.trim(), value)?;
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        range_end: bytes::Bytes::new(),
    })
}

fn operator(text: &str) -> Option<(CompareResult, &str)> {
    let operators = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        ("<", CompareResult::Less),
        (">", CompareResult::Greater),
    ];
    operators
        .into_iter()
        .find_map(|(sign, result)| Some((result, text.strip_prefix(sign)?)))
}

fn target_union(target: &str, value: Vec<u8>) -> Result<(CompareTarget, TargetUnion), String> {
    let text = || String::from_utf8_lossy(&value).into_owned();
    let number = || {
        text()
            .parse::<i64>()
            .map_err(|_| format!("`{}` is not a number", text()))
    };
    Ok(match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        "lease" => {
            let id = crate::cli::lease::parse_id(&text())?;
            (CompareTarget::Lease, TargetUnion::Lease(id))
        }
        _ => {
            return Err(format!(
                "`{target}` is not compared: it is version, create, mod, value or lease"
            ));
        }
    })
}

/// A quoted string with its escapes undone, or everything up to `end`.
fn quoted_or_bare(text: &str, end: char) -> Option<(Vec<u8>, &str)> {
    if text.starts_with(['"', '\'']) {
        return quoted(text);
    }
    let length = text.find(end).unwrap_or(text.len());
    let (bare, rest) = text.split_at(length);
    (!bare.is_empty()).then(|| (bare.trim_end().as_bytes().to_vec(), rest))
}

/// Splits a line at blanks; quotes hold words together.
///
/// # Errors
/// A quote that is never closed.
pub(super) fn words(line: &str) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        while let Some(first) = rest.chars().next().filter(|first| !first.is_whitespace()) {
            if first == '"' || first == '\'' {
                let (bytes, after) = quoted(rest).ok_or_else(|| format!("a quote is not closed: {line}"))?;
                word.extend(bytes);
                rest = after;
            } else {
                let length = rest
                    .find(|c: char| c.is_whitespace() || c == '"' || c == '\'')
                    .unwrap_or(rest.len());
                let (bare, after) = rest.split_at(length);
                word.extend_from_slice(bare.as_bytes());
                rest = after;
            }
        }
        words.push(OsString::from_vec(word));
        rest = rest.trim_start();
    }
    Ok(words)
}

/// Reads the quoted string that `text` begins with: in double quotes `\n`, `\t`, `\\`, `\"` and `\xNN` are meant, in
/// single quotes every character is itself.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let quote = text.chars().next()?;
    let mut bytes = Vec::new();
    let mut rest = text.strip_prefix(quote)?;
    loop {
        let next = rest.chars().next()?;
        rest = rest.strip_prefix(next)?;
        if next == quote {
            return Some((bytes, rest));
        }
        if next != '\\' || quote == '\'' {
            bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escaped = rest.chars().next()?;
        rest = rest.strip_prefix(escaped)?;
        match escaped {
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'x' => {
                let digits = rest.get(..2)?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = rest.get(2..)?;
            }
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_etcdctls() {
        let cases = [
            (r#"mod("a") > "0""#, "Mod Greater a ModRevision(0)"),
            (r#"m("a")="1""#, "Mod Equal a ModRevision(1)"),
            (r#"c("a") < "7""#, "Create Less a CreateRevision(7)"),
            (r#"ver("a b") != "1""#, "Version NotEqual a b Version(1)"),
            (r#"version(a) = 3"#, "Version Equal a Version(3)"),
            (r#"val("a)") = "x \" y""#, r#"Value Equal a) Value(b"x \" y")"#),
            (r#"value("a") = """#, r#"Value Equal a Value(b"")"#),
            (r#"lease("a") = "ff""#, "Lease Equal a Lease(255)"),
        ];
        for (line, expected) in cases {
            let compare = compare(line).unwrap();
            let key = String::from_utf8(compare.key.to_vec()).unwrap();
            let union = compare.target_union.clone().unwrap();
            assert_eq!(
                format!("{:?} {:?} {key} {union:?}", compare.target(), compare.result()),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let cases = [
            "",
            "mod",
            "mod(",
            "mod(\"a\"",
            "mod(\"a\")",
            "mod(\"a\") =",
            "mod(\"a\") ~ \"1\"",
            "mod(\"a\") = \"x\"",
            "size(\"a\") = \"1\"",
            "mod(\"\") = \"1\"",
            "mod(\"a\") = \"1\" 2",
            "mod(\"a) = 1",
        ];
        for line in cases {
            assert!(compare(line).is_err(), "{line}");
        }
    }

    #[test]
    fn words_keep_what_quotes_hold_together() {
        let cases: [(&str, &[&[u8]]); 6] = [
            ("put a b", &[b"put", b"a", b"b"]),
            ("  put\t\"a b\"  'c \\n d' ", &[b"put", b"a b", b"c \\n d"]),
            (r#"put a "x\ny\t\"\\""#, &[b"put", b"a", b"x\ny\t\"\\"]),
            (r#"put a "\xff\x00""#, &[b"put", b"a", b"\xff\x00"]),
            (r#"put a """#, &[b"put", b"a", b""]),
            (r#"put a"b c"d"#, &[b"put", b"ab cd"]),
        ];
        for (line, expected) in cases {
            let words: Vec<Vec<u8>> = words(line)
                .unwrap()
                .into_iter()
                .map(OsStringExt::into_vec)
                .collect();
            assert_eq!(words, expected, "{line}");
        }
        for open in ["put \"a", "put 'a", r#"put "\xf"#, r#"put "\xzz""#] {
            assert!(words(open).is_err(), "{open}");
        }
    }
}
