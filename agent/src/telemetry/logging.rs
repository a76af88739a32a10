//! Log lines: on stderr, one per event; for people by default, JSON on request.

use std::io;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// Modules that say much and mean little to an operator, unless a filter names them. openraft warns on every call
/// that a peer does not answer; `peer` says once that it is unreachable.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,tower=warn,sled=warn,openraft=error,reqwest=warn";

/// Why logging was not set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    #[error("the log filter {filter:?} is not understood: {reason}")]
    Filter { filter: String, reason: String },
    #[error("logging is already set up")]
    AlreadySet,
}

/// Sets up logging for the whole process, once. `level` is `error`, `warn`, `info`, `debug` or `trace`, or a filter
/// by module, such as `info,agent::peer=debug`. `--log-level` and `AGENT_LOG` both end up here.
///
/// # Errors
/// When the level is not understood, or logging is already set up.
pub fn init_logging(level: &str, json: bool) -> Result<(), LoggingError> {
    let filter = filter(level)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let set = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines
            .compact()
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .try_init()
    };
    set.map_err(|_| LoggingError::AlreadySet)
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let filter = match level {
        // A variable that is set to nothing.
        "" => format!("info,{QUIET}"),
        "error" | "warn" | "info" => format!("{level},{QUIET}"),
        filter => filter.to_owned(),
    };
    EnvFilter::builder()
        .parse(&filter)
        .map_err(|error| LoggingError::Filter {
            filter,
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters() {
        let shown = |level| filter(level).unwrap().to_string();
        assert!(shown("info").contains("h2=warn"));
        assert_eq!(shown(""), shown("info"));
        assert_eq!(shown("debug"), "debug");
        assert_eq!(shown("warn,agent=debug"), "agent=debug,warn");
        assert!(filter("loudly=very").is_err());
    }
}
