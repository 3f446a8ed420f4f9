//! The terminal: taken over, and given back as it was, whatever happens: an end, an error, a panic or a signal.
//!
//! Invariant: outside [`Screen`]'s life the terminal is as the shell left it. ratatui's panic hook gives it back before the panic
//! is told, so that the message can be read.

use ratatui::DefaultTerminal;
use std::io;

/// The terminal, in our hands.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Raw mode and the alternate screen.
    pub(super) fn take() -> io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init().inspect_err(|_| ratatui::restore())? })
    }

    pub(super) fn terminal(&mut self) -> &mut DefaultTerminal {
        &mut self.terminal
    }

    /// Gives the terminal back, stops as a shell's Ctrl-Z would, and takes it again when the shell says to go on.
    pub(super) fn suspend(self) -> io::Result<Self> {
        drop(self);
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP)?;
        let mut again = Self::take()?;
        again.terminal.clear()?;
        Ok(again)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = ratatui::try_restore();
    }
}
