//! Doing what a command line asks for.

use super::names::Names;
use super::options::About;
use super::request::{Failure, Format, Request, parse};
use super::{Name, print, save};
use crate::api::{ApiError, Edits, ServiceView, Services, Zero};
use crate::client::{Client, ClientError};
use crate::model::{Edit, EditErrorKind, Timeouts};
use std::io::{BufRead, Write};

/// Everything a command needs from outside.
pub struct Context<'a> {
    /// The program's name.
    pub name: Name,
    /// Names of hosts and ports.
    pub names: &'a Names,
    /// The daemon.
    pub client: &'a Client,
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Standard output.
    pub output: &'a mut dyn Write,
}

/// Does it.
///
/// # Errors
/// Exit status and text.
pub fn run(request: Request, c: &mut Context<'_>) -> Result<(), Failure> {
    match request {
        Request::Help => out(c, &super::help::text(c.name)),
        Request::Version => out(c, &super::help::version(c.name)),
        Request::Edit(edit) => edits(c, vec![edit]),
        Request::Restore { replace } => restore(c, replace),
        Request::Zero(service) => {
            let result = c.client.post("/v1/zero", &Zero { service });
            result.map_err(|e| failure(c.name, &e, 255))
        }
        Request::Daemon(format) if format.has(About::Json) => json(c, &super::json::Daemons::default()),
        Request::Daemon(_) => Ok(()),
        Request::Timeouts(format) => {
            let t: Timeouts = c.client.get("/v1/timeouts").map_err(|e| failure(c.name, &e, 255))?;
            if format.has(About::Json) {
                return json(c, &t);
            }
            out(c, &format!("Timeout (tcp tcpfin udp): {} {} {}\n", t.tcp, t.tcpfin, t.udp))
        }
        Request::Save(format) => {
            let services = services(c)?;
            out(c, &save::rules(&services, &format, c.names))
        }
        Request::List(format, None) => {
            let services = services(c)?;
            if format.has(About::Json) {
                return json(c, &services);
            }
            out(c, &print::list(&services, true, &format, c.names))
        }
        Request::List(format, Some(id)) => {
            let mut services = services(c)?;
            services.services.retain(|s: &ServiceView| s.spec.id == id);
            if services.services.is_empty() {
                let detail = format!("there is no service {id}");
                return Err(Failure::new(1, c.name.complain("No such service", &detail)));
            }
            if format.has(About::Json) {
                return json(c, &services);
            }
            out(c, &print::list(&services, false, &format, c.names))
        }
        Request::Connections(format) => connections(c, &format),
    }
}

fn services(c: &Context<'_>) -> Result<Services, Failure> {
    c.client.get("/v1/services").map_err(|e| failure(c.name, &e, 255))
}

fn out(c: &mut Context<'_>, text: &str) -> Result<(), Failure> {
    c.output.write_all(text.as_bytes()).and_then(|()| c.output.flush()).map_err(|e| Failure::output(&e))
}

fn json<T: serde::Serialize>(c: &mut Context<'_>, value: &T) -> Result<(), Failure> {
    let text = super::json::document(value).map_err(|e| Failure::new(1, e.to_string()))?;
    out(c, &text)
}

/// Connections are printed as they come.
fn connections(c: &mut Context<'_>, format: &Format) -> Result<(), Failure> {
    let as_json = format.has(About::Json);
    if !as_json {
        let title = print::connections_title(format);
        out(c, &title)?;
    }
    let mut failed = None;
    let (output_, names) = (&mut *c.output, c.names);
    let result = c.client.lines("/v1/connections", |connection: crate::api::Connection| {
        let line = if as_json {
            serde_json::to_string(&connection).unwrap_or_default() + "\n"
        } else {
            print::connection(&connection, format, names)
        };
        match output_.write_all(line.as_bytes()) {
            Ok(()) => true,
            Err(e) => {
                failed = Some(Failure::output(&e));
                false
            }
        }
    });
    result.map_err(|e| failure(c.name, &e, 255))?;
    match failed {
        Some(f) => Err(f),
        None => c.output.flush().map_err(|e| Failure::output(&e)),
    }
}

