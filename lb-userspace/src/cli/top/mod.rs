//! `lvxadm top`: services, servers and connections, live, on a full screen.
//!
//! [`feed`] asks the daemon, [`sample`] makes numbers of its answers, [`app`] is the state and what keys do to it, [`view`] the
//! picture. Only this file and [`screen`] touch a terminal. It changes nothing in the daemon.

mod app;
mod columns;
mod feed;
mod number;
mod sample;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use super::request::Failure;
use super::verb::Daemon;
use app::{App, Effect, Message};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use screen::Screen;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Shows services, real servers and their connections live on the whole screen.
///
/// Rates are those since the sample before: connections (CPS), packets (PPS) and bytes (BPS) a second, from clients (In) and, with
/// masquerading, to them (Out). Enter goes into a service and into a server's connections, Esc back, `?` lists the keys. Addresses
/// are shown as numbers. Nothing is changed.
#[derive(Debug, clap::Args)]
pub(super) struct Top {
    /// Seconds between samples, 0.1 to 60.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    daemon: Daemon,
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.1..=60.0).contains(&s) => Ok(Duration::from_secs_f64(s)),
        _ => Err("seconds from 0.1 to 60 are wanted".into()),
    }
}

/// What the main thread hears.
enum Input {
    Told(Message),
    Resized,
    Signal(i32),
    /// The terminal is gone.
    Deaf(io::Error),
}

impl Top {
    /// Shows it until the user has seen enough. A signal ends it with the status that a shell would give.
    pub(super) fn run(self) -> Result<(), Failure> {
        let dumb = std::env::var_os("TERM").is_none_or(|t| t.is_empty() || t == "dumb");
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() || dumb {
            return Err(Failure::new(1, "top needs a terminal; `lvxadm -L -n --rate` prints rates once"));
        }
        let mut app = App::new(self.interval);
        let client = self.daemon.client()?;
        let first = feed::sample(&client).map_err(|e| Failure::new(1, e.to_string()))?;
        app.update(Message::Sample(Box::new(first)));

        let (input, heard) = channel();
        let (wish, wishes) = channel();
        let wanted = app.wish();
        let told = input.clone();
        spawn("feed", move || feed::run(&client, wanted, &wishes, |m| told.send(Input::Told(m)).is_ok()))?;
        let signals = input.clone();
        spawn("signals", move || listen_for_signals(&signals))?;

        let failed = |e: &io::Error| Failure::new(1, format!("terminal: {e}"));
        let screen = Screen::take().map_err(|e| failed(&e))?;
        // After the screen was taken: events are read from a terminal in raw mode.
        spawn("keys", move || listen_for_keys(&input))?;
        match show(&mut app, screen, &heard, &wish).map_err(|e| failed(&e))? {
            None => Ok(()),
            // As a shell tells the end of a program that a signal ended.
            Some(signal) => Err(Failure::new((128 + signal).clamp(1, 255) as u8, "")),
        }
    }
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(name.into()).spawn(f);
    thread.map(drop).map_err(|e| Failure::new(1, format!("threads: {e}")))
}

/// Until the user has seen enough, or a signal, which is returned.
fn show(app: &mut App, mut screen: Screen, heard: &Receiver<Input>, wish: &Sender<app::Wish>) -> io::Result<Option<i32>> {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut wished = app.wish();
    loop {
        screen.terminal().draw(|frame| view::draw(frame, app, Instant::now(), colour))?;
        // Without news the picture is drawn once a second: it says how long there were none.
        let mut next = match heard.recv_timeout(Duration::from_secs(1)) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        // All that has come, before the next picture: a slow terminal shows fewer of them, not old ones.
        while let Some(input) = next {
            match input {
                Input::Told(message) => match app.update(message) {
                    Effect::None => {}
                    Effect::Quit => return Ok(None),
                    Effect::Suspend => screen = screen.suspend()?,
                },
                Input::Resized => screen.terminal().autoresize()?,
                Input::Signal(signal) => return Ok(Some(signal)),
                Input::Deaf(e) => return Err(e),
            }
            next = heard.try_recv().ok();
        }
        if app.wish() != wished {
            wished = app.wish();
            // A feed that is gone is told of by its panic.
            if wish.send(wished.clone()).is_err() {
                return Err(io::Error::other("asking the daemon has ended unexpectedly"));
            }
        }
    }
}

fn listen_for_keys(input: &Sender<Input>) {
    loop {
        let heard = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Input::Told(Message::Key(key)),
            Ok(Event::Resize(..)) => Input::Resized,
            Ok(_) => continue,
            Err(e) => Input::Deaf(e),
        };
        let last = matches!(heard, Input::Deaf(_));
        if input.send(heard).is_err() || last {
            return;
        }
    }
}

/// Those that would end the program with the terminal as it is.
fn listen_for_signals(input: &Sender<Input>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
        let Ok(mut all) = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>() else { return };
        let any = all.iter_mut().zip(kinds).map(|(s, kind)| {
            Box::pin(async move {
                s.recv().await;
                kind.as_raw_value()
            })
        });
        let (number, ..) = futures_util::future::select_all(any).await;
        let _ = input.send(Input::Signal(number));
    });
}
