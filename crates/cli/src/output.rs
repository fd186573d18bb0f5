//! The terminal. Data goes to stdout and is checked; talk goes to stderr and is best effort.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{CommandError, CommandResult, Kind};
use crate::text;

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    // Not doc comments: their help would double the length of every verb's.
    // For people.
    #[default]
    Table,
    // For programs: the server's answer, or one object a line where it is a stream.
    Json,
}

impl Format {
    /// Prints an answer: as it came over the wire, or as the text made of it.
    pub(crate) fn answer<T: Serialize>(
        self,
        wire: &T,
        text: impl FnOnce() -> String,
    ) -> CommandResult {
        match self {
            Self::Table => line(&text()),
            Self::Json => json(wire),
        }
    }

    /// Prints one item of a stream, at once.
    pub(crate) fn item<T: Serialize>(
        self,
        wire: &T,
        text: impl FnOnce() -> String,
    ) -> CommandResult {
        match self {
            Self::Table => line(&text()),
            Self::Json => {
                let object = serde_json::to_string(wire).context("encode an item");
                line(&object.map_err(CommandError::internal)?)
            }
        }
    }
}

/// Prints a value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> CommandResult {
    let text = serde_json::to_string_pretty(value).context("encode the answer");
    line(&text.map_err(CommandError::internal)?)
}

/// Prints text, ending its last line if it does not.
pub(crate) fn line(text: &str) -> CommandResult {
    let end: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
    bytes(&[text.as_bytes(), end].concat())
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> CommandResult {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(CommandError::stdout)
}

/// Tells the person at the terminal something that is not data.
pub(crate) fn note(text: &str) {
    // Nobody can be told that nobody listens.
    let _ = writeln!(std::io::stderr().lock(), "{}", text::plain(text));
}

/// Tells why a verb failed.
pub(crate) fn failure(error: &CommandError) {
    if error.kind() != Kind::BrokenPipe {
        for line in error.lines() {
            note(&line);
        }
    }
}

/// A picture on the terminal that is drawn over and over.
pub(crate) struct Canvas {
    lines: usize,
}

impl Canvas {
    /// `None` where stdout is no terminal.
    pub(crate) fn new() -> Option<Self> {
        std::io::stdout().is_terminal().then_some(Self { lines: 0 })
    }

    /// In place of what was drawn before. Nothing wraps: then it could not be found again.
    pub(crate) fn draw(&mut self, picture: &str) -> CommandResult {
        let (columns, rows) = window();
        let lines: Vec<String> = picture
            .lines()
            .take(rows.saturating_sub(1))
            .map(|line| line.chars().take(columns).collect())
            .collect();
        let back = match self.lines {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A\r\u{1b}[J"),
        };
        self.lines = lines.len();
        bytes(format!("{back}{}\n", lines.join("\n")).as_bytes())
    }
}

/// Columns and rows of the terminal that we print on; those of an old one where it does not say.
fn window() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

/// Progress of something awaited: a spinner on a terminal, else a line for each change.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    said: String,
}

impl Progress {
    /// Nothing is said yet.
    pub(crate) fn start() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style.tick_chars("|/-\\ "));
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, said: String::new() }
    }

    /// Says how it stands, if that is news.
    pub(crate) fn say(&mut self, text: String) {
        if text == self.said {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(text::plain(&text)),
            None => note(&text),
        }
        self.said = text;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
