//! `agentctl`: the command line of the cluster, as an executable of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::cli::main(std::env::args_os())
}
