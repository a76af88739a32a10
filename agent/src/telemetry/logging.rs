//! Log lines: on stderr, one per event; for people by default, JSON on request.

use std::io;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// The variable that sets levels by module, over the configured level: `AGENT_LOG=info,agent::api=debug`.
const FILTER_VARIABLE: &str = "AGENT_LOG";

/// Modules that say much and mean little to an operator, unless the variable names them.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,tower=warn,sled=warn,openraft=warn,reqwest=warn";

/// Why logging was not set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    #[error("the log filter {filter:?} is not understood: {reason}")]
    Filter { filter: String, reason: String },
    #[error("logging is already set up")]
    AlreadySet,
}

/// Sets up logging for the whole process, once. `level` is `error`, `warn`, `info`, `debug` or `trace`.
///
/// # Errors
/// When the level or `AGENT_LOG` is not understood, or logging is already set up.
pub fn init_logging(level: &str, json: bool) -> Result<(), LoggingError> {
    let filter = filter(level, std::env::var(FILTER_VARIABLE).ok().as_deref())?;
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

fn filter(level: &str, from_environment: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let filter = match from_environment {
        Some(filter) if !filter.is_empty() => filter.to_owned(),
        _ if matches!(level, "debug" | "trace") => level.to_owned(),
        _ => format!("{level},{QUIET}"),
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
    fn the_environment_wins() {
        assert_eq!(
            filter("info", Some("agent=debug")).unwrap().to_string(),
            "agent=debug"
        );
        assert!(filter("info", None).unwrap().to_string().contains("h2=warn"));
        assert_eq!(filter("debug", Some("")).unwrap().to_string(), "debug");
        assert!(filter("loudly=very", None).is_err());
    }
}
