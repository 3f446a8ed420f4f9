//! A program in a pseudo-terminal, and what a person would see there.

use super::Running;
use anyhow::{Context, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A running program and its terminal.
pub struct Pty {
    /// The program.
    pub process: Running,
    master: File,
    /// Our own handle: the terminal lives on, and its modes can be seen, when the program is gone.
    slave: File,
    seen: Arc<Mutex<vt100::Parser>>,
}

impl Pty {
    /// Starts it in a terminal of that size, whose session it leads.
    ///
    /// # Errors
    /// No pseudo-terminal, or the program cannot be started.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("a pseudo-terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.into_string()?;
        let slave = OpenOptions::new().read(true).write(true).open(&name).with_context(|| name.clone())?;
        tcsetwinsize(&slave, size(columns, rows))?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?).env("TERM", "xterm-256color");
        // SAFETY: system calls alone, on the child's own standard input.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(vt100::Parser::new(at_least_one(rows), at_least_one(columns), 0)));
        let (mut output, shown) = (master.try_clone()?, seen.clone());
        // Ends with the last handle of the terminal.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                if let Ok(mut shown) = shown.lock() {
                    shown.process(&bytes[..n]);
                }
            }
        });
        Ok(Self { process: Running { child }, master, slave, seen })
    }

    /// The text on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        self.seen.lock().map(|s| s.screen().contents()).unwrap_or_default()
    }

    /// Whether the program has the screen to itself.
    #[must_use]
    pub fn is_alternate(&self) -> bool {
        self.seen.lock().is_ok_and(|s| s.screen().alternate_screen())
    }

    /// Whether the cursor is hidden.
    #[must_use]
    pub fn is_cursor_hidden(&self) -> bool {
        self.seen.lock().is_ok_and(|s| s.screen().hide_cursor())
    }

    /// Whether lines are edited and echoed by the terminal, as a shell leaves it.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn is_cooked(&self) -> Result<bool> {
        Ok(tcgetattr(&self.slave)?.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG))
    }

    /// Types.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes())?;
        Ok(self.master.flush()?)
    }

    /// Changes the size of the window.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        if let Ok(mut seen) = self.seen.lock() {
            seen.set_size(at_least_one(rows), at_least_one(columns));
        }
        Ok(tcsetwinsize(&self.slave, size(columns, rows))?)
    }

    /// Waits until the screen is as it should be.
    ///
    /// # Errors
    /// It does not become so; with the screen.
    pub fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        super::until(Duration::from_secs(30), || {
            let screen = self.screen();
            anyhow::ensure!(is_so(&screen), "{what}; the screen:\n{screen}");
            Ok(screen)
        })
    }
}

fn at_least_one(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN)
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
