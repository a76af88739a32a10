//! One line of a script, taken apart as a shell would.

/// A command, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Run to its end, or until `head` lines have come.
    Run { command: Command, head: Option<usize> },
    /// Left running once it has printed so many lines.
    Start { command: Command, lines: usize },
    /// The oldest command left running is asked to end, once it has printed so many lines.
    Stop { lines: usize },
    /// The oldest command left running ends by itself.
    Wait,
}

/// The words of a command, the program's name among them, and what it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) words: Vec<String>,
    pub(crate) input: String,
}

impl Line {
    pub(crate) fn parse(text: &str) -> Line {
        if text == "wait" {
            return Line::Wait;
        }
        if let Some(lines) = text.strip_prefix("stop") {
            let lines = lines.trim().parse().unwrap_or(0);
            return Line::Stop { lines };
        }
        let mut command = Command::default();
        let mut words = words(text).into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "<<<" => command.input = words.next().unwrap_or_default().replace("\\n", "\n"),
                // The rest is `head -n N`.
                "|" => {
                    let head = words.by_ref().last().and_then(|count| count.parse().ok());
                    return Line::Run { command, head };
                }
                "&" => {
                    let lines = words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
                    return Line::Start { command, lines };
                }
                _ => command.words.push(word),
            }
        }
        Line::Run { command, head: None }
    }
}

/// Splits as a shell does, as far as quotes go.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str], input: &str) -> Command {
        Command {
            words: words.iter().map(|&word| word.to_owned()).collect(),
            input: input.to_owned(),
        }
    }

    #[test]
    fn lines_are_taken_apart_as_by_a_shell() {
        let run = Line::Run {
            command: command(&["etcdctl", "txn"], "mod(\"a\") = \"0\"\n\n"),
            head: Some(2),
        };
        assert_eq!(
            Line::parse(r#"etcdctl txn <<< 'mod("a") = "0"\n\n' | head -n 2"#),
            run
        );
        let start = Line::Start {
            command: command(&["etcdctl", "lock", "a"], ""),
            lines: 1,
        };
        assert_eq!(Line::parse("etcdctl lock a & 1"), start);
        assert_eq!(Line::parse("stop 2"), Line::Stop { lines: 2 });
        assert_eq!(words(r#"get "" 'a b' --prefix"#), ["get", "", "a b", "--prefix"]);
    }
}
