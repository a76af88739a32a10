//! A text as a tree of nodes that know their place.
//!
//! Built from the parser's events rather than through serde: Incus' config values are strings, kept as they are
//! written (`010`, `1.10`, `yes`), and every complaint names its line. JSON is read by the same parser, being
//! YAML.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::DocumentError;

/// A longer text is no document.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Counted after aliases are filled in, so that a few lines cannot grow into more than this.
const NODES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) column: u64,
    /// A text that keeps its lines (`|`): they are those of the whole text that follow this node's.
    pub(super) is_literal: bool,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Null,
    Scalar {
        /// As written, after the escapes of a quoted one.
        text: String,
        /// Neither quoted nor a block: `true` may be a boolean and `1` a number.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) value: Node,
}

impl Node {
    /// The node in words, for "expected a map, found ...".
    pub(super) fn found(&self) -> String {
        match &self.content {
            Content::Null => "nothing".to_owned(),
            Content::Scalar { text, .. } => {
                let mut short: String = text.chars().take(40).collect();
                if short.len() < text.len() {
                    short.push('…');
                }
                format!("{short:?}")
            }
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
        }
    }

    /// The nodes in it, itself included.
    fn size(&self) -> usize {
        1 + match &self.content {
            Content::Null | Content::Scalar { .. } => 0,
            Content::List(items) => items.iter().map(Node::size).sum(),
            Content::Map(entries) => entries.iter().map(|entry| entry.value.size() + 1).sum(),
        }
    }
}

/// Reads exactly one document.
pub(super) fn read(text: &str) -> Result<Node, DocumentError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(DocumentError::new(0, 0, "", "the document is larger than 1 MiB"));
    }
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let message = format!("not YAML: {}", error.info());
            DocumentError::new(marker.line() as u64, marker.col() as u64 + 1, "", message)
        })?;
        tree.take(event, &span)?;
    }
    tree.root
        .ok_or_else(|| DocumentError::new(1, 1, "", "the document is empty"))
}

#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
}

/// A list or a map whose end has not been seen.
struct Open {
    node: Node,
    anchor: usize,
    /// In a map: the name read, whose value comes next.
    name: Option<(String, u64, u64)>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), DocumentError> {
        let (line, column) = (span.start.line() as u64, span.start.col() as u64 + 1);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(DocumentError::new(
                        line,
                        column,
                        "",
                        "a second document begins here: one key holds one",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_literal = matches!(style, ScalarStyle::Literal);
                let content = scalar(text, style, tag.as_deref(), line, column)?;
                self.add(
                    Node {
                        line,
                        column,
                        is_literal,
                        content,
                    },
                    anchor,
                )?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                no_tag(tag.as_ref(), line, column)?;
                self.open(
                    Node {
                        line,
                        column,
                        is_literal: false,
                        content: Content::List(Vec::new()),
                    },
                    anchor,
                )?;
            }
            Event::MappingStart(_, anchor, tag) => {
                no_tag(tag.as_ref(), line, column)?;
                self.open(
                    Node {
                        line,
                        column,
                        is_literal: false,
                        content: Content::Map(Vec::new()),
                    },
                    anchor,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.add(open.node, open.anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let mut node = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    DocumentError::new(line, column, "", "an alias inside of what it names")
                })?;
                (node.line, node.column) = (line, column);
                self.count(node.size(), line, column)?;
                self.add(node, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, node: Node, anchor: usize) -> Result<(), DocumentError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(DocumentError::new(
                node.line,
                node.column,
                "",
                "nested more than 32 deep",
            ));
        }
        self.open.push(Open {
            node,
            anchor,
            name: None,
        });
        Ok(())
    }

    fn count(&mut self, nodes: usize, line: u64, column: u64) -> Result<(), DocumentError> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(DocumentError::new(
                line,
                column,
                "",
                "more than 20,000 values in one document",
            ));
        }
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), DocumentError> {
        self.count(1, node.line, node.column)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node.content {
            Content::List(items) => items.push(node),
            Content::Map(entries) => match parent.name.take() {
                Some((name, line, column)) => entries.push(Entry {
                    name,
                    line,
                    column,
                    value: node,
                }),
                None => parent.name = Some(entry_name(entries, &node)?),
            },
            Content::Null | Content::Scalar { .. } => {}
        }
        Ok(())
    }
}

/// The name that a map's next value goes by.
fn entry_name(entries: &[Entry], node: &Node) -> Result<(String, u64, u64), DocumentError> {
    let Content::Scalar { text, .. } = &node.content else {
        let message = format!("a field's name is a word, found {}", node.found());
        return Err(DocumentError::new(node.line, node.column, "", message));
    };
    if text == "<<" {
        return Err(DocumentError::new(
            node.line,
            node.column,
            "",
            "merge keys (<<) are not read; write the fields",
        ));
    }
    if let Some(first) = entries.iter().find(|entry| entry.name == *text) {
        let message = format!("{text} stands here twice, first on line {}", first.line);
        return Err(DocumentError::new(node.line, node.column, "", message));
    }
    Ok((text.clone(), node.line, node.column))
}

fn scalar(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    line: u64,
    column: u64,
) -> Result<Content, DocumentError> {
    let says_string = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
    if !says_string {
        no_tag(tag, line, column)?;
    }
    let plain = matches!(style, ScalarStyle::Plain) && !says_string;
    if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        return Ok(Content::Null);
    }
    Ok(Content::Scalar {
        text: text.into_owned(),
        plain,
    })
}

fn no_tag<T>(tag: Option<&T>, line: u64, column: u64) -> Result<(), DocumentError> {
    match tag {
        Some(_) => Err(DocumentError::new(
            line,
            column,
            "",
            "tags (!) are not read; quote a string instead",
        )),
        None => Ok(()),
    }
}
