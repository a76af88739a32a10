//! This end of a session: standard input, output and errors, and the terminal if there is one.
//!
//! They are read and written on threads of their own: whoever does not read our output makes the command wait, and
//! not the connection to the cluster. The queues between are short.

use std::io::{self, IsTerminal, Read, Write};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use nix::sys::termios::{self, SetArg, Termios};
use proto::agent::v1::TerminalSize;
use terminal_size::{Height, Width};
use tokio::sync::mpsc;

use crate::cli::error::CliError;

/// Pieces under way between the terminal and the session.
const QUEUE: usize = 16;
const CHUNK_BYTES: usize = 16 << 10;

/// Whether a person sits at both ends of this program.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The terminal's size, or the usual one where it does not say.
pub(super) fn size() -> TerminalSize {
    let (Width(columns), Height(rows)) = terminal_size::terminal_size().unwrap_or((Width(80), Height(24)));
    TerminalSize {
        columns: columns.into(),
        rows: rows.into(),
    }
}

/// The terminal passes every key on as it is. It is as before when this goes out of scope.
#[derive(Debug)]
pub(super) struct Raw(Option<Termios>);

impl Raw {
    /// Nothing changes where standard input is no terminal.
    pub(super) fn begin() -> Result<Raw, CliError> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Raw(None));
        }
        let failed = |error: nix::Error| CliError::io("terminal", &error.into());
        let before = termios::tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Raw(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // There is nobody to tell: the person sees it.
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// Standard input, piece by piece; the queue is closed at its end. The thread ends with the program: nothing else wakes
/// it from its reading.
pub(super) fn input() -> mpsc::Receiver<Bytes> {
    let (pieces, queue) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
                return;
            };
            if pieces.blocking_send(Bytes::copy_from_slice(piece)).is_err() {
                return;
            }
        }
    });
    queue
}

/// Standard output and errors, in the order in which pieces come.
#[derive(Debug)]
pub(super) struct Output {
    pieces: mpsc::Sender<Piece>,
    writing: JoinHandle<Result<(), CliError>>,
}

#[derive(Debug)]
enum Piece {
    Output(Bytes),
    Errors(Bytes),
}

impl Output {
    pub(super) fn new() -> Output {
        let (pieces, mut queue) = mpsc::channel(QUEUE);
        let writing = thread::spawn(move || {
            while let Some(piece) = queue.blocking_recv() {
                let written = match piece {
                    Piece::Output(bytes) => write(&mut io::stdout().lock(), &bytes),
                    Piece::Errors(bytes) => write(&mut io::stderr().lock(), &bytes),
                };
                written.map_err(|error| CliError::output(&error))?;
            }
            Ok(())
        });
        Output { pieces, writing }
    }

    /// Nobody reads any more, where this is false.
    pub(super) async fn output(&self, bytes: Bytes) -> bool {
        self.pieces.send(Piece::Output(bytes)).await.is_ok()
    }

    /// As [`Output::output`], for errors.
    pub(super) async fn errors(&self, bytes: Bytes) -> bool {
        self.pieces.send(Piece::Errors(bytes)).await.is_ok()
    }

    /// Waits until everything is written.
    pub(super) fn finish(self) -> Result<(), CliError> {
        drop(self.pieces);
        let ended = self.writing.join();
        ended.unwrap_or_else(|_| Err(CliError::failed("writing the output failed")))
    }
}

fn write(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}
