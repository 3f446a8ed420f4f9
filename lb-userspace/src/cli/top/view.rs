//! The state as a picture. Whatever the size of the screen, nothing is drawn outside it and nothing panics; what does not fit is
//! left out, the list last.

use super::app::{App, INTERVALS_MS, MOST_CONNECTIONS, Place};
use super::columns::{Column, layout};
use super::number::{fit, short};
use super::sample::{Entry, Fill, State};
use crate::api::Connection;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use std::time::Instant;

/// Draws it; the app learns how long a page is.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, now: Instant, colour: bool) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let paint = Paint { colour };
    let mut above = vec![heading(app, now, paint)];
    if height >= 10 {
        above.extend(totals(app));
    }
    above.push(where_one_is(app, paint));
    let mut below = Vec::new();
    if height >= 6 {
        below.push(Line::from(keys(app)).style(paint.dim()));
    }
    // Titles take a line too.
    let room = height.saturating_sub(above.len() + below.len() + 1);
    app.page = room;
    let (title, body) = list(app, width, room, paint);
    let mut lines = above;
    lines.push(title);
    lines.extend(body);
    lines.truncate(height.saturating_sub(below.len()));
    lines.resize(height.saturating_sub(below.len()), Line::default());
    lines.extend(below);
    for (y, line) in (0..area.height).zip(lines) {
        frame.render_widget(line, Rect::new(area.x, area.y + y, area.width, 1));
    }
    if app.help {
        help(frame, paint);
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn with(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn alarm(self) -> Style {
        self.with(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn state(self, state: State) -> Style {
        match state {
            State::Up => self.with(Color::Green),
            State::Quiesced | State::Overloaded => self.with(Color::Yellow),
            State::Unresolved => self.alarm(),
            State::Servers(0, _) => self.alarm(),
            State::Servers(up, all) if up < all => self.with(Color::Yellow),
            State::Servers(..) => self.with(Color::Green),
        }
    }
}

/// Who is watched, how often, and whether that works.
fn heading(app: &App, now: Instant, paint: Paint) -> Line<'static> {
    let mut spans = vec![Span::styled("lvxadm top", Style::new().add_modifier(Modifier::BOLD))];
    if let Some(s) = &app.last {
        spans.push(format!("  lvxd {} pid {}", s.status.version, s.status.pid).into());
    }
    spans.push(format!("  every {} s", app.interval.as_secs_f64()).into());
    if app.paused {
        spans.push(Span::styled("  PAUSED", paint.with(Color::Yellow).add_modifier(Modifier::BOLD)));
    }
    if let Some(why) = &app.lost {
        spans.push(Span::styled(format!("  LOST, trying again: {why}"), paint.alarm()));
    } else if let Some(age) = app.stale(now) {
        spans.push(Span::styled(format!("  NO ANSWER for {} s", age.as_secs()), paint.alarm()));
    }
    Line::from(spans)
}

fn totals(app: &App) -> Vec<Line<'static>> {
    let (t, r) = (&app.table, &app.table.rates);
    let first = format!(
        "CPS {}  PPS {} in {} out  BPS {} in {} out  act {} inact {}",
        short(r.connections),
        short(r.in_packets),
        short(r.out_packets),
        short(r.in_bytes),
        short(r.out_bytes),
        short(t.active as f64),
        short(t.inactive as f64)
    );
    let table = |v: &Fill| format!("{} {}/{}", v.family, v.used, v.size);
    let tables: Vec<String> = app.last.iter().flat_map(|s| s.status.tables.iter().map(table)).collect();
    let reason = t.reason.as_ref().map(|r| format!(" (most {r})")).unwrap_or_default();
    let second = format!("Table  {}  dropped {}/s{reason}", tables.join("  "), short(t.dropped));
    vec![first.into(), second.into()]
}

/// The way here, the filter, the order.
fn where_one_is(app: &App, paint: Paint) -> Line<'static> {
    let level = app.level();
    let place = match level.place {
        Place::All => "All services".to_owned(),
        Place::Service(service) => format!("{service}: servers"),
        Place::Server(service, server) => format!("{service} -> {server}: connections"),
    };
    let mut spans = vec![Span::styled(place, Style::new().add_modifier(Modifier::BOLD))];
    if app.typing {
        spans.push(Span::styled(format!("  filter: {}_", level.filter), paint.with(Color::Cyan)));
    } else if !level.filter.is_empty() {
        spans.push(Span::styled(format!("  filter: {}", level.filter), paint.with(Color::Cyan)));
    }
    if !matches!(level.place, Place::Server(..)) {
        let way = if app.descending { "most first" } else { "least first" };
        spans.push(Span::styled(format!("  by {}, {way}", app.sort.title()), paint.dim()));
    }
    Line::from(spans)
}

fn keys(app: &App) -> &'static str {
    if app.typing {
        return "Enter keep the filter  Esc drop it";
    }
    match app.level().place {
        Place::Server(..) => "?:help  q:quit  Esc:back  /:filter  space:pause",
        _ => "?:help  q:quit  Enter:into  Esc:back  </>:sort  r:reverse  /:filter  space:pause",
    }
}

