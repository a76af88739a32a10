//! `--prune`: documents that files once held and hold no more.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};

use super::documents::{self, Selection, Source, Stored};
use super::error::CliError;
use super::session::Session;

/// The documents of the files' kinds and tenants that the files do not hold: with instances of the tenant shop in the
/// files, every other instance of shop.
pub(super) async fn pruned(session: &Session, sources: &[Source]) -> Result<Vec<Stored>, CliError> {
    let prefixes = prefixes(sources);
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let listing = documents::list(&session.client, &prefixes).await?;
    let mut stored = documents::stored(&listing.kvs, &Selection::default());
    stored.retain(|stored| {
        let is_kept = |source: &Source| source.document.desired_key() == stored.key;
        !sources.iter().any(is_kept)
    });
    Ok(stored)
}

fn prefixes(sources: &[Source]) -> BTreeSet<String> {
    sources
        .iter()
        .filter_map(|source| {
            let key = source.document.desired_key().key();
            key.rfind('/').and_then(|at| key.get(..=at).map(str::to_owned))
        })
        .collect()
}

/// A person at a terminal is asked; nobody else's documents go without a word.
pub(super) fn confirm(pruned: &[Stored], yes: bool) -> Result<(), CliError> {
    if pruned.is_empty() || yes {
        return Ok(());
    }
    let names: Vec<String> = pruned.iter().map(|stored| stored.key.to_string()).collect();
    if !io::stdin().is_terminal() {
        return Err(CliError::failed(format!(
            "--prune would delete {}: {}",
            documents(pruned.len()),
            names.join(", ")
        ))
        .hint("nothing was changed; --yes does it without asking"));
    }
    for name in &names {
        eprintln!("- {name}");
    }
    eprint!("delete {}, and what they made? [y/N] ", documents(pruned.len()));
    let failed = |error: io::Error| CliError::io("terminal", &error);
    io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(CliError::failed("not confirmed").hint("nothing was changed"))
    }
}

fn documents(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} document{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_for_their_kinds_and_tenants() {
        let source = |text: &str| Source {
            place: "a.yaml:1".into(),
            text: text.into(),
            document: crate::document::parse(text).unwrap(),
        };
        let sources = [
            source("kind: profile\nname: a\ntenant: shop\nspec: {}\n"),
            source("kind: profile\nname: b\ntenant: shop\nspec: {}\n"),
            source("kind: project\nname: shop\nspec: {}\n"),
        ];
        let prefixes: Vec<String> = prefixes(&sources).into_iter().collect();
        assert_eq!(
            prefixes,
            ["/cluster/desired/projects/", "/tenants/shop/desired/profiles/"]
        );
    }
}
