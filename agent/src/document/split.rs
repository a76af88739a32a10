//! One file, several YAML documents.

/// The documents of a text, each with the line (from 1) at which it begins in it. Text without any content
/// between two separators is left out.
///
/// Only a `---` at the beginning of a line separates, as in YAML; a block scalar's lines are indented and do not.
#[must_use]
pub fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let mut start = (1, 0);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let after = offset + line.len();
        let bare = line.trim_end();
        if bare == "---" || bare == "..." || bare.starts_with("--- #") {
            push(&mut documents, start.0, &text[start.1..offset]);
            start = (index + 2, after);
        }
        offset = after;
    }
    push(&mut documents, start.0, &text[start.1..]);
    documents
}

fn push<'a>(documents: &mut Vec<(usize, &'a str)>, first_line: usize, text: &'a str) {
    let has_content = text.lines().any(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    if has_content {
        documents.push((first_line, text));
    }
}
