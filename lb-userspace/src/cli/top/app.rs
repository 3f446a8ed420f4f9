//! The state of the view and what changes it. Nothing here reads a clock, a key or a socket: all of it comes as a [`Message`].
//!
//! Invariant: the cursor stays on its service or server while others come, go and change places around it.

use super::columns::{COLUMNS, Column};
use super::sample::{Entry, Key, Sample, Table};
use crate::api::Connection;
use crate::model::{ServerId, ServiceId};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::{Duration, Instant};

/// Connections of a server that are shown at most.
pub(super) const MOST_CONNECTIONS: usize = 1000;
/// Intervals between samples that can be chosen, in milliseconds.
pub(super) const INTERVALS_MS: [u64; 9] = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

/// What happens.
#[derive(Debug)]
pub(super) enum Message {
    /// A key.
    Key(KeyEvent),
    /// The daemon answered.
    Sample(Box<Sample>),
    /// It told a server's connections.
    Connections((ServiceId, ServerId), Vec<Connection>),
    /// It did not.
    Lost(String),
}

/// What the state cannot do itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    None,
    Quit,
    /// To the background, by Ctrl-Z.
    Suspend,
}

/// What the daemon is to be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    pub(super) interval: Duration,
    pub(super) paused: bool,
    pub(super) connections: Option<(ServiceId, ServerId)>,
}

/// What is on the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    All,
    Service(ServiceId),
    Server(ServiceId, ServerId),
}

/// A place, with where one was in it.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) place: Place,
    pub(super) cursor: usize,
    pub(super) key: Option<Key>,
    pub(super) filter: String,
}

impl Level {
    fn new(place: Place) -> Self {
        Self { place, cursor: 0, key: None, filter: String::new() }
    }
}

/// The whole state.
#[derive(Debug)]
pub(super) struct App {
    pub(super) table: Table,
    pub(super) last: Option<Sample>,
    pub(super) connections: Option<Vec<Connection>>,
    /// Why the daemon is away.
    pub(super) lost: Option<String>,
    pub(super) interval: Duration,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// A filter is being typed.
    pub(super) typing: bool,
    /// Servers are shown under their services.
    pub(super) tree: bool,
    pub(super) sort: Column,
    pub(super) descending: bool,
    levels: Vec<Level>,
    /// Lines that the screen had room for, as the view found last.
    pub(super) page: usize,
}