fn edits(c: &Context<'_>, edits: Vec<Edit>) -> Result<(), Failure> {
    c.client.post("/v1/edits", &Edits { edits }).map_err(|e| failure(c.name, &e, 255))
}

/// All lines or none. ipvsadm stops at the first bad line and keeps what came before.
fn restore(c: &mut Context<'_>, replace: bool) -> Result<(), Failure> {
    let (mut all, mut numbers) = (Vec::new(), Vec::new());
    if replace {
        all.push(Edit::Clear);
        numbers.push(0);
    }
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = c.input.read_until(b'\n', &mut line);
        if read.map_err(|e| Failure::new(1, format!("reading standard input: {e}")))? == 0 {
            break;
        }
        // ipvsadm does not say which line it was; but then it has applied those before.
        let bad = |f: Failure| Failure { text: format!("line {number}: {}", f.text), ..f };
        let text = String::from_utf8_lossy(&line);
        let mut words = text.split_whitespace().map(str::to_owned).peekable();
        // The program's name may stand in front, as in a script.
        let _ = words.next_if(|w| w == "ipvsadm" || w == "lvxadm");
        let words: Vec<String> = words.collect();
        if words.is_empty() || replace && text.starts_with('#') {
            continue;
        }
        match parse(&words, c.names, c.name).map_err(bad)?.request {
            Request::Edit(edit) => {
                all.push(edit);
                numbers.push(number);
            }
            _ => return Err(bad(Failure::new(2, format!("`{}' is no change", words[0])))),
        }
    }
    c.client.post("/v1/edits", &Edits { edits: all }).map_err(|e| {
        let mut f = failure(c.name, &e, 255);
        if let ClientError::Refused(ApiError::Edit(e)) = &e
            && let Some(n) = numbers.get(e.edit)
        {
            f.text = format!("line {n}: {}", f.text);
        }
        f
    })
}

/// Whether the daemon may be talked to. That there is none is no matter.
pub(super) fn permitted(client: &Client) -> Result<(), Failure> {
    match client.reach() {
        Err(e @ ClientError::Connect { .. }) if e.denied() => Err(failure(Name::Ipvsadm, &e, 255)),
        _ => Ok(()),
    }
}

/// A failure in ipvsadm's words; under LVX's own name with what the daemon said.
fn failure(name: Name, e: &ClientError, status: u8) -> Failure {
    let ClientError::Refused(reason) = e else {
        return match (name, e) {
            (Name::Ipvsadm, ClientError::Connect { .. }) => {
                let why = if e.denied() { "Permission denied (you must be root)".to_owned() } else { e.to_string() };
                Failure::new(
                    2,
                    format!(
                        "Can't initialize ipvs: {why}\nAre you sure that IP Virtual Server is built in the kernel or as module?"
                    ),
                )
            }
            _ => Failure::new(2, e.to_string()),
        };
    };
    let ApiError::Edit(edit) = reason else { return Failure::new(status, e.to_string()) };
    let text = match edit.code {
        EditErrorKind::ServiceExists => "Service already exists",
        EditErrorKind::NoSuchService => "No such service",
        EditErrorKind::ServiceNotDefined => "Service not defined",
        EditErrorKind::ServerExists => "Destination already exists",
        EditErrorKind::NoSuchServer => "No such destination",
        EditErrorKind::BadAddress => "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        EditErrorKind::OutOfRange => "Numerical result out of range",
        EditErrorKind::Full => "Memory allocation problem",
        EditErrorKind::ZeroPort | EditErrorKind::FamilyMismatch | EditErrorKind::Conflict => "Invalid operation",
        EditErrorKind::Unsupported => "Operation not supported",
    };
    Failure::new(status, name.complain(text, &edit.message))
}