/// Titles, and as many lines as there is room for, the cursor's among them.
fn list(app: &App, width: usize, room: usize, paint: Paint) -> (Line<'static>, Vec<Line<'static>>) {
    let cursor = app.level().cursor;
    // The window holds the cursor in its middle, as far as the ends allow.
    let window = |len: usize| cursor.saturating_sub(room / 2).min(len.saturating_sub(room));
    if let Place::Server(..) = app.level().place {
        let lines = app.connection_lines();
        let first = window(lines.len());
        let shown = lines.iter().enumerate().skip(first).take(room);
        let mut body: Vec<Line<'static>> = shown.map(|(i, c)| pointed(Line::from(connection(c, width)), i == cursor)).collect();
        match &app.connections {
            None => body.push("...".into()),
            Some(all) if all.is_empty() => body.push("No connections.".into()),
            Some(all) if all.len() >= MOST_CONNECTIONS => {
                // In place of the last line, so that it is seen.
                body.truncate(room.saturating_sub(1));
                let text = format!("The first {MOST_CONNECTIONS}; there may be more (lvxadm -L -n -c lists all).");
                body.push(Line::from(text).style(paint.with(Color::Yellow)));
            }
            Some(_) => {}
        }
        body.truncate(room);
        return (title_line(Line::from(connection_titles(width))), body);
    }
    let (columns, wide) = layout(width);
    let mut titles = Vec::new();
    for (i, (column, w)) in columns.iter().enumerate() {
        let text = aligned(column.title(), *w, *column == Column::Name);
        let mark = if *column == app.sort { Modifier::UNDERLINED | Modifier::BOLD } else { Modifier::empty() };
        if i > 0 {
            titles.push(" ".into());
        }
        titles.push(Span::styled(text, Style::new().add_modifier(mark)));
    }
    let lines = app.lines();
    let first = window(lines.len());
    let shown = lines.iter().enumerate().skip(first).take(room);
    let mut body: Vec<Line<'static>> = shown.map(|(i, e)| pointed(entry(e, app, &columns, wide, paint), i == cursor)).collect();
    if lines.is_empty() && room > 0 {
        body.push(Line::from(if app.level().filter.is_empty() { "Nothing here." } else { "Nothing fits the filter." }));
    }
    (title_line(Line::from(titles)), body)
}

fn title_line(line: Line<'static>) -> Line<'static> {
    line.style(Style::new().add_modifier(Modifier::REVERSED))
}

fn pointed(line: Line<'static>, at_cursor: bool) -> Line<'static> {
    if at_cursor { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
}

fn entry(e: &Entry, app: &App, columns: &[(Column, usize)], wide: bool, paint: Paint) -> Line<'static> {
    let mut spans = Vec::new();
    for (i, (column, w)) in columns.iter().enumerate() {
        if i > 0 {
            spans.push(" ".into());
        }
        let text = aligned(&column.cell(e, wide), *w, *column == Column::Name);
        let style = match column {
            Column::State => paint.state(e.state),
            Column::Name if e.key.1.is_none() && app.level().place == Place::All => Style::new().add_modifier(Modifier::BOLD),
            _ => Style::new(),
        };
        spans.push(Span::styled(text, style));
    }
    let line = Line::from(spans);
    // What is shown is what was, not what is.
    if app.lost.is_some() { line.style(paint.dim()) } else { line }
}

fn aligned(text: &str, width: usize, left: bool) -> String {
    let text = fit(text, width);
    if left { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

/// Columns besides the client's: state, expiry, and the service's port where it has every port.
fn connection_titles(width: usize) -> String {
    let client = width.saturating_sub(12 + 9 + 2);
    format!("{} {:<12} {:>8}", aligned("Client", client, true), "State", "Expires")
}

fn connection(c: &Connection, width: usize) -> String {
    let client = width.saturating_sub(12 + 9 + 2);
    let seconds = c.expires_ms / 1000;
    let expires = format!("{}:{:02}", seconds / 60, seconds % 60);
    let name = format!("{} {} to {}", c.protocol, c.client, c.service);
    format!("{} {:<12} {:>8}", aligned(&name, client, true), fit(&c.state, 12), fit(&expires, 8))
}

fn help(frame: &mut Frame<'_>, paint: Paint) {
    let (fastest, slowest) = (INTERVALS_MS[0] as f64 / 1000.0, INTERVALS_MS[INTERVALS_MS.len() - 1] / 1000);
    let text = format!(
        "\
Up Down PgUp PgDn Home End   move (also j k g G)
Enter   into a service: its servers;
        into a server: its connections
Esc     back; drop the filter
t       servers under services, or not
/       filter by address, scheduler, state
< >     sort by the column beside; r reverse
n f s w name, forwarding, state, weight
a i     active, inactive connections
c       new connections a second
p P b B packets, bytes in, and out
space   pause      + - slower, faster ({fastest}-{slowest} s)
q       quit

PPS BPS are packets and bytes a second,
K = 1000. OutPPS and OutBPS are NAT's.
State: up, quiesced (weight 0), overloaded
(threshold), unresolved (no next hop)."
    );
    let lines = text.lines().count() as u16;
    let columns = text.lines().map(|l| l.chars().count()).max().unwrap_or(0) as u16;
    let area = frame.area();
    let (w, h) = ((columns + 4).min(area.width), (lines + 2).min(area.height));
    let at = Rect::new(area.x + (area.width - w) / 2, area.y + (area.height - h) / 2, w, h);
    let block = Block::bordered().title(" lvxadm top: any key goes back ").style(paint.with(Color::White));
    frame.render_widget(Clear, at);
    frame.render_widget(Paragraph::new(text).block(block), at);
}