impl App {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            table: Table::default(),
            last: None,
            connections: None,
            lost: None,
            interval,
            paused: false,
            help: false,
            typing: false,
            tree: true,
            sort: Column::Name,
            descending: false,
            levels: vec![Level::new(Place::All)],
            page: 1,
        }
    }

    /// Where one is.
    pub(super) fn level(&self) -> &Level {
        // There is always the first one.
        &self.levels[self.levels.len() - 1]
    }

    fn level_mut(&mut self) -> &mut Level {
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    /// What to ask the daemon for.
    pub(super) fn wish(&self) -> Wish {
        let connections = match self.level().place {
            Place::Server(service, server) => Some((service, server)),
            _ => None,
        };
        Wish { interval: self.interval, paused: self.paused, connections }
    }

    /// Since when nothing has come, where that is too long ago.
    pub(super) fn stale(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.last.as_ref()?.at);
        (!self.paused && age > self.interval * 2 + Duration::from_secs(2)).then_some(age)
    }

    /// The lines of services and servers, filtered and sorted.
    pub(super) fn lines(&self) -> Vec<&Entry> {
        let filter = self.level().filter.to_lowercase();
        let fits = |e: &Entry| {
            filter.is_empty() || e.label.to_lowercase().contains(&filter) || e.state.text().to_lowercase().contains(&filter)
        };
        let order = |a: &&Entry, b: &&Entry| {
            let by = self.sort.order(a, b);
            // Equal ones keep their places, whichever way is up.
            (if self.descending { by.reverse() } else { by }).then_with(|| a.key.cmp(&b.key))
        };
        match self.level().place {
            Place::All => {
                let mut groups: Vec<(&Entry, Vec<&Entry>)> = Vec::new();
                for g in &self.table.groups {
                    let whole = fits(&g.service);
                    let mut servers: Vec<&Entry> = g.servers.iter().filter(|s| whole || fits(s)).collect();
                    if !whole && servers.is_empty() {
                        continue;
                    }
                    if !self.tree {
                        servers.clear();
                    }
                    servers.sort_by(order);
                    groups.push((&g.service, servers));
                }
                groups.sort_by(|a, b| order(&a.0, &b.0));
                groups.into_iter().flat_map(|(service, servers)| std::iter::once(service).chain(servers)).collect()
            }
            Place::Service(id) => {
                let servers = self.table.group(&id).map(|g| g.servers.as_slice()).unwrap_or_default();
                let mut servers: Vec<&Entry> = servers.iter().filter(|s| fits(s)).collect();
                servers.sort_by(order);
                servers
            }
            Place::Server(..) => Vec::new(),
        }
    }

    /// The connections shown, filtered, by client.
    pub(super) fn connection_lines(&self) -> Vec<&Connection> {
        let filter = self.level().filter.to_lowercase();
        let fits = |c: &&Connection| {
            filter.is_empty() || c.client.to_string().contains(&filter) || c.state.to_lowercase().contains(&filter)
        };
        let mut all: Vec<&Connection> = self.connections.iter().flatten().filter(fits).collect();
        all.sort_by_key(|c| (c.client, c.service));
        all
    }

    /// How many lines there are.
    fn len(&self) -> usize {
        match self.level().place {
            Place::Server(..) => self.connection_lines().len(),
            _ => self.lines().len(),
        }
    }

    /// Takes in what happened.
    pub(super) fn update(&mut self, message: Message) -> Effect {
        match message {
            Message::Key(key) => return self.key(key),
            Message::Sample(_) if self.paused && self.last.is_some() => {}
            Message::Sample(sample) => {
                self.lost = None;
                self.table = Table::new(self.last.as_ref(), &sample);
                self.last = Some(*sample);
                self.follow();
            }
            Message::Connections(of, list) => {
                if self.wish().connections == Some(of) {
                    self.connections = Some(list);
                    self.follow();
                }
            }
            Message::Lost(why) => self.lost = Some(why),
        }
        Effect::None
    }

    /// The cursor goes where its line went.
    fn follow(&mut self) {
        let level = self.level();
        let lines = self.lines();
        let found = level.key.and_then(|key| lines.iter().position(|e| e.key == key));
        let len = if matches!(level.place, Place::Server(..)) { self.len() } else { lines.len() };
        let cursor = found.unwrap_or(level.cursor).min(len.saturating_sub(1));
        let key = lines.get(cursor).map(|e| e.key);
        let level = self.level_mut();
        (level.cursor, level.key) = (cursor, key);
    }

    fn go(&mut self, to: usize) {
        let cursor = to.min(self.len().saturating_sub(1));
        let key = self.lines().get(cursor).map(|e| e.key);
        let level = self.level_mut();
        (level.cursor, level.key) = (cursor, key);
    }

    fn enter(&mut self) {
        let next = match (self.level().place, self.level().key) {
            (Place::Server(..), _) | (_, None) => return,
            (_, Some((service, Some(server)))) => Place::Server(service, server),
            (_, Some((service, None))) => Place::Service(service),
        };
        self.connections = None;
        self.levels.push(Level::new(next));
        self.follow();
    }

    fn back(&mut self) {
        if !self.level().filter.is_empty() {
            self.level_mut().filter.clear();
        } else if self.levels.len() > 1 {
            self.levels.pop();
            self.connections = None;
        }
        self.follow();
    }

    fn sort_by(&mut self, column: Column) {
        if self.sort == column {
            self.descending = !self.descending;
        } else {
            (self.sort, self.descending) = (column, column.starts_descending());
        }
        self.follow();
    }

    fn sort_beside(&mut self, by: isize) {
        let at = COLUMNS.iter().position(|c| *c == self.sort).unwrap_or(0);
        if let Some(column) = at.checked_add_signed(by).and_then(|i| COLUMNS.get(i)) {
            self.sort_by(*column);
        }
    }

    fn change_interval(&mut self, slower: bool) {
        let now = self.interval.as_millis() as u64;
        let mut all = INTERVALS_MS.iter().copied();
        let next = if slower { all.find(|ms| *ms > now) } else { all.rev().find(|ms| *ms < now) };
        self.interval = next.map_or(self.interval, Duration::from_millis);
    }

    fn key(&mut self, key: KeyEvent) -> Effect {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Effect::Quit,
            KeyCode::Char('z') if control => return Effect::Suspend,
            _ if control => return Effect::None,
            _ => {}
        }
        if self.help {
            // Any key: nobody should have to look for the way out.
            self.help = false;
            return Effect::None;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.level_mut().filter.clear();
                }
                KeyCode::Backspace => {
                    self.level_mut().filter.pop();
                }
                KeyCode::Char(c) if self.level().filter.len() < 100 => self.level_mut().filter.push(c),
                _ => {}
            }
            self.follow();
            return Effect::None;
        }
        let (cursor, page) = (self.level().cursor, self.page.max(1));
        match key.code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('t') => {
                self.tree = !self.tree;
                self.follow();
            }
            KeyCode::Char('+') => self.change_interval(true),
            KeyCode::Char('-') => self.change_interval(false),
            KeyCode::Up | KeyCode::Char('k') => self.go(cursor.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(cursor + 1),
            KeyCode::PageUp => self.go(cursor.saturating_sub(page)),
            KeyCode::PageDown => self.go(cursor + page),
            KeyCode::Home | KeyCode::Char('g') => self.go(0),
            KeyCode::End | KeyCode::Char('G') => self.go(usize::MAX),
            KeyCode::Enter => self.enter(),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            KeyCode::Left | KeyCode::Char('<') => self.sort_beside(-1),
            KeyCode::Right | KeyCode::Char('>') => self.sort_beside(1),
            KeyCode::Char('r') => {
                self.descending = !self.descending;
                self.follow();
            }
            KeyCode::Char('n') => self.sort_by(Column::Name),
            KeyCode::Char('f') => self.sort_by(Column::Forward),
            KeyCode::Char('s') => self.sort_by(Column::State),
            KeyCode::Char('w') => self.sort_by(Column::Weight),
            KeyCode::Char('a') => self.sort_by(Column::Active),
            KeyCode::Char('i') => self.sort_by(Column::Inactive),
            KeyCode::Char('c') => self.sort_by(Column::Connections),
            KeyCode::Char('p') => self.sort_by(Column::InPackets),
            KeyCode::Char('P') => self.sort_by(Column::OutPackets),
            KeyCode::Char('b') => self.sort_by(Column::InBytes),
            KeyCode::Char('B') => self.sort_by(Column::OutBytes),
            _ => {}
        }
        Effect::None
    }
}
