//! `@NAME@` in a text: where it stands, and what it becomes.
//!
//! A name is capital letters, digits and underscores, and begins with a letter, so that an address (`root@ovh`) is
//! none. What is put in place of one is not looked at again: a value may hold `@NAME@` itself.

/// `@NAME@`, somewhere in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placeholder<'a> {
    pub(super) name: &'a str,
    /// From 1.
    pub(super) line: u64,
    start: usize,
    end: usize,
}

/// Every placeholder of a text, in order.
pub(super) fn placeholders(text: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    let (mut line, mut at) = (1, 0);
    while let Some(offset) = text[at..].find('@') {
        let start = at + offset;
        line += text[at..start].matches('\n').count() as u64;
        at = start + 1;
        let Some(length) = text[at..].find('@') else { break };
        let name = &text[at..at + length];
        if is_name(name) {
            at += length + 1;
            found.push(Placeholder {
                name,
                line,
                start,
                end: at,
            });
        }
    }
    found
}

/// Whether a variable may be called so.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_uppercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The text with something in place of each placeholder.
pub(super) fn replace<'a>(text: &'a str, mut with: impl FnMut(&'a str) -> String) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut at = 0;
    for placeholder in placeholders(text) {
        replaced.push_str(&text[at..placeholder.start]);
        replaced.push_str(&with(placeholder.name));
        at = placeholder.end;
    }
    replaced.push_str(&text[at..]);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_with_their_lines() {
        let names = |text: &'static str| -> Vec<(&str, u64)> {
            placeholders(text)
                .iter()
                .map(|found| (found.name, found.line))
                .collect()
        };
        assert_eq!(
            names("name: @APP@\nhost: x-@HOST@-@N_1@"),
            [("APP", 1), ("HOST", 2), ("N_1", 2)]
        );
        assert_eq!(names("root@ovh@APP@"), [("APP", 1)]);
        assert_eq!(names("@\n@A@B@"), [("A", 2)]);
        for text in ["", "@", "@@", "@a@", "@1A@", "@A B@", "@A", "a@b@c", "@A\n@"] {
            assert_eq!(names(text), [], "{text}");
        }
    }

    #[test]
    fn a_value_is_not_looked_at_again() {
        assert_eq!(
            replace("<@A@@B@> @A", |name| format!("@{name}{name}@")),
            "<@AA@@BB@> @A"
        );
    }
}
