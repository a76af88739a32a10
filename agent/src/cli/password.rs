//! Asks a person for a password at the terminal, without showing it.
//!
//! It speaks with the terminal itself, not with standard input and output: those may be pipes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};

use nix::sys::termios::{self, InputFlags, LocalFlags, SetArg, Termios};

use super::client::Secret;
use super::error::CliError;

/// Nobody types more.
const LIMIT_BYTES: usize = 1 << 10;

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const DELETE: u8 = 0x7f;

/// Asks once.
pub(super) fn ask(prompt: &str) -> Result<Secret, CliError> {
    let mut terminal = Terminal::open()?;
    terminal.ask(prompt)
}

/// Asks twice, and refuses when the two differ: nobody sees what is typed.
pub(super) fn ask_new(user: &str) -> Result<Secret, CliError> {
    let mut terminal = Terminal::open()?;
    let first = terminal.ask(&format!("Password of {user}: "))?;
    if first.is_empty() {
        return Err(CliError::failed("the password is empty")
            .hint("nothing was changed; a user who logs in by certificate only is made with --no-password"));
    }
    let second = terminal.ask(&format!("Type password of {user} again for confirmation: "))?;
    if first == second {
        Ok(first)
    } else {
        Err(CliError::failed("the two passwords differ").hint("nothing was changed: try again"))
    }
}

/// Takes the first line of standard input.
pub(super) fn from_stdin() -> Result<Secret, CliError> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(LIMIT_BYTES as u64)
        .read_line(&mut line)
        .map_err(|error| CliError::io("standard input", &error))?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(CliError::failed("standard input holds no password")
            .hint("write it there, on one line: printf '%s\\n' \"$PASSWORD\" | agentctl ..."));
    }
    Ok(Secret::new(password))
}

/// The terminal that this process belongs to. It shows what is typed again when this goes out of scope.
struct Terminal {
    file: File,
    before: Termios,
}

impl Terminal {
    fn open() -> Result<Self, CliError> {
        let nobody = || {
            CliError::failed("a password is needed, and there is no terminal to ask at").hint(
                "give it in AGENTCTL_PASSWORD or as --user NAME:PASSWORD; for a new one, \
                 --interactive=false reads it from standard input",
            )
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .map_err(|_| nobody())?;
        let before = termios::tcgetattr(&file).map_err(|_| nobody())?;
        let mut silent = before.clone();
        // Keys come one by one, Ctrl-C too: a signal would end us with the terminal still silent.
        silent.local_flags -= LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
        silent.input_flags |= InputFlags::ICRNL;
        termios::tcsetattr(&file, SetArg::TCSAFLUSH, &silent).map_err(|_| nobody())?;
        Ok(Self { file, before })
    }

    fn ask(&mut self, prompt: &str) -> Result<Secret, CliError> {
        let failed = |error: io::Error| CliError::io("terminal", &error);
        self.file.write_all(prompt.as_bytes()).map_err(failed)?;
        let line = read_line(&mut self.file).map_err(failed)?;
        self.file.write_all(b"\n").map_err(failed)?;
        let line = line.ok_or_else(CliError::interrupted)?;
        String::from_utf8(line)
            .map(Secret::new)
            .map_err(|_| CliError::failed("a password is text in UTF-8"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // When even this fails the terminal is gone.
        let _ = termios::tcsetattr(&self.file, SetArg::TCSANOW, &self.before);
    }
}

/// Keys up to Enter; nothing after Ctrl-C. Backspace takes back a character, Ctrl-U all.
fn read_line(keys: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut key = [0];
    loop {
        if keys.read(&mut key)? == 0 {
            return Ok(Some(line));
        }
        match key[0] {
            b'\n' | b'\r' | CTRL_D => return Ok(Some(line)),
            CTRL_C => return Ok(None),
            CTRL_U => line.clear(),
            BACKSPACE | DELETE => {
                // A character of several bytes goes as a whole.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if line.len() < LIMIT_BYTES => line.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_mended() {
        let typed = |keys: &[u8]| read_line(&mut &*keys).unwrap();
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(typed(b"secret\nmore"), text("secret"));
        assert_eq!(typed("aé\x7f\x7fb\n".as_bytes()), text("b"));
        assert_eq!(typed(b"wrong\x15right\r"), text("right"));
        assert_eq!(typed(b"\x7f\n"), text(""));
        assert_eq!(typed(b"half\x03"), None);
        assert_eq!(typed(b"end"), text("end"));
    }
}
