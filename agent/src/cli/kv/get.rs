//! `kv get`.

use clap::{Args, ValueEnum};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::format::columns::columns;
use crate::cli::format::{self, Format, fields, json, simple};
use crate::cli::range::RangeArgs;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl kv get greeting\n  agentctl kv get /tenants/ --prefix --keys-only\n  \
                        agentctl kv get \"\" --prefix --limit 10 --sort-by modify --order descend"
)]
pub(in crate::cli) struct GetArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// At most so many keys; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    limit: i64,
    /// Order of the keys
    #[arg(long, value_enum, ignore_case = true)]
    order: Option<Order>,
    /// What to sort by
    #[arg(long, value_enum, ignore_case = true)]
    sort_by: Option<SortBy>,
    /// As it was at this revision; 0 for now
    #[arg(long, value_name = "REVISION", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// Only how many there are
    #[arg(long, conflicts_with_all = ["keys_only", "print_value_only"])]
    count_only: bool,
    /// Only the values
    #[arg(long, conflicts_with = "keys_only")]
    print_value_only: bool,
    /// l asks the majority, s takes what the member itself has, be it older
    #[arg(long, value_enum, default_value = "l")]
    consistency: Consistency,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortBy {
    Key,
    Version,
    Create,
    Modify,
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Consistency {
    L,
    S,
}

impl GetArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let (count_only, value_only) = (self.count_only, self.print_value_only);
        let response = session.client.range(self.request()?).await?;
        if session.format == Some(Format::Table) && !count_only {
            return format::write(table(&response).as_bytes());
        }
        session.show(&response, json::range, fields::range, |out, response, style| {
            if count_only {
                out.extend_from_slice(format!("{}\n", response.count).as_bytes());
            } else {
                simple::range(out, response, simple::Style { value_only, ..style });
            }
        })
    }

    pub(super) fn request(self) -> Result<pb::RangeRequest, CliError> {
        let range = self.range.range()?;
        let target = match self.sort_by {
            None | Some(SortBy::Key) => SortTarget::Key,
            Some(SortBy::Version) => SortTarget::Version,
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
        };
        let order = match (self.order, self.sort_by) {
            (Some(Order::Ascend), _) => SortOrder::Ascend,
            (Some(Order::Descend), _) => SortOrder::Descend,
            // The order of the store is by key already; any other target needs a direction to be sorted at all.
            (None, None | Some(SortBy::Key)) => SortOrder::None,
            (None, Some(_)) => SortOrder::Ascend,
        };
        Ok(pb::RangeRequest {
            key: range.key,
            range_end: range.range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: self.consistency == Consistency::S,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..Default::default()
        })
    }
}

fn table(response: &pb::RangeResponse) -> String {
    /// A value may be a whole document: its first line tells it apart.
    const WIDTH: usize = 60;
    let rows: Vec<[String; 5]> = response
        .kvs
        .iter()
        .map(|kv| {
            let value = String::from_utf8_lossy(&kv.value);
            let mut line: String = value
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(WIDTH)
                .collect();
            if line.len() < value.trim_end().len() {
                line.push('…');
            }
            let lease = if kv.lease == 0 {
                String::new()
            } else {
                format!("{:016x}", kv.lease)
            };
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            [
                key,
                kv.mod_revision.to_string(),
                kv.version.to_string(),
                lease,
                line,
            ]
        })
        .collect();
    columns(["KEY", "REVISION", "VERSION", "LEASE", "VALUE"], &rows)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        get: GetArgs,
    }

    fn request(args: &[&str]) -> pb::RangeRequest {
        let line = Line::try_parse_from(["get"].iter().chain(args)).unwrap();
        line.get.request().unwrap()
    }

    #[test]
    fn flags_become_the_request() {
        let all = request(&[
            "",
            "--prefix",
            "--limit",
            "3",
            "--rev",
            "7",
            "--keys-only",
            "--consistency",
            "s",
        ]);
        assert_eq!(
            (all.key.as_ref(), all.range_end.as_ref()),
            (&b"\0"[..], &b"\0"[..])
        );
        assert_eq!(
            (all.limit, all.revision, all.keys_only, all.serializable),
            (3, 7, true, true)
        );
        assert_eq!(all.sort_order(), SortOrder::None);
    }

    #[test]
    fn a_sort_target_without_an_order_ascends() {
        assert_eq!(
            request(&["a", "--sort-by", "MODIFY"]).sort_order(),
            SortOrder::Ascend
        );
        assert_eq!(request(&["a", "--sort-by", "key"]).sort_order(), SortOrder::None);
        assert_eq!(
            request(&["a", "--order", "DESCEND"]).sort_order(),
            SortOrder::Descend
        );
    }
}
