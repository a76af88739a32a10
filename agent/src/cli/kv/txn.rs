//! `kv txn`: reads the transaction, sends it, shows which branch ran and what it answered.

use std::io::{self, BufRead, IsTerminal};

use clap::{Args, Parser, Subcommand};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;

use super::{delete, get, put, txn_text};
use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::format::{fields, json, simple};

/// A transaction holds 128 operations by default; nobody means more lines than this.
const LINES_LIMIT: usize = 10_000;

#[derive(Args, Debug)]
#[command(
    after_help = "Three paragraphs, each ended by an empty line: conditions, what to do if they all hold, \
                        what to do if not.\n\nExample:\n\n\
                        mod(\"greeting\") = \"0\"\nvalue(\"owner\") != \"nobody\"\n\nput greeting \"hello world\"\n\
                        get owner\n\nget greeting\n\n\
                        Conditions: version create mod value lease, each (\"KEY\") with = != < > and a quoted value.\n\
                        Operations: get put del, with the flags of `agentctl kv get|put|del`."
)]
pub(in crate::cli) struct TxnArgs {
    /// Say what is expected next (as when standard input is a terminal)
    #[arg(short, long)]
    interactive: bool,
}

/// One operation of a transaction, written as its command line.
#[derive(Debug, Parser)]
#[command(
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
struct OperationLine {
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Debug, Subcommand)]
enum Operation {
    Get(get::GetArgs),
    Put(put::PutArgs),
    Del(delete::DeleteArgs),
}

impl TxnArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let stdin = io::stdin();
        let prompt = self.interactive || stdin.is_terminal();
        let request = read(&mut stdin.lock(), |what| {
            if prompt {
                eprintln!("{what}");
            }
        })?;
        let response = session.client.txn(request).await?;
        session.show(&response, json::txn, fields::txn, simple::txn)
    }
}

/// Reads the three paragraphs, saying before each what it is.
fn read(source: &mut impl BufRead, mut announce: impl FnMut(&str)) -> Result<pb::TxnRequest, CliError> {
    let mut lines = Numbered { source, number: 0 };
    announce("conditions:");
    let compare = lines.paragraph(txn_text::compare)?;
    announce("if they hold (get, put, del):");
    let success = lines.paragraph(operation)?;
    announce("if not (get, put, del):");
    let failure = lines.paragraph(operation)?;
    Ok(pb::TxnRequest {
        compare,
        success,
        failure,
    })
}

struct Numbered<'a, R> {
    source: &'a mut R,
    number: usize,
}

impl<R: BufRead> Numbered<'_, R> {
    /// Lines up to an empty one, or to the end.
    fn paragraph<T>(&mut self, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, CliError> {
        let mut items = Vec::new();
        loop {
            let mut line = String::new();
            let read = self
                .source
                .read_line(&mut line)
                .map_err(|error| CliError::io("standard input", &error))?;
            self.number += 1;
            let line = line.trim();
            if read == 0 || line.is_empty() {
                return Ok(items);
            }
            if self.number > LINES_LIMIT {
                return Err(CliError::failed(format!(
                    "more than {LINES_LIMIT} lines of transaction"
                )));
            }
            let item = parse(line).map_err(|why| {
                CliError::failed(format!("line {}: {why}", self.number)).hint("nothing was changed")
            })?;
            items.push(item);
        }
    }
}

fn operation(line: &str) -> Result<pb::RequestOp, String> {
    let words = txn_text::words(line)?;
    let parsed = OperationLine::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        first
            .strip_prefix("error: ")
            .unwrap_or("an operation is get, put or del")
            .to_owned()
    })?;
    let request = match parsed.operation {
        Operation::Get(args) => args.request().map(Request::RequestRange),
        Operation::Put(args) if args.wants_stdin() => return Err("put needs a value here".to_owned()),
        Operation::Put(args) => args.request().map(Request::RequestPut),
        Operation::Del(args) => args.request().map(Request::RequestDeleteRange),
    };
    Ok(pb::RequestOp {
        request: Some(request.map_err(|error| error.to_string())?),
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: &Expect) {
        let shown = match read(&mut text.as_bytes(), |_| {}) {
            Err(error) => error.text(),
            Ok(request) => {
                let operations = |operations: &[pb::RequestOp]| {
                    let lines: Vec<String> = operations
                        .iter()
                        .map(|op| format!("  {:?}\n", op.request.as_ref().unwrap()))
                        .collect();
                    lines.concat()
                };
                let compares: String = request.compare.iter().map(|c| format!("  {c:?}\n")).collect();
                format!(
                    "if\n{compares}then\n{}else\n{}",
                    operations(&request.success),
                    operations(&request.failure)
                )
            }
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_transaction_is_three_paragraphs() {
        check(
            "mod(\"a\") > \"0\"\n\nput a \"two words\"\nget b --prefix\n\ndel a --prev-kv\n\n",
            &expect![[r#"
                if
                  Compare { result: Greater, target: Mod, key: b"a", range_end: b"", target_union: Some(ModRevision(0)) }
                then
                  RequestPut(PutRequest { key: b"a", value: b"two words", lease: 0, prev_kv: false, ignore_value: false, ignore_lease: false })
                  RequestRange(RangeRequest { key: b"b", range_end: b"c", limit: 0, revision: 0, sort_order: None, sort_target: Key, serializable: false, keys_only: false, count_only: false, min_mod_revision: 0, max_mod_revision: 0, min_create_revision: 0, max_create_revision: 0 })
                else
                  RequestDeleteRange(DeleteRangeRequest { key: b"a", range_end: b"", prev_kv: true })
            "#]],
        );
    }

    #[test]
    fn paragraphs_may_be_missing_at_the_end() {
        check(
            "\nput a 1",
            &expect![[r#"
                if
                then
                  RequestPut(PutRequest { key: b"a", value: b"1", lease: 0, prev_kv: false, ignore_value: false, ignore_lease: false })
                else
            "#]],
        );
    }

    #[test]
    fn a_mistake_names_its_line() {
        check(
            "\nget a\nfetch b\n",
            &expect![[r#"
                error: line 3: unrecognized subcommand 'fetch'
                nothing was changed
            "#]],
        );
        check(
            "mod(\"a\") > \"x\"\n",
            &expect![[r#"
                error: line 1: `x` is not a number
                nothing was changed
            "#]],
        );
        check(
            "\nput a\n",
            &expect![[r#"
                error: line 2: put needs a value here
                nothing was changed
            "#]],
        );
    }
}
